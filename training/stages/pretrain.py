"""A backbone is pre-trained on photos of single objects by plain classification, where no ImageNet weights are at hand.

Photos grow from `first_size` to `size` over the first three quarters of the epochs ("progressive resizing": most is learned
from small photos already, which cost little). A share of the batches is blended by CutMix or MixUp.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from app.inference.errors import DataError
from training.backbones import Backbone, build_backbone
from training.checkpoint import save_weights
from training.config.learning import PretrainConfig
from training.data.class_zip import ClassZip
from training.fit.device import make_fabric
from training.fit.loop import Metrics, fit

GROWTH = 0.75  # Photos grow during this share of the epochs.
SIZE_STEP = 8  # Photos grow by this many px at a time.


class ImageClassifier(nn.Module):
    """It is a backbone, global average pooling and one linear layer."""

    def __init__(self, backbone: Backbone, classes: int, label_smoothing: float, mix: float = 0.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(backbone.channels[-1], classes)
        self.label_smoothing = label_smoothing
        blends = v2.RandomChoice([v2.CutMix(num_classes=classes), v2.MixUp(alpha=0.2, num_classes=classes)])
        self.blend = v2.RandomApply([blends], p=mix)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, classes) of (N, 3, H, W)."""
        return self.classifier(self.backbone(images)[-1].mean(dim=(2, 3)))

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the cross-entropy with label smoothing of a batch that may be blended with itself."""
        images, targets = self.blend(batch["images"], batch["class_indices"])
        return {"loss": F.cross_entropy(self(images).float(), targets, label_smoothing=self.label_smoothing)}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Normalisation layers and biases are not decayed."""
        decayed = [p for p in self.parameters() if p.ndim > 1]
        plain = [p for p in self.parameters() if p.ndim <= 1]
        return [{"params": decayed, "lr_scale": 1.0}, {"params": plain, "lr_scale": 1.0, "weight_decay": 0.0}]


def pretrain(config: PretrainConfig) -> Path:
    """Train on `root`/train.zip, report top-1 on val.zip every epoch, write the last weights to `out`/backbone.pt.

    They are stored in half precision: a start for training needs no more.
    """
    fabric = make_fabric(config.fit)
    photos = partial(
        ClassZip, size=config.size, seed=config.fit.seed, area=(config.min_area, 1.0), jitter=config.colour_jitter
    )
    train = photos(config.root / "train.zip", view_size=partial(view_size, config))
    val = photos(config.root / "val.zip", view_size=None)
    if val.classes != train.classes:
        raise DataError(f"train.zip and val.zip of {config.root} do not hold the same classes")
    torch.manual_seed(config.fit.seed)
    backbone = build_backbone(config.backbone, config.output_stride, config.weights)
    model = ImageClassifier(backbone, len(train.classes), config.label_smoothing, config.mix)

    def validate(module: nn.Module) -> Metrics:
        accuracy = top1(module, val, config.fit.batch_size)
        if fabric.is_global_zero:
            save_weights(config.out / "backbone.pt", backbone, half=True)
        return {"top1": accuracy}

    fit(fabric, model, train, config.fit, config.out, validate=validate)
    return config.out / "backbone.pt"


def view_size(config: PretrainConfig, epoch: int) -> int:
    """Return the side in px of the photos of an epoch."""
    if config.first_size is None:
        return config.size
    done = min(1.0, epoch / (GROWTH * config.fit.epochs))
    steps = round(done * (config.size - config.first_size) / SIZE_STEP)
    return config.size if done == 1 else min(config.size, config.first_size + SIZE_STEP * steps)


def top1(module: nn.Module, dataset: ClassZip, batch_size: int) -> float:
    """Return the share of photos whose best class is the right one, in percent."""
    device = next(module.parameters()).device
    right = 0
    for start in range(0, len(dataset), batch_size):
        items = [dataset[0, index] for index in range(start, min(start + batch_size, len(dataset)))]
        images = torch.stack([item["images"] for item in items]).to(device)
        right += int((module(images).argmax(1).cpu() == torch.stack([item["class_indices"] for item in items])).sum())
    return 100 * right / len(dataset)
