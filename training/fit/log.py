"""A training logs losses and figures by step."""

import csv
import time
from contextlib import suppress
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from app.inference.files.whole_file import naming, whole_file

EVENTS_VERSION = "brain.Event:2"  # TensorBoard's readers look for this at the head of a file of events.


class Log:
    """It writes losses and figures: `log.csv` (step, epoch, name, value) and TensorBoard. Lines after `step` are dropped."""

    def __init__(self, out: Path, step: int, active: bool) -> None:
        self._active = active
        if not active:
            return
        out.mkdir(parents=True, exist_ok=True)
        path = out / "log.csv"
        kept = []
        if path.is_file():
            with path.open(newline="") as file:
                rows = [row for row in csv.reader(file) if len(row) == 4 and row[0].isdigit()]
            kept = [row for row in rows if int(row[0]) <= step]
        with whole_file(path) as partial, partial.open("w", newline="") as file:
            csv.writer(file).writerows([("step", "epoch", "name", "value"), *kept])
        events = out / "tensorboard" / f"events.out.tfevents.{time.time_ns()}"
        events.parent.mkdir(exist_ok=True)
        self._lines, self._events = path.open("a", newline=""), events.open("xb")
        self._append_event(Event(file_version=EVENTS_VERSION))

    def write(self, step: int, epoch: int, values: dict[str, float]) -> None:
        if not self._active:
            return
        with naming(Path(self._lines.name)):
            csv.writer(self._lines).writerows((step, epoch, name, f"{value:.6g}") for name, value in values.items())
            self._lines.flush()
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._append_event(Event(step=step, summary=summary))

    def _append_event(self, event: Event) -> None:
        """Append to TensorBoard's file at once; its own writer does so in a thread, whose errors nobody can catch."""
        event.wall_time = time.time()
        with naming(Path(self._events.name)):
            RecordWriter(self._events).write(event.SerializeToString())
            self._events.flush()

    def close(self) -> None:
        if self._active:
            for file in (self._lines, self._events):
                with suppress(OSError):  # What could not be written was said when it was written.
                    file.close()
