"""Refinements of maps that need more than numpy: the dense CRF (extra `crf`). PAMR is in `app.pamr`."""

import numpy as np

from app.errors import ConfigError


def refine_crf(
    image: np.ndarray,
    maps: np.ndarray,
    background_threshold: float,
    iterations: int = 10,
    gaussian: tuple[float, float] = (3.0, 3.0),
    bilateral: tuple[float, float, float] = (10.0, 80.0, 13.0),
) -> np.ndarray:
    """Dense conditional random field on maps (Krahenbuhl and Koltun, NIPS 2011), with the settings of PSA.

    Args:
        image: uint8 (H, W, 3).
        maps: (K, H, W) in [0, 1].
        background_threshold: the constant background score the maps are weighed against.
        gaussian: weight and sigma in px of the smoothness term.
        bilateral: weight, sigma in px and sigma in colour of the appearance term.

    Returns:
        float32 (K, H, W): maps for which `map > background_threshold` and arg-max give the CRF's labels.
    """
    try:
        import pydensecrf.densecrf as dcrf
        from pydensecrf.utils import unary_from_softmax
    except ImportError:
        raise ConfigError('refine = "crf" needs the extra `crf`: pip install ".[crf]" in the checkout') from None
    height, width = image.shape[:2]
    scores = np.concatenate([np.full((1, height, width), background_threshold, np.float32), maps])
    probabilities = np.clip(scores / scores.sum(axis=0, keepdims=True), 1e-5, 1)
    field = dcrf.DenseCRF2D(width, height, len(scores))
    field.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(probabilities)))
    field.addPairwiseGaussian(sxy=gaussian[1], compat=gaussian[0])
    field.addPairwiseBilateral(
        sxy=bilateral[1], srgb=bilateral[2], rgbim=np.ascontiguousarray(image), compat=bilateral[0]
    )
    result = np.array(field.inference(iterations)).reshape(len(scores), height, width)
    foreground = result[1:] / (result[1:] + result[:1] + 1e-12)  # over the background alone
    return _rescale(foreground, background_threshold)


def _rescale(share: np.ndarray, threshold: float) -> np.ndarray:
    """Map [0, 1] to itself so that one half lands on `threshold`, piecewise linearly and increasingly."""
    low = share * 2 * threshold
    high = threshold + (share - 0.5) * 2 * (1 - threshold)
    return np.where(share <= 0.5, low, high).astype(np.float32)
