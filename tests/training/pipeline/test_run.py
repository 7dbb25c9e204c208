"""The whole road on generated photos: tags -> classifier -> maps -> pseudo-labels -> segmenter -> ONNX -> a served mask."""

import html
import io
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.inference.engine import Engine
from app.inference.errors import ConfigError
from app.inference.labels import BACKGROUND
from app.main import create_app
from app.runtime.settings import Settings
from training.__main__ import main, start_run
from training.config.run_config import RunConfig, read_config
from training.data import SOURCES, DataConfig, TaggedPhotos, open_source
from training.masks.confusion import Confusion
from training.masks.ground_truth import GroundTruth
from training.masks.report_keys import meaning_of
from training.pipeline.run import VERBS, do, is_done, run
from training.stages.shard import Shard

CONFIG = Path("experiments/scenes/cam.toml")


OPENED: list[DataConfig] = []  # what the finished run opened


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A finished run."""
    root = tmp_path_factory.mktemp("road")
    fewer = ["data.scenes.count=160", "data.scenes.val_count=30", "classifier.fit.epochs=7", "segmenter.fit.epochs=5"]
    config = read_config(RunConfig, CONFIG, [f"out={root / 'run'}", f"export.models={root / 'models'}", *fewer])
    open_scenes = SOURCES["scenes"]

    def noted(data: DataConfig) -> TaggedPhotos:
        OPENED.append(data)
        return open_scenes(data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SOURCES, "scenes", noted)
        assert start_run(config) == root / "run" / "report.html"
    return config


def test_a_run_opens_its_data_once(road: RunConfig) -> None:
    assert [road.data] == OPENED


@pytest.fixture(scope="module")
def client(road: RunConfig):
    with TestClient(create_app(Settings(models=road.export.models, device="cpu"))) as client:
        end = time.monotonic() + 30
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < end
            time.sleep(0.05)
        yield client


def png_of(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def test_served_masks_beat_a_constant_answer(road: RunConfig, client: TestClient) -> None:
    photos = open_source(road.data)
    truth = GroundTruth(road.data, photos)
    served, constant = Confusion.empty(len(photos.classes)), Confusion.empty(len(photos.classes))
    for name in photos.names("val")[:30]:
        reply = client.post(
            "/segment", content=png_of(photos.image(name)),
            headers={"content-type": "image/png", "accept": "image/png"},
        )  # fmt: skip
        assert reply.status_code == 200, reply.text
        mask = np.asarray(Image.open(io.BytesIO(reply.content)))
        served.add(truth.mask(name), mask)
        constant.add(truth.mask(name), np.full_like(mask, BACKGROUND))
    assert served.miou() > constant.miou() + 10


def test_figures_are_those_of_the_exported_files(road: RunConfig) -> None:
    figures = json.loads((road.out / "figures.json").read_text())
    for path in sorted(road.export.models.glob("*/1/model.onnx")):
        card = Engine(path).card
        assert card.figures == figures["models"][card.name]["figures"]
    assert figures["models"]["scenes-cam"]["figures"]["map"] > 60
    assert figures["pseudo_label_train"]["miou"] > figures["constant_background_train"]["miou"]


def test_service_and_training_write_the_same_pseudo_label(road: RunConfig, client: TestClient, tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert main(["scenes", str(data), "--count", "4", "--val-count", "4", "--class-count", "4"]) == 0
    model = road.export.models / "scenes-cam" / "1" / "model.onnx"
    photos = open_source(DataConfig(source="folder", root=data, classes=Engine(model).card.classes))
    for refine in ("none", "pamr"):
        out = tmp_path / refine
        arguments = ["--data", str(data), "--out", str(out), "--refine", refine, "--foreground-threshold", "0.4"]
        assert main(["pseudo-label", "--model", str(model), *arguments]) == 0
        for name in photos.names("val"):
            reply = client.post(
                "/pseudo-label",
                params={
                    "tags": ",".join(photos.tags(name)),
                    "refine": refine,
                    "foreground_threshold": 0.4,
                    "format": "png",
                },
                files={"file": (data / "JPEGImages" / f"{name}.jpg").read_bytes()},
            )
            assert reply.status_code == 200, reply.text
            served = np.asarray(Image.open(io.BytesIO(reply.content)))
            assert (served == np.asarray(Image.open(out / f"{name}.png"))).all()


def test_the_report_shows_pictures(road: RunConfig) -> None:
    page = (road.out / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64") >= 80
    assert page.count("data:image/png;base64") == 2
    assert page.index("data:image/jpeg") < page.index("<h2>Figures")  # pictures come first
    figures = json.loads((road.out / "figures.json").read_text())
    keys = {key for model in figures["models"].values() for key in model["figures"]}
    assert [key for key in sorted(keys) if not meaning_of(key)] == []
    for key in keys:
        assert html.escape(meaning_of(key), quote=False) in page.replace("&#39;", "'").replace("&#34;", '"')
    for name in ("pseudo_label_train miou", "constant_background_val recall"):
        assert meaning_of(name)


def test_a_second_run_does_nothing_and_other_settings_are_refused(road: RunConfig) -> None:
    before = {path: path.stat().st_mtime_ns for path in road.out.rglob("*") if path.is_file()}
    run(road)
    assert {path: path.stat().st_mtime_ns for path in road.out.rglob("*") if path.is_file()} == before
    fit = road.classifier.fit.model_copy(update={"lr": 0.5})
    other = road.model_copy(update={"classifier": road.classifier.model_copy(update={"fit": fit})})
    with pytest.raises(ConfigError, match=r"made with other settings \(classifier\)"):
        run(other)


def test_own_photos_without_masks_are_enough(
    tmp_path: Path, stands_in: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Thirty tagged photos of one's own: nothing but JPEGs and a labels.csv."""
    main(["scenes", str(tmp_path / "written"), "--count", "24", "--val-count", "6", "--class-count", "3"])
    own = tmp_path / "own"
    own.mkdir()
    for photo in (tmp_path / "written" / "JPEGImages").glob("*.jpg"):
        shutil.copy(photo, own)
    shutil.copy(tmp_path / "written" / "labels.csv", own)
    changes = {
        "name": "own", "out": tmp_path / "run", "data.source": "folder", "data.root": own,
        "export.models": tmp_path / "models", "export.classifier": "own-cam", "export.segmenter": "own-deeplab",
        "classifier.fit.epochs": 1, "segmenter.fit.epochs": 1,
    }  # fmt: skip
    overrides = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
    assert main(["run", str(CONFIG), *overrides]) == 0
    assert capsys.readouterr().out.strip().endswith("report.html")
    engines = {path.parts[-3]: Engine(path) for path in (tmp_path / "models").glob("*/*/model.onnx")}
    assert set(engines) == {"own-cam", "own-deeplab"}
    assert "map" in engines["own-cam"].card.figures
    assert "miou" not in engines["own-deeplab"].card.figures


def test_a_refused_first_try_does_not_lock_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fit", str(CONFIG), "--set", f"out={tmp_path / 'run'}"]
    assert main([*arguments, "--set", "data.source=folder", "--set", f"data.root={tmp_path / 'none'}"]) == 2
    small = ["--set", "data.scenes.count=16", "--set", "data.scenes.val_count=4", "--set", "classifier.fit.epochs=1"]
    assert main([*arguments, *small]) == 0
    capsys.readouterr()
    assert main(["export", *arguments[1:], *small, "--set", "classifier.fit.lr=0.5"]) == 2
    assert "made with other settings (classifier)" in capsys.readouterr().err
    assert main(["pseudo-label", *arguments[1:], *small]) == 2
    assert "no finished 'localize' yet" in capsys.readouterr().err


def test_what_a_refused_stage_left_is_not_mixed_with_other_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [
        "data.scenes.count=16",
        "data.scenes.val_count=4",
        "classifier.fit.epochs=40",
        "classifier.fit.log_every=1",
    ]
    arguments = ["fit", str(CONFIG), *(part for change in [f"out={tmp_path}", *small] for part in ("--set", change))]
    assert main([*arguments, "--set", "classifier.fit.lr=1e9", "--set", "classifier.fit.checkpoint_seconds=0"]) == 2
    assert "lower fit.lr" in capsys.readouterr().err
    assert main([*arguments, "--set", "classifier.fit.lr=0.01"]) == 2
    assert f"remove {tmp_path} to start afresh" in capsys.readouterr().err


def test_shards_together_are_the_stage(tmp_path: Path) -> None:
    """Two shards write what one process writes, each note its own part, and the stage is done once both are."""
    few = ["data.scenes.count=8", "data.scenes.val_count=4", "classifier.fit.epochs=1", "classifier.fit.batch_size=4"]
    whole = read_config(RunConfig, CONFIG, [f"out={tmp_path / 'whole'}", *few])
    do(VERBS["fit"], whole)
    config = whole.model_copy(update={"out": tmp_path / "parts"})
    shutil.copytree(whole.out, config.out)
    for verb in ("localize", "pseudo-label"):
        do(VERBS[verb], whole)
    do(VERBS["localize"], config, shard=Shard(0, 2))
    with pytest.raises(ConfigError, match="no finished 'localize' yet"):
        do(VERBS["pseudo-label"], config, shard=Shard(0, 2))
    half = sorted(path.name for path in (config.out / "cams").iterdir())
    assert len(half) == len(list((whole.out / "cams").iterdir())) / 2
    other = config.model_copy(update={"localize": config.localize.model_copy(update={"flip": False})})
    with pytest.raises(ConfigError, match=r"made with other settings \(localize\)"):
        do(VERBS["localize"], other, shard=Shard(1, 2))
    do(VERBS["localize"], config, shard=Shard(1, 2))
    for index in (0, 1):
        do(VERBS["pseudo-label"], config, shard=Shard(index, 2))
    for folder in ("cams", "pseudo_labels"):
        ones, twos = (sorted((run.out / folder).iterdir()) for run in (whole, config))
        assert [path.name for path in ones] == [path.name for path in twos]
        assert all(one.read_bytes() == two.read_bytes() for one, two in zip(ones, twos, strict=True))
    assert is_done(VERBS["pseudo-label"], config)


def test_several_processes_do_one_stage_at_a_time(road: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"torchrun -m training fit \| localize \| pseudo-label \| segment"):
        run(road)
    with pytest.raises(ConfigError, match="not export, which one process does"):
        do(VERBS["export"], road, shard=Shard.of_process())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["localize", str(CONFIG), "--shard", "2/2"], "write I/N, such as 0/8"),
        (["scenes", "never", "--count", "0"], "count"),
        (["evaluate"], "takes a CONFIG"),
        (["evaluate", str(CONFIG), "--json"], "takes a CONFIG alone"),
        (["run", str(CONFIG), "--set", "localize.scales=[]"], "localize.scales"),
        (["run", str(CONFIG), "--set", "export.classifier=My Cam"], "export.classifier"),
        (["run", str(CONFIG), "--set", "classifier.views.long_side=[384, 224]"], "long_side"),
        (["run", str(CONFIG), "--set", "pseudo_label.foreground_threshold=0.1"], "must not lie below"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_done(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_pseudo_labels_need_a_cam_model(road: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    segmenter = road.export.models / "scenes-deeplab" / "1" / "model.onnx"
    folder = ["--data", str(tmp_path), "--out", str(tmp_path)]
    assert main(["pseudo-label", "--model", str(segmenter), *folder]) == 2
    assert "made from a cam model" in capsys.readouterr().err
    cam = road.export.models / "scenes-cam" / "1" / "model.onnx"
    assert main(["pseudo-label", "--model", str(cam), *folder, "--background-threshold", "7"]) == 2
    assert "must hold" in capsys.readouterr().err


def test_unknown_keys_and_missing_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(tmp_path / "none.toml")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert main(["run", str(CONFIG), "--set", "classifier.methud=cam"]) == 2
    assert "classifier.methud" in capsys.readouterr().err
    assert main(["run", str(CONFIG), "--set", f"out={tmp_path}", "--set", "classifier.method=dsr"]) == 2
    assert "unknown method 'dsr'" in capsys.readouterr().err
    assert main(["evaluate", "--model", str(tmp_path / "none.onnx"), "--data", str(tmp_path)]) == 2
    assert "none.onnx" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["evaluate", "pseudo-label", "saliency"])
def test_a_verb_without_anything_to_work_on_is_told_what_it_takes(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb]) == 2
    said = capsys.readouterr().err.strip()
    assert "takes a CONFIG" in said
    assert not said.endswith((" with", ":"))
