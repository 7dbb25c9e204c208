"""The verb `import --torchvision` makes a model that serves of a network of torchvision, with its weights.

A classifier that ends in global average pooling and one linear layer holds class activation maps already (Zhou et al.,
"Learning Deep Features for Discriminative Localization", CVPR 2016, https://arxiv.org/abs/1512.04150):

    F_c(x, y) = sum_k w_ck f_k(x, y) + b_c     the linear layer as a 1x1 convolution on the last features f
    logit_c   = mean over (x, y) of F_c         what torchvision's network answers: averaging and weighting commute
    CAM_c     = relu(F_c)

These networks were trained on one class per photo, so their scores are softmax probabilities and sum to 1 over all
classes. Segmenters are served as they are. Both get the class names, the normalisation and the size that torchvision
states with the weights.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum, segmentation

from app.inference.errors import ConfigError
from app.inference.labels import VOC_CLASSES
from app.inference.model_card import ModelCard
from app.inference.spelling import nearest_name
from training.authors.import_released import fill
from training.backbones.backbone import download
from training.checkpoint import read_state
from training.config.run_config import validate_config
from training.data.augment import IMAGENET_MEAN, IMAGENET_STD
from training.export.onnx_file import export_model
from training.export.served import ServedSegmenter, ServedSoftmaxClassifier
from training.methods import METHODS
from training.segmenters import SEGMENTERS

# Probabilities that sum to 1: 0.5 would grant a photo one class at most, 0.2 grants it up to five.
PRESENCE_THRESHOLD = 0.2
BACKGROUND_THRESHOLD = 0.2  # Zhou et al. cut a map at this share of its maximum (section 3.2).
MEASURED_SIDE = 64  # A network's output stride is measured on an image of this side in px.
AUXILIARY = "aux_classifier."  # Torchvision's segmenters have this second head in training alone.
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.")  # Its weight files write norm.1 for norm1.

# A family's names begin so; the right side is the part of its networks that is pooled.
TRUNKS: dict[str, Callable[[Any], nn.Module]] = {
    **dict.fromkeys(
        ("resnet", "resnext", "wide_resnet"),
        lambda net: nn.Sequential(*takewhile(lambda module: module is not net.avgpool, net.children())),
    ),
    "densenet": lambda net: nn.Sequential(net.features, nn.ReLU()),
    **dict.fromkeys(("mobilenet_v2", "efficientnet"), lambda net: net.features),
    "regnet": lambda net: nn.Sequential(net.stem, net.trunk_output),
}
SEGMENTER_PAPERS = {
    "deeplabv3": SEGMENTERS["deeplabv3"].paper,
    "fcn": "Long et al., Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, arXiv:1411.4038",
    "lraspp": "Howard et al., Searching for MobileNetV3, ICCV 2019, arXiv:1905.02244",
}
IMAGENET_TERMS = "ImageNet: non-commercial research and education"
COCO_TERMS = "COCO: annotations CC BY 4.0, photos by Flickr's terms"


class PooledClassifier(nn.Module):
    """It is a `Classifier` to serve, which pools the features of `trunk` and applies `linear`; its maps are laid open."""

    def __init__(self, trunk: nn.Module, linear: nn.Linear) -> None:
        super().__init__()
        self.trunk = trunk
        self.classifier = nn.Conv2d(linear.in_features, linear.out_features, 1)
        self.classifier.weight = nn.Parameter(linear.weight[:, :, None, None])
        self.classifier.bias = linear.bias

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `Classifier.forward`."""
        maps = self.classifier(self.trunk(images))
        return maps.mean(dim=(2, 3)), maps.relu()


class CoarseSegmenter(nn.Module):
    """It is a `Segmenter` to serve: a network of torchvision before it enlarges its logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.backbone = network.get_submodule("backbone")
        self.classifier = network.get_submodule("classifier")
        self.two_features = isinstance(network, segmentation.LRASPP)

    def forward(self, images: Tensor) -> Tensor:
        """See `Segmenter.forward`."""
        features = self.backbone(images)
        return self.classifier(features if self.two_features else features["out"])

    def predict(self, images: Tensor) -> tuple[Tensor, None]:
        """See `Segmenter.predict`; it has no tag head."""
        return self(images), None


@dataclass(frozen=True)
class Origin:
    """It holds what torchvision states of a network's weights, and where they come from: the file `checkpoint`, or a download."""

    name: str
    weights: WeightsEnum
    checkpoint: Path | None

    @classmethod
    def of(cls, name: str, checkpoint: Path | None) -> "Origin":
        """Return the weights whose published file has the checkpoint's name, else the default ones.

        Raises ConfigError for weights that want another normalisation than the served graph does.
        """
        known = models.get_model_weights(name)
        file = checkpoint.name if checkpoint else None
        weights = next((each for each in known if Path(each.url).name == file), known.DEFAULT)
        transforms = weights.transforms()
        if (tuple(transforms.mean), tuple(transforms.std)) != (IMAGENET_MEAN, IMAGENET_STD):
            raise ConfigError(
                f"{weights} want photos normalised by mean {transforms.mean} and deviation {transforms.std}; served "
                f"models know ImageNet's {IMAGENET_MEAN} and {IMAGENET_STD} alone. Choose another network"
            )
        return cls(name, weights, checkpoint)

    def state(self) -> dict[str, Tensor]:
        """Return the weights. Raises ConfigError where they cannot be downloaded, DataError where the file is refused."""
        state = read_state(self.checkpoint) if self.checkpoint else download(self.weights)
        return {OLD_DENSENET.sub(r"\1\2.", key): value for key, value in state.items()}

    @property
    def source(self) -> str:
        """Messages call the file by this name or address."""
        return str(self.checkpoint or self.weights.url)

    def card(self, served: str | None, output_stride: int, **fields: Any) -> ModelCard:
        """Return the card of the model `served`; the network's name where that is None.

        The preferred size is the one that torchvision gives a photo's shorter side in its own evaluation. Raises
        ConfigError for a name that no model can have.
        """
        licence = self.weights.meta.get("license")
        terms = [fields.pop("terms"), f"weights: {licence or 'torchvision, BSD 3-Clause'}"]
        fields |= {
            "name": served or self.name,
            "version": 1,
            "output_stride": output_stride,
            "preferred_size": self.weights.transforms().resize_size[0],
            "data_licence": "; ".join(terms),
            "config": {"torchvision": self.name, "weights": str(self.weights), "file": Path(self.source).name},
        }
        return validate_config(ModelCard, fields, "import")


def import_torchvision(
    name: str,
    models_directory: Path,
    checkpoint: Path | None = None,
    classes: Sequence[str] | None = None,
    served: str | None = None,
) -> Path:
    """Write torchvision's network `name` as `models_directory`/SERVED/VERSION/model.onnx.

    Args:
        checkpoint: a file of its weights; the default ones are downloaded where it is None.
        classes: those of a classifier to keep, in this order. Their scores stay what they are among all classes.

    Raises ConfigError for a network or class that is not known, DataError for a file that is refused.
    """
    if name in models.list_models(module=segmentation):
        if classes is not None:
            raise ConfigError(f"--classes keeps classes of a classifier; {name} is a segmenter. Leave it out")
        return import_segmenter(Origin.of(name, checkpoint), models_directory, served)
    if name in models.list_models(module=models):
        return import_classifier(Origin.of(name, checkpoint), models_directory, classes, served)
    known = [*models.list_models(module=models), *models.list_models(module=segmentation)]
    nearest = nearest_name(name, known)
    hint = f"Did you mean {nearest!r}? " if nearest else ""
    raise ConfigError(f"torchvision has no network {name!r}. {hint}It has {', '.join(known)}")


def import_classifier(
    origin: Origin, models_directory: Path, classes: Sequence[str] | None, served: str | None
) -> Path:
    """Write a classifier as a model of maps."""
    names = unique_names(origin.weights.meta["categories"])
    kept = kept_indices(names, names if classes is None else classes)
    trunk_of = find_trunk(origin.name)
    network = models.get_model(origin.name, weights=None)
    fill(network, origin.state(), origin.source)
    [linear] = [module for module in network.modules() if isinstance(module, nn.Linear)]
    classifier = PooledClassifier(trunk_of(network), linear).eval()
    card = origin.card(
        served,
        measure_stride(classifier.trunk),
        task="cam",
        method="cam",
        paper=METHODS["cam"].paper,
        backbone=origin.name,
        classes=tuple(names[index] for index in kept),
        background_threshold=BACKGROUND_THRESHOLD,
        presence_thresholds=(PRESENCE_THRESHOLD,) * len(kept),
        data="ImageNet (ILSVRC 2012), by torchvision",
        terms=IMAGENET_TERMS,
    )
    return export_model(ServedSoftmaxClassifier(classifier, kept), card, models_directory)


def import_segmenter(origin: Origin, models_directory: Path, served: str | None) -> Path:
    """Write a segmenter. torchvision's classes are the background and VOC's, in VOC's order and spelling."""
    _, *classes = origin.weights.meta["categories"]
    assert tuple(classes) == VOC_CLASSES
    network = models.get_model(origin.name, weights=None, weights_backbone=None)
    state = {key: value for key, value in origin.state().items() if not key.startswith(AUXILIARY)}
    fill(network, state, origin.source)
    segmenter = CoarseSegmenter(network).eval()
    method, backbone = origin.name.split("_", 1)
    card = origin.card(
        served,
        measure_stride(segmenter),
        task="segmentation",
        method=method,
        paper=SEGMENTER_PAPERS[method],
        backbone=backbone,
        classes=VOC_CLASSES,
        data="photos of COCO 2017 with PASCAL VOC's classes, after ImageNet, by torchvision",
        terms=f"{COCO_TERMS}; {IMAGENET_TERMS}",
    )
    return export_model(ServedSegmenter(segmenter), card, models_directory)


def find_trunk(name: str) -> Callable[[Any], nn.Module]:
    """Return what takes the pooled part out of a classifier. Raises ConfigError for a network of another build."""
    for family, trunk_of in TRUNKS.items():
        if name.startswith(family):
            return trunk_of
    raise ConfigError(
        f"{name} gives no class activation maps: that takes global average pooling and one linear layer at the end. "
        f"Choose one whose name begins with {', '.join(TRUNKS)}"
    )


def unique_names(categories: Sequence[str]) -> tuple[str, ...]:
    """Return ImageNet's class names; those spelled alike but for capitals get their index: "Cardigan (264)", a dog."""
    count = Counter(name.casefold() for name in categories)
    return tuple(f"{name} ({i})" if count[name.casefold()] > 1 else name for i, name in enumerate(categories))


def kept_indices(names: tuple[str, ...], wanted: Sequence[str]) -> list[int]:
    """Return the indices of the classes `wanted`. Raises ConfigError for a name that is unknown or given twice."""
    for name in wanted:
        if name not in names:
            nearest = nearest_name(name, names)
            hint = f"; did you mean {nearest!r}?" if nearest else f": it has {len(names)}, {names[0]!r} is the first"
            raise ConfigError(f"the network has no class {name!r}{hint}")
        if list(wanted).count(name) > 1:
            raise ConfigError(f"--classes names {name!r} twice; name it once")
    return [names.index(name) for name in wanted]


@torch.no_grad()
def measure_stride(network: nn.Module) -> int:
    """Return the input size over the size of what the network gives."""
    return MEASURED_SIDE // network.eval()(torch.zeros(1, 3, MEASURED_SIDE, MEASURED_SIDE)).shape[-1]
