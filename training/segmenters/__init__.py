"""Segmenters: photo -> logits per pixel. One file each, one entry here."""

from training.segmenters.deeplabv2 import DeepLabV2
from training.segmenters.deeplabv3 import DeepLabV3
from training.segmenters.deeplabv3plus import DeepLabV3Plus
from training.segmenters.recognizer import Recognizer
from training.segmenters.segmenter import Segmenter, SegmenterOptions

SEGMENTERS: dict[str, type[Segmenter]] = {
    "deeplabv2": DeepLabV2,
    "deeplabv3": DeepLabV3,
    "deeplabv3plus": DeepLabV3Plus,
}

__all__ = ["SEGMENTERS", "Recognizer", "Segmenter", "SegmenterOptions"]
