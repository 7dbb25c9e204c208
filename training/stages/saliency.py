"""The verb `saliency` writes an unsupervised estimate of what stands out in every photo, as grey PNGs.

No estimate is trained, and none reads a tag or a mask. The library is OpenCV with its contributed modules (extra
`saliency`); an estimator gives a map of any scale, which is stretched per photo so that its least value becomes 0 and its
greatest 255. The limits of the papers (DRS: salient above 50, EDAM: above 20) apply to that.

"robust-background" (the default): Zhu, Liang, Wei and Sun, "Saliency Optimization from Robust Background Detection",
CVPR 2014, pages 2814 to 2821. Background is what a photo's border shows; it grew out of the boundary
prior of Wei, Wen, Zhu and Sun, "Geodesic Saliency Using Background Priors", ECCV 2012. Over SLIC superpixels p:

    d(p, q)        distance of mean colours in CIELAB                                          `colour_distance`
    d_geo(p, q)    shortest path over neighbours; all border superpixels are neighbours        `path_length`
    S(p, q)      = exp(-d_geo^2 / 2 sigma^2), sigma = 10                                       `alike`
    BndCon(p)    = sum over border q of S(p, q) / sqrt(sum over all q of S(p, q))              `border_connectivity`
    w_bg(p)      = 1 - exp(-BndCon^2 / 2)                                                      `background`
    wCtr(p)      = sum over q of d(p, q) exp(-|p - q|^2 / 2 sigma_spa^2) w_bg(q), sigma_spa = 0.25    `contrast`
    minimise over s:  sum w_bg s^2 + sum wCtr (s - 1)^2 + sum w_pq (s_p - s_q)^2,  w_pq = exp(-d^2 / 2 sigma^2) + 0.1

Steps of a path are shortened by the mean distance of a superpixel to its nearest neighbour, as Wei et al. do. Of wCtr
the greatest value is 1. The authors' code was not consulted.

"spectral-residual": Hou and Zhang, "Saliency Detection: A Spectral Residual Approach", CVPR 2007. "fine-grained":
Montabone and Soto, "Human Detection Using a Mobile Platform and Novel Features Derived from a Visual Saliency Mechanism",
Image and Vision Computing 2010. Both are OpenCV's, and show edges and corners rather than whole objects; a Gaussian of 4 %
of the photo's long side is laid over them.

How good they are, on 341 VOC photos with masks (IoU in % of what lies above a threshold with all objects together; mean
absolute error on the scale 0..1). The networks that the papers take saliency from are trained on masks
of salient objects; none of them is measured here.

                       best threshold    above 20    above 50    error
    everything                   29.4        29.4        29.4    0.706
    a centred blob               36.9        31.6        35.6    0.348
    spectral-residual            31.4        31.4        29.3    0.351
    fine-grained                 33.4        31.2        33.3    0.391
    robust-background            41.7        38.3        41.3    0.279

"exact" is no estimate: the things themselves, of generated scenes only.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from app.inference.arrays import resize_bilinear
from app.inference.errors import ConfigError
from app.inference.files.whole_file import write_whole
from app.inference.image.encode import UP, png_file
from app.inference.spelling import nearest_name
from training.data import DataConfig, TaggedPhotos
from training.data.scenes import exact_saliency
from training.smoothing.opencv import load_opencv

DEFAULT_METHOD = "robust-background"
EXACT = "exact"
ORIGIN = "saliency.json"  # This file lies beside a folder's maps and says what they were made from.
WORKING_SIZE = 320  # Estimators see a photo at this long side in px.
SMOOTHING = 0.04 * WORKING_SIZE  # OpenCV's own estimators are smoothed with this sigma in px.
SUPERPIXELS = 200
SIGMA_COLOUR, SIGMA_SPACE = 10.0, 0.25  # The first is in CIELAB, the second a share of the long side.
LEAST_COUPLING = 0.1  # w_pq is at least this, mu in the paper.
WHITE = 255  # An 8-bit pixel is white at this value.


def write_saliency(data: DataConfig, photos: TaggedPhotos, out: Path, method: str = DEFAULT_METHOD) -> Path:
    """Write NAME.png (uint8 grey, of the photo's size) for every photo of every split; those there already are kept.

    Raises ConfigError for a method that is unknown, not installed or not allowed, and where `out` holds other maps.
    """
    make_map = choose_method(method, data, photos)
    claim_folder(out, {"method": method, **data.model_dump(mode="json", include={"source", "root", "scenes"})})
    for split, names in photos.splits.items():
        for name in tqdm(names, desc=f"saliency {split}", unit="photo", mininterval=5):
            path = out / f"{name}.png"
            if not path.is_file():
                saliency = make_map(name)
                write_whole(path, png_file(saliency, UP))
    return out


def choose_method(method: str, data: DataConfig, photos: TaggedPhotos) -> Callable[[str], np.ndarray]:
    """Return the function name -> uint8 (H, W) that a method stands for."""
    check_method(method, data)
    if method == EXACT:
        return functools.partial(exact_saliency, data.scenes)
    return lambda name: estimate_photo(photos.image(name), method)


def check_method(method: str, data: DataConfig) -> None:
    """Raise ConfigError for a method that is unknown, not installed, or not allowed on this data."""
    if method == EXACT:
        if data.source != "scenes":
            raise ConfigError(
                f'saliency {EXACT!r} is drawn for generated scenes (source = "scenes"); this data is {data.source!r}, and '
                f"nothing reads the masks of photos to train on. Take one of: {', '.join(ESTIMATORS)}"
            )
        return
    if method not in ESTIMATORS:
        nearest = nearest_name(method, ESTIMATORS)
        hint = f" (nearest: {nearest!r})" if nearest else ""
        raise ConfigError(f"unknown saliency {method!r}{hint}; known are: {', '.join((*ESTIMATORS, EXACT))}")
    load_opencv()


def claim_folder(out: Path, origin: dict[str, object]) -> None:
    """Note where the maps of a folder come from. Raises ConfigError where it holds maps of another origin."""
    path = out / ORIGIN
    noted = json.loads(path.read_text()) if path.is_file() else None
    if noted != origin and (noted is not None or any(out.glob("*.png"))):
        made = f"made by {noted['method']!r} of {noted['root'] or noted['source']}" if noted else "of unknown origin"
        raise ConfigError(f"{out} holds saliency {made}; name another folder, or remove this one to start afresh")
    write_whole(path, json.dumps(origin, indent=1))


def estimate_photo(image: np.ndarray, method: str = DEFAULT_METHOD) -> np.ndarray:
    """Return the saliency, uint8 (H, W) stretched to 0..255, of a photo, uint8 RGB (H, W, 3); 0 everywhere on a plain photo."""
    height, width = image.shape[:2]
    scale = WORKING_SIZE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    view = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    estimate = resize_bilinear(ESTIMATORS[method](view)[None].astype(np.float32), height, width)[0]
    estimate -= estimate.min()
    return np.round(WHITE * estimate / max(estimate.max(), 1e-6)).astype(np.uint8)


def spectral_residual(image: np.ndarray) -> np.ndarray:
    """Estimate as Hou and Zhang do: what the logarithmic spectrum of a photo has beyond its own local mean."""
    cv2 = load_opencv()
    return _smoothed(image, cv2.saliency.StaticSaliencySpectralResidual_create())


def fine_grained(image: np.ndarray) -> np.ndarray:
    """Estimate as Montabone and Soto do: centre-surround differences of brightness at many scales, from integral images."""
    cv2 = load_opencv()
    return _smoothed(image, cv2.saliency.StaticSaliencyFineGrained_create())


def _smoothed(image: np.ndarray, estimator) -> np.ndarray:
    cv2 = load_opencv()
    _, saliency = estimator.computeSaliency(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return cv2.GaussianBlur(saliency.astype(np.float32), (0, 0), SMOOTHING)


def robust_background(image: np.ndarray) -> np.ndarray:
    """Estimate as Zhu et al. do: photo uint8 (H, W, 3) -> saliency (H, W) in [0, 1], constant on each of P superpixels."""
    regions, colours, centres = cut_superpixels(image)
    count = len(colours)
    border = np.zeros(count, bool)
    border[np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])] = True
    touching = border[:, None] & border  # (P, P)
    for one, other in ((regions[1:], regions[:-1]), (regions[:, 1:], regions[:, :-1])):
        touching[one, other] = touching[other, one] = True
    np.fill_diagonal(touching, False)
    colour_distance = np.linalg.norm(colours[:, None] - colours, axis=2)
    distance = np.linalg.norm(centres[:, None] - centres, axis=2)

    steps = np.where(touching, colour_distance, np.inf)
    alike = _bell(
        path_length(np.where(touching, np.maximum(0, steps - steps.min(axis=1).mean()), np.inf)), SIGMA_COLOUR
    )
    border_connectivity = alike[:, border].sum(axis=1) / np.sqrt(alike.sum(axis=1))
    background = 1 - _bell(border_connectivity, 1)
    contrast = (colour_distance * _bell(distance, SIGMA_SPACE)) @ background
    contrast /= max(contrast.max(), 1e-6)
    coupling = np.where(touching, _bell(colour_distance, SIGMA_COLOUR) + LEAST_COUPLING, 0)
    system = np.diag(coupling.sum(axis=1) + background + contrast) - coupling
    return np.linalg.solve(system, contrast)[regions]


def cut_superpixels(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut by SLIC: regions (H, W), the index of each pixel's superpixel; mean CIELAB (P, 3); centres y, x (P, 2), long side 1."""
    cv2 = load_opencv()
    height, width = image.shape[:2]
    lab = cv2.cvtColor(image.astype(np.float32) / WHITE, cv2.COLOR_RGB2LAB)
    side = max(2, round((height * width / SUPERPIXELS) ** 0.5))
    slic = cv2.ximgproc.createSuperpixelSLIC(lab, cv2.ximgproc.SLIC, side)
    slic.iterate()
    slic.enforceLabelConnectivity()
    regions = slic.getLabels()
    planes = np.concatenate([lab, np.moveaxis(np.indices((height, width)), 0, 2) / max(height, width)], axis=2)
    sums = np.stack([np.bincount(regions.ravel(), plane.ravel()) for plane in np.moveaxis(planes, 2, 0)], axis=1)
    means = sums / np.bincount(regions.ravel())[:, None]
    return regions, means[:, :3], means[:, 3:]


def path_length(steps: np.ndarray) -> np.ndarray:
    """Measure as Floyd and Warshall do: lengths of steps (P, P), infinite where there is none -> lengths of shortest paths (P, P)."""
    lengths = steps.copy()
    np.fill_diagonal(lengths, 0)
    for via in range(len(lengths)):
        np.minimum(lengths, lengths[:, via, None] + lengths[via], out=lengths)
    return lengths


def _bell(value: np.ndarray, sigma: float) -> np.ndarray:
    return np.exp(-(value**2) / (2 * sigma**2))


ESTIMATORS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "robust-background": robust_background,
    "fine-grained": fine_grained,
    "spectral-residual": spectral_residual,
}
