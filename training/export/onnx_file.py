"""The verb `export` writes a trained network as `models/NAME/VERSION/model.onnx`, after it was checked against torch."""

import datetime
import hashlib
import subprocess
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError

from app.inference.engine import Engine
from app.inference.errors import ModelCardError, TrainingError
from app.inference.files.checksum import UNKNOWN, with_checksum
from app.inference.files.whole_file import whole_file, write_whole
from app.inference.model_card import IMAGE_INPUT, ModelCard
from training.config.tables import Precision
from training.export.int8 import in_integers
from training.export.served import ServedClassifier, ServedSegmenter

OPSET = 18
FLOAT_TOLERANCE = 1e-4  # An output may differ from torch's by this share of its largest value.
MASK_TOLERANCE = 1e-3  # A mask may differ from torch's in this share of its pixels.
MIN_SHRUNK = 1024  # Tensors of fewer values (biases, statistics) stay as they are.
STORED = ".stored"  # Constants in half precision are called so, after their own name.
CHECK_SIZES = ((96, 128), (160, 130))
CHECK_BATCHES = (1, 3)


class ExportError(TrainingError):
    """The exported file does not do what the network does; nothing was written."""


def export_model(
    module: ServedClassifier | ServedSegmenter, card: ModelCard, models: Path, version: int | None = None
) -> Path:
    """Write the module under `models`/NAME/VERSION; without a version the next free one is taken.

    Raises ExportError where ONNX Runtime's output differs from torch's by more than 1e-4 of the largest value, a mask in
    more than 0.1 % of its pixels, or an image's outputs depend on its neighbours in the batch.
    """
    version = version or next_version(models / card.name)
    card = card.model_copy(
        update={
            "version": version,
            "commit": current_commit(),
            "created": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    )
    path = models / card.name / str(version) / "model.onnx"
    module = module.eval().cpu().float()
    model = trace(module)
    with whole_file(path) as partial:
        partial.write_bytes(with_card(model, card))
        differences = check_export(module, Engine(partial, device="cpu", whole=True))
        partial.write_bytes(with_card(model, card.model_copy(update={"export_check": differences})))
    return path


def trace(module: ServedClassifier | ServedSegmenter) -> onnx.ModelProto:
    """Return the graph of `module` with dynamic N, H and W.

    Activations stop working in place, which the exporter takes apart anew each time: it makes the same graph in half the time.
    What the exporter noted of every node, lines and paths of code, is dropped.
    """
    for part in module.modules():
        if getattr(part, "inplace", False):
            part.inplace = False  # type: ignore[assignment]  # A module's attributes may be anything to mypy.
    dims = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    example = torch.zeros(2, 144, 176, 3, dtype=torch.uint8)
    names = list(module.outputs)
    program = torch.onnx.export(
        module, (example,), dynamo=True, dynamic_shapes=(dims,), input_names=[IMAGE_INPUT], output_names=names,
        opset_version=OPSET, optimize=True, verbose=False,
    )  # fmt: skip
    assert program is not None  # The dynamo exporter gives one.
    model = program.model_proto
    for noted in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output, model.graph):
        del noted.metadata_props[:]
    onnx.checker.check_model(model)
    return model


def with_card(model: onnx.ModelProto, card: ModelCard) -> bytes:
    """Return the file of a model whose metadata are the card and the file's checksum."""
    onnx.helper.set_model_props(model, card.model_copy(update={"checksum": UNKNOWN}).to_metadata())
    model.doc_string = f"tag2mask {card.task} model {card.name} version {card.version}"
    return with_checksum(model.SerializeToString())


def check_export(
    module: ServedClassifier | ServedSegmenter, engine: Engine, tolerance: float = FLOAT_TOLERANCE
) -> dict[str, float]:
    """Compare ONNX Runtime with torch at two sizes and two batch sizes, and batches with single images.

    Returns the largest relative difference per output (share of differing pixels for a mask): from torch under the
    output's name, between a batch and a single image under NAME_batch. Raises ExportError where an output differs by more than
    `tolerance`, or a mask in more than 0.1 % of its pixels.
    """
    worst = {f"{name}{kind}": 0.0 for name in module.outputs for kind in ("", "_batch")}
    rng = np.random.default_rng(0)
    for height, width in CHECK_SIZES:
        for count in CHECK_BATCHES:
            images = natural_noise(rng, count, height, width)
            outputs = engine.run(images)
            with torch.no_grad():
                expected = module(torch.from_numpy(images))
            for name, tensor in zip(module.outputs, expected, strict=True):
                worst[name] = max(worst[name], difference(outputs[name], tensor.numpy()))
            alone = engine.run(images[-1:])
            for name in module.outputs:
                worst[f"{name}_batch"] = max(worst[f"{name}_batch"], difference(outputs[name][-1:], alone[name]))
    for name, value in worst.items():
        limit = MASK_TOLERANCE if name.startswith("mask") else tolerance
        if value > limit:
            raise ExportError(f"output '{name}' of the exported file differs by {value:.2g}; the limit is {limit:g}")
    return worst


def natural_noise(rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """Return random photos with structure at several scales, uint8 (count, height, width, 3)."""
    image = np.zeros((count, height, width, 3))
    for cell in (4, 16, 48):
        coarse = rng.uniform(0, 255, (count, -(-height // cell), -(-width // cell), 3))
        image += coarse.repeat(cell, axis=1).repeat(cell, axis=2)[:, :height, :width] / 3
    return image.astype(np.uint8)


def difference(ours: np.ndarray, reference: np.ndarray) -> float:
    """Return the largest difference relative to the largest reference value; share of differing pixels for integers."""
    if ours.shape != reference.shape or not (np.isfinite(ours).all() and np.isfinite(reference).all()):
        return float("inf")
    if reference.dtype == np.uint8:
        return float((ours != reference).mean())
    return float(np.abs(ours - reference).max() / max(1e-12, np.abs(reference).max()))


def card_of(path: Path) -> ModelCard:
    """Return the card of an exported file, without making it ready to run. Raises ModelCardError."""
    return read_model(path)[1]


def read_model(path: Path) -> tuple[onnx.ModelProto, ModelCard]:
    """Return an exported file and its card. Raises ModelCardError."""
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError:
        raise ModelCardError(f"{path} is no ONNX file; export it again.") from None
    return model, ModelCard.from_metadata({entry.key: entry.value for entry in model.metadata_props}, str(path))


def update_figures(path: Path, figures: dict[str, float], measured_on: str) -> str:
    """Put measured figures into the card of an exported file; returns the file's new SHA-256."""
    model, card = read_model(path)
    content = with_card(model, card.model_copy(update={"figures": card.figures | figures, "measured_on": measured_on}))
    write_whole(path, content)
    return hashlib.sha256(content).hexdigest()


def shrink(path: Path, precision: Precision, images: Iterable[np.ndarray]) -> Path:
    """Write `model.PRECISION` beside a checked float32 file: the same graph with weights of fewer bits.

    float16: weights are rounded, and widened once when a file is loaded, so that the arithmetic and the speed stay those of
    float32. int8: the arithmetic is that of integers too (`training.export.int8`), with the ranges that activations have on
    `images`, each uint8 (N, H, W, 3).
    """
    model, card = read_model(path)
    model = in_integers(model, images) if precision == "int8" else in_halves(model)
    onnx.checker.check_model(model)
    shrunk = path.with_suffix(f".{precision}")
    write_whole(shrunk, with_card(model, card.model_copy(update={"precision": precision})))
    return shrunk


def in_halves(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with its larger constants in half precision, each behind a Cast that gives it its name."""
    graph = model.graph
    kept, nodes = [], []
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < MIN_SHRUNK:
            kept.append(tensor)
            continue
        stored = f"{tensor.name}{STORED}"
        kept.append(onnx.numpy_helper.from_array(values.astype(np.float16), stored))
        nodes.append(onnx.helper.make_node("Cast", [stored], [tensor.name], to=onnx.TensorProto.FLOAT))
    nodes += graph.node
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    return model


def next_version(directory: Path) -> int:
    """Return one more than the highest version there. A folder without a model, which an export left that was stopped,
    is none.
    """
    files = directory.glob("*/model.onnx")
    taken = [int(path.parent.name) for path in files if path.parent.name.isdecimal()]
    return max(taken, default=0) + 1


def current_commit() -> str:
    """Return the commit the code stands at, or "unknown" outside a repository."""
    command = ["git", "rev-parse", "--short=12", "HEAD"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    except OSError:  # Git is not installed.
        return "unknown"
    return result.stdout.strip() or "unknown"
