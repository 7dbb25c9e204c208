"""The verb `pseudo-label`: maps -> label maps, written as indexed PNGs that the segmenter is trained on."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from app.inference.analysis import Analyzer, Options
from app.inference.arrays import drs_pseudo_label, resize_bilinear
from app.inference.errors import ConfigError, DataError
from app.inference.image.preprocess import resize_image
from app.inference.label_maps.pseudo_label import label_from_maps
from app.inference.labels import voc_palette
from app.inference.maps.localization import Model
from app.inference.maps.pamr import refine_pamr
from app.inference.whole_file import whole_file, write_whole
from training.config.run_config import RunConfig
from training.config.tables import PseudoLabelConfig
from training.data import TaggedPhotos, open_source
from training.data.source import read_grey
from training.label_rules.edam import edam_paper_pseudo_label, edam_pseudo_label, normalize_edam
from training.refinement.crf import refine_crf, smooth_edam
from training.refinement.grabcut import cut_labels
from training.stages.localize import StoredMaps, final_maps, iterate_maps

SUMMARY = "pseudo-label.json"  # written last: the folder is whole


def pseudo_label_run(config: RunConfig) -> Path:
    """Label every photo localized from the run's maps; write `pseudo_labels/NAME.png`."""
    out = config.out / "pseudo_labels"
    out.mkdir(parents=True, exist_ok=True)
    photos = open_source(config.data)
    names = photos.labelled_names()
    for name, stored in iterate_maps(final_maps(config), names, "pseudo-label"):
        image = photos.image(name)
        if config.pseudo_label.rule == "threshold":
            maps = blended_maps(config, name, stored, image.shape[:2])
            label_map = label_photo(image, maps, stored.class_indices, config.pseudo_label)
        else:
            label_map = label_salient(image, stored, saliency_of(config, name, image.shape[:2]), config)
        write_label_map(out / f"{name}.png", label_map)
    write_whole(out / SUMMARY, config.pseudo_label.model_dump_json(indent=1))
    return out


def pseudo_label_folder(
    model: Model, photos: TaggedPhotos, names: tuple[str, ...], out: Path, options: Options
) -> Path:
    """Label photos by their tags with an exported model: what the service's `/pseudo-label?tags=` answers."""
    out.mkdir(parents=True, exist_ok=True)
    for name in tqdm(names, desc="pseudo-label", unit="photo", mininterval=5):
        analyzer = Analyzer(replace(options, tags=photos.tags(name)), (model,))
        write_label_map(out / f"{name}.png", analyzer.look_at(photos.image(name)).pseudo_label.label_map)
    asked = {key: getattr(options, key) for key in ("background_threshold", "foreground_threshold", "refine")}
    write_whole(out / SUMMARY, json.dumps({"model": model.card.name, "version": model.card.version} | asked))
    return out


def label_photo(
    image: np.ndarray, maps: np.ndarray, class_indices: tuple[int, ...], config: PseudoLabelConfig
) -> np.ndarray:
    """uint8 (H, W) label map from maps (K, h, w), refined as configured, and thresholds."""
    background = config.background_threshold
    if config.refine == "grabcut":
        return cut_labels(image, maps, class_indices, background)
    foreground = background if config.foreground_threshold is None else config.foreground_threshold
    if config.refine == "crf" and class_indices:
        maps = refine_crf(image, resize_bilinear(maps, *image.shape[:2]), background)
    refine = "pamr" if config.refine == "pamr" else "none"
    return label_from_maps(image, maps, class_indices, (background, foreground), refine)


def blended_maps(config: RunConfig, name: str, stored: StoredMaps, size: tuple[int, int]) -> np.ndarray:
    """A photo's maps (K, h, w) with the share of saliency that the run gives it; `size` (H, W) is the photo's."""
    return blend_saliency(stored.maps(), saliency_of(config, name, size), config.pseudo_label.saliency_share)


def blend_saliency(maps: np.ndarray, saliency: np.ndarray | None, share: float) -> np.ndarray:
    """(1 - share) M + share S, with maps M (K, h, w) in [0, 1] and S the saliency, uint8 (H, W), over 255.

    The classes keep their order in every pixel; what is salient rises above what is not. No paper's rule: where maps peak
    on a part and saliency is an estimate, neither is a border to cut along, and their mean is better than either.
    """
    if not share or not len(maps):
        return maps
    highest = np.iinfo(np.uint8).max
    salient = resize_bilinear(saliency[None].astype(np.float32) / highest, *maps.shape[1:])
    return (1 - share) * maps + share * salient


def label_salient(image: np.ndarray, stored: StoredMaps, saliency: np.ndarray, config: RunConfig) -> np.ndarray:
    """uint8 (H, W) label map from maps and saliency uint8 (H, W), by the configured rule of a paper."""
    rule, class_indices, limit = config.pseudo_label, stored.class_indices, config.saliency.limit
    if rule.rule == "edam-paper":  # masks of untagged classes count as the background's: squares of a pixel sum to 1
        views = 2 * len(stored.views.cams) if config.localize.flip else len(stored.views.cams)
        masks = sum(resize_bilinear(cam, *image.shape[:2]) for cam in stored.views.cams) / views
        background = np.sqrt(np.clip(1 - np.square(masks).sum(axis=0), 0, 1))
        return edam_paper_pseudo_label(masks, background, class_indices, saliency, limit, rule.alpha, rule.beta)
    maps = stored.maps()
    if rule.refine == "pamr" and class_indices:
        maps = refine_pamr(resize_image(image, *maps.shape[1:]), maps)
    maps = resize_bilinear(maps, *image.shape[:2])
    if rule.rule == "drs":
        if rule.refine == "crf" and class_indices:
            maps = refine_crf(image, maps, rule.background_threshold)
        return drs_pseudo_label(maps, class_indices, saliency, rule.background_threshold, limit)
    maps = normalize_edam(maps)
    if rule.refine == "crf" and class_indices:
        maps = smooth_edam(image, maps)
    return edam_pseudo_label(maps, class_indices, saliency, limit, rule.alpha, rule.beta)


def saliency_folder(config: RunConfig) -> Path:
    """Where the run's saliency lies: the folder it names, or the one the stage `saliency` writes."""
    return config.saliency.folder or config.out / "saliency"


def saliency_of(config: RunConfig, name: str, size: tuple[int, int]) -> np.ndarray | None:
    """Saliency uint8 (H, W) of a photo of the run; None where its labels do not depend on it."""
    if not config.pseudo_label.reads_saliency:
        return None
    return read_saliency(saliency_folder(config) / f"{name}.png", size)


def read_saliency(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Saliency uint8 (H, W) of a photo. Raises DataError where it is missing or of another size."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; [saliency] names a folder with one grey PNG per photo")
    saliency = read_grey(path)
    if saliency.shape != size:
        raise DataError(f"{path} is {saliency.shape[::-1]} px (width, height), its photo {size[::-1]}: write it again")
    return saliency


def write_label_map(path: Path, label_map: np.ndarray) -> None:
    """Write labels as an indexed PNG with the VOC palette, whole or not at all."""
    if label_map.dtype != np.uint8:
        raise ConfigError(f"labels are uint8, not {label_map.dtype}")
    picture = Image.fromarray(label_map)
    picture.putpalette(voc_palette().ravel().tolist())
    with whole_file(path) as partial:
        picture.save(partial, format="PNG")
