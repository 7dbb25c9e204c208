"""The verb `import` makes an ONNX file that serves of an authors' weight file, through our module.

The networks know VOC's twenty classes. The files say nothing of thresholds: a class counts as present from 0.5 on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from app.inference.errors import ConfigError, DataError
from app.inference.labels import VOC_CLASSES
from app.inference.model_card import ModelCard
from training.authors.released import CONVERTERS
from training.authors.released.drs import is_learnable
from training.checkpoint import read_state, save_weights
from training.config.run_config import validate_config
from training.export.onnx_file import export_model
from training.export.served import ServedClassifier
from training.methods import METHODS, Classifier
from training.refinement.drs import DrsRefinement
from training.refinement.irn import IrnConfig, build_irn

State = dict[str, Tensor]


@dataclass(frozen=True)
class Network:
    """It says in our terms which network a released file holds; `options` looks at the authors' keys."""

    module: type[Classifier]
    method: str
    backbone: str
    output_stride: int
    preferred_size: int
    scales: tuple[float, ...]
    background_threshold: float
    flip: bool = True
    options: Callable[[State], dict[str, Any]] = lambda state: {}


FOUR_SCALES = (1.0, 0.5, 1.5, 2.0)
NETWORKS = {
    "drs": Network(
        METHODS["drs"], "drs", "vgg16", 8, 320, (0.8, 1.0, 1.2), 0.2, False,
        lambda state: {"learnable": is_learnable(state)},
    ),
    "drs-refine": Network(DrsRefinement, "drs", "vgg16", 8, 320, (0.8, 1.0, 1.2), 0.2, False),
    "amr": Network(METHODS["amr"], "amr", "resnet50-irn", 16, 500, (0.5, 1.0, 1.5, 2.0), 0.2),
    "edam": Network(METHODS["edam"], "edam", "resnet38", 8, 500, FOUR_SCALES, 0.5),
    "psa": Network(METHODS["cam"], "cam", "resnet38", 8, 500, FOUR_SCALES, 0.2),
    "ccrm": Network(METHODS["cam"], "cam", "resnet38", 8, 500, FOUR_SCALES, 0.2),
}  # fmt: skip


def import_released(method: str, checkpoint: Path, models: Path, name: str | None = None) -> Path:
    """Convert `checkpoint` and write it as `models`/NAME/VERSION/model.onnx; the edge network of `irn`, which answers
    no request, becomes a file of weights `models`/../NAME.pt instead.

    Raises ConfigError for an unknown method or a name that no model can have, DataError for a file that is refused or
    belongs to another network.
    """
    if method not in CONVERTERS:
        raise ConfigError(f"unknown method {method!r}; released files are known of {', '.join(CONVERTERS)}")
    state = read_state(checkpoint)
    converted = CONVERTERS[method](state)
    name = name or f"{method}-released"
    if method == "irn":
        network = build_irn(IrnConfig(backbone="resnet50-irn"))
        fill(network, converted, checkpoint)
        path = models.parent / f"{name}.pt"
        save_weights(path, network)
        return path
    known = NETWORKS[method]
    options = validate_config(known.module.Options, known.options(state), f"--method {method}")
    classifier = known.module(len(VOC_CLASSES), known.backbone, known.output_stride, None, options)
    fill(classifier, converted, checkpoint)
    fields = {
        "name": name,
        "version": 1,
        "task": "cam",
        "method": known.method,
        "paper": known.module.paper,
        "backbone": known.backbone,
        "classes": VOC_CLASSES,
        "output_stride": known.output_stride,
        "preferred_size": known.preferred_size,
        "scales": known.scales,
        "flip": known.flip,
        "background_threshold": known.background_threshold,
        "presence_thresholds": (0.5,) * len(VOC_CLASSES),
        "data": "PASCAL VOC 2012 trainaug after ImageNet, by the authors of the paper",
        "data_licence": "the terms of PASCAL VOC, ImageNet and the authors' repository",
        "config": {"released": method, "file": checkpoint.name},
    }
    card = validate_config(ModelCard, fields, "import")
    return export_model(ServedClassifier(classifier), card, models)


def fill(module: Any, converted: State, source: Path | str) -> None:
    """Load converted weights strictly. Raises DataError where shapes or keys do not fit.

    Tables the constructor computes and counters of BatchNorm keep what they are.
    """
    own = module.state_dict()
    kept = {key: value for key, value in own.items() if key.endswith("num_batches_tracked") and key not in converted}
    try:
        module.load_state_dict(converted | kept)
    except RuntimeError as error:
        raise DataError(f"{source} does not fit: {error}") from None
