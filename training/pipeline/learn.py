"""The verb `corrections learn` has a served segmenter learn from corrected masks; its next version serves if it is no worse.

Corrections are learned all at once, by the version that had learned none: one that has learned from some of them and learns from all
goes over those twice, and is worse for it (experiments/README.md).

What is made on the way lies in a folder of its own for every set of corrections, model and settings, so that the same command
goes on where it was stopped, and one more correction begins anew.
"""

import datetime
import hashlib
from pathlib import Path

from app.inference.errors import ConfigError, DataError
from app.inference.files.choices import FILE as CHOICES
from app.inference.files.whole_file import write_whole
from app.inference.model_card import ModelCard
from training.config.learn import LearnConfig
from training.data import TaggedPhotos, open_source
from training.export.int8 import calibration_images
from training.export.onnx_file import card_of, current_commit, next_version, read_model, with_card
from training.export.served_start import write_last_layers
from training.masks.corrections.compare import Comparison, compare_versions
from training.masks.corrections.taught import CORRECTED, LEARNED, Taught, open_corrections, write_corrected
from training.segmenters import Segmenter
from training.stages.go_on import go_on, newest_file, others_of, read_segmenter, versions_in
from training.stages.last_layers import Trunk

DIGEST = 12  # This many hexadecimal digits name the folder of one set of corrections.


def learn(config: LearnConfig, promote: bool = False) -> str:
    """Learn from the corrections; returns what was done, in sentences.

    The next version is put beside the newest one unless it is worse than that on the kept-aside corrections; with `promote` in any
    case. Raises DataError where there is nothing to learn from.
    """
    path = newest_file(config.model)
    photos = photos_of(config, path)
    taught = open_corrections(config.corrections, photos)
    if not taught.taught:
        raise DataError(
            f"{config.corrections.folder} holds no correction of a photo of `train`; there is nothing to learn"
        )
    if card_of(path).config.get(LEARNED) == taught.digest() and not promote:
        return f"{path} has learned these corrections already; correct more photos, or --promote another version"
    named = config.model.is_file()
    start = path if named else start_of(path, {*taught.taught, *taught.kept_aside})
    out = config.out / digest_of(config, start, taught)
    candidate = out / "model.onnx"
    if not candidate.is_file():
        segmenter, card = read_segmenter(start, out)
        train(segmenter, card, config, photos, taught, out)
        write_candidate(segmenter, card, taught, start, candidate, photos)
    comparison = compare_versions(path, candidate, taught, photos, out / "report.html")
    lines = [comparison.said() if comparison.photos else "no correction was kept aside to compare on"]
    if comparison.is_worse and not promote:
        lines.append(
            f"the new version is worse and was not put into the models; it is {candidate}, --promote puts it there"
        )
    else:
        lines.append(
            f"the new version, taught by {card_of(candidate).taught_by}, is {put(candidate, path, comparison)}"
        )
    return "\n".join([*lines, f"{out / 'report.html'}"])


def start_of(path: Path, corrected: set[str]) -> Path:
    """Return the version that goes on: the newest one beside `path` that has learned no corrections, where these photos' masks hold all
    that `path` has learned; else `path`, which would forget the others.
    """
    learned = card_of(path).config.get(CORRECTED, ())
    if not learned or not corrected.issuperset(learned):
        return path
    earlier = [each for each in versions_in(path.parents[1]) if not card_of(each).config.get(CORRECTED)]
    return earlier[-1] if earlier else path


def photos_of(config: LearnConfig, path: Path) -> TaggedPhotos:
    """Return the photos, with the classes of the segmenter at `path`, and the choices of a review."""
    changes = {"classes": card_of(path).classes, "choices": config.data.choices or choices_of(config)}
    return open_source(config.data.model_copy(update=changes))


def choices_of(config: LearnConfig) -> Path | None:
    """Return the choices of a review that lie in the folder of corrections; None where there are none."""
    path = config.corrections.folder / CHOICES
    return path if path.is_file() and config.data.source == "folder" else None


def digest_of(config: LearnConfig, path: Path, taught: Taught) -> str:
    """Return what tells one set of corrections, model and settings from another."""
    settings = config.model_dump_json(exclude={"out"}).encode()
    return hashlib.sha256(settings + path.read_bytes() + taught.digest().encode()).hexdigest()[:DIGEST]


def train(
    segmenter: Segmenter, card: ModelCard, config: LearnConfig, photos: TaggedPhotos, taught: Taught, out: Path
) -> None:
    """Train the segmenter on the corrected masks, and on its own answers of other photos."""
    corrected = out / "corrected"
    write_corrected(taught, photos, corrected)
    others = others_of(photos, {*taught.taught, *taught.kept_aside}, config.photos)
    files = {photo: corrected / f"{photo}.png" for photo in taught.taught}
    go_on(segmenter, Trunk(segmenter, photos, card.preferred_size), config, files, others, out)


def write_candidate(
    segmenter: Segmenter, card: ModelCard, taught: Taught, path: Path, candidate: Path, photos: TaggedPhotos
) -> None:
    """Write the file `path` that went on with what its last layers have learned; its card says what taught them."""
    corrected = sorted({*card.config.get(CORRECTED, ()), *taught.taught})
    changes = {
        "taught_by": card.taught_more(len(corrected)),
        "config": {**card.config, CORRECTED: corrected, LEARNED: taught.digest()},
        "figures": {},
        "measured_on": "",
        "commit": current_commit(),
        "created": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    images = calibration_images(photos, card)
    write_last_layers(segmenter, path, card.model_copy(update=changes), candidate, images)


def put(candidate: Path, before: Path, comparison: Comparison) -> Path:
    """Put the new version beside the newest one, `before`, under the next free number; returns its path.

    Its card states the figures of the comparison.
    """
    name = before.parents[1]
    model, card = read_model(candidate)
    if name.name != card.name:
        raise ConfigError(f"{before} does not lie in a folder {card.name}/VERSION; move it there, or name that one")
    target = name / str(next_version(name)) / "model.onnx"
    figures = {"miou": round(comparison.after, 2), "earlier_miou": round(comparison.before, 2)}
    measured = {"figures": figures, "measured_on": f"{len(comparison.photos)} kept-aside corrections"}
    version = {"version": int(target.parent.name)} | (measured if comparison.photos else {})
    write_whole(target, with_card(model, card.model_copy(update=version)))
    return target
