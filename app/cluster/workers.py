"""The workers of a Ray cluster label photos: Ray Data hands units of work to actors that hold the models.

The work is streamed: a worker holds one photo, the driver one outcome. A worker or a node that is killed is replaced by Ray,
and its units are done again; what has a record by then is left as it is.
"""

import logging
import pickle  # nosec B403
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.exceptions import RayError

from app.batch.labellers import InProcess
from app.batch.photo_content import content_of
from app.batch.photos import FolderPhoto, meant_tags
from app.cluster.places import place_of, record_at
from app.cluster.sources import FolderFile, StoredPhoto, Unit
from app.http.request.parameters import AnalyzeParameters
from app.inference.errors import DataError, Tag2MaskError
from app.inference.files.whole_file import refusal
from app.runtime.settings import Settings

UNITS = 32  # A task of Ray has so many units: a second or more of work, so that Ray's own milliseconds do not count.
TRIES = 5  # A unit whose worker dies so often ends the command: the photo may be what kills it.


@dataclass(frozen=True)
class Outcome:
    """It says what became of a photo. number: of a `FolderFile`. refused: why it could not be labelled. stopped: why no photo can
    be written any more.
    """

    name: str
    shown: str
    number: int
    refused: str | None = None
    stopped: str | None = None


class Worker:
    """This actor holds the models, loaded once, and a place to write to."""

    def __init__(self, settings: Settings, parameters: AnalyzeParameters, out: str) -> None:
        logging.getLogger("app").setLevel(logging.WARNING)
        self.labeller, self.out = InProcess(settings, parameters), place_of(out)

    def __call__(self, units: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outcomes = []
        for unit in map(pickle.loads, units["unit"]):
            number = unit.number if isinstance(unit, FolderFile) else 0
            outcomes += [self.outcome(photo, number) for photo in unit.photos()]
        packed = np.empty(len(outcomes), object)
        packed[:] = [pickle.dumps(outcome) for outcome in outcomes]
        return {"outcome": packed}

    def outcome(self, photo: StoredPhoto, number: int) -> Outcome:
        """Label a photo unless it is done."""
        said = photo.name, photo.shown, number
        try:
            tags, stamp = meant_tags(photo.tags, self.labeller.classes), photo.stamp()
            record = record_at(self.out, photo.name)
            same_photo = record.get("stamp") == stamp
            if same_photo and record["tags"] == (None if tags is None else list(tags)):
                return Outcome(*said)
            if record and not (same_photo or photo.unique or record["photo"] == photo.shown):
                other = f"it would share the name {photo.name!r} with {record['photo']}. Rename one of them."
                return Outcome(*said, refused=other)
            data = photo.read()
            content = content_of(photo.name, photo.shown, stamp, tags, data, self.labeller)
        except Tag2MaskError as error:
            return Outcome(*said, refused=str(error))
        except OSError as error:
            return Outcome(*said, refused=f"it cannot be read ({error.strerror or error}).")
        try:
            self.out.write_photo(photo.name, content)
        except OSError as error:
            return Outcome(*said, stopped=refusal(error, photo.name))
        return Outcome(*said)


@dataclass
class RayCrew:
    """This crew is made of workers of a Ray cluster; it knows what they make labels with."""

    settings: Settings
    parameters: AnalyzeParameters
    classes: tuple[str, ...] = field(init=False)
    provenance: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        """Join the cluster that RAY_ADDRESS names, or start one on this machine; ask one of its nodes for the models."""
        joined = ray.is_initialized()
        try:
            if not joined:
                ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
            asked = ray.remote(maker_of).options(**self._share()).remote(self.settings, self.parameters)
            made = ray.get(asked)
        except (RayError, ConnectionError, RuntimeError) as error:
            raise DataError(
                f"Ray cannot label: {first_line(error)}. Is there a node with what one worker needs, {self._share()}?"
            ) from None
        if isinstance(made, Tag2MaskError):
            raise made
        self.classes, self.provenance = made

    def finish(self, todo: list[FolderPhoto], out: Path) -> Iterator[tuple[FolderPhoto, Tag2MaskError | None]]:
        """Label photos of a folder that all nodes see, as `app.batch.folder.Crew` says."""
        units = (FolderFile(number, task) for number, task in enumerate(todo))
        for outcome in self.outcomes(units, str(out.absolute())):
            yield todo[outcome.number], None if outcome.refused is None else DataError(outcome.refused)

    def outcomes(self, units: Iterable[Unit], out: str) -> Iterator[Outcome]:
        """Do units of work and yield what became of their photos, in order. Raises DataError where it cannot go on."""
        ordered = list(tables_of(units))
        if not ordered:
            return
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        done = ray.data.from_arrow(ordered).map_batches(
            Worker,
            fn_constructor_args=(self.settings, self.parameters, out),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=self._most_workers()),
            max_task_retries=TRIES,
            **self._share(),
        )
        try:
            for row in done.iter_rows():
                outcome: Outcome = pickle.loads(row["outcome"])  # nosec B301
                if outcome.stopped is not None:
                    raise DataError(outcome.stopped)
                yield outcome
        except RayError as error:
            raise DataError(f"the cluster gave up ({first_line(error)}); the same command goes on.") from None

    def _most_workers(self) -> int:
        kind, needed = next(reversed(self._share().items()))
        there = ray.cluster_resources().get({"num_cpus": "CPU", "num_gpus": "GPU"}[kind], 0)
        return self.settings.workers or max(1, int(there // needed))

    def _share(self) -> dict[str, Any]:
        """Return what one worker takes of its node."""
        cpus: dict[str, Any] = {"num_cpus": self.settings.intra_op_threads}
        return cpus | {"num_gpus": 1} if self.settings.device == "cuda" else cpus


def maker_of(
    settings: Settings, parameters: AnalyzeParameters
) -> tuple[tuple[str, ...], dict[str, Any]] | Tag2MaskError:
    """Return the classes and the provenance of what a node labels with, or why it cannot."""
    try:
        labeller = InProcess(settings, parameters)
    except Tag2MaskError as error:
        return error
    return labeller.classes, labeller.provenance


def tables_of(units: Iterable[Unit]) -> Iterator[pa.Table]:
    """Yield units in tables of `UNITS`. They are pickled, since Arrow's text holds no file name that is not UTF-8."""
    rest = iter(units)
    while some := list(islice(rest, UNITS)):
        yield pa.table({"unit": [pickle.dumps(unit) for unit in some]})


def first_line(error: BaseException) -> str:
    """Return an error in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
