"""The verb `corrections watch` takes in what comes into a folder of corrections, and has the served segmenter learn from it."""

import time
from collections.abc import Iterator

from app.inference.errors import DataError
from training.config.learn import LearnConfig
from training.masks.corrections.incoming import take_in, waiting
from training.pipeline.learn import learn, photos_of
from training.stages.go_on import newest_file

POLL_SECONDS = 2  # The folder is looked at this often.


def watch(config: LearnConfig, promote: bool = False) -> Iterator[str]:
    """Take in and learn whatever comes, until stopped; yields what was done, in sentences."""
    while True:
        yield from take_in_and_learn(config, promote)
        time.sleep(POLL_SECONDS)


def take_in_and_learn(config: LearnConfig, promote: bool = False) -> list[str]:
    """Take in all that waits, and learn where anything did; returns what was done, in sentences."""
    folder = config.corrections.folder
    paths = waiting(folder)
    if not paths:
        return []
    photos = photos_of(config, newest_file(config.model))
    said = [take_in(path, photos, folder) for path in paths]
    try:
        return [*said, learn(config, promote)]
    except DataError as error:  # Corrections that come later may mend it.
        return [*said, f"nothing is learned: {error}"]
