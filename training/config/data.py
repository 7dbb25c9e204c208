"""The `[data]` table of a run's configuration says where photos and tags come from."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.inference.labels import MAX_CLASSES

# Tools call the part of a mask so that belongs to no class, or to no measurement.
RESERVED = ("background", "_background_", "__background__", "__ignore__", "_ignore_")
MAX_SCENE_CLASSES = 6  # `training.data.scene_painting` paints this many kinds of things.


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VocConfig(_Table):
    """It names lists of the VOC devkit: a name of `ImageSets/Segmentation`, or the path of a text file.

    Without `train_list`, `trainaug` is taken where the devkit has it, else `train`.
    """

    train_list: str | None = None
    val_list: str = "val"


class CocoConfig(_Table):
    """It names instances files and photo folders, relative to `root`. A `val_instances` that does not exist means: split the
    training photos by `val_fraction`.
    """

    train_instances: Path = Path("annotations/instances_train2017.json")
    train_images: Path = Path("train2017")
    val_instances: Path = Path("annotations/instances_val2017.json")
    val_images: Path = Path("val2017")


class ScenesConfig(_Table):
    """It says of generated photos how many there are, how large they are (`size` is the side in pixels), and how many classes they show."""

    random_seed: int = Field(default=0, ge=0)
    count: int = Field(default=400, ge=1)
    val_count: int = Field(default=100, ge=1)
    size: int = Field(default=96, ge=32, le=1024)
    class_count: int = Field(default=5, ge=1, le=MAX_SCENE_CLASSES)


def fault_of(classes: Sequence[str]) -> str | None:
    """Return what keeps names from being the classes of a data set, and the remedy; None where nothing does."""
    reserved = [name for name in classes if name.casefold() in RESERVED]
    if reserved:
        return f"{reserved[0]!r} is no class of things: what has no class is the background anyway. Leave it out."
    folded = Counter(name.casefold() for name in classes)
    twice = [name for name in classes if folded[name.casefold()] > 1]
    if twice:
        return (
            f"classes hold a name twice: {', '.join(twice)}. Names that differ in case alone are one; write it one way."
        )
    if len(classes) > MAX_CLASSES:
        return (
            f"there are {len(classes)} classes, and a label map holds {MAX_CLASSES} at most. Set `classes` to those that are to "
            f"be trained."
        )
    return None


class DataConfig(_Table):
    """It says where tagged photos come from.

    extra: a second folder of the same form (source "folder"), whose photos are all trained on; nobody measures on them.
    choices: what somebody decided about the folder's photos (`choices.csv` of `review.html`, `app.inference.files.choices`): tags
    that hold instead of those of labels.csv, photos that are left out.
    classes: class names in channel order; None takes a folder's classes.txt, else the VOC classes where every tag is one of them, else the sorted
    set of tags less those that look misspelt (COCO: its categories by id).
    on_error: a row that cannot be used stops the run ("fail"), or is left out and counted ("skip").
    check: what is read of every photo before training starts: its "header" (fast) or all "pixels" (finds truncated
    files); None means "header" with `on_error = "fail"` and "pixels" with "skip", which could not skip later.
    val_fraction: share of the photos kept for validation where no list names them.
    """

    source: Literal["folder", "voc", "coco", "scenes"] = "folder"
    root: Path | None = None
    extra: Path | None = None
    choices: Path | None = None
    classes: tuple[str, ...] | None = Field(default=None, min_length=1, max_length=MAX_CLASSES)
    on_error: Literal["fail", "skip"] = "fail"
    check: Literal["header", "pixels"] | None = None
    val_fraction: float = Field(default=0.1, gt=0, lt=1)
    voc: VocConfig = VocConfig()
    coco: CocoConfig = CocoConfig()
    scenes: ScenesConfig = ScenesConfig()

    @model_validator(mode="after")
    def _consistent(self) -> "DataConfig":
        if self.root is None and self.source != "scenes":
            raise ValueError(f"source = {self.source!r} needs `root`, the directory of the photos")
        if self.extra is not None and self.source != "folder":
            raise ValueError(f'`extra` is for source = "folder"; this one is {self.source!r}')
        if self.choices is not None and self.source != "folder":
            raise ValueError(f'`choices` is for source = "folder"; this one is {self.source!r}')
        if self.classes is not None and (fault := fault_of(self.classes)):
            raise ValueError(fault)
        return self

    @property
    def checks_pixels(self) -> bool:
        """It tells whether every photo is decoded in full before training starts."""
        return (self.check or ("pixels" if self.on_error == "skip" else "header")) == "pixels"
