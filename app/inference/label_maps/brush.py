"""A region becomes a brush stroke of Label Studio, run lengths over the bytes of an RGBA picture, and back.

The format is that of `@thi.ng/rle-pack` (https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack), which Label
Studio's editor reads. A stream of bits, most significant first:

    count (32 bits), word size - 1 (5), four run sizes - 1 (4 each), then packets:
    1, index of the run size (2), length - 1 (as many bits as that run size says), value (word size)         a run
    0, index of the run size (2), length - 1 (as many bits as that run size says), length x value            single values

The values are the picture's bytes, four to a pixel and rows first; the region is where its alpha is full. It has nothing
to do with COCO's run lengths, which count down the columns.
"""

from collections.abc import Sequence

import numpy as np

CHANNELS = 4  # A pixel has red, green, blue and alpha.
WORD_BITS = 8
COUNT_BITS, WORD_SIZE_BITS, RUN_SIZE_BITS, INDEX_BITS = 32, 5, 4, 2
RUN_SIZES = np.array([3, 4, 8, 16])  # A length is written with one of these numbers of bits, as label_studio_sdk does.
FULL = np.iinfo(np.uint8).max


def encode_brush(where: np.ndarray) -> list[int]:
    """Turn bool (H, W) into the bytes of Label Studio's `rle`."""
    pixels = where.ravel()
    starts = np.append(0, np.flatnonzero(pixels[1:] != pixels[:-1]) + 1)
    lengths = CHANNELS * np.diff(starts, append=pixels.size)
    longest = 1 << RUN_SIZES[-1]
    pieces = -(-lengths // longest)  # A run longer than that is written in pieces, of which the last is shorter.
    sizes = np.full(pieces.sum(), longest)
    sizes[pieces.cumsum() - 1] = lengths - (pieces - 1) * longest
    index = np.searchsorted(1 << RUN_SIZES, sizes)
    bits = RUN_SIZES[index]
    packets = ((1 << INDEX_BITS | index) << bits | sizes - 1) << WORD_BITS | np.repeat(FULL * pixels[starts], pieces)
    header = [CHANNELS * pixels.size, WORD_BITS - 1, *(RUN_SIZES - 1)]
    header_bits = [COUNT_BITS, WORD_SIZE_BITS, *[RUN_SIZE_BITS] * len(RUN_SIZES)]
    return _pack(np.append(header, packets), np.append(header_bits, 1 + INDEX_BITS + bits + WORD_BITS))


def decode_brush(rle: Sequence[int], height: int, width: int) -> np.ndarray:
    """Return the bytes of Label Studio's `rle` -> bool (H, W), true where the alpha is not 0."""
    text = "".join(f"{byte:08b}" for byte in rle)
    position = 0

    def read(bits: int) -> int:
        nonlocal position
        position += bits
        return int(text[position - bits : position], 2)

    values = np.zeros(read(COUNT_BITS), np.uint8)
    word_bits = read(WORD_SIZE_BITS) + 1
    run_sizes = [read(RUN_SIZE_BITS) + 1 for _ in RUN_SIZES]
    done = 0
    while done < len(values):
        is_run = read(1)
        length = read(run_sizes[read(INDEX_BITS)]) + 1
        values[done : done + length] = read(word_bits) if is_run else [read(word_bits) for _ in range(length)]
        done += length
    return values.reshape(height, width, CHANNELS)[:, :, -1] > 0


def _pack(codes: np.ndarray, bits: np.ndarray) -> list[int]:
    """Return whole numbers, each written with so many bits, as bytes; the last byte is filled up with zeros."""
    ends = bits.cumsum()
    shifts = np.repeat(ends, bits) - 1 - np.arange(ends[-1])
    return np.packbits((np.repeat(codes, bits) >> shifts & 1).astype(np.uint8)).tolist()
