"""What a service found, as numpy arrays, Pillow images and COCO documents."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

BACKGROUND, IGNORE = 0, 255  # the labels of a mask that are no class
CHANNELS = 3


@dataclass(frozen=True)
class ClassScore:
    """A class, how sure the model is that the photo shows it, and whether the photo is held to show it.

    It is where the score reaches the class's own threshold, or where the tags name it; the threshold is None with tags.
    """

    name: str
    score: float
    present: bool
    threshold: float | None = None


@dataclass(frozen=True)
class Mask:
    """A mask or a pseudo-label.

    labels: uint8 (H, W), 0 the background, 255 "ignore", else a class. names: label -> class, of those in the mask.
    scores: class -> score. reply: all that the service said, its run lengths included.
    """

    labels: np.ndarray = field(repr=False)
    names: Mapping[int, str]
    scores: Mapping[str, float]
    reply: Mapping[str, Any] = field(repr=False)
    file_name: str = "photo"

    @classmethod
    def of(cls, reply: Mapping[str, Any], file_name: str) -> "Mask":
        """Return the mask that a reply of `/segment` or `/pseudo-label` describes."""
        image, regions = reply["image"], reply["classes"]
        runs = [(region["label"], region["rle"]) for region in regions]
        if (ignored := (reply.get("ignore") or {}).get("rle")) is not None:
            runs.append((IGNORE, ignored))
        height, width = runs[0][1]["size"] if runs else (image["height"], image["width"])
        labels = np.full((height, width), BACKGROUND, np.uint8)
        for label, rle in runs:
            labels[_decode(rle)] = label
        names = {region["label"]: region["class"] for region in regions}
        return cls(labels, names, {region["class"]: region["score"] for region in regions}, reply, file_name)

    def region(self, name: str) -> np.ndarray:
        """Return where a class is, bool (H, W); nowhere for a class that the mask does not hold."""
        labels = [label for label, each in self.names.items() if each == name]
        return np.isin(self.labels, labels)

    def to_pillow(self) -> Image.Image:
        """Return the mask as an indexed picture with PASCAL VOC's palette, as the service's PNG is."""
        picture = Image.fromarray(self.labels)
        picture.putpalette(_voc_palette())
        return picture

    def to_coco(self) -> dict[str, Any]:
        """Return the mask as a COCO data set of one photo, which `pycocotools.coco.COCO` reads."""
        height, width = self.labels.shape
        annotations = [
            {
                "id": number,
                "image_id": 1,
                "category_id": region["label"],
                "segmentation": region["rle"],
                "bbox": region["box"],
                "area": region["pixels"],
                "iscrowd": 0,
                "score": region["score"],
            }
            for number, region in enumerate(self.reply["classes"], 1)
        ]
        return {
            "info": {"model": self.reply["model"]},
            "images": [{"id": 1, "file_name": self.file_name, "height": height, "width": width}],
            "annotations": annotations,
            "categories": [{"id": label, "name": name} for label, name in sorted(self.names.items())],
        }


@dataclass(frozen=True)
class Heatmap:
    """Where a model looks for one class: `values` is float32 (H, W) in [0, 1]."""

    class_name: str
    score: float
    values: np.ndarray = field(repr=False)
    model: str

    def to_pillow(self) -> Image.Image:
        """Return the map as an 8-bit grey picture."""
        return Image.fromarray((self.values.clip(0, 1) * np.iinfo(np.uint8).max).round().astype(np.uint8))


@dataclass(frozen=True)
class Analysis:
    """It holds all results of a photo: scores of all classes, the pseudo-label, and the mask where a segmenter is served."""

    scores: tuple[ClassScore, ...]
    pseudo_label: Mask
    mask: Mask | None
    reply: Mapping[str, Any] = field(repr=False)


def scores_of(reply: Mapping[str, Any]) -> tuple[ClassScore, ...]:
    """Return the scores in a reply of `/cam?class=all`."""
    return tuple(
        ClassScore(each["class"], each["score"], each["present"], each["presence_threshold"])
        for each in reply["classes"]
    )


def _decode(rle: Mapping[str, Any]) -> np.ndarray:
    return coco_mask.decode({"size": rle["size"], "counts": rle["counts"].encode()}).astype(bool)


def _voc_palette() -> bytes:
    """Return PASCAL VOC's colours: the bits of a label, three at a time, are the highest bits of red, green and blue."""
    labels, colours = np.arange(256), np.zeros((256, CHANNELS), np.uint8)
    for bit in range(8):
        for channel in range(CHANNELS):
            colours[:, channel] |= ((labels >> channel & 1) << (7 - bit)).astype(np.uint8)
        labels >>= CHANNELS
    return colours.tobytes()
