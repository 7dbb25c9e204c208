"""COCO instances hold outlines or run lengths, as CVAT ("COCO 1.0"), Label Studio and the service export them.

A photo without an annotation is not held to be corrected: exports list all photos of a project. A crowd region has its
class: CVAT calls every region of run lengths a crowd.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from app.inference.errors import DataError
from app.inference.label_maps.corrections import Correction
from app.inference.labels import BACKGROUND
from training.data import TaggedPhotos
from training.data.coco import Instances, photo_name, read_instances
from training.masks.corrections.drawn import Drawn, Row, known_label, known_photo
from training.masks.ground_truth import draw_region


def rows_of_coco_file(path: Path, photos: TaggedPhotos) -> list[Row]:
    """Return the annotated photos of the file. Raises DataError."""
    instances = read_instances(path)
    by_image: dict[Any, list[dict[str, Any]]] = {}
    for annotation in instances.annotations:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    annotated = [(image, by_image[image["id"]]) for image in instances.images if image["id"] in by_image]
    return [partial(read_one, instances, image, annotations, photos) for image, annotations in annotated]


def read_one(
    instances: Instances, image: dict[str, Any], annotations: list[dict[str, Any]], photos: TaggedPhotos
) -> Drawn:
    """Return what the annotations of a photo show; small regions lie on top of large ones. Raises DataError."""
    where = f"{instances.path.name} image {image['file_name']!r}"
    photo = known_photo(image["file_name"], photo_name(image), photos, where)
    try:
        height, width = int(image["height"]), int(image["width"])
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{where}: it states no height and width. Export it anew.") from None
    regions = []
    for annotation in annotations:
        label = known_label(instances.category(annotation), photos, where)
        try:
            regions.append((draw_region(annotation, height, width), label))
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
    mask = np.full((height, width), BACKGROUND, np.uint8)
    for region, label in sorted(regions, key=lambda entry: -entry[0].sum()):
        mask[region] = label
    return Drawn(where, mask, Correction(photo, source="coco"))
