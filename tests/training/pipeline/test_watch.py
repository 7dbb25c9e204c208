"""What comes into the folder of corrections is taken in and learned, and what cannot be used is refused and named."""

import json
from pathlib import Path

import numpy as np

from app.inference.label_maps.brush import encode_brush
from app.inference.label_maps.corrections import read_corrections
from app.inference.labels import label_of
from tests.training.pipeline.test_learn import config_of, root
from training.config.data import DataConfig
from training.data import open_source
from training.export.onnx_file import card_of
from training.masks.ground_truth import GroundTruth
from training.pipeline.watch import take_in_and_learn

__all__ = ["root"]


def write_export(data: DataConfig, path: Path, count: int) -> None:
    """Write an export of Label Studio with the true masks of the first photos, and a task of a photo that nobody has."""
    photos = open_source(data)
    truth = GroundTruth(data, photos)
    tasks = [{"id": 99, "data": {"image": "/data/upload/1/nobody.jpg"}, "annotations": [{"id": 99, "result": []}]}]
    for number, name in enumerate(list(photos.tag_table)[:count]):
        mask = truth.mask(name)
        size = {"original_width": mask.shape[1], "original_height": mask.shape[0], "image_rotation": 0}
        result = [
            {"id": f"{index}", "type": "brushlabels", "from_name": "mask", "to_name": "image", **size,
             "value": {"format": "rle", "rle": encode_brush(mask == label_of(index)), "brushlabels": [each]}}
            for index, each in enumerate(photos.classes)
            if np.any(mask == label_of(index))
        ]  # fmt: skip
        annotation = {"id": number, "result": result, "updated_at": f"2026-01-01T00:00:{number:02}Z", "completed_by": 1}
        tasks.append(
            {"id": number, "data": {"image": f"/data/upload/1/0123abcd-{name}.jpg"}, "annotations": [annotation]}
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tasks))


def test_what_comes_in_is_learned_once(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "corrections"
    config = config_of(root, tmp_path / "out")
    config = config.model_copy(update={"corrections": config.corrections.model_copy(update={"folder": folder})})
    assert take_in_and_learn(config) == []
    write_export(config.data, folder / "incoming" / "label-studio.json", 8)
    (folder / "incoming" / "other.json").write_text("[1]")
    said = "\n".join(take_in_and_learn(config, promote=True))
    assert "8 corrected masks were put into" in said
    assert "no photo" in said  # task 99
    assert "refused: other.taken is no export" in said
    assert [path.name for path in (folder / "incoming").iterdir()] == ["other.refused"]
    assert len(read_corrections(folder).rows) == 8
    newest = max((root / "models" / "tiny").glob("*/model.onnx"), key=lambda path: int(path.parent.name))
    assert card_of(newest).taught_by.startswith("tags + ")
    assert str(newest) in said
    assert take_in_and_learn(config) == []


def test_what_was_stopped_goes_on_and_nothing_to_learn_is_said(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "corrections"
    config = config_of(root, tmp_path / "out")
    config = config.model_copy(update={"corrections": config.corrections.model_copy(update={"folder": folder})})
    write_export(config.data, folder / "incoming" / "label-studio.taken", 0)
    said = take_in_and_learn(config)
    assert said[0].startswith("0 corrected masks")
    assert said[1].startswith("nothing is learned: ")
    assert not list((folder / "incoming").iterdir())
