"""Label Studio's run lengths, by hand and against its own code."""

import numpy as np
import pytest

from app.inference.label_maps.brush import decode_brush, encode_brush

REGIONS = {
    "one pixel": np.ones((1, 1), bool),
    "empty": np.zeros((3, 5), bool),
    "full": np.ones((200, 300), bool),  # longer than the longest run
    "stripes": np.add.outer(np.arange(70), np.arange(300)) % 97 > 40,
    "noise": np.random.default_rng(0).random((40, 50)) > 0.5,
}


@pytest.mark.parametrize("where", REGIONS.values(), ids=REGIONS)
def test_run_lengths_come_back(where):
    assert np.array_equal(decode_brush(encode_brush(where), *where.shape), where)


@pytest.mark.environment("label-studio")
@pytest.mark.parametrize("where", REGIONS.values(), ids=REGIONS)
def test_run_lengths_are_those_of_label_studio(where):
    brush = pytest.importorskip("label_studio_sdk.converter.brush", exc_type=ImportError)
    alpha = brush.decode_rle(encode_brush(where)).reshape(*where.shape, 4)[:, :, 3]
    assert np.array_equal(alpha > 0, where)
    theirs = brush.mask2rle(np.where(where, np.iinfo(np.uint8).max, 0).astype(np.uint8))
    assert np.array_equal(decode_brush(theirs, *where.shape), where)


def test_run_lengths_by_hand():
    """Two pixels, the second one full: 8 bytes, 4 of 0 and 4 of 255; each run of 4 is 1, 00, 011, value."""
    bits = f"{8:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}" + "1" + "00" + "011" + "0" * 8 + "1" + "00" + "011" + "1" * 8
    bits += "0" * (-len(bits) % 8)
    assert encode_brush(np.array([[False, True]])) == [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def test_single_values_are_read():
    """A packet of single values, which an editor may write: 0, 00, length - 1, the values."""
    bits = (
        f"{4:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
        + "0"
        + "00"
        + "011"
        + "".join(f"{v:08b}" for v in (1, 2, 3, 200))
    )
    bits += "0" * (-len(bits) % 8)
    assert decode_brush([int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)], 1, 1)[0, 0]
