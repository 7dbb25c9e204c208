"""The pixels of a label as regions: COCO run lengths or polygons, boxes, COCO documents."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import contourpy
import numpy as np
import shapely
from PIL import Image
from pycocotools import mask as coco_mask
from pydantic import BaseModel, ConfigDict, Field

from app.inference.labels import BACKGROUND, IGNORE_INDEX, class_index_of

Shape = Literal["rle", "polygons"]

TOLERANCE = 0.75  # A polygon may stray this many px from the border of its pixels.
# A polygon of a small region strays less: this share of the side of a square of the region's area.
SMALL = 0.05
MIN_POINTS = 3


class RunLengths(BaseModel):
    """COCO's compressed run-length encoding: `size` is [height, width]; `pycocotools.mask.decode` reads it."""

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


def count_labels(mask: np.ndarray) -> list[int]:
    """Return the pixels of each label 0..255 in a uint8 (H, W) mask."""
    return Image.fromarray(mask).histogram()  # numpy's bincount would copy the mask to 8 bytes a pixel


def regions_of(
    classes: Sequence[str], mask: np.ndarray, scores: Mapping[int, float], shape: Shape = "rle"
) -> list[Region]:
    """Return the classes of a uint8 (H, W) mask, largest first. `scores`: label -> score."""
    return [
        region_of(classes[class_index_of(label)], label, where, scores[label], shape)
        for label, where in regions_in(mask)
    ]


def region_of(class_name: str, label: int, where: np.ndarray, score: float, shape: Shape = "rle") -> Region:
    """Return one class's region, bool (H, W) with a pixel in it."""
    pixels = int(np.count_nonzero(where))
    return Region(
        class_name=class_name,
        label=label,
        score=score,
        pixels=pixels,
        share=pixels / where.size,
        box=box_of(where),
        rle=mask_to_rle(where) if shape == "rle" else None,
        polygons=polygons_of(where) if shape == "polygons" else None,
    )


def mask_to_rle(where: np.ndarray) -> RunLengths:
    """COCO run-length encoding of a bool (H, W) region; runs go down the columns."""
    encoded = coco_mask.encode(np.asfortranarray(where, dtype=np.uint8))
    return RunLengths(size=[int(side) for side in encoded["size"]], counts=encoded["counts"].decode("ascii"))


def box_of(where: np.ndarray) -> list[int]:
    """Return the bounding box of a bool (H, W) region as COCO has it: [x, y, width, height] in pixels."""
    columns, rows = np.flatnonzero(where.any(axis=0)), np.flatnonzero(where.any(axis=1))
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]


def polygons_of(where: np.ndarray) -> list[list[float]]:
    """Return the outer borders of a bool (H, W) region as COCO has them: [x, y, x, y, ...] in pixels, largest first.

    Holes are lost, as COCO's polygons know none; run lengths keep them.
    """
    generator = contourpy.contour_generator(
        z=np.pad(where, 1).astype(np.float32), fill_type=contourpy.FillType.OuterOffset
    )
    outlines = []
    for points, offsets in zip(*generator.filled(0.5, np.inf), strict=True):
        outer = shapely.Polygon(points[: offsets[1]] - 0.5)  # a pixel's centre lies at + 0.5, the padding at - 1
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
    counts = count_labels(mask)
    labels = [label for label, pixels in enumerate(counts) if pixels and label not in (BACKGROUND, IGNORE_INDEX)]
    for label in sorted(labels, key=lambda label: -counts[label]):
        yield label, mask == label
