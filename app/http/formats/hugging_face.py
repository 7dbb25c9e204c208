"""Hugging Face's image segmentation is a format: [{label, score, mask}], largest region first, masks as base64 of a 0/255 grey PNG.

https://huggingface.co/docs/api-inference/tasks/image-segmentation
"""

import base64
import json
from collections.abc import Iterable

import numpy as np

from app.http.formats.format import Format, Maps, Mask
from app.inference.image.encode import labels_to_gray8
from app.inference.label_maps.regions import regions_in, white
from app.inference.labels import class_index_of


def mask_segments(result: Mask) -> bytes:
    """Return the classes of a label map."""
    found, scores = regions_in(result.mask), result.scores()
    return segments((result.classes[class_index_of(label)], scores[label], where) for label, where in found)


def map_segments(result: Maps) -> bytes:
    """Return where each map exceeds the threshold, in the order of the classes."""
    return segments((result.classes[index], float(result.scores[index]), where) for index, where in result.found())


def segments(found: Iterable[tuple[str, float, np.ndarray]]) -> bytes:
    """Return the list, of (class name, score, bool (H, W))."""
    entries = []
    for name, score, where in found:
        mask = base64.b64encode(labels_to_gray8(white(where))).decode("ascii")
        entries.append({"label": name, "score": score, "mask": mask})
    return json.dumps(entries).encode()


HUGGING_FACE = Format(
    "hf", "application/json", mask=mask_segments, map=map_segments, maps=map_segments, of_present=True
)
