"""The maps of several scales and of mirrored views are joined as IRN's make_cam.py does (AMR's repository, de39168)."""

from collections.abc import Iterator, Sequence

import numpy as np

from app.inference.maps.localization import ScaleCams, scale_cams
from app.inference.model_card import ModelCard
from training.authors.parity.reference import Claim, Claims, Reference

MODULE = 1e-5
SCALES = (1.0, 0.5, 1.5, 2.0)
SIZE = (96, 128)


class StoredModel:
    """It gives stored cams (2, C, h, w), of a photo and its mirror image, one after the other for each scale."""

    def __init__(self, cams: Sequence[np.ndarray], preferred_size: int) -> None:
        classes = tuple(f"class {index}" for index in range(cams[0].shape[1]))
        self.card = ModelCard(
            name="stored", version=1, task="cam", method="cam", paper="", backbone="", classes=classes, output_stride=16,
            preferred_size=preferred_size, scales=SCALES, flip=True, presence_thresholds=(0.5,) * len(classes), data="",
            data_licence="",
        )  # fmt: skip
        self._cams: Iterator[np.ndarray] = iter(cams)

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the next cams, whatever the images; scores of zero."""
        cam = next(self._cams)
        return {"cam": cam, "scores": np.zeros(cam.shape[:2], np.float32)}


def join(cams: Sequence[np.ndarray], size: tuple[int, int]) -> ScaleCams:
    """Return what prediction makes of the cams of a photo of `size` (H, W) at four scales."""
    return scale_cams(StoredModel(cams, max(size)), np.zeros((*size, 3), np.uint8))


def cam_scales(reference: Reference) -> Claims:
    """Claim the localization maps of class maps of four scales before their ReLU; the third class is all but absent."""
    cams = [np.maximum(reference.input(f"raw{index}"), 0) for index in range(len(SCALES))]
    yield Claim("high_res_s2", join(cams, SIZE).maps()[:, ::2, ::2], MODULE)
