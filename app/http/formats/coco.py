"""COCO's instances are a format: a document of one photo, which `pycocotools.coco.COCO` reads."""

import json
from collections.abc import Sequence

from app.http.formats.format import Format, Maps, Mask, Result
from app.inference.label_maps.regions import CocoImage, Region, coco_document, regions_of


def mask_document(result: Mask) -> bytes:
    """Return the regions of a label map."""
    regions = regions_of(result.classes, result.mask, result.scores(), result.shape)
    height, width = result.mask.shape
    return document(result, (height, width), regions)


def map_document(result: Maps) -> bytes:
    """Return where each map exceeds the threshold."""
    return document(result, result.size, result.regions())


def document(result: Result, size: tuple[int, int], regions: Sequence[Region]) -> bytes:
    """Return the document of a photo of `size` (height, width); its `info` says how it came about."""
    categories = {region.label: region.class_name for region in regions}
    return json.dumps(coco_document([CocoImage(result.name, size, regions)], categories, dict(result.info))).encode()


COCO = Format("coco", "application/json", mask=mask_document, map=map_document, maps=map_document, of_present=True)
