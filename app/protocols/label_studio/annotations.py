"""The annotations of the configured project are fetched from the configured Label Studio, for training to learn from.

They come where a user of Label Studio presses "Start Training", into the folder of corrections, where `python -m training
corrections watch` takes them in; and by `python -m app annotations`. Nothing that a request brings is learned: the request
is no more than the wish, and whoever sends it again and again has the same file written again.
"""

import json
import threading
from pathlib import Path

from app.inference.errors import NotStoredError, ParameterError, SwitchedOffError, UnavailableError
from app.inference.files.whole_file import refusal, whole_file
from app.inference.label_maps.corrections import INCOMING
from app.protocols.label_studio.host import Host
from app.runtime.settings import Settings

WRITTEN = ("id", "data", "annotations", "predictions")  # So much of a task is written.
FILE = "label-studio.json"  # What was fetched and waits to be taken in has this name.
FETCHING = threading.Lock()  # The annotations are fetched for one request at a time.


def project_of(settings: Settings) -> int:
    """Return the number of the configured project. Raises SwitchedOffError where there is none."""
    if settings.label_studio_project is None:
        raise SwitchedOffError(
            "this service does not know the project of Label Studio that photos go to and corrections come from. Start it with "
            "TAG2MASK_LABEL_STUDIO_PROJECT, the number in the project's address."
        )
    return settings.label_studio_project


def fetch_annotations(settings: Settings, target: Path) -> int:
    """Write the annotated tasks of the configured project to a file, in the form of Label Studio's JSON export; returns how many.

    Raises ServiceError, and OSError of the disk.
    """
    host = Host.of(settings)
    project = project_of(settings)
    count = 0
    with whole_file(target) as partial, partial.open("w", encoding="utf-8") as out:
        for task in host.signed_in().tasks(project):
            if task.get("annotations"):
                out.write(",\n" if count else "[\n")
                json.dump({key: task.get(key) for key in WRITTEN}, out)
                count += 1
        out.write("\n]\n" if count else "[]\n")
    return count


def queue_annotations(settings: Settings, project: int | None) -> None:
    """Put the annotated tasks of the configured project where training takes corrections in.

    `project` is the one whose user asks, where that is known. Raises ServiceError.
    """
    if settings.corrections is None:
        raise SwitchedOffError(
            "this service takes no corrections. Start it with TAG2MASK_CORRECTIONS=DIR, a folder that it may write."
        )
    if project not in (None, project_of(settings)):
        raise ParameterError(
            f"corrections come from project {project_of(settings)} (TAG2MASK_LABEL_STUDIO_PROJECT), and not from {project}.",
            parameter="project",
        )
    if not FETCHING.acquire(blocking=False):
        raise UnavailableError("the annotations are being fetched already.", retry_after_seconds=10)
    try:
        fetch_annotations(settings, settings.corrections / INCOMING / FILE)
    except OSError as error:
        raise NotStoredError(f"the annotations cannot be kept. {refusal(error)}") from None
    finally:
        FETCHING.release()
