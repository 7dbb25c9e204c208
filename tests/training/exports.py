"""Exports shared by tests: most of a small run's time goes into tracing networks that another test has traced already."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import pytest
from filelock import FileLock
from torch import nn

from app.inference.files.whole_file import write_whole
from app.inference.model_card import ModelCard
from training.export.onnx_file import export_model, next_version, with_card
from training.export.served import ServedClassifier, ServedSegmenter


@contextmanager
def exported_once(directory: Path) -> Iterator[None]:
    """Within the block a run exports every layout of a network once; later ones get that file with their own card.

    The weights are those of the first, and it is compared with torch at one size alone: this is for tests of what a run does,
    not of how good its models are. `directory` may be one for all processes.
    """

    def export(
        module: ServedClassifier | ServedSegmenter, card: ModelCard, models: Path, version: int | None = None
    ) -> Path:
        layout = f"{module!r} {card.classes} {module.outputs}"
        known = directory / f"{hashlib.sha256(layout.encode()).hexdigest()}.onnx"
        with FileLock(known.with_suffix(".lock")):  # Two processes may come to a layout at a time.
            if not known.is_file():
                path = export_model(module, card, models, version)
                shutil.copy(path, known)
                return path
        card = card.model_copy(update={"version": version or next_version(models / card.name)})
        path = models / card.name / str(card.version) / "model.onnx"
        write_whole(path, with_card(onnx.load(known), card))
        return path

    directory.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.pipeline.run.export_model", export)
        patch.setattr("training.export.onnx_file.CHECK_SIZES", ((64, 96),))
        patch.setattr("training.export.onnx_file.CHECK_BATCHES", (2,))
        yield


def vary_statistics(network: nn.Module) -> None:
    """Give every batch normalisation numbers of its own, as training does; the exporter writes equal ones once."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            places = ((module.running_var, 0.5), (module.weight, 0.5), (module.running_mean, 0), (module.bias, 0))
            for values, least in places:
                values.data.uniform_(least, 1.5)


def shared_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run of the tests see, and no other run."""
    own = tmp_path_factory.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "exports"
