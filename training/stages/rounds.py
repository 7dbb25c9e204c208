"""A segmenter learns in rounds: after each, its own masks of the training photos help to make the next round's labels.

No mask of the data is read. A pixel of a training photo can become background or a class that the photo is tagged with,
nothing else. The tags are what a network that teaches its successor adds to what it knows already: it may only choose among
true classes. The maps keep a share, because what maps and masks both see is more often true than what one of them sees.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from app.inference.arrays import resize_bilinear
from app.inference.label_maps.segmentation import TEST_SCALES, keep_classes, segment_probabilities
from app.inference.labels import label_of
from app.inference.maps.localization import Model
from training.config.run_config import RunConfig
from training.data import TaggedPhotos
from training.export.served import TorchModel
from training.fit.device import make_fabric
from training.smoothing.grabcut import join_labels
from training.stages.localize import final_maps, iterate_maps
from training.stages.pseudo_label import label_map_of, photo_maps, write_label_map
from training.stages.segmenter import (
    SEGMENTER,
    fit_segmenter,
    load_segmenter,
    require_segmenter,
    segmenter_card,
    serve_segmenter,
)
from training.stages.shard import WHOLE, Shard


def fit_rounds(config: RunConfig, photos: TaggedPhotos, label_maps: Path, corrected: Path | None = None) -> Path:
    """Train the segmenter `rounds` times, first on `label_maps`; write `segmenter/weights.pt`, the last one's weights.

    Every round starts where the first did: labels are noisy, and what goes on from its own weights learns the noise. Where
    time is short `go_on` lets each start from the weights before it. The label maps of `corrected` hold in every round. The seed of a round is its number on from the run's.
    """
    settings = require_segmenter(config)
    fabric = make_fabric(settings.fit)
    start: Path | None = None
    for number in range(1, settings.rounds):
        folder, labels = f"{SEGMENTER}-{number}", config.out / f"pseudo_labels-{number + 1}"
        if not fabric.broadcast((config.out / folder / "weights.pt").is_file()):
            fit_segmenter(of_round(config, number), photos, label_maps, config.out / folder, start, corrected)
        segmenter = load_segmenter(config, len(photos.classes), folder)
        card = segmenter_card(config, photos.classes)
        model = TorchModel(serve_segmenter(segmenter, card), card, fabric.device)
        relabel(model, photos, config, labels, Shard(fabric.global_rank, fabric.world_size))
        fabric.barrier()
        label_maps = labels
        start = config.out / folder / "weights.pt" if settings.go_on else None
    return fit_segmenter(
        of_round(config, settings.rounds), photos, label_maps, config.out / SEGMENTER, start, corrected
    )


def of_round(config: RunConfig, number: int) -> RunConfig:
    """Return the run with the seed and the epochs of a round, from 1."""
    settings = require_segmenter(config)
    last = number == settings.rounds or settings.early_epochs is None
    epochs = settings.fit.epochs if last else settings.early_epochs
    fit = settings.fit.model_copy(update={"seed": settings.seed_of_round(number), "epochs": epochs})
    return config.model_copy(update={"segmenter": settings.model_copy(update={"fit": fit})})


def relabel(model: Model, photos: TaggedPhotos, config: RunConfig, out: Path, shard: Shard = WHOLE) -> None:
    """Write labels of `train`, or of a shard of it, from the segmenter and the run's maps, as `out`/NAME.png, where there
    are none yet.
    """
    segmenter, threshold = require_segmenter(config), config.pseudo_label.background_threshold
    for name, stored in iterate_maps(final_maps(config), shard.of(photos.names("train")), out.name):
        path = out / f"{name}.png"
        if not path.is_file():
            photo = photo_maps(config, name, photos.image(name), stored)
            probabilities, _ = segment_probabilities(model, photo.image, TEST_SCALES, flip=False)
            own = kept_masks(probabilities, photo.class_indices)
            if config.pseudo_label.refine == "grabcut":
                label_map = join_labels(
                    photo.image, photo.maps, own, photo.class_indices, threshold, segmenter.own_share
                )
            else:
                blended = blend_masks(photo.maps, own, threshold, segmenter.own_share)
                label_map = label_map_of(replace(photo, maps=blended), config.pseudo_label)
            write_label_map(path, label_map)


def kept_masks(probabilities: np.ndarray, class_indices: tuple[int, ...]) -> np.ndarray:
    """Return the segmenter's probabilities (C + 1, h, w), kept to the photo's classes (`keep_classes`): (K, h, w) of
    these.
    """
    return keep_classes(probabilities, class_indices, complete=True)[[label_of(index) for index in class_indices]]


def blend_masks(maps: np.ndarray, own: np.ndarray, threshold: float, share: float) -> np.ndarray:
    """Return (1 - share) M + share 2 t P, with maps M (K, h, w), the background's threshold t, and P of `kept_masks`.

    One half, where a pixel is as likely a thing as not, is put at t, which is that for maps.
    """
    return (1 - share) * maps + share * 2 * threshold * resize_bilinear(own, *maps.shape[1:])
