"""Pre-training: photos that grow, blended batches, a start from earlier weights."""

import csv
import io
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from training.backbones import build_backbone
from training.config.learning import PretrainConfig
from training.config.run_config import validate_config
from training.data.class_zip import ClassZip
from training.stages.pretrain import ImageClassifier, pretrain, view_size

COLOURS = {"blue": (30, 40, 200), "green": (40, 190, 40), "red": (200, 30, 30)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 4)):
        with zipfile.ZipFile(folder / f"{split}.zip", "w") as archive:
            for name, colour in COLOURS.items():
                for number in range(count):
                    noise = rng.integers(-30, 30, (32, 32, 3))
                    buffer = io.BytesIO()
                    Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(buffer, "png")
                    archive.writestr(f"{name}/{number}.png", buffer.getvalue())
    return folder


def config(root: Path, out: Path, **changes: object) -> PretrainConfig:
    fit = {"epochs": 3, "batch_size": 8, "lr": 0.05, "schedule": "cosine"}
    values = {"root": root, "out": out, "size": 32, "first_size": 16, "mix": 0.5, "fit": fit} | changes
    return validate_config(PretrainConfig, values, "test")


def test_photos_grow_in_three_quarters_of_the_epochs(root: Path, tmp_path: Path) -> None:
    settings = config(root, tmp_path, size=64, first_size=40, fit={"epochs": 16})
    sizes = [view_size(settings, epoch) for epoch in range(16)]
    assert sizes[0] == 40
    assert sizes == sorted(sizes)
    assert set(sizes[12:]) == {64}
    assert set(sizes) == {40, 48, 56, 64}
    photos = ClassZip(root / "train.zip", 64, 0, (0.25, 1.0), 0.3, partial(view_size, settings))
    assert [photos[epoch, 0]["images"].shape[-1] for epoch in (0, 15)] == [40, 64]
    assert photos.images.shape == (48, 64, 64, 3)
    same = config(root, tmp_path, size=64, first_size=None)
    assert {view_size(same, epoch) for epoch in range(3)} == {64}


def test_a_share_of_the_batches_is_blended() -> None:
    images, targets = torch.randn(6, 3, 32, 32), torch.tensor([0, 1, 2, 0, 1, 2])
    backbone = build_backbone("small", 16).eval()
    plain, mixed = (ImageClassifier(backbone, 3, 0.1, mix).eval() for mix in (0.0, 1.0))
    mixed.classifier = plain.classifier
    expected = F.cross_entropy(plain(images), targets, label_smoothing=0.1)
    batch = {"images": images, "class_indices": targets}
    torch.manual_seed(0)
    losses = torch.stack([plain.losses(batch)["loss"] for _ in range(3)])
    torch.testing.assert_close(losses, expected.expand(3))
    blended = torch.stack([mixed.losses(batch)["loss"] for _ in range(3)])
    assert (blended - expected).abs().min() > 1e-6
    seen, soft = mixed.blend(images, targets)
    assert seen.shape == images.shape
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(6))
    assert ((soft > 0).sum(dim=1) > 1).any()


def test_the_backbone_learns_and_a_second_run_starts_from_it(root: Path, tmp_path: Path) -> None:
    weights = pretrain(config(root, tmp_path / "first"))
    assert top1_by_epoch(tmp_path / "first")[-1] == 100
    longer = config(root, tmp_path / "longer", weights=str(weights), fit={"epochs": 1, "batch_size": 8, "lr": 1e-9})
    state = torch.load(pretrain(longer), weights_only=True)
    first = torch.load(weights, weights_only=True)
    convolutions = [key for key, value in first.items() if value.ndim == 4]
    assert convolutions
    for key in convolutions:
        torch.testing.assert_close(state[key], first[key])


def top1_by_epoch(out: Path) -> list[float]:
    with (out / "log.csv").open(newline="") as file:
        return [float(row["value"]) for row in csv.DictReader(file) if row["name"] == "top1"]
