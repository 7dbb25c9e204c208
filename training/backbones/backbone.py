"""Every backbone has this in common."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from app.inference.errors import ConfigError

# It makes a module of (stage 0..4, channels, the network's own activation where it is no plain ReLU).
Activation = Callable[..., nn.Module]
Modulation = Callable[[int, int], nn.Module]  # It makes a module of (stage 1..4, channels).


def relu(stage: int, channels: int, own: nn.Module | None = None) -> nn.Module:
    """Return the ordinary activation."""
    return own or nn.ReLU(inplace=True)


def unmodulated(stage: int, channels: int) -> nn.Module:
    """Return a residual branch that is added as it is."""
    return nn.Identity()


class Backbone(nn.Module):
    """It computes four stages of features.

    Attributes:
        channels: of the four stages, finest first.
        output_stride: of the last stage.
        stride4_stage: index of the stage whose features have stride 4, for decoders.
        stem_modules: names of the first modules, which some methods do not train.
        first_stage_modules: names of the modules of the stage after these, which AMR as released does not train either.
        keeps_statistics: training leaves the running statistics of its batch normalisations as they are.
    """

    channels: tuple[int, int, int, int]
    output_stride: int
    stride4_stage: int
    stem_modules: tuple[str, ...]
    first_stage_modules: tuple[str, ...] = ()
    keeps_statistics: bool = False

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features [(N, channels[i], H / stride_i, W / stride_i)] of normalised images (N, 3, H, W), finest first."""
        raise NotImplementedError

    def freeze_stem(self) -> None:
        """Leave the first modules as they are when the others are trained."""
        for name in self.stem_modules:
            self.get_submodule(name).requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Do as nn.Module does; batch normalisations that keep their statistics stay as in evaluation."""
        super().train(mode)
        if self.keeps_statistics:
            for module in self.batch_norms():
                module.eval()
        return self

    def batch_norms(self) -> list[nn.Module]:
        """Return its batch normalisations, synchronised or not; some networks keep those of ImageNet as they are."""
        return [module for module in self.modules() if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm)]

    def drop_head(self) -> None:
        """Take off what the last stage has for classifying alone; `channels` change with it. Most networks have nothing."""

    def adapt_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a state dict as others write it, under this module's keys; most networks know one form alone."""
        return state

    def pretrained_state(self) -> dict[str, Tensor]:
        """Return the weights of a long pre-training under this module's keys. Raises ConfigError where they cannot be had."""
        raise NotImplementedError


class ResidualBackbone(Backbone):
    """The stem of this backbone can be run apart from its four stages, as IRN needs it."""

    stem: Callable[[Tensor], Tensor]

    def after_stem(self, x: Tensor) -> list[Tensor]:
        """Return what `forward` gives, from `stem(images)`."""
        raise NotImplementedError


class WithBackbone(Protocol):
    """It is a network that owns a backbone."""

    @property
    def backbone(self) -> Backbone: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


def backbone_and_head(module: WithBackbone, head_lr_scale: float) -> list[dict[str, Any]]:
    """Return the parameter groups of a network: `module.backbone` at the base rate, everything else at `head_lr_scale`
    times it.
    """
    backbone = list(module.backbone.parameters())
    known = {id(p) for p in backbone}
    head = [p for p in module.parameters() if id(p) not in known]
    return [{"params": backbone, "lr_scale": 1.0}, {"params": head, "lr_scale": head_lr_scale}]


def download(weights: WeightsEnum) -> dict[str, Tensor]:
    """Return torchvision's weights, from torch's cache or the network. Raises ConfigError where neither has them."""
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        raise ConfigError(
            f"{weights.url} could not be downloaded ({error}); put the file into {cache}, or name another one in `weights`"
        ) from None
