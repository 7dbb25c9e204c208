"""Photo -> mask: what a segmenter answers, at one size or as the mean of several views. Training uses it as well."""

from dataclasses import dataclass

import numpy as np

from app.postprocess import mask_from_logits, resize_bilinear, softmax
from app.predict import Model
from app.preprocess import geometry_of, resize_image

TEST_SCALES = (0.75, 1.0, 1.25)  # of the preferred size, with their mirrors: a better and slower answer


@dataclass(frozen=True)
class Segmentation:
    """mask: uint8 (H, W) at the photo's size. scores: label -> mean softmax probability over the label's pixels."""

    mask: np.ndarray
    scores: dict[int, float]


def segment(
    model: Model,
    image: np.ndarray,
    size: tuple[int, int] | None = None,
    scales: tuple[float, ...] = (1.0,),
    flip: bool = False,
) -> Segmentation:
    """The mask of one uint8 (H, W, 3) photo at its own size, or at `size` (height, width) if decoded at reduced size.

    Of several views the probabilities are averaged; of one alone the mask is the network's own.
    """
    height, width = size or image.shape[:2]
    if scales == (1.0,) and not flip:
        outputs = run_views(model, image, 1.0, mirror=False)
        logits, mask = outputs["logits"][0].astype(np.float32, copy=False), outputs["mask"][0]
        probabilities = softmax(logits)
    else:
        logits = probabilities = segment_probabilities(model, image, scales, flip)
        geometry = geometry_of(image.shape, model.card.preferred_size)
        everything = np.arange(len(logits))
        mask = mask_from_logits(logits, everything, geometry.input_height, geometry.input_width)
    if mask.shape != (height, width):
        mask = mask_from_logits(logits, np.unique(mask), height, width)
    coarse = logits.argmax(axis=0)
    scores = {}
    for label in np.unique(mask):
        where = coarse == label
        region = probabilities[label]
        scores[int(label)] = float(region[where].mean() if where.any() else region.max())
    return Segmentation(mask, scores)


def segment_probabilities(model: Model, image: np.ndarray, scales: tuple[float, ...], flip: bool) -> np.ndarray:
    """Probabilities (C + 1, h, w) of a segmenter: the mean over all scales and, with `flip`, their mirrors.

    (h, w) is the size of the logits at the preferred size, where that is among the scales, else at the first.
    """
    views = []
    for scale in scales:
        logits = run_views(model, image, scale, flip)["logits"].astype(np.float32, copy=False)
        views.append(softmax(logits[0]))
        if flip:
            views[-1] = (views[-1] + softmax(logits[1])[:, :, ::-1]) / 2
    height, width = views[scales.index(1.0) if 1.0 in scales else 0].shape[1:]
    return np.mean([resize_bilinear(view, height, width) for view in views], axis=0)


def run_views(model: Model, image: np.ndarray, scale: float, mirror: bool) -> dict[str, np.ndarray]:
    """The network's outputs for one uint8 (H, W, 3) photo at `scale` times the preferred size, and for its mirror."""
    size = geometry_of(image.shape, model.card.preferred_size, scale)
    resized = resize_image(image, size.input_height, size.input_width)
    return model.run(np.stack([resized, resized[:, ::-1]]) if mirror else resized[None])
