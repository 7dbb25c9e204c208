"""The verb `refine` makes refined maps of those of `localize`, by IRN's random walk, DRS's refinement network or fusion.

The edge network is trained on the run's maps, the refinement network on plain ones of its classifier; fusion takes maps of
other runs. Refined maps are kept at a quarter of the network input's size.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from app.inference.arrays import resize_bilinear
from app.inference.errors import ConfigError, DataError
from app.inference.image.preprocess import resize_image
from app.inference.maps.fusion import fuse_maps
from app.inference.maps.localization import ScaleCams
from training.checkpoint import load_weights, save_weights
from training.config.map_tables import DrsConfig, IrnConfig, RefineConfig
from training.config.run_config import RunConfig
from training.data import TaggedPhotos
from training.data.sampling import evenly_spaced
from training.data.views import LabelledViews
from training.fit.device import make_fabric
from training.fit.loop import fit
from training.refinement.drs import DrsRefinement, RefinementViews, localize_for_refinement, refined_maps
from training.refinement.irn import IrnNetwork, affinity_label, build_irn, refine_irn
from training.stages.classifier import fill_backbone, load_classifier
from training.stages.localize import StoredMaps, iterate_maps, load_maps, quartered, save_maps
from training.stages.pseudo_label import write_label_map

Refiner = Callable[[np.ndarray, StoredMaps], StoredMaps]  # It gives the refined maps of a photo and its maps.


def refine_run(config: RunConfig, photos: TaggedPhotos) -> Path:
    """Train the configured refinement and write `refined/NAME.npz` of every photo localized."""
    out = config.out / "refined"
    settings = require_refine(config)
    refine = None if settings.method == "fusion" else fit_refiner(config, photos)
    names = photos.labelled_names()
    for name, stored in iterate_maps(config.out / "cams", names, f"refine ({settings.method})"):
        path = out / f"{name}.npz"
        if not path.is_file():
            refined = refine(photos.image(name), stored) if refine else fused(stored, name, settings.others)
            save_maps(path, refined)
    return out


def fused(stored: StoredMaps, name: str, others: tuple[Path, ...]) -> StoredMaps:
    """Return a photo's maps and those that other runs keep of it as one. Raises DataError where they are not of the same tags."""
    methods = [stored, *(load_maps(folder / f"{name}.npz") for folder in others)]
    for folder, other in zip(others, methods[1:], strict=True):
        if other.class_indices != stored.class_indices:
            raise DataError(f"{folder}/{name}.npz holds maps of other classes; fuse runs of the same photos and tags")
    return finished(stored, fuse_maps([method.maps() for method in methods]))


def fit_refiner(config: RunConfig, photos: TaggedPhotos) -> Refiner:
    """Train the configured refinement into `refine/`, where it is not trained yet."""
    out, settings = config.out / "refine", require_refine(config)
    if settings.method == "irn":
        network = fit_edge_network(config, photos, config.out / "cams", out)
        return irn_refiner(network, settings.irn, config.localize.preferred_size)
    return drs_refiner(fit_refinement_network(config, photos, out), settings.drs)


def require_refine(config: RunConfig) -> RefineConfig:
    """Return the [refine] table. Raises ConfigError where the run has none."""
    if config.refine is None:
        raise ConfigError(f"run {config.name} has no [refine] table; add one to refine its maps")
    return config.refine


def fit_edge_network(config: RunConfig, photos: TaggedPhotos, cams: Path, out: Path) -> IrnNetwork:
    """Train IRN on the confident parts of the maps `cams`/NAME.npz; its labels go to `out`/affinity."""
    settings = require_refine(config).irn
    names = evenly_spaced(photos.names("train"), settings.photos)
    if settings.network is not None:
        network = build_irn(settings)
        load_weights(settings.network, network)
        return network.eval().to(make_fabric(settings.fit).device)
    for name, stored in iterate_maps(cams, names, "affinity labels"):
        path = out / "affinity" / f"{name}.png"
        if not path.is_file():
            maps = stored.maps()
            image = resize_image(photos.image(name), *maps.shape[1:])
            write_label_map(path, affinity_label(image, maps, stored.class_indices, settings))
    fabric = make_fabric(settings.fit)
    torch.manual_seed(settings.fit.seed)
    network = build_irn(settings, None if settings.weights == "classifier" else settings.weights)
    if settings.weights == "classifier":
        fill_backbone(network.backbone, config, len(photos.classes))
    views = LabelledViews(photos, names, out / "affinity", settings.views, settings.fit.seed)
    fit(fabric, network, views, settings.fit, out)
    save_weights(out / "weights.pt", network)
    return network.eval()


def fit_refinement_network(config: RunConfig, photos: TaggedPhotos, out: Path) -> DrsRefinement:
    """Train DRS's refinement network on maps of the run's classifier, made as DRS makes them (`out`/maps)."""
    settings = require_refine(config).drs
    names = evenly_spaced(photos.names("train"), settings.photos)
    fabric = make_fabric(settings.fit)
    classifier = load_classifier(config, len(photos.classes)).to(fabric.device)
    folder = localize_for_refinement(classifier, photos, names, out / "maps", settings)
    torch.manual_seed(settings.fit.seed)
    weights = None if settings.weights == "classifier" else settings.weights
    options = DrsRefinement.Options(extra=settings.extra)
    network = DrsRefinement(len(photos.classes), settings.backbone, settings.output_stride, weights, options)
    if settings.weights == "classifier":
        fill_backbone(network.backbone, config, len(photos.classes))
    views = RefinementViews(photos, names, folder, settings, settings.fit.seed)
    fit(fabric, network, views, settings.fit, out)
    save_weights(out / "weights.pt", network)
    return network.eval()


def irn_refiner(network: IrnNetwork, settings: IrnConfig, preferred_size: int) -> Refiner:
    """Walk a photo's maps along its edges."""

    def refine(image: np.ndarray, stored: StoredMaps) -> StoredMaps:
        walked = refine_irn(network, image, stored.maps(), preferred_size, settings)
        return finished(stored, walked)

    return refine


def drs_refiner(network: DrsRefinement, settings: DrsConfig) -> Refiner:
    """Return what the refinement network answers for the photo's classes; it may leave [0, 1]."""

    def refine(image: np.ndarray, stored: StoredMaps) -> StoredMaps:
        return finished(stored, refined_maps(network, image, stored.class_indices, settings))

    return refine


def finished(stored: StoredMaps, maps: np.ndarray) -> StoredMaps:
    """Return refined maps (K, h, w) of a photo as they are stored."""
    geometry = stored.views.geometry
    maps = resize_bilinear(maps, geometry.input_height, geometry.input_width)
    return StoredMaps(stored.class_indices, quartered(ScaleCams(stored.views.scores, (maps,), geometry)), finished=True)
