"""The pixels of a label become regions: COCO run lengths or polygons, boxes, COCO documents."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import contourpy
import numpy as np
import shapely
from pycocotools import mask as coco_mask
from pydantic import BaseModel, ConfigDict, Field

from app.inference.labels import BACKGROUND, IGNORE_INDEX, class_index_of

Shape = Literal["rle", "polygons"]

TOLERANCE = 0.75  # A polygon may stray this many px from the border of its pixels.
# A polygon of a small region strays less: this share of the side of a square of the region's area.
SMALL = 0.05
MIN_POINTS = 3


class RunLengths(BaseModel):
    """It is COCO's compressed run-length encoding: `size` is [height, width]; `pycocotools.mask.decode` reads it."""

    size: list[int]
    counts: str


class Region(BaseModel):
    """It holds the pixels of one class. `share` is of the whole image, `box` is COCO's [x, y, width, height] in pixels.

    The region itself comes as `rle`, or with `regions=polygons` as `polygons`: outer borders [x, y, x, y, ...] in pixels.
    """

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    class_name: str = Field(alias="class")
    label: int
    score: float
    pixels: int
    share: float
    box: list[int]
    rle: RunLengths | None = None
    polygons: list[list[float]] | None = None


@dataclass(frozen=True)
class Runs:
    """It holds a label map as runs of one label, down its columns as COCO counts: every question about its regions is answered from
    these, a few thousand even of a large photo.

    size: (height, width). labels: uint8 (R,). lengths: in pixels, (R,).
    """

    size: tuple[int, int]
    labels: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray) -> "Runs":
        """Return those of a uint8 (H, W) mask."""
        height, width = mask.shape
        # It tells whether a run ends with the column before.
        tops = np.concatenate([[True], mask[0, 1:] != mask[-1, :-1]])
        rows, columns = np.divmod(np.flatnonzero(mask[1:] != mask[:-1]), width)
        starts = np.concatenate([np.flatnonzero(tops) * height, columns * height + rows + 1])
        starts.sort()
        return cls((height, width), mask[starts % height, starts // height], np.diff(starts, append=mask.size))

    def labels_found(self) -> list[int]:
        """Return the classes' labels, that with the most pixels first."""
        pixels = np.bincount(self.labels, self.lengths)
        found = [int(label) for label in np.flatnonzero(pixels) if label not in (BACKGROUND, IGNORE_INDEX)]
        return sorted(found, key=lambda label: -pixels[label])

    def encoded(self, label: int) -> dict[str, Any]:
        """Return where a label is, as pycocotools holds it."""
        inside, starts = _run_starts(self.labels == label)
        counts = np.add.reduceat(self.lengths, starts)
        counts = counts if not inside[0] else np.insert(counts, 0, 0)  # COCO begins with what is outside.
        height, width = self.size
        return coco_mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)


def _run_starts(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values (R,) of the runs of equal values in (N,), and where each begins."""
    starts = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
    return values[starts], starts


def _runs_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values and the lengths of the runs of equal values in (N,)."""
    runs, starts = _run_starts(values)
    return runs, np.diff(starts, append=len(values))


def count_labels(mask: np.ndarray) -> np.ndarray:
    """Return the pixels of each label 0..255 in a uint8 (H, W) mask, (256,)."""
    return np.bincount(*_runs_of(np.ravel(mask)), minlength=np.iinfo(np.uint8).max + 1).astype(int)


def regions_of(
    classes: Sequence[str], mask: np.ndarray, scores: Mapping[int, float], shape: Shape = "rle"
) -> list[Region]:
    """Return the classes of a uint8 (H, W) mask, largest first. `scores`: label -> score."""
    runs = Runs.of(mask)
    regions = []
    for label in runs.labels_found():
        polygons = polygons_of(mask == label) if shape == "polygons" else None
        regions.append(_region(classes[class_index_of(label)], label, runs.encoded(label), scores[label], polygons))
    return regions


def region_of(class_name: str, label: int, where: np.ndarray, score: float, shape: Shape = "rle") -> Region:
    """Return one class's region, bool (H, W) with a pixel in it."""
    encoded = Runs.of(where.view(np.uint8)).encoded(1)
    return _region(class_name, label, encoded, score, polygons_of(where) if shape == "polygons" else None)


def _region(
    class_name: str, label: int, encoded: dict[str, Any], score: float, polygons: list[list[float]] | None
) -> Region:
    """Return a region as its run lengths, or as its polygons where there are any."""
    pixels, (height, width) = int(coco_mask.area(encoded)), encoded["size"]
    return Region(
        class_name=class_name,
        label=label,
        score=score,
        pixels=pixels,
        share=pixels / (height * width),
        box=[int(side) for side in coco_mask.toBbox(encoded)],
        rle=_as_text(encoded) if polygons is None else None,
        polygons=polygons,
    )


def mask_to_rle(where: np.ndarray) -> RunLengths:
    """Return the COCO run-length encoding of a bool (H, W) region; runs go down the columns."""
    return _as_text(Runs.of(where.view(np.uint8)).encoded(1))


def _as_text(encoded: dict[str, Any]) -> RunLengths:
    return RunLengths(size=[int(side) for side in encoded["size"]], counts=encoded["counts"].decode("ascii"))


def borders_of(where: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Yield the borders of each part of a bool (H, W) region: the outer one and those of its holes, (N, 2) of x and y in pixels, whose last
    corner is the first. A pixel's centre lies at + 0.5.
    """
    generator = contourpy.contour_generator(
        z=np.pad(where, 1).astype(np.float32), fill_type=contourpy.FillType.OuterOffset
    )
    for points, offsets in zip(*generator.filled(0.5, np.inf), strict=True):
        yield [_corners_of(points[start:end] - 0.5) for start, end in pairwise(offsets)]  # The padding lies at - 1.


def _corners_of(ring: np.ndarray) -> np.ndarray:
    """Return a ring (N, 2) without the points at which it goes straight on: what simplifies it takes a third of the time then."""
    steps = np.diff(ring, axis=0)
    turns = (steps[1:] != steps[:-1]).any(axis=1)
    return ring[np.concatenate([[True], turns, [True]])]


def polygons_of(where: np.ndarray) -> list[list[float]]:
    """Return the outer borders of a bool (H, W) region as COCO has them: [x, y, x, y, ...] in pixels, largest first.

    Holes are lost, as COCO's polygons know none; run lengths keep them.
    """
    outlines = []
    for shell, *_ in borders_of(where):
        outer = shapely.Polygon(shell)
        outline = shapely.get_exterior_ring(outer.simplify(min(TOLERANCE, SMALL * outer.area**0.5)))
        outlines.append((outer.area, shapely.get_coordinates(outline)[:-1]))
    outlines.sort(key=lambda entry: -entry[0])
    return [outline.round(2).ravel().tolist() for _, outline in outlines if len(outline) >= MIN_POINTS]


@dataclass(frozen=True)
class CocoImage:
    """It is a photo of a COCO data set, of `size` (height, width), with its regions."""

    file_name: str
    size: tuple[int, int]
    regions: Sequence[Region]


def coco_document(images: Sequence[CocoImage], categories: Mapping[int, str], info: dict[str, Any]) -> dict[str, Any]:
    """Return a COCO data set of instances, which `pycocotools.coco.COCO` reads; ids begin with 1. categories: label ->
    class.
    """
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images, 1):
        for region in image.regions:
            annotations.append(coco_annotation(region, len(annotations) + 1, number))
    return {
        "info": info,
        "images": [
            {"id": number, "file_name": image.file_name, "height": image.size[0], "width": image.size[1]}
            for number, image in enumerate(images, 1)
        ],
        "annotations": annotations,
        "categories": [{"id": label, "name": name} for label, name in sorted(categories.items())],
    }


def coco_annotation(region: Region, number: int, image_number: int) -> dict[str, Any]:
    """Return a region as one of COCO's annotations; `number` and `image_number` are the ids."""
    return {
        "id": number,
        "image_id": image_number,
        "category_id": region.label,
        "segmentation": region.polygons if region.rle is None else region.rle.model_dump(),
        "bbox": region.box,
        "area": region.pixels,
        "iscrowd": 0,
        "score": region.score,
    }


def white(where: np.ndarray) -> np.ndarray:
    """Turn bool (H, W) into uint8, full where true."""
    return where * np.uint8(np.iinfo(np.uint8).max)


def regions_in(mask: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (label, bool (H, W) where it is) of every class in a uint8 (H, W) mask, largest first."""
    for label in Runs.of(mask).labels_found():
        yield label, mask == label
