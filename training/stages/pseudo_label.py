"""The verb `pseudo-label` makes label maps of maps, written as indexed PNGs that the segmenter is trained on."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from app.inference.analysis import Analyzer
from app.inference.arrays import resize_bilinear
from app.inference.errors import ConfigError, DataError
from app.inference.files.whole_file import write_whole
from app.inference.image.encode import mask_to_png
from app.inference.maps.localization import Model
from app.inference.options import Options
from training.config.run_config import RunConfig
from training.config.tables import PseudoLabelConfig
from training.data import TaggedPhotos
from training.data.source import read_grey
from training.label_rules import RULES, PhotoMaps
from training.stages.localize import StoredMaps, final_maps, iterate_maps
from training.stages.shard import WHOLE, Shard

SUMMARY = "pseudo-label.json"  # It says how the labels were made, and is written after them.


def pseudo_label_run(config: RunConfig, photos: TaggedPhotos, shard: Shard = WHOLE) -> Path:
    """Label every photo localized from the run's maps, or a shard of them, where there is no label yet; write
    `pseudo_labels/NAME.png`.
    """
    out = config.out / "pseudo_labels"
    names = tuple(name for name in shard.of(photos.labelled_names()) if not (out / f"{name}.png").is_file())
    for name, stored in iterate_maps(final_maps(config), names, "pseudo-label"):
        photo = photo_maps(config, name, photos.image(name), stored)
        write_label_map(out / f"{name}.png", label_map_of(photo, config.pseudo_label))
    if shard.index == 0:
        write_whole(out / SUMMARY, config.pseudo_label.model_dump_json(indent=1))
    return out


def pseudo_label_folder(
    model: Model, photos: TaggedPhotos, names: tuple[str, ...], out: Path, options: Options
) -> Path:
    """Label photos by their tags with an exported model: what the service's `/pseudo-label?tags=` answers."""
    for name in tqdm(names, desc="pseudo-label", unit="photo", mininterval=5):
        analyzer = Analyzer(replace(options, tags=photos.tags(name)), (model,))
        write_label_map(out / f"{name}.png", analyzer.look_at(photos.image(name)).pseudo_label.label_map)
    asked = {key: getattr(options, key) for key in ("background_threshold", "foreground_threshold", "refine")}
    write_whole(out / SUMMARY, json.dumps({"model": model.card.name, "version": model.card.version} | asked))
    return out


def label_map_of(photo: PhotoMaps, settings: PseudoLabelConfig) -> np.ndarray:
    """Return the label map of a photo, uint8 (H, W), by the configured rule."""
    return RULES[settings.rule].label(photo, settings, settings.rule_options)


def photo_maps(config: RunConfig, name: str, image: np.ndarray, stored: StoredMaps) -> PhotoMaps:
    """Return what the run's label rule sees of a photo: its maps with the share of saliency that the run gives them."""
    saliency = saliency_of(config, name, image.shape[:2])
    maps = blend_saliency(stored.maps(), saliency, config.pseudo_label.saliency_share)
    limit = 0 if config.saliency is None else config.saliency.limit
    flip = config.localize.flip
    return PhotoMaps(image, stored.class_indices, maps, stored.views.cams, flip, saliency, limit)


def blend_saliency(maps: np.ndarray, saliency: np.ndarray | None, share: float) -> np.ndarray:
    """Return (1 - share) M + share S, with maps M (K, h, w) in [0, 1] and S the saliency, uint8 (H, W), over 255.

    The classes keep their order in every pixel; what is salient rises above what is not. No paper's rule: where maps peak
    on a part and saliency is an estimate, neither is a border to cut along, and their mean is better than either.
    """
    if not share or not len(maps):
        return maps
    assert saliency is not None
    highest = np.iinfo(np.uint8).max
    salient = resize_bilinear(saliency[None].astype(np.float32) / highest, *maps.shape[1:])
    return (1 - share) * maps + share * salient


def saliency_folder(config: RunConfig) -> Path:
    """Return where the run's saliency lies: the folder it names, or the one the stage `saliency` writes."""
    named = None if config.saliency is None else config.saliency.folder
    return named or config.out / "saliency"


def saliency_of(config: RunConfig, name: str, size: tuple[int, int]) -> np.ndarray | None:
    """Return saliency uint8 (H, W) of a photo of the run; None where its labels do not depend on it."""
    if not config.pseudo_label.reads_saliency:
        return None
    return read_saliency(saliency_folder(config) / f"{name}.png", size)


def read_saliency(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Return saliency uint8 (H, W) of a photo. Raises DataError where it is missing or of another size."""
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
    write_whole(path, mask_to_png(label_map))
