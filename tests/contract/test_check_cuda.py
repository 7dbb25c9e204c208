"""`make check-cuda` itself, on machines without CUDA: what it measures, and that it says why it compares nothing."""

from pathlib import Path

import numpy as np
import pytest

from app.inference.engine import Engine
from app.inference.errors import DeviceError
from tests.app.colour_models import write_cam_model, write_segmentation_model
from tests.contract import check_cuda


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_cam_model(tmp_path)
    write_segmentation_model(tmp_path)
    return tmp_path


def test_values_are_compared_relative_to_the_largest() -> None:
    reference = np.array([[0.0, 4.0], [2.0, 1.0]], np.float32)
    assert check_cuda.difference(reference, reference + np.float32(0.5)) == pytest.approx(0.125)


def test_masks_are_compared_by_share_of_pixels() -> None:
    reference = np.array([[0, 5], [5, 0]], np.uint8)
    assert check_cuda.difference(reference, np.array([[0, 5], [5, 7]], np.uint8)) == 0.25


def test_another_shape_or_type_never_agrees() -> None:
    mask = np.zeros((2, 2), np.uint8)
    assert check_cuda.difference(mask, mask[:1]) == float("inf")
    assert check_cuda.difference(mask, mask.astype(np.float32)) == float("inf")


def test_no_model_is_said_and_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_cuda.main(["--models", str(tmp_path)]) == 2
    assert "no NAME/VERSION/model.onnx" in capsys.readouterr().out


def test_the_cpu_agrees_with_itself(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_cuda.main(["--models", str(models), "--device", "cpu"]) == 0
    compared = capsys.readouterr().out
    assert all(word in compared for word in ("cam of 2x", "localization maps of cat.jpg", "/segment mask of cat.jpg"))


def works_on_cuda(model: Path) -> bool:
    try:
        Engine(model, device="cuda")
    except DeviceError:
        return False
    return True


def test_it_says_why_there_is_no_cuda(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if works_on_cuda(next(models.glob("*/*/model.onnx"))):
        pytest.skip("CUDA works here: `make check-cuda` compares it")
    assert check_cuda.main(["--models", str(models)]) == 2
    assert "CUDA cannot be compared here" in capsys.readouterr().out
