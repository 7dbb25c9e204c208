"""A segmenter in rounds, the fully supervised upper bound, and masks of several views."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from app.engine import Engine
from app.errors import ConfigError
from app.labels import BACKGROUND, IGNORE_INDEX, label_of
from app.segmentation import TEST_SCALES, segment
from training.config import RunConfig, SegmenterConfig, read_config, validate_config
from training.data import open_source
from training.data.ground_truth import GroundTruth, read_mask
from training.data.sampling import repeat_factors
from training.rounds import tagged_mask
from training.run import VERBS, do, run
from training.segmenter import fit_segmenter

CONFIG = Path("experiments/scenes/cam.toml")
SMALL = ["data.scenes.count=24", "data.scenes.val_count=6", "classifier.fit.epochs=2", "classifier.fit.batch_size=8",
         "segmenter.fit.epochs=2", "segmenter.fit.batch_size=8"]  # fmt: skip


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run of two rounds."""
    root = tmp_path_factory.mktemp("rounds")
    changes = [f"out={root / 'run'}", f"export.models={root / 'models'}", "segmenter.rounds=2", "segmenter.unsure=0.4"]
    config = read_config(RunConfig, CONFIG, [*SMALL, *changes])
    run(config)
    return config


def test_labels_of_the_second_round_keep_to_the_tags(taught: RunConfig) -> None:
    photos = open_source(taught.data)
    names = photos.names("train")
    assert len(list((taught.out / "pseudo_labels-2").glob("*.png"))) == len(names)
    for name in names:
        allowed = {BACKGROUND, IGNORE_INDEX, *map(label_of, photos.class_indices(name))}
        mask = read_mask(taught.out / "pseudo_labels-2" / f"{name}.png")
        assert mask.shape == photos.image(name).shape[:2]
        assert set(np.unique(mask)) <= allowed
    first, last = (taught.out / folder / "weights.pt" for folder in ("segmenter-1", "segmenter"))
    assert first.read_bytes() != last.read_bytes()


def test_a_tagged_mask_by_hand() -> None:
    class Constant:
        """Logits of three labels over 2 x 2 pixels: class 1 on the left, on the right rather background than class 1."""

        card = SimpleNamespace(preferred_size=64)
        left, right = (0.0, 4.0, 6.0), (2.0, 0.0, 1.5)

        def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
            logits = np.stack([self.left, self.right], axis=1)[:, None, :].repeat(2, axis=1).astype(np.float32)
            mirrored = images[:, 0, 0, 0] > images[:, 0, -1, 0]
            return {"logits": np.stack([logits[..., ::-1] if turned else logits for turned in mirrored])}

    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 32:] = 200
    mask = tagged_mask(Constant(), image, (0,), 0.0)  # type: ignore[arg-type]
    assert (mask[:, :8] == 1).all()  # label 2 is stronger, but not tagged
    assert (mask[:, -8:] == BACKGROUND).all()
    sure = tagged_mask(Constant(), image, (0, 1), 0.6)  # type: ignore[arg-type]
    assert (sure[:, :8] == 2).all()
    assert (sure[:, -8:] == IGNORE_INDEX).all()  # background and class 1 share the right half
    Constant.left = (0.0, 0.0, 300.0)
    certain = tagged_mask(Constant(), image, (0,), 0.0)  # type: ignore[arg-type]
    assert (certain[:, :8] == 1).all()  # it is surely a thing, and the tagged class is the only one there is
    assert (certain[:, -8:] == BACKGROUND).all()
    assert (tagged_mask(Constant(), image, (), 0.0) == BACKGROUND).all()  # type: ignore[arg-type]


def test_the_supervised_bound_has_no_classifier(taught: RunConfig, tmp_path: Path) -> None:
    weights = taught.out / "classifier" / "weights.pt"
    changes = [f"out={tmp_path / 'run'}", f"export.models={tmp_path / 'models'}", "segmenter.labels=ground-truth"]
    config = read_config(RunConfig, CONFIG, [*SMALL, *changes, f"segmenter.weights={weights}"])
    assert run(config).is_file()
    assert [path.parts[-3] for path in config.export.models.glob("*/*/model.onnx")] == ["scenes-deeplab"]
    photos = open_source(config.data)
    truth = GroundTruth(config.data, photos)
    name = photos.names("train")[0]
    np.testing.assert_array_equal(read_mask(config.out / "ground_truth" / f"{name}.png"), truth.mask(name))
    assert not (config.out / "pseudo_labels").exists()
    card = Engine(config.export.models / "scenes-deeplab" / "1" / "model.onnx").card
    assert card.config["segmenter"]["labels"] == "ground-truth"
    figures = json.loads((config.out / "figures.json").read_text())
    assert set(figures["models"]) == {"scenes-deeplab"}
    with pytest.raises(ConfigError, match="nothing to fit"):
        do(VERBS["fit"], config)


def test_a_segmenter_sees_rare_classes_more_often(taught: RunConfig, tmp_path: Path) -> None:
    rare = validate_config(SegmenterConfig, taught.segmenter.model_dump() | {"repeat_threshold": 0.9}, "test")
    rare = rare.model_copy(update={"options": rare.options | {"tag_weight": 1.0}})
    config = taught.model_copy(update={"segmenter": rare})
    weights = fit_segmenter(config, taught.out / "pseudo_labels", tmp_path / "segmenter")
    steps = torch.load(weights.with_name("last.ckpt"), weights_only=True)["progress"]["step"]
    photos = open_source(config.data)
    image_labels = np.stack([photos.image_labels(name) for name in photos.names("train")])
    factors = repeat_factors(image_labels, 0.9)
    assert factors.sum() > len(factors) + rare.fit.batch_size
    assert steps == rare.fit.epochs * (int(factors.sum()) // rare.fit.batch_size)
    frequency = torch.load(weights, weights_only=True)["tag_head.frequency"]
    np.testing.assert_allclose(frequency, image_labels.mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize("change", ["segmenter.weights=classifier", "segmenter.rounds=2"])
def test_the_supervised_bound_names_its_weights_and_takes_one_round(change: str) -> None:
    changes = ["segmenter.labels=ground-truth", "segmenter.weights=a.pt", change]
    with pytest.raises(ConfigError, match="ground-truth"):
        read_config(RunConfig, CONFIG, changes)


def test_a_mask_of_mirrored_views_mirrors_with_the_photo(taught: RunConfig) -> None:
    photos = open_source(taught.data)
    model = Engine(taught.export.models / "scenes-deeplab" / "1" / "model.onnx", device="cpu")
    for name in photos.names("val"):
        image = photos.image(name)
        np.testing.assert_array_equal(segment(model, image).mask, segment(model, image, scales=(1.0,), flip=False).mask)
        views = {"scales": TEST_SCALES, "flip": True}
        found, mirrored = segment(model, image, **views), segment(model, image[:, ::-1], **views)
        assert found.mask.shape == image.shape[:2]
        assert (found.mask == mirrored.mask[:, ::-1]).mean() > 0.999
        assert all(0 < score <= 1 for score in found.scores.values())
