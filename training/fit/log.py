"""A training logs losses and figures by step."""

import csv
from pathlib import Path

from lightning_fabric.loggers import TensorBoardLogger

from app.inference.files.whole_file import whole_file


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
        self._file = path.open("a", newline="")
        self._csv = csv.writer(self._file)
        self._tensorboard = TensorBoardLogger(out, name="tensorboard", version="")

    def write(self, step: int, epoch: int, values: dict[str, float]) -> None:
        if self._active:
            self._csv.writerows((step, epoch, name, f"{value:.6g}") for name, value in values.items())
            self._file.flush()
            self._tensorboard.log_metrics(values, step)

    def close(self) -> None:
        if self._active:
            self._file.close()
            self._tensorboard.finalize("success")
