"""Every label rule is a way from the maps of a photo to its label map.

A new rule is one file with a `Rule` and one entry in `training.label_rules`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

from app.inference.arrays import resize_bilinear
from app.inference.image.preprocess import resize_image
from app.inference.maps.pamr import refine_pamr


class RuleOptions(BaseModel):
    """They are a rule's own numbers: the table [pseudo_label.options]. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Settings(Protocol):
    """All rules read these keys of the table [pseudo_label]."""

    @property
    def background_threshold(self) -> float: ...

    @property
    def foreground_threshold(self) -> float | None: ...

    @property
    def refine(self) -> str: ...


@dataclass(frozen=True)
class PhotoMaps:
    """It holds what a rule sees of a photo.

    Attributes:
        image: the photo, uint8 (H, W, 3).
        class_indices: the K classes that the photo is tagged with, ascending.
        maps: float32 (K, h, w) in [0, 1] at the size of the network's input.
        cams: the network's own maps, one (K, h, w) for every scale; with `mirrored` a view and its mirror image are added up.
        mirrored: see `cams`.
        saliency: uint8 (H, W); None where the run has none.
        saliency_limit: a pixel is salient above it.
    """

    image: np.ndarray
    class_indices: tuple[int, ...]
    maps: np.ndarray
    cams: tuple[np.ndarray, ...] = ()
    mirrored: bool = False
    saliency: np.ndarray | None = None
    saliency_limit: int = 0

    @property
    def salience(self) -> np.ndarray:
        """A rule that reads saliency gets it here; the configuration has seen to it that there is one."""
        assert self.saliency is not None
        return self.saliency

    def full_size(self, refine: str) -> np.ndarray:
        """Return the maps (K, H, W) at the photo's size, smoothed by PAMR before where `refine` is "pamr"."""
        maps = self.maps
        if refine == "pamr" and self.class_indices:
            maps = refine_pamr(resize_image(self.image, *maps.shape[1:]), maps)
        return resize_bilinear(maps, *self.image.shape[:2])


@dataclass(frozen=True)
class Rule:
    """It is a label rule.

    Attributes:
        label: makes the label map, uint8 (H, W), of a photo's maps, the table's settings and the rule's own options.
        options: the class of these options.
        reads_saliency: whether the run needs a [saliency] table.
        blends: whether the rule compares maps with thresholds alone, so that saliency and masks can be blended into them.
        refines: the values of the table's `refine` that the rule can carry out.
        unread: keys of the table that mean nothing to the rule and must be left out.
        check: gives what is wrong with a run's other tables, or None.
    """

    label: Callable[[PhotoMaps, Settings, Any], np.ndarray]
    options: type[RuleOptions] = RuleOptions
    reads_saliency: bool = True
    blends: bool = False
    refines: tuple[str, ...] = ("none", "pamr", "crf")
    unread: tuple[str, ...] = ("foreground_threshold", "saliency_share")
    check: Callable[[Any], str | None] = lambda run: None
