"""Three readings of one network are one map: plain CAM's, LPCAM's and ReCAM's.

    cam         relu(w_c . f)                       `cam.py`
    lpcam       relu(u_c . f / |f|)                 `lpcam.py`
    recam       relu(v_c . f)                       `recam.py`
    map         cam + max(cam) (lpcam / max(lpcam) + recam / max(recam))

The maxima are those of a class in its photo: all three count alike, and the map is as strong as the classifier's evidence for its
class, which views of several sizes and class-conditional inference rely on. Scores are those of plain CAM. No paper's method; it is
three 1x1 convolutions on the same features, and what it gave stands in `experiments/README.md`.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from training.methods.cam import CamClassifier
from training.methods.lpcam import PHOTOS, PLACES, direction_of, prototype_maps
from training.methods.recam import EPSILON, fit_softmax, pooled_by_map, softmax_maps

Reading = Literal["cam", "lpcam", "recam"]


class JoinedClassifier(CamClassifier):
    """It is a plain CAM classifier with two further maps, which `learn_maps` fits once the network is trained."""

    paper = (
        "Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016; Chen and Sun, LPCAM, CVPR 2023; "
        "Chen et al., ReCAM, CVPR 2022"
    )
    prototypes: Tensor
    softmax: Tensor
    reads_features = True

    class Options(CamClassifier.Options):
        # The map is the sum of these.
        maps: tuple[Reading, ...] = Field(default=("cam", "lpcam", "recam"), min_length=1)

    def __init__(
        self, class_count: int, backbone: str, output_stride: int, weights: str | None, options: Options
    ) -> None:
        super().__init__(class_count, backbone, output_stride, weights, options)
        self.maps = options.maps
        for name in ("prototypes", "softmax"):
            self.register_buffer(name, torch.zeros(class_count, self.backbone.channels[-1], 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `Classifier.forward`."""
        features = self.dropout(self.backbone(images)[-1])
        found = self.classifier(features)
        plain = found.relu()
        strength = plain.amax(dim=(2, 3), keepdim=True)
        parts = [plain] if "cam" in self.maps else []
        if "lpcam" in self.maps:
            parts.append(strength * to_one(prototype_maps(features, self.prototypes)))
        if "recam" in self.maps:
            parts.append(strength * to_one(softmax_maps(features, self.softmax)))
        return found.mean(dim=(2, 3)), torch.stack(parts).sum(dim=0)

    @torch.no_grad()
    def learn_maps(self, photos: Iterable[tuple[Tensor, tuple[int, ...]]]) -> None:
        """See `Classifier.learn_maps`."""
        weight, bias = self.classifier.weight[:, :, 0, 0], self.classifier.bias
        bias = torch.zeros(len(weight)) if bias is None else bias
        pooled, classes = [], []
        local: list[list[Tensor]] = [[] for _ in weight]
        seen = [0] * len(weight)
        for features, class_indices in photos:
            if not class_indices:
                continue
            present = list(class_indices)
            cams = self.classifier(features[None])[0, present].relu()
            pooled.append(pooled_by_map(features, cams))
            classes += present
            places = features.flatten(1).T
            for index in present:
                seen[index] += 1
                keep_by_chance(local[index], places[:: max(1, len(places) // PLACES)].half(), seen[index])
        with torch.enable_grad():
            softmax = fit_softmax(torch.cat(pooled), torch.tensor(classes), weight)
        self.softmax.copy_(softmax[:, :, None, None])
        for index, parts in enumerate(local):
            if parts:
                direction = direction_of(torch.cat(parts).float(), weight[index], bias[index])
                self.prototypes[index] = direction[:, None, None]


def keep_by_chance(kept: list[Tensor], part: Tensor, seen: int) -> None:
    """Keep `PHOTOS` parts of all that come, at places that a generator of its own draws (reservoir sampling)."""
    if len(kept) < PHOTOS:
        kept.append(part)
        return
    place = int(torch.randint(seen, (1,), generator=torch.Generator().manual_seed(seen)))
    if place < PHOTOS:
        kept[place] = part


def to_one(maps: Tensor) -> Tensor:
    """Return maps (N, C, h, w) >= 0 divided by their own maxima."""
    return maps / (maps.amax(dim=(2, 3), keepdim=True) + EPSILON)
