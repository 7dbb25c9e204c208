"""Whoever asks for an analysis says in these words what is asked of the photo, parsed."""

from dataclasses import dataclass
from typing import Literal

from app.inference.maps.localization import Inference, Refinement

Size = Literal["image", "model"]


@dataclass(frozen=True)
class Options:
    """They say what is asked of a photo. What is None is filled in from the card of the model that answers.

    tags: the classes known to be in the photo, all of them where `complete`: no other class gets a map or a label, and a mask
        gives their pixels to these. Where they are not complete, they only guide the mask.
    scales, flip: the views of the photo, as factors of the preferred size, and whether each is looked at mirrored too.
    conditional: maps are made by CCRM, whose scales and mirroring default to those of its paper.
    refine: "pamr" refines maps and probabilities by the look of the photo.
    threshold: a pixel of the mask whose best probability lies below it is background.
    background_threshold, foreground_threshold: of maps, for the pseudo-label (`app.inference.label_maps.pseudo_label`).
    presence_threshold: a class whose score reaches it is held to be in an untagged photo; of masks, where the model gives scores.
    smallest_region: share of the photo; touching pixels of a class that are fewer are background in masks and pseudo-labels.
    size: whether results have the photo's size, or that of the input of the model that answers.
    """

    tags: tuple[str, ...] | None = None
    complete: bool = True
    scales: tuple[float, ...] | None = None
    flip: bool | None = None
    conditional: bool = False
    refine: Refinement = "none"
    threshold: float = 0.0
    background_threshold: float | None = None
    foreground_threshold: float | None = None
    presence_threshold: float | None = None
    smallest_region: float = 0.0
    size: Size = "image"

    @property
    def inference(self) -> Inference:
        """Maps are made in this way."""
        return Inference(self.conditional, self.scales, self.flip)
