"""Pre-train a backbone on photos of single objects: plain classification, where no ImageNet weights are at hand."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.errors import DataError
from training.backbones import build_backbone
from training.checkpoint import save_weights
from training.config import PretrainConfig
from training.data.class_zip import ClassZip
from training.fit import Metrics, fit, make_fabric


class ImageClassifier(nn.Module):
    """Backbone, global average pooling, one linear layer."""

    def __init__(self, backbone: nn.Module, classes: int, label_smoothing: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(backbone.channels[-1], classes)
        self.label_smoothing = label_smoothing

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> logits (N, classes)."""
        return self.classifier(self.backbone(images)[-1].mean(dim=(2, 3)))

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Cross-entropy with label smoothing."""
        logits = self(batch["images"])
        return {"loss": F.cross_entropy(logits.float(), batch["class_indices"], label_smoothing=self.label_smoothing)}

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
    kept = {
        "size": config.size,
        "seed": config.fit.seed,
        "area": (config.min_area, 1.0),
        "jitter": config.colour_jitter,
    }
    train = ClassZip(config.root / "train.zip", augment=True, **kept)
    val = ClassZip(config.root / "val.zip", augment=False, **kept)
    if val.classes != train.classes:
        raise DataError(f"train.zip and val.zip of {config.root} do not hold the same classes")
    torch.manual_seed(config.fit.seed)
    backbone = build_backbone(config.backbone, config.output_stride)
    model = ImageClassifier(backbone, len(train.classes), config.label_smoothing)

    def validate(module: nn.Module) -> Metrics:
        accuracy = top1(module, val, config.fit.batch_size)
        if fabric.is_global_zero:
            save_weights(config.out / "backbone.pt", backbone, half=True)
        return {"top1": accuracy, "best": accuracy}

    fit(fabric, model, train, config.fit, config.out, validate=validate)
    return config.out / "backbone.pt"


def top1(module: nn.Module, dataset: ClassZip, batch_size: int) -> float:
    """Share of photos whose best class is the right one, in percent."""
    device = next(module.parameters()).device
    right = 0
    for start in range(0, len(dataset), batch_size):
        items = [dataset[0, index] for index in range(start, min(start + batch_size, len(dataset)))]
        images = torch.stack([item["images"] for item in items]).to(device)
        right += int((module(images).argmax(1).cpu() == torch.stack([item["class_indices"] for item in items])).sum())
    return 100 * right / len(dataset)
