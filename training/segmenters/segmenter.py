"""What every segmenter has in common: its options, multi-scale outputs and losses.

With `msc` (multi-scale, of the DeepLab-v2 that the papers use, https://github.com/kazuto1011/deeplab-pytorch) a network
sees every photo at several sizes. Its outputs are the logits of the full photo, those of every resized photo at their
own size, and the pixel-wise maximum of all at the full one's; a loss of pixels is the sum over the outputs, a prediction is
the maximum. With (0.5, 0.75) that takes 1.8 times the time.

    loss = cross_entropy + `self_training` * self_training + `saliency_weight` * mask_refinement + `tag_weight` * tags

The last one is of the full photo alone and trains a `TagHead`, which changes the prediction; where a `Recognizer` stands
beside the network, that changes it in the tag head's place.
"""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from app.inference.errors import ConfigError
from app.inference.labels import IGNORE_INDEX, class_count, label_of
from training.backbones.backbone import Backbone, backbone_and_head
from training.segmenters.aspp import enlarge, resize_images
from training.segmenters.mask_refinement_loss import Reading, mask_refinement_loss
from training.segmenters.recognizer import Recognizer
from training.segmenters.tag_head import TagHead


class SegmenterOptions(BaseModel):
    """They are a segmenter's own hyperparameters: the table [segmenter.options].

    The defaults are those of DeepLabV3; an architecture that differs says so in `Segmenter.defaults`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: int = Field(default=256, ge=1)  # ASPP and decoder have these, or fc6 and fc7 in deeplabv2 on VGG16.
    rates: tuple[Annotated[int, Field(ge=1)], ...] = (6, 12, 18)  # ASPP's, at the architecture's `rates_stride`.
    dropout: float = Field(default=0.1, ge=0, lt=1)
    msc: tuple[Annotated[float, Field(gt=0, le=4)], ...] = ()  # further scales of the photo; the papers: (0.5, 0.75)
    freeze_batch_norm: bool = False  # the backbone's keeps its statistics and is not trained; the papers: true
    freeze_early: bool = False  # the backbone's stem and first stage, up to stride 4 or so, keep what they start from
    # The cross-entropy looks at one pixel of so many in rows and in columns, at a place drawn at each step. Neighbours say nearly
    # the same, and a loss at every pixel takes a third of the time of a small network.
    loss_stride: int = Field(default=1, ge=1, le=8)
    # The cross-entropy counts this share of a batch's pixels, those with the smallest loss: where a trained network disagrees most
    # with a label that no person drew, the label is wrong more often than the network. Corrected photos count wholly.
    kept_pixels: float = Field(default=1.0, gt=0, le=1)
    # It counts this share of every label's pixels all the same: a class that is hard to tell has large losses throughout, and a
    # network that is never shown it forgets it.
    kept_of_each: float = Field(default=0.0, ge=0, le=1)
    self_training: float = Field(default=0.0, ge=0)  # weight of `self_training_loss`; DRS: 1
    saliency_weight: float = Field(default=0.0, ge=0)  # It weighs `mask_refinement_loss`; CCRM takes 1.
    saliency_reading: Reading = "foreground"
    tag_weight: float = Field(default=0.0, ge=0)  # It weighs the tags' binary cross-entropy; 0 means no `TagHead`.
    tag_balance: float = Field(default=0.5, ge=0, le=1)  # `TagHead` raises the classes' frequency to this power.


class Segmenter(nn.Module):
    """A network that labels every pixel; an architecture builds its layers and gives `logits`.

    Attributes:
        tag_head: what `tag_weight` trains; None where that is 0.
        recognizer: what says which classes are in the photo in the place of `tag_head`, where the run has one.
        paper: where the architecture comes from.
        defaults: options for which it has other defaults than `SegmenterOptions`.
        rates_stride: the output stride that `options.rates` are meant for.
        compare_at: whose size losses compare at: that of the labels, logits enlarged, or that of the logits, labels reduced.
        head_lr_scale: how many times the backbone's learning rate the rest has.
    """

    paper: str
    defaults: ClassVar[dict[str, Any]] = {}
    rates_stride: int = 16
    compare_at: Literal["labels", "logits"] = "labels"
    head_lr_scale: float = 10.0

    def __init__(self, backbone: Backbone, label_count: int, options: SegmenterOptions) -> None:
        super().__init__()
        backbone.drop_head()
        self.label_count = label_count
        unset = {name: value for name, value in self.defaults.items() if name not in options.model_fields_set}
        self.backbone, self.options = backbone, options.model_copy(update=unset)
        backbone.keeps_statistics = self.options.freeze_batch_norm
        if self.options.freeze_batch_norm:
            for module in backbone.batch_norms():
                module.requires_grad_(False)
        if self.options.freeze_early:
            for name in (*backbone.stem_modules, *backbone.first_stage_modules):
                backbone.get_submodule(name).requires_grad_(False)
        self.recognizer: Recognizer | None = None
        self.tag_head = None
        if self.options.tag_weight:
            self.tag_head = TagHead(backbone.channels[-1], class_count(label_count), self.options.tag_balance)

    def logits(self, features: list[Tensor]) -> Tensor:
        """Return the stages' features of one scale, `Backbone.forward`'s -> logits (N, C + 1, h, w), background first."""
        return self.last(self.trunk(features))

    def trunk(self, features: list[Tensor]) -> Tensor:
        """Return what the last layers read of the stages' features (N, D, h, w)."""
        raise NotImplementedError

    def last(self, before: Tensor) -> Tensor:
        """Return the logits that the last layers make of `trunk`'s (N, D, h, w)."""
        raise NotImplementedError

    def last_modules(self) -> tuple[nn.Module, ...]:
        """Return the modules that `last` runs."""
        raise NotImplementedError

    def outputs(self, images: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Of normalised images (N, 3, H, W): logits [(N, C + 1, h_i, w_i)] of the full photo and, with `msc`, of every
        scale and their maximum; and, with `tag_weight`, the tag head's logits of the tags (N, C).
        """
        features = self.backbone(images)
        return self.all_logits(images, features), self.tag_head(features[-1]) if self.tag_head else None

    def all_logits(self, images: Tensor, features: list[Tensor]) -> list[Tensor]:
        """Return the logits of `outputs`; `features` are the backbone's of the images."""
        full = self.logits(features)
        if not self.options.msc:
            return [full]
        scaled = [self.logits(self.backbone(resize_images(images, scale))) for scale in self.options.msc]
        maximum = torch.stack([full, *(enlarge(logits, full.shape[2:]) for logits in scaled)]).amax(dim=0)
        return [full, *scaled, maximum]

    def deciding_tag_head(self) -> TagHead | None:
        """Return what shares out the pixels of things by the tags: the recognizer's where there is one, else the own one."""
        return self.tag_head if self.recognizer is None else self.recognizer.tag_head

    def shared_out(self, logits: Tensor, tag_logits: Tensor | None) -> Tensor:
        """Return logits (N, C + 1, h, w) shared out by `tag_logits` (N, C); as they are where nothing tells the tags."""
        tag_head = self.deciding_tag_head()
        return logits if tag_head is None or tag_logits is None else tag_head.share_out(logits, tag_logits)

    def tag_logits(self, images: Tensor, features: list[Tensor]) -> Tensor | None:
        """Return the logits of the tags (N, C) that decide, of images and the backbone's features of them."""
        if self.recognizer is not None:
            return self.recognizer(images)
        return self.tag_head(features[-1]) if self.tag_head else None

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Normalised images (N, 3, H, W) -> logits (N, C + 1, h, w), background first; with `msc` the maximum, with a tag
        head or a recognizer shared out by the tags (`TagHead`); and then logits of the tags (N, C).
        """
        features = self.backbone(images)
        tag_logits = self.tag_logits(images, features)
        return self.shared_out(self.all_logits(images, features)[-1], tag_logits), tag_logits

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) -> the logits of `predict`."""
        return self.predict(images)[0]

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss and its parts before their weights, of "images" and "label_maps" (N, H, W), and of "weights" (N,)
        where the photos' pixels do not all count alike; "corrected", bool (N,), says which photos' labels a person drew.

        `self_training` and `tag_weight` need "image_labels" (N, C). `saliency_weight` needs "salient" and "activated", bool
        (N, H, W), and takes "inside", bool (N, H, W), where the batch has it: False for pixels that belong to no photo.
        """
        options = self.options
        terms: dict[str, tuple[float, Callable[[Tensor, dict[str, Tensor]], Tensor]]] = {
            "cross_entropy": (1.0, self.cross_entropy),
            "self_training": (options.self_training, self._self_training),
            "mask_refinement": (options.saliency_weight, self._mask_refinement),
        }
        outputs, tag_logits = self.outputs(batch["images"])
        outputs = [logits.float() for logits in outputs]
        parts = {
            name: torch.stack([term(logits, batch) for logits in outputs]).sum()
            for name, (weight, term) in terms.items()
            if weight
        }
        loss = torch.stack([terms[name][0] * part for name, part in parts.items()]).sum()
        if tag_logits is not None:
            parts["tags"] = F.binary_cross_entropy_with_logits(tag_logits.float(), batch["image_labels"])
            loss = loss + options.tag_weight * parts["tags"]
        return {"loss": loss, **parts}

    def _compared(self, logits: Tensor, size: torch.Size) -> Tensor:
        """Return logits at the size of comparison, where `size` is that of the labels."""
        return enlarge(logits, size) if self.compare_at == "labels" else logits

    def cross_entropy(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean over pixels that are not 255, each weighted as its photo, of those that `kept_pixels` and `kept_of_each`
        keep; zero where none is left. Of photos that "corrected" (N,) names all count: a person drew their labels.
        """
        label_maps = thinned(batch["label_maps"], self.options.loss_stride)
        logits = self._compared(logits, label_maps.shape[1:])
        targets = reduce_labels(label_maps, logits.shape[2:]) if self.compare_at == "logits" else label_maps
        losses = F.cross_entropy(logits, targets, ignore_index=IGNORE_INDEX, reduction="none")
        counted = targets != IGNORE_INDEX
        doubted = counted & ~batch["corrected"][:, None, None] if "corrected" in batch else counted
        if self.options.kept_pixels < 1 and doubted.any():
            found = losses.detach()
            kept = among_smallest(found, doubted, self.options.kept_pixels)
            for label in targets[doubted].unique() if self.options.kept_of_each else ():
                own = doubted & (targets == label)
                kept |= own & among_smallest(found, own, self.options.kept_of_each)
            counted = counted & (kept | ~doubted)
        weights = counted.to(losses.dtype)
        if "weights" in batch:
            weights = weights * batch["weights"][:, None, None]
        return (losses * weights).sum() / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)

    def _self_training(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        return self_training_loss(self._compared(logits, batch["label_maps"].shape[1:]), batch["image_labels"])

    def _mask_refinement(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        missing = [key for key in ("salient", "activated") if key not in batch]
        if missing:
            raise ConfigError(
                f"segmenter.options.saliency_weight = {self.options.saliency_weight:g} needs saliency, but the batch lacks "
                f"{' and '.join(missing)}; add a [saliency] table with a folder of grey PNGs, or set the weight to 0"
            )
        salient, activated, reading = batch["salient"], batch["activated"], self.options.saliency_reading
        enlarged = enlarge(logits, salient.shape[1:])
        return mask_refinement_loss(enlarged, salient, activated, reading, batch.get("inside"))

    def rates(self) -> tuple[int, ...]:
        """`options.rates`, which see as far on the photo at the backbone's output stride as at `rates_stride`."""
        return tuple(max(1, rate * self.rates_stride // self.backbone.output_stride) for rate in self.options.rates)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the backbone at the base rate, the head at `head_lr_scale` times it."""
        return backbone_and_head(self, self.head_lr_scale)


def self_training_loss(logits: Tensor, image_labels: Tensor) -> Tensor:
    """Return the additional term of DRS's released segmentation code: cross-entropy with the network's own labels y*.

    y* = argmax over labels of logits * image label, the background's being 1; it carries no gradient. As released, a
    class that the photo lacks is multiplied by 0, not excluded: one of them wins where all logits of present labels are
    negative. Padding and pixels of 255 count as well.

    Args:
        logits: (N, C + 1, h, w), background first.
        image_labels: multi-hot (N, C).
    """
    present = F.pad(image_labels, (label_of(0), 0), value=1.0)
    own_labels = (logits.detach() * present[:, :, None, None]).argmax(dim=1)
    return F.cross_entropy(logits, own_labels)


def among_smallest(losses: Tensor, chosen: Tensor, share: float) -> Tensor:
    """Return where losses (N, H, W) are no greater than the smallest `share` of those `chosen`, bool (N, H, W): bool (N, H, W)."""
    count = max(1, round(share * int(chosen.sum())))
    return losses <= losses[chosen].kthvalue(count).values


def thinned(label_maps: Tensor, stride: int) -> Tensor:
    """Return every `stride`-th row and column of labels (N, H, W), from a place drawn by torch's generator."""
    if stride == 1:
        return label_maps
    row, column = torch.randint(stride, (2,)).tolist()
    return label_maps[:, row::stride, column::stride]


def reduce_labels(label_maps: Tensor, size: torch.Size) -> Tensor:
    """Return labels (N, H, W) at `size` (h, w): for each small pixel that of the pixel its centre falls into."""
    return F.interpolate(label_maps[:, None].float(), size=size, mode="nearest-exact")[:, 0].long()
