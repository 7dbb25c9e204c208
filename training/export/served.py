"""Networks are served so: they normalise inside, and their outputs have the names of `docs/onnx-contract.md`."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from app.inference.model_card import ModelCard
from training.data.augment import IMAGENET_MEAN, IMAGENET_STD
from training.segmenters.aspp import enlarge


class Normalize(nn.Module):
    """It turns uint8 RGB (N, H, W, 3) into float (N, 3, H, W), with ImageNet's mean taken off and divided by its standard deviation."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1) * 255)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        return (image.permute(0, 3, 1, 2).to(self.mean.dtype) - self.mean) / self.std


class ServedClassifier(nn.Module):
    """It gives (scores, cam) of an image."""

    outputs = ("scores", "cam")

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.normalize, self.network = Normalize(), classifier

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities (N, C) and activated maps (N, C, h, w) of uint8 (N, H, W, 3)."""
        logits, cams = self.network(self.normalize(image))
        return logits.sigmoid(), cams


class ServedSoftmaxClassifier(ServedClassifier):
    """It gives (scores, cam) of an image, for the classes `kept` of a network that was trained on one class per photo.

    A class's score is its probability among all classes of the network, kept or not.
    """

    def __init__(self, classifier: nn.Module, kept: Sequence[int]) -> None:
        super().__init__(classifier)
        self.register_buffer("kept", torch.tensor(kept))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities (N, K) and activated maps (N, K, h, w) of uint8 (N, H, W, 3)."""
        logits, cams = self.network(self.normalize(image))
        return logits.softmax(dim=1)[:, self.kept], cams[:, self.kept]


class Predictor(Protocol):
    """A served segmenter is made of one; `Segmenter` is one."""

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return logits (N, C + 1, h, w) of normalised images (N, 3, H, W), and of the tags (N, C) where it has a tag head."""


class ServedSegmenter(nn.Module):
    """It gives (logits, mask) of an image, and with `scored` the probabilities of the classes in the whole photo (`TagHead`, `Recognizer`)."""

    def __init__(self, segmenter: Predictor, scored: bool = False) -> None:
        super().__init__()
        self.normalize, self.network, self.scored = Normalize(), segmenter, scored
        self.outputs = ("logits", "mask", "scores") if scored else ("logits", "mask")

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return, of uint8 (N, H, W, 3), logits (N, C + 1, h, w) and labels uint8 (N, H, W): arg-max of the enlarged logits; and,
        with `scored`, probabilities (N, C).
        """
        logits, tag_logits = self.network.predict(self.normalize(image))
        mask = enlarge(logits, image.shape[1:3]).argmax(dim=1).to(torch.uint8)
        if not self.scored:
            return logits, mask
        assert tag_logits is not None  # `serve_segmenter` asks for scores of networks that tell alone.
        return logits, mask, tag_logits.sigmoid()


class TorchModel:
    """It is a served network run by torch: the `app.inference.maps.localization.Model` of the training package."""

    def __init__(self, module: ServedClassifier | ServedSegmenter, card: ModelCard, device: torch.device) -> None:
        self.card = card
        self._module = module.eval().to(device).to(memory_format=torch.channels_last)
        self._device = device

    @torch.inference_mode()
    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs of uint8 (N, H, W, 3) by name."""
        outputs = self._module(torch.from_numpy(np.require(images, requirements=["C", "W"])).to(self._device))
        return {name: value.float().cpu().numpy() if value.is_floating_point() else value.cpu().numpy()
                for name, value in zip(self._module.outputs, outputs, strict=True)}  # fmt: skip
