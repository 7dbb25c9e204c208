"""A model file that states its checksum shows every byte that changed."""

import random

import onnx
import pytest

from app.inference.engine import Engine
from app.inference.errors import ModelCardError
from app.inference.files.checksum import UNKNOWN, check_content, checksum_of, with_checksum
from tests.app.colour_models import write_cam_model


def test_every_changed_byte_is_found(tmp_path):
    path = write_cam_model(tmp_path, checksum=UNKNOWN)
    content = with_checksum(path.read_bytes())
    path.write_bytes(content)
    engine = Engine(path, device="cpu")
    assert engine.card.checksum == checksum_of(content) != UNKNOWN
    chance = random.Random(0)
    for _ in range(200):
        place = chance.randrange(len(content))
        changed = bytearray(content)
        changed[place] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(ModelCardError):
            Engine(path, device="cpu")


def test_a_file_without_a_checksum_is_served(tmp_path):
    path = write_cam_model(tmp_path)
    assert with_checksum(path.read_bytes()) == path.read_bytes()
    assert Engine(path, device="cpu").card.checksum == ""


@pytest.mark.parametrize("place", ["README.md", "/etc/hostname", "../../x", "*/_ORT_MEM_ADDR_/*"])
def test_external_data_are_refused_wherever_they_lie(tmp_path, place):
    path = write_cam_model(tmp_path)
    model = onnx.load(path)
    weights = model.graph.initializer[-2]
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": place, "offset": "0", "length": "16"}.items():
        entry = weights.external_data.add()
        entry.key, entry.value = key, value
    with pytest.raises(ModelCardError, match="Save it as one file, with its weights inside"):
        check_content(model.SerializeToString(), "it")
