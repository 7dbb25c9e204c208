"""The dense CRF (extra `crf`) refines maps, labels and probabilities; PAMR, which needs numpy alone, is in `app.inference.maps.pamr`.

Krahenbuhl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", NIPS 2011,
https://arxiv.org/abs/1210.5644. Everywhere `gaussian` is the smoothness term, (weight, sigma in px), and `bilateral` the
appearance term, (weight, sigma in px, sigma in colour of 0..255).
"""

import numpy as np

from app.inference.errors import ConfigError

LEAST_PROBABILITY = 1e-5
SMOOTHNESS = (3.0, 3.0)  # It is `gaussian` of PSA, IRN and EDAM.
PSA_APPEARANCE = (10.0, 80.0, 13.0)  # It is `bilateral`, EDAM's too.


def dense_field(
    image: np.ndarray,
    probabilities: np.ndarray,
    iterations: int,
    gaussian: tuple[float, float],
    bilateral: tuple[float, float, float],
) -> np.ndarray:
    """Run mean-field inference in a dense CRF whose unary term is -log of the probabilities.

    Args:
        image: uint8 (H, W, 3).
        probabilities: (L, H, W) in [0, 1]; values below 1e-5 count as that.

    Returns:
        float32 (L, H, W), the marginals; over L they sum to 1. Raises ConfigError where the extra `crf` is missing.
    """
    try:
        from pydensecrf.densecrf import DenseCRF2D
    except ImportError:
        raise ConfigError('the dense CRF needs the extra `crf`: pip install ".[crf]" in the checkout') from None
    count, height, width = probabilities.shape
    energy = -np.log(np.clip(probabilities, LEAST_PROBABILITY, 1)).astype(np.float32)
    field = DenseCRF2D(width, height, count)
    field.setUnaryEnergy(np.ascontiguousarray(energy.reshape(count, -1)))
    field.addPairwiseGaussian(sxy=gaussian[1], compat=gaussian[0])
    picture = np.ascontiguousarray(image)
    field.addPairwiseBilateral(sxy=bilateral[1], srgb=bilateral[2], rgbim=picture, compat=bilateral[0])
    return np.array(field.inference(iterations)).reshape(count, height, width)


def refine_crf(image: np.ndarray, maps: np.ndarray, background_threshold: float) -> np.ndarray:
    """Apply the dense CRF to maps, with the settings of PSA.

    Args:
        image: uint8 (H, W, 3).
        maps: (K, H, W) in [0, 1].
        background_threshold: the constant background score the maps are weighed against.

    Returns:
        float32 (K, H, W): maps for which `map > background_threshold` and arg-max give the CRF's labels.
    """
    scores = np.concatenate([np.full((1, *image.shape[:2]), background_threshold, np.float32), maps])
    result = dense_field(image, scores / scores.sum(axis=0, keepdims=True), 10, SMOOTHNESS, PSA_APPEARANCE)
    foreground = result[1:] / (result[1:] + result[:1] + 1e-12)  # It goes over the background alone.
    return _rescale(foreground, background_threshold)


def crf_labels(image: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the labels of the dense CRF on a segmenter's probabilities, with the settings of DeepLab-v2 as the papers measure it.

    Args:
        image: uint8 (H, W, 3).
        probabilities: (C + 1, H, W), softmax of the logits at the image's size, background first.

    Returns:
        uint8 (H, W) labels.
    """
    return dense_field(image, probabilities, 10, (3.0, 1.0), (4.0, 67.0, 3.0)).argmax(axis=0).astype(np.uint8)


def _rescale(share: np.ndarray, threshold: float) -> np.ndarray:
    """Map [0, 1] to itself so that one half lands on `threshold`, piecewise linearly and increasingly."""
    low = share * 2 * threshold
    high = threshold + (share - 0.5) * 2 * (1 - threshold)
    return np.where(share <= 0.5, low, high).astype(np.float32)
