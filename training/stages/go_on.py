"""A served segmenter learns on: its own answers of other photos keep what it knows, and corrected masks teach it.

The segmenter is read from its ONNX file (`training.export.served_start`), so that nothing of the run that made it is needed.
Its last layers alone are trained (`training.stages.last_layers`).
"""

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from app.inference.errors import DataError
from app.inference.model_card import ModelCard
from training.checkpoint import load_weights, save_weights
from training.config.learn import LearnConfig
from training.config.tables import SegmenterConfig
from training.data import TaggedPhotos
from training.data.sampling import EpochSampler, in_turn, photos_by_class, with_share
from training.data.source import rank_of
from training.export.onnx_file import card_of
from training.export.served_start import fill_from_served
from training.fit.device import make_fabric
from training.fit.loop import fit
from training.segmenters import Segmenter
from training.stages.last_layers import LastLayers, Trunk, TrunkViews
from training.stages.segmenter import average_weights, build_segmenter

START = "start.pt"  # It holds the weights of the file that goes on, as torch has them.
FIT = "last_layers"  # Their trainings have this folder.


def newest_file(model: Path) -> Path:
    """Return a model's file, or that of the newest version in the folder of its name. Raises DataError."""
    if model.is_file():
        return model
    versions = versions_in(model)
    if not versions:
        raise DataError(f"{model} is no model and holds no VERSION/model.onnx. Name a segmenter's file, or its folder.")
    return versions[-1]


def versions_in(folder: Path) -> list[Path]:
    """Return the files of the versions in the folder of a model's name, the newest last."""
    versions = [path for path in folder.glob("*/model.onnx") if path.parent.name.isdecimal()]
    return sorted(versions, key=lambda path: int(path.parent.name))


def read_segmenter(path: Path, out: Path) -> tuple[Segmenter, ModelCard]:
    """Return the segmenter of an ONNX file, and the file's card.

    The card says how the network is built. Its weights are kept as `out`/start.pt. Raises DataError for a file that is no
    segmenter, or says too little of itself.
    """
    card = card_of(path)
    if card.task != "segmentation":
        raise DataError(f"{path} is a {card.task} model; corrections are learned by a segmenter")
    try:
        settings = SegmenterConfig.model_validate(card.config["segmenter"])
    except (KeyError, ValidationError, TypeError) as error:
        raise DataError(
            f"{path} does not say how its network is built ({error}): only segmenters of `python -m training` go on"
        ) from None
    segmenter = build_segmenter(settings, len(card.classes))
    if (out / START).is_file():
        load_weights(out / START, segmenter)
    else:
        fill_from_served(segmenter, path, card)
        save_weights(out / START, segmenter)
    return segmenter.eval(), card


def others_of(photos: TaggedPhotos, corrected: set[str], count: int) -> tuple[str, ...]:
    """Return `count` photos of `train` without those that have a corrected mask: each class has its turn, the rarest first, so
    that none is forgotten.
    """
    names = sorted((name for name in photos.names("train") if name not in corrected), key=rank_of)
    return tuple(in_turn(photos_by_class(names, photos))[:count])


def go_on(
    segmenter: Segmenter,
    trunk: Trunk,
    config: LearnConfig,
    corrected: Mapping[str, Path],
    others: tuple[str, ...],
    out: Path,
) -> None:
    """Train the segmenter's last layers, in place, on corrected masks (name -> file) and on their own answers of other photos, or
    go on with that; `config.earlier_share` of its weights stays. `trunk` is that of the segmenter.

    They are trained `config.trainings` times from the same weights, each time with another seed, and end as the mean.
    """
    settings, start = config.corrections, copy.deepcopy(segmenter.state_dict())
    for number in range(config.trainings):
        others_mean = copy.deepcopy(segmenter.state_dict())
        segmenter.load_state_dict(start)
        fitting = config.fit.model_copy(update={"seed": config.trainings * config.fit.seed + number})
        views = TrunkViews(trunk, corrected, others, settings.weight, config.crop, fitting.seed)
        repeats = with_share(np.ones(len(views)), views.is_corrected, settings.share)
        fabric = make_fabric(fitting)
        place = (fitting.seed, fabric.global_rank, fabric.world_size)
        sampler = EpochSampler(len(views), fitting.batch_size, *place, repeats)
        fit(fabric, LastLayers(segmenter), views, fitting, out / FIT / str(number), sampler=sampler)
        average_weights(segmenter, others_mean, number / (number + 1))
    average_weights(segmenter, start, config.earlier_share)
    segmenter.eval()
