"""Graph cuts on a photo's own colours make labels, started from class maps.

Rother, Kolmogorov and Blake, "GrabCut: Interactive Foreground Extraction using Iterated Graph Cuts", SIGGRAPH 2004,
https://doi.org/10.1145/1186562.1015720. OpenCV's `grabCut` (extra `saliency`) fits a mixture of five Gaussians to the
colours of the things and one to those of the background, and cuts the photo where the colours part and an edge lies. In the
place of a person's rectangle stand the maps after PAMR; with m the greatest of a pixel's maps:

    m > SURE                things, fixed
    m > threshold           probably things
    m > DOUBT               probably background
    the rest                background, fixed

A cut of a small photo sees large regions of one colour, a cut of a larger one thin parts: the photo is cut at every size of
`SIZES`, and a pixel is a thing where most cuts say so. Its class is the one whose map is greatest there. No paper of
weakly supervised segmentation here takes this step; they use a dense CRF in its place.
"""

import numpy as np

from app.inference.arrays import resize_bilinear
from app.inference.labels import BACKGROUND, label_of
from app.inference.maps.pamr import refine_pamr
from training.smoothing.opencv import load_opencv

# Photos have these long sides in px; on 114 photos 160 alone gave labels as good on the mean, and less steady ones.
SIZES = (96, 128, 160)
DOUBT, SURE = 0.05, 0.6  # These bound maps in [0, 1]; (0.1, 0.5) and (0.15, 0.7) gave worse labels, by 1 to 3 points.
# A segmenter's own masks are refined at these long sides in px: they are sharper than maps, and a smaller photo costs them detail.
OWN_SIZES = (160, 240)
ITERATIONS = 1  # Colours are fitted and cuts made this many times; three gave the same labels.

Views = list[tuple[np.ndarray, np.ndarray]]  # A photo at several sizes, each with the maps refined at that size.


def cut_labels(image: np.ndarray, maps: np.ndarray, class_indices: tuple[int, ...], threshold: float) -> np.ndarray:
    """Return the labels of a photo, uint8 (H, W), from its maps.

    Args:
        image: uint8 (H, W, 3).
        maps: (K, h, w) in [0, 1] of the classes present.
        class_indices: the classes of the maps.
        threshold: above which a map probably shows a thing.

    Raises:
        ConfigError: OpenCV is not installed.
    """
    if not class_indices:
        return np.full(image.shape[:2], BACKGROUND, np.uint8)
    views = small_views(image, maps)
    return name_things(votes_of_cuts(views, threshold, image.shape[:2]), enlarge(views, image.shape[:2]), class_indices)


def join_labels(
    image: np.ndarray,
    maps: np.ndarray,
    probabilities: np.ndarray,
    class_indices: tuple[int, ...],
    threshold: float,
    shares: np.ndarray,
) -> np.ndarray:
    """Return the labels of a photo, uint8 (H, W), from the cuts that its maps start and from a segmenter.

    A pixel's class is the one whose (1 - s) M + s Q is greatest, with M the maps after PAMR, Q the mean of `probabilities`
    (K, h, w) as they are and after PAMR, and s the class's of `shares` (K,). It is a thing where (1 - s) V + s P is above one
    half, with s that of its class, V the share of the cuts that say so and P the sum of Q. The rest is as in `cut_labels`.
    """
    if not class_indices:
        return np.full(image.shape[:2], BACKGROUND, np.uint8)
    size = image.shape[:2]
    views = small_views(image, maps)
    own, said = smoothed_masks(image, probabilities), shares[:, None, None]
    scores = (1 - said) * enlarge(views, size) + said * own
    share = shares[scores.argmax(axis=0)]
    things = (1 - share) * votes_of_cuts(views, threshold, size) + share * own.sum(axis=0)
    return name_things(things, scores, class_indices)


def mask_labels(image: np.ndarray, probabilities: np.ndarray, class_indices: tuple[int, ...]) -> np.ndarray:
    """Return the labels of a photo, uint8 (H, W), by the segmenter of `join_labels` alone."""
    if not class_indices:
        return np.full(image.shape[:2], BACKGROUND, np.uint8)
    own = smoothed_masks(image, probabilities)
    return name_things(own.sum(axis=0), own, class_indices)


def smoothed_masks(image: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return a segmenter's probabilities (K, h, w) at the photo's size, (K, H, W): the mean of them as they are and after PAMR."""
    size = image.shape[:2]
    refined = enlarge(small_views(image, probabilities, OWN_SIZES), size)
    return (resize_bilinear(probabilities, *size) + refined) / 2


def small_views(image: np.ndarray, maps: np.ndarray, sizes: tuple[int, ...] = SIZES) -> Views:
    """Return the photo at each long side of `sizes` with the maps (K, h, w) after PAMR at that size."""
    views = [shrink(image, long_side) for long_side in sizes]
    return [(view, refine_pamr(view, resize_bilinear(maps, *view.shape[:2]))) for view in views]


def votes_of_cuts(views: Views, threshold: float, size: tuple[int, int]) -> np.ndarray:
    """Return the share of the cuts, one for each view, that see a thing in a pixel of a photo of `size`: in [0, 1]."""
    things = [cut(view, refined.max(axis=0), threshold).astype(np.float32) for view, refined in views]
    return np.mean([resize_bilinear(seen[None], *size)[0] for seen in things], axis=0)


def enlarge(views: Views, size: tuple[int, int]) -> np.ndarray:
    """Return the refined maps of the views, averaged at `size`: (K, H, W)."""
    return np.mean([resize_bilinear(refined, *size) for _, refined in views], axis=0)


def name_things(things: np.ndarray, scores: np.ndarray, class_indices: tuple[int, ...]) -> np.ndarray:
    """Return labels uint8 (H, W): the class of the greatest score (K, H, W) where `things` (H, W) is above one half."""
    winners = label_of(np.asarray(class_indices, int)).astype(np.uint8)[scores.argmax(axis=0)]
    return np.where(things > 0.5, winners, BACKGROUND).astype(np.uint8)


def shrink(image: np.ndarray, long_side: int) -> np.ndarray:
    """Return a photo uint8 (H, W, 3) at a long side of so many px."""
    height, width = image.shape[:2]
    scale = long_side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    opencv = load_opencv()
    return opencv.resize(image, size, interpolation=opencv.INTER_AREA)


def cut(image: np.ndarray, greatest: np.ndarray, threshold: float) -> np.ndarray:
    """Return where one cut sees things: bool (h, w).

    Args:
        image: uint8 (h, w, 3).
        greatest: the greatest of a pixel's maps, (h, w) in [0, 1].
        threshold: see `cut_labels`.
    """
    opencv = load_opencv()
    trimap = np.full(greatest.shape, opencv.GC_PR_BGD, np.uint8)
    trimap[greatest > threshold] = opencv.GC_PR_FGD
    trimap[greatest > SURE] = opencv.GC_FGD
    trimap[greatest <= min(DOUBT, threshold)] = opencv.GC_BGD
    things = (trimap == opencv.GC_FGD) | (trimap == opencv.GC_PR_FGD)
    if things.all() or not things.any():  # One colour model would have no pixel to learn from.
        return things
    models = np.zeros((1, 65)), np.zeros((1, 65))
    opencv.setRNGSeed(0)  # The mixtures start by k-means with random centres.
    opencv.grabCut(np.ascontiguousarray(image), trimap, None, *models, ITERATIONS, opencv.GC_INIT_WITH_MASK)
    return (trimap == opencv.GC_FGD) | (trimap == opencv.GC_PR_FGD)
