"""DRS learns to refine localization maps.

Kim, Han and Kim, "Discriminative Region Suppression for Weakly-Supervised Semantic Segmentation", AAAI 2021,
https://arxiv.org/abs/2103.07246. A second network learns to reproduce the maps of the first from the photo alone, which
smooths them along what photos of one class share:

    T_k = A_k where A_k = max over classes of A, else 0      `refinement_target`, A: the first network's maps in [0, 1]
    loss = mean over images, classes and pixels of (R - T)^2  R: the output, enlarged with align_corners=True

The tags are not given, so the network learns zeros for classes that are absent. R has no activation: it may leave
[0, 1]. The network is the backbone with plain ReLUs (VGG16, stride 8), `extra` 3x3 convolutions with ReLU and a 1x1
convolution with bias; the released code trains it with Adam, rate 1e-4, no weight decay.

As in the released code photos are resized to a square (aspect ratio lost), maps come from three sizes of it by pixel-wise
maximum, without mirroring, and are kept in one byte per pixel. Any classifier's maps can be refined: those of DRS are
normalised in its own way.

Departures from the released code: any backbone; a score per class (there is none in the paper) so that the network can
be served: the largest value of its map, which learns to be near 1 for a class in the photo and near 0 for another.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from tqdm import tqdm

from app.inference.errors import DataError
from app.inference.files.whole_file import whole_file
from training.backbones import build_backbone
from training.config.map_tables import DrsConfig
from training.data import TaggedPhotos
from training.data.augment import generator, jitter_colours, normalize
from training.methods import Classifier, Options

LEVELS = np.iinfo(np.uint8).max  # A map of 1 is stored as this number.
SCORE_MARGIN = 1e-4  # Scores are kept in [margin, 1 - margin], where their logits are finite.
INITIAL_STD = 0.01  # The extra convolutions start with weights of this deviation.


class DrsRefinement(Classifier):
    """It is a backbone, `extra` convolutions with ReLU, 1x1 convolution to one map per class."""

    paper = "Kim et al., Discriminative Region Suppression for WSSS, AAAI 2021, arXiv:2103.07246"

    class Options(Options):
        extra: int = Field(default=3, ge=0)

    def __init__(
        self, class_count: int, backbone: str, output_stride: int, weights: str | None, options: Options
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, output_stride, weights)
        channels = self.backbone.channels[-1]
        layers: list[nn.Module] = []
        for _ in range(options.extra):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)]
        self.extra = nn.Sequential(*layers)
        self.classifier = nn.Conv2d(channels, class_count, 1)
        for layer in (*self.extra, self.classifier):
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.normal_(layer.weight, std=INITIAL_STD)
                nn.init.zeros_(layer.bias)

    def maps(self, images: Tensor) -> Tensor:
        """Return R (N, C, h, w), not activated, at feature resolution, of normalised images (N, 3, H, W)."""
        return self.classifier(self.extra(self.backbone(images)[-1]))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `Classifier.forward`; the sigmoid of a logit is the largest value of the class's map."""
        maps = self.maps(images)
        scores = maps.amax(dim=(2, 3)).clamp(SCORE_MARGIN, 1 - SCORE_MARGIN)
        return torch.log(scores / (1 - scores)), maps.relu()

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the mean squared error of {"images" (N, 3, H, W), "maps" (N, C, H, W): A of the first network, in [0, 1]}."""
        maps = batch["maps"]
        refined = enlarge_maps(self.maps(batch["images"]).float(), maps.shape[2:])
        return {"loss": F.mse_loss(refined, refinement_target(maps))}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return everything at one rate and without weight decay: AdamW then is the Adam of the released code."""
        return [{"params": list(self.parameters()), "lr_scale": 1.0, "weight_decay": 0.0}]


def refinement_target(maps: Tensor) -> Tensor:
    """Return T of A (N, C, H, W): per pixel only the class with the largest value keeps it; ties keep all."""
    return torch.where(maps == maps.amax(dim=1, keepdim=True), maps, torch.zeros_like(maps))


def enlarge_maps(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Return bilinear interpolation of (N, C, h, w) to `size` with the corner pixels' centres aligned, as all of DRS
    does.
    """
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=True)


def normalize_drs_cams(cams: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Return localization maps (N, C, *size) in [0, 1) of the activated maps (N, C, h, w) of a DRS classifier.

    Released code: the maximum of a map, plus 1e-5, divides it after the interpolation, not before.
    """
    enlarged = enlarge_maps(cams, size)
    return enlarged / (enlarged.amax(dim=(2, 3), keepdim=True) + 1e-5)


@torch.inference_mode()
def drs_localization_maps(
    classifier: Classifier, image: np.ndarray, class_indices: tuple[int, ...], config: DrsConfig
) -> np.ndarray:
    """Return the maps of a photo (H, W, 3) for refinement: uint8 (K, size, size), 255 meaning 1; maximum over the scales."""
    size = (config.size, config.size)
    maps = [
        normalize_drs_cams(classifier(view)[1].float(), size)[:, list(class_indices)]
        for view in square_views(image, config, next(classifier.parameters()).device)
    ]
    return (LEVELS * torch.cat(maps).amax(dim=0)).floor().to(torch.uint8).cpu().numpy()


@torch.inference_mode()
def refined_maps(
    network: DrsRefinement, image: np.ndarray, class_indices: tuple[int, ...], config: DrsConfig
) -> np.ndarray:
    """Return refined maps of a photo (H, W, 3) at its own size: float32 (K, H, W), about [0, 1]; maximum over the
    scales.
    """
    maps = [
        enlarge_maps(network.maps(view).float(), image.shape[:2])[:, list(class_indices)]
        for view in square_views(image, config, next(network.parameters()).device)
    ]
    return torch.cat(maps).amax(dim=0).cpu().numpy()


def square_views(image: np.ndarray, config: DrsConfig, device: torch.device) -> list[Tensor]:
    """Return the photo as `size` x `size`, then as normalised (1, 3, s, s) for every scale s."""
    square = normalize(np.asarray(resize_square(image, config.size)))[None].to(device)
    return [F.interpolate(square, size=(s, s), mode="bilinear", align_corners=False) for s in config.scales]


def resize_square(image: np.ndarray, size: int) -> Image.Image:
    """Resize (H, W, 3) uint8 to `size` x `size`."""
    return Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)


def localize_for_refinement(
    classifier: Classifier, photos: TaggedPhotos, names: tuple[str, ...], out: Path, config: DrsConfig
) -> "MapFolder":
    """Write the maps of every photo's tagged classes to `out`/NAME.npz; photos that have a file are left."""
    folder = MapFolder(out)
    for name in tqdm(names, desc="localize for refinement", unit="photo", mininterval=5):
        if not folder.path(name).is_file():
            class_indices = photos.class_indices(name)
            folder.write(
                name, class_indices, drs_localization_maps(classifier, photos.image(name), class_indices, config)
            )
    return folder


@dataclass(frozen=True)
class MapFolder:
    """It holds the maps of photos, one NAME.npz each: class_indices (K,) and maps uint8 (K, S, S)."""

    directory: Path

    def path(self, name: str) -> Path:
        """Return the file of a photo."""
        return self.directory / f"{name}.npz"

    def write(self, name: str, class_indices: tuple[int, ...], maps: np.ndarray) -> None:
        """Keep one photo's maps, whole or not at all."""
        with whole_file(self.path(name)) as partial, partial.open("wb") as file:
            np.savez_compressed(file, class_indices=np.array(class_indices, int), maps=maps)

    def read(self, name: str) -> tuple[tuple[int, ...], np.ndarray]:
        """Return (class_indices, maps) of one photo. Raises DataError where it has none."""
        if not self.path(name).is_file():
            raise DataError(f"{self.path(name)} does not exist; localize the photos for refinement first")
        with np.load(self.path(name)) as stored:
            return tuple(map(int, stored["class_indices"])), stored["maps"]


class RefinementViews(Dataset):
    """It gives photos and maps: a key (epoch, index) gives {"images" (3, S, S), "maps" (C, S, S) in [0, 1]}, both mirrored or not."""

    def __init__(
        self, photos: TaggedPhotos, names: tuple[str, ...], folder: MapFolder, config: DrsConfig, seed: int
    ) -> None:
        self.photos, self.names, self.folder, self.config, self.seed = photos, names, folder, config, seed

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        rng = generator(self.seed, epoch, index)
        name, size = self.names[index], self.config.size
        square = resize_square(self.photos.image(name), size)
        photo = jitter_colours(square, self.config.colour_jitter, rng, self.config.hue_jitter)
        class_indices, stored = self.folder.read(name)
        if stored.shape[1:] != (size, size):
            raise DataError(
                f"the maps of {name} are {stored.shape[1:]} px, not {(size, size)}: localize the photos again"
            )
        maps = torch.zeros(len(self.photos.classes), size, size)
        maps[list(class_indices)] = torch.from_numpy(stored.astype(np.float32) / LEVELS)
        image = normalize(np.asarray(photo))
        if rng.random() < 0.5:
            image, maps = image.flip(-1), maps.flip(-1)
        return {"images": image, "maps": maps}
