"""The workers of a Ray cluster label photos: Ray Data hands units of work to processes that hold the models.

The work is streamed: a worker holds one photo, the driver one outcome. Ray gives the task of a killed worker or node to any
node that has room, next in turn; what has a record by then is left as it is. (The tasks of an actor wait for that actor, and it
for a node with room: they came last of all, and outcomes piled up behind them, which are yielded in order.)
"""

import logging
import pickle  # nosec B403
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
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
TRIES = 5  # A photo whose worker dies so often ends the command, for it may be what kills it; Ray itself would try for ever.
# The command waits this long for a node with room for a worker: clusters that grow take minutes.
PATIENCE_SECONDS = 600.0


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
    """It holds the models and a place to write to."""

    def __init__(self, settings: Settings, parameters: AnalyzeParameters, out: str) -> None:
        logging.getLogger("app").setLevel(logging.WARNING)
        self.labeller, self.out = InProcess(settings, parameters), place_of(out)

    def __call__(self, units: dict[str, np.ndarray], deaths: int) -> dict[str, np.ndarray]:
        outcomes = []
        for unit in map(pickle.loads, units["unit"]):
            number = unit.number if isinstance(unit, FolderFile) else 0
            outcomes += [self.outcome(photo, number, deaths) for photo in unit.photos()]
        packed = np.empty(len(outcomes), object)
        packed[:] = [pickle.dumps(outcome) for outcome in outcomes]
        return {"outcome": packed}

    def outcome(self, photo: StoredPhoto, number: int, deaths: int) -> Outcome:
        """Label a photo unless it is done. deaths: of workers that had this task; the first photo that is not done was theirs."""
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
            if deaths == TRIES:
                remedy = "Leave it out where it is too large for them or damaged; the same command goes on."
                return Outcome(*said, stopped=f"{deaths} workers died over {photo.shown}. {remedy}")
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


@lru_cache(maxsize=1)
def worker_of(settings: Settings, parameters: AnalyzeParameters, out: str) -> Worker:
    """Return the worker of this process, which loads the models for its first task and keeps them for the next."""
    return Worker(settings, parameters, out)


def label_units(
    units: dict[str, np.ndarray], settings: Settings, parameters: AnalyzeParameters, out: str
) -> dict[str, np.ndarray]:
    """Label photos in a process of a node. Raises RuntimeError where it was not one photo that ended more than `TRIES` workers."""
    deaths: int = ray.get_runtime_context().worker.core_worker.get_current_task_attempt_number()
    if deaths > TRIES:
        raise RuntimeError(f"{deaths} workers died over the same photos")
    return worker_of(settings, parameters, out)(units, deaths)


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
            while not ray.wait([asked], timeout=PATIENCE_SECONDS)[0]:
                self._check_room()
            made = ray.get(asked)
        except (RayError, ConnectionError, RuntimeError) as error:
            raise DataError(f"Ray cannot label: {first_line(error)}.") from None
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
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # Importing it has set another level.
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        done = ray.data.from_arrow(ordered).map_batches(
            label_units,
            fn_args=(self.settings, self.parameters, out),
            batch_size=1,
            compute=ray.data.TaskPoolStrategy(self.settings.workers),
            max_calls=0,  # Ray would end a process with a GPU, and its models, after every task.
            **self._share(),
        )
        try:
            for row in watched(done.iter_rows(), self._check_room):
                outcome: Outcome = pickle.loads(row["outcome"])  # nosec B301
                if outcome.stopped is not None:
                    raise DataError(outcome.stopped)
                yield outcome
        except RayError as error:
            raise DataError(f"the cluster gave up ({first_line(error)}); the same command goes on.") from None

    def _check_room(self) -> None:
        """Raise DataError where no node of the cluster can hold a worker, be it ever so idle."""
        share = self._share()
        needed = {"CPU": share["num_cpus"], "GPU": share.get("num_gpus", 0)}
        for node in ray.nodes():
            if node["Alive"] and all(node["Resources"].get(kind, 0) >= count for kind, count in needed.items()):
                return
        wanted = " and ".join(f"{count} {kind}" for kind, count in needed.items() if count)
        raise DataError(
            f"no node of the Ray cluster has {wanted}, which one worker takes, and none came in {PATIENCE_SECONDS:.0f} s. "
            "Start one (`ray start --address=...`), and the same command goes on."
        )

    def _share(self) -> dict[str, Any]:
        """Return what one worker takes of its node."""
        cpus: dict[str, Any] = {"num_cpus": self.settings.network_threads}
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


def watched(rows: Iterable[dict[str, Any]], check: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """Yield rows, and call `check`, which may raise, whenever none has come for `PATIENCE_SECONDS`."""
    arrived: Queue[dict[str, Any] | Exception | None] = Queue(UNITS)

    def read() -> None:
        try:
            for row in rows:
                arrived.put(row)
            arrived.put(None)
        except Exception as error:
            arrived.put(error)

    Thread(target=read, daemon=True).start()
    while True:
        try:
            row = arrived.get(timeout=PATIENCE_SECONDS)
        except Empty:
            check()
            continue
        if row is None:
            return
        if isinstance(row, Exception):
            raise row
        yield row


def tables_of(units: Iterable[Unit]) -> Iterator[pa.Table]:
    """Yield units in tables of `UNITS`. They are pickled, since Arrow's text holds no file name that is not UTF-8."""
    rest = iter(units)
    while some := list(islice(rest, UNITS)):
        yield pa.table({"unit": [pickle.dumps(unit) for unit in some]})


def first_line(error: BaseException) -> str:
    """Return an error in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
