"""The verb `pseudo-label`: maps -> label maps, written as indexed PNGs that the segmenter is trained on."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from app.decode import DECODER_ERRORS
from app.errors import ConfigError, DataError
from app.labels import voc_palette
from app.postprocess import drs_pseudo_label, resize_bilinear
from app.predict import LabelRule, Model, label_from_maps, predict_pseudo_label
from training.config import PseudoLabelConfig, RunConfig
from training.data import TaggedPhotos, open_source
from training.localize import iterate_cams
from training.refine import refine_crf

SUMMARY = "pseudo-label.json"  # written last: the folder is whole


def pseudo_label_run(config: RunConfig) -> Path:
    """Label every photo of `train` and `val` from the run's cams; write `pseudo_labels/NAME.png`."""
    out = config.out / "pseudo_labels"
    out.mkdir(parents=True, exist_ok=True)
    photos = open_source(config.data)
    names = photos.names("train") + photos.names("val")
    for name, stored in tqdm(
        iterate_cams(config.out / "cams", names), total=len(names), desc="pseudo-label", unit="photo", mininterval=5
    ):
        label_map = label_photo(
            photos.image(name), stored.views.maps(), stored.class_indices, config.pseudo_label, name
        )
        write_label_map(out / f"{name}.png", label_map)
    (out / SUMMARY).write_text(config.pseudo_label.model_dump_json(indent=1))
    return out


def pseudo_label_folder(model: Model, photos: TaggedPhotos, names: tuple[str, ...], out: Path, rule: LabelRule) -> Path:
    """Label photos by their tags with an exported model: what the service's `/pseudo-label?tags=` answers."""
    out.mkdir(parents=True, exist_ok=True)
    for name in tqdm(names, desc="pseudo-label", unit="photo", mininterval=5):
        result = predict_pseudo_label(model, photos.image(name), rule, tags=photos.tags(name))
        write_label_map(out / f"{name}.png", result.label_map)
    (out / SUMMARY).write_text(json.dumps({"model": model.card.name, "version": model.card.version} | vars(rule)))
    return out


def label_photo(
    image: np.ndarray, maps: np.ndarray, class_indices: tuple[int, ...], config: PseudoLabelConfig, name: str
) -> np.ndarray:
    """uint8 (H, W) label map from maps (K, h, w) by the configured rule: thresholds, or DRS with saliency."""
    background = config.background_threshold
    foreground = background if config.foreground_threshold is None else config.foreground_threshold
    if config.saliency is not None:
        saliency = read_saliency(config.saliency / f"{name}.png", image.shape[:2])
        enlarged = resize_bilinear(maps, *image.shape[:2])
        return drs_pseudo_label(enlarged, class_indices, saliency, threshold=background)
    if config.refine == "crf" and class_indices:
        maps = refine_crf(image, resize_bilinear(maps, *image.shape[:2]), background)
    refine = "pamr" if config.refine == "pamr" else "none"
    return label_from_maps(image, maps, class_indices, (background, foreground), refine)


def read_saliency(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Saliency uint8 (H, W) of a photo. Raises DataError where it is missing or of another size."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; [pseudo_label] saliency names a folder with one grey PNG per photo")
    try:
        with Image.open(path) as stored:
            saliency = np.asarray(stored.convert("L"))
    except DECODER_ERRORS as error:
        raise DataError(f"saliency {path} cannot be read ({error}); write it again") from None
    if saliency.shape != size:
        raise DataError(f"{path} is {saliency.shape[::-1]} px (width, height), its photo {size[::-1]}: write it again")
    return saliency


def write_label_map(path: Path, label_map: np.ndarray) -> None:
    """Write labels as an indexed PNG with the VOC palette, whole or not at all."""
    if label_map.dtype != np.uint8:
        raise ConfigError(f"labels are uint8, not {label_map.dtype}")
    picture = Image.fromarray(label_map)
    picture.putpalette(voc_palette().ravel().tolist())
    partial = path.with_suffix(".partial")
    picture.save(partial, format="PNG")
    partial.replace(path)
