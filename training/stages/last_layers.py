"""The last layers of a segmenter learn alone, on what the layers before them computed once.

Layers that stay as they are say the same of a photo at every step. So every photo passes them once, at the size at which the
model is run; a view is a crop of what they gave and of the label map, and a step costs what the last layers cost. Colours and sizes
of the photos do not vary, as they do where the whole network is trained. The normalisation in these layers keeps its
statistics, as those of a network that was read from a served file must (`training.export.served_start`).

On a corrected photo the loss is the cross-entropy of what the service answers where the photo's classes are given
(`kept_to`). On other photos it is the divergence from what the network answered before it learned anything: Li and Hoiem,
"Learning without Forgetting", ECCV 2016, https://arxiv.org/abs/1606.09282. A mask of its own would teach it to be
sure of its errors.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from tqdm import tqdm

from app.inference.image.preprocess import geometry_of, resize_image
from app.inference.labels import BACKGROUND, IGNORE_INDEX, label_of
from app.inference.model_card import ModelCard
from training.data import TaggedPhotos
from training.data.augment import generator, normalize
from training.data.views import read_plane
from training.segmenters import Segmenter
from training.segmenters.segmenter import reduce_labels

FORBIDDEN = -1e4  # A class that a photo does not show has this logit; its probability is zero.


class LastLayers(nn.Module):
    """They are a segmenter's last layers, which share their weights with it: `fit` trains them."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.layers = nn.ModuleList(segmenter.last_modules())
        self._last = segmenter.last  # It is a bound method, so that nothing else is trained.

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the mean loss of the pixels of views (see `TrunkViews`), those of corrected photos counted "weights" times.

        Every pixel of a corrected photo counts, as in `Segmenter.cross_entropy`; those of a label with few pixels count more.
        """
        logits = self._last(batch["before"])
        targets, corrected = reduce_labels(batch["label_maps"], logits.shape[2:]), batch["corrected"][:, None, None]
        drawn = F.cross_entropy(kept_to(logits, batch["allowed"]), targets, ignore_index=IGNORE_INDEX, reduction="none")
        drawn = drawn * label_weights(targets, corrected & (targets != IGNORE_INDEX))
        known = F.kl_div(logits.log_softmax(1), batch["answers"].softmax(1), reduction="none").sum(dim=1)
        counted = (targets != IGNORE_INDEX) * batch["weights"][:, None, None]
        return {"loss": (torch.where(corrected, drawn, known) * counted).sum() / counted.sum().clamp(min=1)}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return one group."""
        return [{"params": list(self.parameters()), "lr_scale": 1.0}]

    def train(self, mode: bool = True) -> Self:
        """Do as nn.Module does; the normalisation keeps its statistics."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
                module.eval()
        return self


def label_weights(targets: Tensor, drawn: Tensor) -> Tensor:
    """Return the weights (N, h, w) of the labels (N, h, w) that are drawn, bool: 1 on average, 0 elsewhere. All n pixels of a label
    together weigh as the square root of n.

    A thing that is hard to tell is background for whoever is to be right at most pixels, and a network that learns so no longer
    shows it. Its IoU is the highest where a pixel is said to be the thing that is it with less than even odds.
    """
    labels = torch.where(drawn, targets, 0)
    counts = torch.bincount(labels.flatten(), drawn.flatten().float())
    weights = counts.clamp(min=1).rsqrt()[labels] * drawn
    return weights * drawn.sum() / weights.sum().clamp(min=1)


def kept_to(logits: Tensor, allowed: Tensor) -> Tensor:
    """Return the logits (N, C + 1, h, w) of the answer where "allowed", bool (N, C + 1), are the photo's labels: what was another
    class's is theirs, and the background keeps its own (`app.inference.label_maps.segmentation.keep_classes`).
    """
    background, things = logits[:, : label_of(0)], logits[:, label_of(0) :]
    own = things.masked_fill(~allowed[:, label_of(0) :, None, None], FORBIDDEN)
    lost = things.logsumexp(dim=1, keepdim=True) - own.logsumexp(dim=1, keepdim=True)
    return torch.cat([background, own + lost], dim=1)


class Trunk:
    """It keeps what a segmenter's layers before the last give of photos, each worked out once, in half precision."""

    def __init__(self, segmenter: Segmenter, photos: TaggedPhotos, size: int) -> None:
        """size: the photos' long side in px."""
        self._segmenter, self.photos, self._size = segmenter, photos, size
        self._known: dict[str, Tensor] = {}

    def input_size(self, name: str) -> tuple[int, int]:
        """Return (height, width) of a photo as the network sees it."""
        geometry = geometry_of(self.photos.size(name), self._size)
        return geometry.input_height, geometry.input_width

    @torch.no_grad()
    def of(self, name: str) -> Tensor:
        """Return what is given of a photo (D, h, w)."""
        if name not in self._known:
            pixels = normalize(resize_image(self.photos.image(name), *self.input_size(name)))[None]
            segmenter = self._segmenter.eval()
            self._known[name] = segmenter.trunk(segmenter.backbone(pixels))[0].half()
        return self._known[name]

    @torch.no_grad()
    def answers(self, name: str) -> Tensor:
        """Return the logits (C + 1, h, w) that the segmenter's last layers give of a photo now."""
        return self._segmenter.eval().last(self.of(name)[None].float())[0].half()


class TrunkViews(Dataset):
    """It gives crops of what the layers before the last gave of a photo, and of what the last shall give: a key (epoch, index) gives
    {"before" (D, S, S), "corrected" (), "label_maps" (crop, crop), "allowed" (C + 1,), "answers" (C + 1, S, S), "weights" ()}.

    Of a corrected photo the answers are blank; allowed are the background, the classes of its tags and those of its label
    map. Of another photo the label map is 0, or 255 outside, and the answers are those of the segmenter as it is now.

    corrected: photo's name -> its label map. others: further photos. weight: how many times a corrected pixel counts. crop:
    the side of a view in px of the photo as the network sees it.
    """

    def __init__(
        self, trunk: Trunk, corrected: Mapping[str, Path], others: Sequence[str], weight: float, crop: int, seed: int
    ) -> None:
        self.names, self.weight, self.seed = (*corrected, *others), weight, seed
        self.is_corrected = np.arange(len(self.names)) < len(corrected)
        self.inputs: list[Tensor] = []
        self.answers: list[Tensor] = []
        self.label_maps: list[np.ndarray] = []
        self.allowed: list[np.ndarray] = []
        for name in tqdm(self.names, desc="what the network sees", unit="photo", mininterval=5):
            height, width = trunk.input_size(name)
            self.inputs.append(trunk.of(name))
            self.allowed.append(np.append(True, trunk.photos.image_labels(name) > 0))
            answers, label_map = trunk.answers(name), np.full((height, width), BACKGROUND, np.uint8)
            if name in corrected:
                plane = read_plane(corrected[name]).resize((width, height), Image.Resampling.NEAREST)
                answers, label_map = torch.zeros_like(answers), np.asarray(plane)
                self.allowed[-1][[label for label in np.unique(label_map) if label != IGNORE_INDEX]] = True
            self.answers.append(answers)
            self.label_maps.append(label_map)
        self.stride = round(height / self.inputs[-1].shape[1])
        self.cells = max(1, crop // self.stride)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        before, label_map = self.inputs[index], torch.from_numpy(self.label_maps[index].astype(np.int64))
        rng = generator(self.seed, epoch, index)
        top, left = (int(rng.integers(max(0, side - self.cells), endpoint=True)) for side in before.shape[1:])
        pixels = self.stride * self.cells
        return {
            "before": cut(before.float(), top, left, self.cells, 0),
            "label_maps": cut(label_map[None], self.stride * top, self.stride * left, pixels, IGNORE_INDEX)[0],
            "corrected": torch.tensor(bool(self.is_corrected[index])),
            "allowed": torch.from_numpy(self.allowed[index]),
            "answers": cut(self.answers[index].float(), top, left, self.cells, 0),
            "weights": torch.tensor(self.weight if self.is_corrected[index] else 1.0),
        }


def cut(values: Tensor, top: int, left: int, side: int, outside: int) -> Tensor:
    """Return the square of `side` cells of (D, h, w) that begins at a place, filled up with `outside` where that ends."""
    part = values[:, top : top + side, left : left + side]
    return nn.functional.pad(part, (0, side - part.shape[2], 0, side - part.shape[1]), value=outside)


class RememberingModel:
    """It is a served segmenter run by torch that computes what comes before its last layers once for the same images. It measures
    versions that differ in these layers alone.
    """

    def __init__(self, segmenter: Segmenter, card: ModelCard) -> None:
        self.card, self._segmenter = card, segmenter.eval()
        self._known: dict[bytes, tuple[Tensor, Tensor | None]] = {}

    @torch.inference_mode()
    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs of uint8 (N, H, W, 3) by name, but for "mask"; see `training.export.served.ServedSegmenter`."""
        key, segmenter = hashlib.sha256(images.tobytes()).digest(), self._segmenter
        if key not in self._known:
            normalised = torch.stack([normalize(image) for image in images])
            features = segmenter.backbone(normalised)
            self._known[key] = segmenter.trunk(features).half(), segmenter.tag_logits(normalised, features)
        before, tag_logits = self._known[key]
        logits = segmenter.shared_out(segmenter.last(before.float()), tag_logits)
        outputs = {"logits": logits.numpy()}
        if tag_logits is not None and self.card.presence_thresholds:
            outputs["scores"] = tag_logits.sigmoid().numpy()
        return outputs
