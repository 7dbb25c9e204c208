"""The weights in a segmenter's ONNX file become a network in torch to go on from: a user of a shipped model has nothing else.

The file keeps torch's names (`network.decoder.0.0.weight`), but for what the exporter computed beforehand:

    w' = w g / sqrt(v + e),  b' = b - m g / sqrt(v + e)      a convolution with the batch normalisation behind it
    s = balance log f                                        `TagHead.share_out`'s term of the classes' frequencies f

with w the convolution's weights, g and b the normalisation's, m and v its running mean and variance, e its epsilon. The
network that is read has w' in the convolution and a normalisation that does nothing but add b': m = 0, v = 1 - e, g = 1. It
answers as the file does, which is checked, and its normalisations must keep their statistics while it learns
(`keep_statistics`). Which normalisation follows which convolution is seen by running the network once. Of a file that computes
in integers, the network has the weights that these stand for.
"""

import copy
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from app.inference.engine import Engine
from app.inference.errors import DataError
from app.inference.files.whole_file import whole_file, write_whole
from app.inference.model_card import ModelCard
from training.export.int8 import in_floats, in_integers
from training.export.onnx_file import STORED, ExportError, check_export, read_model, with_card
from training.export.served import ServedSegmenter
from training.segmenters import Segmenter

# The network that is read may differ from its file by this share of an output's largest value. Rounding makes 2e-4 where the file's
# weights are integers; the weights of another network make far more.
READ_TOLERANCE = 1e-3
NETWORK = "network."  # `ServedSegmenter` calls the segmenter so.
BESIDE = "recognizer."  # The segmenter calls its recognizer so, and both call their backbone alike.
FOLDED_BIAS = "weight_bias"  # The exporter calls the bias so that it made of a batch normalisation.
PROBE = (1, 3, 64, 64)  # The network is run once on a blank photo of this shape.


def fill_from_served(segmenter: Segmenter, path: Path, card: ModelCard) -> None:
    """Give a segmenter, built as the card of the file `path` describes it, the weights of that file.

    Raises DataError where the file holds another network, or the segmenter then answers otherwise than the file.
    """
    values = stored_values(path)
    pairs = normalised_convolutions(segmenter)
    folded = {norm for convolution, norm in pairs.items() if bias_of(values, convolution) is not None}
    state: dict[str, Tensor] = {}
    for key, current in segmenter.state_dict().items():
        module, _, part = key.rpartition(".")
        if module in folded:
            continue
        if segmenter.recognizer is not None and key.startswith("tag_head."):  # It is not served.
            state[key] = current
            continue
        value = value_of(values, key)
        if value is None and key.endswith("tag_head.frequency"):
            value = frequency_of(values, segmenter)
        if value is None and part == "num_batches_tracked":
            value = np.zeros((), np.int64)
        if value is None or value.shape != tuple(current.shape):
            raise DataError(
                f"{path} has no weights {key} of the shape {tuple(current.shape)}; it cannot be gone on from"
            )
        state[key] = torch.from_numpy(value.astype(np.float32)).to(current.dtype)
    modules = dict(segmenter.named_modules())
    for convolution, norm in pairs.items():
        if norm in folded:
            bias = bias_of(values, convolution)
            assert bias is not None  # The choice of `folded` sees to it.
            state |= identity_norm(norm, modules[norm], torch.from_numpy(bias.astype(np.float32)))
    segmenter.load_state_dict(state)
    try:
        with float_file(path) as file:
            served = ServedSegmenter(segmenter.eval(), scored=bool(card.presence_thresholds))
            check_export(served, Engine(file, device="cpu", whole=True), READ_TOLERANCE)
    except ExportError as error:
        raise DataError(f"{path} cannot be gone on from: read into torch, {error}") from None


@contextmanager
def float_file(path: Path) -> Iterator[Path]:
    """Yield a file that computes in floats what `path` computes: itself, or one with the weights that its integers stand for."""
    model, card = read_model(path)
    if card.precision != "int8":
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / path.name
        write_whole(plain, with_card(in_floats(model), card))
        yield plain


def stored_values(path: Path) -> dict[str, np.ndarray]:
    """Return the file's constants by name, those of fewer bits widened."""
    values = {}
    for tensor in in_floats(onnx.load(path)).graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        values[tensor.name.removesuffix(STORED)] = value if value.dtype == np.int64 else value.astype(np.float32)
    return values


def bias_of(values: dict[str, np.ndarray], convolution: str) -> np.ndarray | None:
    """Return the bias that a normalisation was folded into; None where the file keeps the normalisation."""
    return value_of(values, f"{convolution}.{FOLDED_BIAS}")


def value_of(values: dict[str, np.ndarray], key: str) -> np.ndarray | None:
    """Return the file's constant of a key of the network; None where it has none.

    The exporter keeps small constants that are equal once: what a recognizer and the segmenter's own backbone share, both
    having ImageNet's, stands under the name of one of them. That the network then answers as the file does is checked.
    """
    twin = key.removeprefix(BESIDE) if key.startswith(BESIDE) else f"{BESIDE}{key}"
    value = values.get(f"{NETWORK}{key}")
    return values.get(f"{NETWORK}{twin}") if value is None else value


def identity_norm(name: str, module: nn.Module, bias: Tensor) -> dict[str, Tensor]:
    """Return the state of a batch normalisation that adds `bias` (C,) and does nothing else."""
    assert isinstance(module, nn.BatchNorm2d)
    ones = torch.ones_like(bias)
    return {
        f"{name}.weight": ones,
        f"{name}.bias": bias,
        f"{name}.running_mean": torch.zeros_like(bias),
        f"{name}.running_var": ones - module.eps,
        f"{name}.num_batches_tracked": torch.tensor(0),
    }


def normalised_convolutions(segmenter: Segmenter) -> dict[str, str]:
    """Return the names of the convolutions that a batch normalisation follows -> the name of that."""
    made: dict[int, str] = {}
    kept: list[Tensor] = []  # A tensor that is gone would leave its number to another.
    pairs: dict[str, str] = {}
    handles = []
    for name, module in segmenter.named_modules():
        if isinstance(module, nn.Conv2d):

            def note(_: nn.Module, __: object, output: Tensor, name: str = name) -> None:
                kept.append(output)
                made[id(output)] = name

            handles.append(module.register_forward_hook(note))
        elif isinstance(module, nn.BatchNorm2d):

            def match(_: nn.Module, inputs: tuple[Tensor], name: str = name) -> None:
                if id(inputs[0]) in made:
                    pairs[made[id(inputs[0])]] = name

            handles.append(module.register_forward_pre_hook(match))
    try:
        with torch.no_grad():
            segmenter.eval()(torch.zeros(PROBE))
    finally:
        for handle in handles:
            handle.remove()
    return pairs


def frequency_of(values: dict[str, np.ndarray], segmenter: Segmenter) -> np.ndarray | None:
    """Return the classes' frequencies (C,) that a tag head shares pixels out by; None where they cannot be told.

    They stand in the one constant of that shape that is no weight.
    """
    head = segmenter.deciding_tag_head()
    assert head is not None  # It is the only network with such an entry.
    shape = tuple(head.frequency.shape)
    found = [
        value
        for name, value in values.items()
        if value.shape == shape and value.dtype == np.float32 and not name.startswith(NETWORK)
    ]
    return np.exp(found[0] / head.balance) if len(found) == 1 and head.balance else None


def write_last_layers(
    segmenter: Segmenter, path: Path, card: ModelCard, out: Path, images: Iterable[np.ndarray] = ()
) -> None:
    """Write the ONNX file `path` anew as `out`, with the weights that the segmenter's last layers have now, and this card.

    The graph and the precision stay; integers have the ranges that activations have on `images` then, each uint8 (N, H, W, 3).
    Raises DataError where what was written, read back, answers otherwise than it should.
    """
    model = in_floats(onnx.load(path))
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    pairs, modules = normalised_convolutions(segmenter), dict(segmenter.named_modules())
    last = {id(module) for layer in segmenter.last_modules() for module in layer.modules()}
    for name, module in modules.items():
        if id(module) not in last or not isinstance(module, nn.Conv2d):
            continue
        weight, bias = module.weight.detach(), None if module.bias is None else module.bias.detach()
        if name in pairs:
            weight, bias = folded_into(modules[pairs[name]], weight, bias)
        replace_values(tensors, f"{NETWORK}{name}.weight", weight.numpy())
        if bias is not None:
            replace_values(tensors, f"{NETWORK}{name}.{FOLDED_BIAS if name in pairs else 'bias'}", bias.numpy())
    if card.precision == "int8":
        model = in_integers(model, images)
    with whole_file(out) as partial:
        partial.write_bytes(with_card(model, card))
        fill_from_served(copy.deepcopy(segmenter), partial, card)


def folded_into(norm: nn.Module, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of a convolution with the batch normalisation behind it."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
    before = -norm.running_mean if bias is None else bias - norm.running_mean
    return weight * scale.view(-1, 1, 1, 1), norm.bias.detach() + before * scale


def replace_values(tensors: dict[str, onnx.TensorProto], name: str, values: np.ndarray) -> None:
    """Put values in the place of a constant, in the precision that it is stored in. Raises DataError where there is none."""
    stored = tensors.get(name) or tensors.get(f"{name}{STORED}")
    if stored is None:
        raise DataError(f"the model has no weights {name}; its last layers cannot be written")
    kind = onnx.helper.tensor_dtype_to_np_dtype(stored.data_type)
    stored.CopyFrom(onnx.numpy_helper.from_array(values.astype(kind), stored.name))
