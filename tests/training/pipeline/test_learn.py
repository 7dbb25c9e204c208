"""A served segmenter learns from corrected masks: drawn, checked, learned, compared, served. And what a simulation writes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app.inference.engine import Engine
from app.inference.errors import DataError
from app.inference.label_maps.corrections import Correction, write_correction
from app.inference.model_card import ModelCard
from tests.training.exports import vary_statistics
from training.__main__ import main
from training.config.data import DataConfig, ScenesConfig
from training.config.learn import LastLayersFitConfig, LearnConfig, SimulateConfig
from training.config.learning import CorrectionsConfig
from training.config.tables import SegmenterConfig
from training.data import open_source
from training.data.scenes import write_folder
from training.export.onnx_file import card_of, export_model
from training.masks.corrections.add import add_corrections
from training.masks.ground_truth import GroundTruth
from training.pipeline.learn import learn
from training.pipeline.orders import ORDERS, Pool, Signs
from training.pipeline.simulate import Cell, cells, write_results
from training.stages.segmenter import build_segmenter, serve_segmenter

ROOT = Path(__file__).parents[3]
SCENES = ScenesConfig(count=16, val_count=4, size=64, class_count=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes as a folder, and a segmenter of their classes that has learned nothing."""
    root = tmp_path_factory.mktemp("learn")
    write_folder(DataConfig(source="scenes", scenes=SCENES), root / "photos")
    settings = SegmenterConfig(
        backbone="small", weights=None, options={"channels": 8, "tag_weight": 1.0}, presence_threshold=0.1
    )
    torch.manual_seed(0)
    classes = open_source(DataConfig(source="folder", root=root / "photos")).classes
    card = ModelCard(
        name="tiny", version=1, task="segmentation", method="deeplabv3plus", paper="-", backbone="small", classes=classes,
        output_stride=16, preferred_size=64, presence_thresholds=(0.0,) * len(classes), data="-", data_licence="-",
        config={"segmenter": settings.model_dump(mode="json")}, precision="float32",
    )  # fmt: skip
    segmenter = build_segmenter(settings, len(classes)).eval()
    vary_statistics(segmenter)
    export_model(serve_segmenter(segmenter, card), card, root / "models")
    return root


def config_of(root: Path, out: Path, **changes: object) -> LearnConfig:
    corrections = CorrectionsConfig(folder=root / "corrections", weight=2.0)
    fit = LastLayersFitConfig(max_steps=40, lr=0.01)
    values = {"photos": 2, "crop": 64, "fit": fit, "model": root / "models" / "tiny"} | changes
    return LearnConfig(
        out=out, data=DataConfig(source="folder", root=root / "photos"), corrections=corrections, **values
    )


def test_corrections_are_learned_and_the_next_version_says_so(root: Path, tmp_path: Path) -> None:
    photos = open_source(DataConfig(source="folder", root=root / "photos"))
    with pytest.raises(DataError, match=r"no corrections\.csv"):
        learn(config_of(root, tmp_path))
    said = add_corrections(root / "photos", photos, root / "corrections", made_by="Ann")
    assert said.startswith("20 corrected masks")
    said = learn(config_of(root, tmp_path))
    first, second = (root / "models" / "tiny" / str(version) / "model.onnx" for version in (1, 2))
    card = card_of(second)
    assert card.version == 2
    assert card.taught_by == f"tags + {len(card.config['corrected'])} masks"
    assert set(card.config["corrected"]) <= set(photos.names("train"))  # those of `val` are kept aside
    kept_aside = 20 - len(card.config["corrected"])
    assert card.measured_on == f"{kept_aside} kept-aside corrections"
    assert kept_aside > 4
    assert card.figures["miou"] > card.figures["earlier_miou"]
    assert str(second) in said
    assert card_of(first).taught_by == "tags"  # an earlier release did not state it
    assert Engine(second, device="cpu", whole=True).run(np.zeros((1, 64, 64, 3), np.uint8))["mask"].shape == (1, 64, 64)
    (report,) = tmp_path.glob("*/report.html")
    page = report.read_text(encoding="utf-8")
    assert f"tiny/1 was taught by tags, the new version by {card.taught_by}" in page
    assert page.count("by Ann") == kept_aside
    assert "already" in learn(config_of(root, tmp_path))
    # Version 1 goes on with all masks, so that version 2's are not learned twice: a step of nearly nothing leaves version 1.
    gentle = LastLayersFitConfig(max_steps=1, lr=1e-6)
    again = learn(config_of(root, tmp_path, fit=gentle), promote=True)
    third = root / "models" / "tiny" / "3" / "model.onnx"
    assert str(third) in again
    assert card_of(third).taught_by == card.taught_by
    assert distance(third, first) < 0.1 * distance(second, first)
    # The file that is named goes on, whatever it has learned; its masks are not counted twice.
    learn(config_of(root, tmp_path, fit=gentle, model=second), promote=True)
    fourth = root / "models" / "tiny" / "4" / "model.onnx"
    assert card_of(fourth).taught_by == card.taught_by
    assert distance(fourth, second) < 0.1 * distance(second, first)


def test_what_was_learned_of_another_folder_is_not_forgotten(root: Path, tmp_path: Path) -> None:
    photos = open_source(DataConfig(source="folder", root=root / "photos"))
    truth = GroundTruth(DataConfig(source="folder", root=root / "photos"), photos)
    models = tmp_path / "models" / "tiny"
    shutil.copytree(root / "models" / "tiny" / "1", models / "1")
    for folder, names in (("monday", photos.names("train")[:3]), ("tuesday", photos.names("train")[3:6])):
        for name in names:
            correction = Correction(name)
            write_correction(tmp_path / folder, truth.mask(name), photos.size(name), photos.classes, correction)
        corrections = CorrectionsConfig(folder=tmp_path / folder, held_out=0)
        learn(config_of(root, tmp_path / "out", model=models).model_copy(update={"corrections": corrections}))
    assert set(card_of(models / "3" / "model.onnx").config["corrected"]) == set(photos.names("train")[:6])


def distance(first: Path, second: Path) -> float:
    """How far two versions' logits of the same noise lie apart."""
    noise = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.uint8)
    logits = [Engine(path, device="cpu").run(noise)["logits"] for path in (first, second)]
    return float(np.abs(logits[0] - logits[1]).mean())


def test_a_version_that_is_worse_is_not_served_unless_asked(root: Path, tmp_path: Path) -> None:
    """The corrections to learn from are all wrong, those that are kept aside are right."""
    photos = open_source(DataConfig(source="folder", root=root / "photos"))
    truth = GroundTruth(DataConfig(source="folder", root=root / "photos"), photos)
    folder = tmp_path / "corrections"
    for name in photos.tag_table:
        mask = truth.mask(name)
        wrong = mask if name in photos.names("val") else np.where(mask == 0, 1, 0).astype(np.uint8)
        write_correction(folder, wrong, photos.size(name), photos.classes, Correction(name))
    corrections = CorrectionsConfig(folder=folder, held_out=0)
    base = LearnConfig(
        out=tmp_path / "out", data=DataConfig(source="folder", root=root / "photos"), corrections=corrections, photos=2,
        crop=64, fit=LastLayersFitConfig(max_steps=40, lr=0.01), model=root / "models" / "tiny",
    )  # fmt: skip
    before = sorted((root / "models" / "tiny").iterdir())
    said = learn(base)
    assert "is worse and was not put into the models" in said
    assert sorted((root / "models" / "tiny").iterdir()) == before
    (candidate,) = (tmp_path / "out").glob("*/model.onnx")
    made = candidate.stat().st_mtime_ns
    said = learn(base, promote=True)
    assert candidate.stat().st_mtime_ns == made  # nothing was trained again
    assert len(list((root / "models" / "tiny").iterdir())) == len(before) + 1


def test_orders_sort_as_they_say(root: Path) -> None:
    photos = open_source(DataConfig(source="folder", root=root / "photos"))
    names = photos.names("train")
    signs = {
        name: Signs(estimate=n / 20, agreement=1 - n / 20, entropy=(n * 7 % 16) / 16) for n, name in enumerate(names)
    }
    pool = Pool(photos, names, lambda: signs)
    orders = {order: sort(pool, 0) for order, sort in ORDERS.items()}
    assert all(sorted(order) == sorted(names) for order in orders.values())
    assert orders["review"] == list(names)
    assert orders["disagreement"] == list(names)[::-1]
    assert signs[orders["entropy"][0]].entropy == 15 / 16
    assert orders["random"] != ORDERS["random"](pool, 1)
    without_signs = Pool(photos, names, pytest.fail)
    assert [ORDERS[order](without_signs, 0) for order in ("random", "balance")] == [orders["random"], orders["balance"]]
    for order in ("balance", "typical"):
        tags = [set(photos.tags(name)) for name in orders[order][: len(photos.classes)]]
        assert set().union(*tags) == set(photos.classes)


def test_the_table_of_a_simulation_says_what_each_order_is_worth(root: Path, tmp_path: Path) -> None:
    config = SimulateConfig(
        out=tmp_path, data=DataConfig(source="folder", root=root / "photos"), corrections=CorrectionsConfig(),
        orders=("random", "review"), counts=(1, 2), seeds=(0, 1),
    )  # fmt: skip
    mious = dict(zip(cells(config), (50.0, 52.0, 51.0, 60.0, 54.0, 50.5, 56.0, 50.5), strict=True))
    for cell, miou in {Cell("before", 0, 0): 48.0, **mious}.items():
        (tmp_path / cell.folder).mkdir()
        values = {"order": cell.order, "count": cell.count, "seed": cell.seed, "miou": miou, "tagged_miou": miou + 4}
        (tmp_path / cell.folder / "result.json").write_text(json.dumps(values))
    table = write_results(config).read_text()
    assert "without tags; before any correction: 48.00" in table
    assert "tags given; before any correction: 52.00" in table
    assert "| review | 56.00 (+8.00, 2 seeds 52.00 to 60.00) | 50.50 (+2.50, 2 seeds 50.50 to 50.50) |" in table
    assert len(json.loads((tmp_path / "results.json").read_text())) == 1 + len(mious)
    assert "svg" in (tmp_path / "plot.svg").read_text()


def test_the_photo_of_whose_mask_the_served_models_are_least_sure_is_named_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "JPEGImages").mkdir()
    with Image.open(ROOT / "tests" / "photos" / "cat.jpg") as picture:
        cat = picture.convert("RGB")
    for name, photo in {
        "clear": cat,
        "noise": cat.resize((24, 16)),
        "dark": cat.point(lambda value: value // 12),
    }.items():
        photo.save(tmp_path / "JPEGImages" / f"{name}.jpg", quality=95)
    (tmp_path / "labels.csv").write_text("name,classes\nclear,cat\nnoise,cat\ndark,cat\n")
    (tmp_path / "ImageSets").mkdir()
    (tmp_path / "ImageSets" / "train.txt").write_text("clear\nnoise\ndark\n")
    (tmp_path / "ImageSets" / "val.txt").write_text("")
    models = [f"--{role}={ROOT / 'models' / name}" for role, name in (("model", "deeplab"), ("cam", "cam"))]
    asked = ["corrections", "choose", "--data", str(tmp_path), "--not-in", str(tmp_path / "none"), *models]
    assert main([*asked, "--count", "3"]) == 0
    first = capsys.readouterr().out.split()
    assert sorted(first) == ["clear", "dark", "noise"]
    assert first[0] == "dark"
    assert main([*asked, "--pool", "0"]) == 2
    assert "--pool 0" in capsys.readouterr().err
