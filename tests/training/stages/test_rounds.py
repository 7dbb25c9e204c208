"""A segmenter in rounds, the fully supervised upper bound, and masks of several views."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from app.inference.engine import Engine
from app.inference.errors import ConfigError
from app.inference.label_maps.segmentation import TEST_SCALES, segment
from app.inference.labels import BACKGROUND, label_of
from tests.training.exports import stand_ins
from training.checkpoint import read_state
from training.config.run_config import RunConfig, read_config, validate_config
from training.config.tables import PseudoLabelConfig, SegmenterConfig
from training.data import open_source
from training.data.sampling import repeat_factors
from training.export.served import TorchModel
from training.masks.ground_truth import GroundTruth, read_mask
from training.pipeline.run import VERBS, do, run
from training.stages.rounds import blend_masks, class_shares, fit_rounds, kept_masks, of_round
from training.stages.segmenter import average_weights, fit_segmenter, load_segmenter, segmenter_card, serve_segmenter

CONFIG = Path("experiments/scenes/cam.toml")
SMALL = ["data.scenes.count=24", "data.scenes.val_count=6", "classifier.fit.epochs=2", "classifier.fit.batch_size=8",
         "segmenter.fit.epochs=2", "segmenter.fit.batch_size=8"]  # fmt: skip


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run of two rounds."""
    root = tmp_path_factory.mktemp("rounds")
    changes = [f"out={root / 'run'}", f"export.models={root / 'models'}", "segmenter.rounds=2"]
    changes += ["segmenter.own_share=0.5", "export.version=2", "export.segmenter_version=3"]
    config = read_config(RunConfig, CONFIG, [*SMALL, *changes])
    with stand_ins():
        run(config)
    return config


def test_labels_of_the_second_round_keep_to_the_tags(taught: RunConfig) -> None:
    photos = open_source(taught.data)
    names = photos.names("train")
    assert len(list((taught.out / "pseudo_labels-2").glob("*.png"))) == len(names)
    for name in names:
        allowed = {BACKGROUND, *map(label_of, photos.class_indices(name))}
        mask = read_mask(taught.out / "pseudo_labels-2" / f"{name}.png")
        assert mask.shape == photos.image(name).shape[:2]
        assert set(np.unique(mask)) <= allowed
    first, last = (taught.out / folder / "weights.pt" for folder in ("segmenter-1", "segmenter"))
    assert first.read_bytes() != last.read_bytes()


def test_a_class_that_the_segmenter_has_lost_has_no_say(taught: RunConfig) -> None:
    photos = open_source(taught.data)
    config = taught.model_copy(update={"pseudo_label": PseudoLabelConfig(refine="grabcut", background_threshold=0.3)})
    segmenter, card = load_segmenter(config, len(photos.classes)), segmenter_card(config, photos.classes)
    model = TorchModel(serve_segmenter(segmenter, card), card, torch.device("cpu"))
    before = class_shares(model, photos, config)
    assert ((before >= 0) & (before <= 0.5)).all()
    assert before.any()
    strongest = int(before.argmax())
    *_, last = (module for module in segmenter.modules() if isinstance(module, torch.nn.Conv2d))
    with torch.no_grad():
        last.bias[label_of(strongest)] = -1e6
    assert class_shares(model, photos, config)[strongest] == 0


def test_masks_are_blended_with_maps_by_hand() -> None:
    maps = np.array([[[0.4, 0.0]], [[0.1, 0.2]]], np.float32)  # of the classes 0 and 2
    probabilities = np.array([[[0.2, 0.9]], [[0.1, 0.1]], [[0.4, 0.0]], [[0.3, 0.0]]], np.float32)
    blended = blend_masks(maps, kept_masks(probabilities, (0, 2)), threshold=0.25, share=0.5)
    # what was class 1's is shared out 1 : 3, so that P = 0.2, 0.6 on the left; 0.1, 0 on the right
    np.testing.assert_allclose(blended[:, 0], [[0.25, 0.025], [0.2, 0.1]], atol=1e-6)
    np.testing.assert_array_equal(blend_masks(maps, kept_masks(probabilities, (0, 2)), 0.25, 0.0), maps)
    certain = np.array([1.0, 0.5, 0.49], np.float32)  # alone, it is a thing where it is as likely as not
    alone = blend_masks(
        np.zeros((1, 1, 3), np.float32), kept_masks(np.stack([1 - certain, certain])[:, None], (0,)), 0.25, 1.0
    )
    assert (alone[0, 0] >= 0.25).tolist() == [True, True, False]
    assert blend_masks(maps[:0], kept_masks(probabilities, ()), 0.25, 0.5).shape == (0, 1, 2)


def test_the_rounds_before_the_last_may_be_shorter() -> None:
    changes = ["segmenter.rounds=3", "segmenter.fit.epochs=8"]
    same = read_config(RunConfig, CONFIG, changes)
    assert [of_round(same, number).segmenter.fit.epochs for number in (1, 2, 3)] == [8, 8, 8]
    shorter = read_config(RunConfig, CONFIG, [*changes, "segmenter.early_epochs=2"])
    assert [of_round(shorter, number).segmenter.fit.epochs for number in (1, 2, 3)] == [2, 2, 8]


def test_every_round_starts_anew_with_a_seed_of_its_own(taught: RunConfig, tmp_path: Path) -> None:
    second = of_round(taught, 2)
    assert second.segmenter.fit.seed == taught.segmenter.fit.seed + 1
    alone = fit_segmenter(
        second, open_source(taught.data), taught.out / "pseudo_labels-2", tmp_path / "alone"
    )  # without a first round
    of_run = torch.load(taught.out / "segmenter" / "weights.pt", weights_only=True)
    for key, value in torch.load(alone, weights_only=True).items():
        torch.testing.assert_close(value, of_run[key])


def test_a_round_can_go_on_from_the_one_before(taught: RunConfig, tmp_path: Path) -> None:
    table = taught.segmenter.model_copy(
        update={"go_on": True, "fit": taught.segmenter.fit.model_copy(update={"lr": 1e-9})}
    )
    config = taught.model_copy(update={"segmenter": table, "out": tmp_path})
    for folder in ("cams", "segmenter-1", "pseudo_labels-2"):
        shutil.copytree(taught.out / folder, tmp_path / folder)
    last = fit_rounds(config, open_source(config.data), taught.out / "pseudo_labels")
    first = torch.load(tmp_path / "segmenter-1" / "weights.pt", weights_only=True)
    for key, value in torch.load(last, weights_only=True).items():
        if (
            "running" not in key and "num_batches" not in key
        ):  # a rate of almost nothing leaves the weights where they were
            torch.testing.assert_close(value, first[key], rtol=0, atol=1e-5)


def test_the_weights_of_two_rounds_are_averaged(taught: RunConfig) -> None:
    first, last = taught.out / "segmenter-1" / "weights.pt", taught.out / "segmenter" / "weights.pt"
    segmenter = load_segmenter(taught, len(open_source(taught.data).classes))
    average_weights(segmenter, read_state(first), 0.25)
    one, two = (torch.load(path, weights_only=True) for path in (first, last))
    for key, value in segmenter.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.25 * one[key] + 0.75 * two[key])
    with pytest.raises(ValidationError, match="set go_on and rounds"):
        SegmenterConfig(earlier_share=0.3)


def test_classifier_and_segmenter_have_versions_of_their_own(taught: RunConfig) -> None:
    paths = {path.relative_to(taught.export.models).parent for path in taught.export.models.glob("*/*/model.onnx")}
    assert paths == {Path("scenes-cam/2"), Path("scenes-deeplab/3")}
    card = Engine(taught.export.models / "scenes-deeplab" / "3" / "model.onnx").card
    assert (card.version, card.seed) == (3, taught.segmenter.fit.seed + 1)


def test_a_segmenter_may_see_photos_at_a_size_of_its_own(taught: RunConfig) -> None:
    classes = open_source(taught.data).classes
    assert segmenter_card(taught, classes).preferred_size == taught.localize.preferred_size
    larger = taught.model_copy(update={"segmenter": taught.segmenter.model_copy(update={"preferred_size": 160})})
    assert segmenter_card(larger, classes).preferred_size == 160


def test_the_supervised_bound_has_no_classifier(taught: RunConfig, stands_in: None, tmp_path: Path) -> None:
    weights = taught.out / "classifier" / "weights.pt"
    changes = [f"out={tmp_path / 'run'}", f"export.models={tmp_path / 'models'}", "segmenter.labels=ground-truth"]
    config = read_config(RunConfig, CONFIG, [*SMALL, *changes, f"segmenter.weights={weights}"])
    assert run(config).is_file()
    assert [path.parts[-3] for path in config.export.models.glob("*/*/model.onnx")] == ["scenes-deeplab"]
    photos = open_source(config.data)
    truth = GroundTruth(config.data, photos)
    name = photos.names("train")[0]
    np.testing.assert_array_equal(read_mask(config.out / "ground_truth" / f"{name}.png"), truth.mask(name))
    assert not list(config.out.glob("pseudo_labels*"))
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
    weights = fit_segmenter(config, open_source(config.data), taught.out / "pseudo_labels", tmp_path / "segmenter")
    steps = torch.load(weights.with_name("last.ckpt"), weights_only=True)["progress"]["step"]
    photos = open_source(config.data)
    image_labels = np.stack([photos.image_labels(name) for name in photos.names("train")])
    factors = repeat_factors(image_labels, 0.9)
    assert factors.sum() > len(factors) + rare.fit.batch_size
    assert steps == rare.fit.epochs * (int(factors.sum()) // rare.fit.batch_size)
    frequency = torch.load(weights, weights_only=True)["tag_head.frequency"]
    np.testing.assert_allclose(frequency, image_labels.mean(axis=0), rtol=1e-6)


def test_rounds_and_bounds_that_cannot_be() -> None:
    for change in ("segmenter.weights=classifier", "segmenter.rounds=2"):
        with pytest.raises(ConfigError, match="ground-truth"):
            read_config(RunConfig, CONFIG, ["segmenter.labels=ground-truth", "segmenter.weights=a.pt", change])
    two_thresholds = ["pseudo_label.background_threshold=0.2", "pseudo_label.foreground_threshold=0.7"]
    with pytest.raises(ConfigError, match="leave pseudo_label.foreground_threshold out"):
        read_config(RunConfig, CONFIG, ["segmenter.rounds=2", *two_thresholds])
    with pytest.raises(ConfigError, match='blends masks with maps, which pseudo_label.rule = "edam"'):
        read_config(RunConfig, CONFIG, ["segmenter.rounds=2", "pseudo_label.rule=edam", "saliency.estimate=exact"])


def test_a_mask_of_mirrored_views_mirrors_with_the_photo(taught: RunConfig) -> None:
    photos = open_source(taught.data)
    segmenter, card = load_segmenter(taught, len(photos.classes)), segmenter_card(taught, photos.classes)
    model = TorchModel(serve_segmenter(segmenter, card), card, torch.device("cpu"))
    for name in photos.names("val"):
        image = photos.image(name)
        np.testing.assert_array_equal(segment(model, image).mask, segment(model, image, scales=(1.0,), flip=False).mask)
        views = {"scales": TEST_SCALES, "flip": True}
        found, mirrored = segment(model, image, **views), segment(model, image[:, ::-1], **views)
        assert found.mask.shape == image.shape[:2]
        assert (found.mask == mirrored.mask[:, ::-1]).mean() > 0.999
        assert all(0 < score <= 1 for score in found.scores.values())
