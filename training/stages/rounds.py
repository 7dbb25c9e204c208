"""A segmenter learns in rounds: after each, its own masks of the training photos help to make the next round's labels.

No mask of the data is read. A pixel of a training photo can become background or a class that the photo is tagged with,
nothing else. The tags are what a network that teaches its successor adds to what it knows already: it may only choose among
true classes. The maps keep a share, because what maps and masks both see is more often true than what one of them sees.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from app.inference.arrays import resize_bilinear
from app.inference.label_maps.segmentation import TEST_SCALES, keep_classes, segment_probabilities
from app.inference.labels import label_of
from app.inference.maps.localization import Model
from training.config.run_config import RunConfig
from training.data import TaggedPhotos
from training.data.sampling import evenly_spaced
from training.export.served import TorchModel
from training.fit.device import make_fabric
from training.label_rules import PhotoMaps
from training.smoothing.grabcut import cut_labels, join_labels, mask_labels
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

COMPARED_PHOTOS = 680  # Masks are compared with cuts on so many photos: some ten of a class that one in seventy has.
# Masks that agree with the cuts this well (intersection over union) have their full say. On 114 photos 0.3 and 0.5 gave labels
# worse by 1.8 and 0.4 points; chair agreed by 0.05, sofa by 0.20, diningtable by 0.28, the least of the others by 0.37.
TRUSTED = 0.4


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
    settings, share = config.pseudo_label, require_segmenter(config).own_share
    names = tuple(name for name in shard.of(photos.names("train")) if not (out / f"{name}.png").is_file())
    if names and settings.refine == "grabcut":
        shares = class_shares(model, photos, config)
    for name, photo, own in masked_photos(model, photos, config, names, out.name):
        if settings.refine == "grabcut":
            said = shares[list(photo.class_indices)]
            threshold = settings.background_threshold
            label_map = join_labels(photo.image, photo.maps, own, photo.class_indices, threshold, said)
        else:
            blended = blend_masks(photo.maps, own, settings.background_threshold, share)
            label_map = label_map_of(replace(photo, maps=blended), settings)
        write_label_map(out / f"{name}.png", label_map)


def masked_photos(
    model: Model, photos: TaggedPhotos, config: RunConfig, names: tuple[str, ...], doing: str
) -> Iterator[tuple[str, PhotoMaps, np.ndarray]]:
    """Yield the name of a photo, its maps, and the segmenter's masks of its classes (`kept_masks`)."""
    for name, stored in iterate_maps(final_maps(config), names, doing):
        photo = photo_maps(config, name, photos.image(name), stored)
        probabilities, _ = segment_probabilities(model, photo.image, TEST_SCALES, flip=False)
        yield name, photo, kept_masks(probabilities, photo.class_indices)


def class_shares(model: Model, photos: TaggedPhotos, config: RunConfig) -> np.ndarray:
    """Return the segmenter's say in the labels of each class, (C,): `own_share` where its masks agree with the cuts.

    The agreement is their intersection over their union on some photos of `train`. Below `TRUSTED` the say falls with it: a
    segmenter that has lost a class would keep it lost if its masks decided.
    """
    names = evenly_spaced(photos.names("train"), COMPARED_PHOTOS)
    both, either = np.zeros(len(photos.classes)), np.zeros(len(photos.classes))
    threshold = config.pseudo_label.background_threshold
    for _, photo, own in masked_photos(model, photos, config, names, "masks against cuts"):
        by_cuts = cut_labels(photo.image, photo.maps, photo.class_indices, threshold)
        by_masks = mask_labels(photo.image, own, photo.class_indices)
        for index in photo.class_indices:
            cut, masked = by_cuts == label_of(index), by_masks == label_of(index)
            both[index] += (cut & masked).mean()
            either[index] += (cut | masked).mean()
    agreement = np.divide(both, either, out=np.ones_like(both), where=either > 0)
    return require_segmenter(config).own_share * np.minimum(1, agreement / TRUSTED)


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
