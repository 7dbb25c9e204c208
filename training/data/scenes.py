"""Generated photos have exact masks: coloured textured things on cluttered ground, made from a seed.

Every class has a body, whose colours overlap with those of other classes and of the clutter, and a small bright head
that is its own. A classifier can rely on the head alone, so a plain class activation map covers too little of the
thing: the problem that the methods of this package solve.

A scene is determined by (random_seed, split, index): first its layout, then its pixels, from two random streams. Tags
need the layout only.
"""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.inference.errors import DataError
from app.inference.files.whole_file import whole_file, write_whole
from app.inference.image.encode import mask_to_png, to_jpeg
from app.inference.labels import BACKGROUND, label_of
from training.config.data import MAX_SCENE_CLASSES, DataConfig, ScenesConfig
from training.data.scene_painting import KINDS, WHITE, Thing, draw_ground, paint, soften, window_of
from training.data.source import TaggedPhotos

SPLITS = ("train", "val")
LAYOUT_STREAM, PIXEL_STREAM = 0, 1
SMALLEST, LARGEST = 0.15, 0.6  # A thing has a diameter between these shares of the photo's side.
MAX_THINGS = 3
SPACING = 0.75  # Centres are at least this share of the radii's sum apart, so that every thing stays in sight.
JPEG_QUALITY = 95


@dataclass(frozen=True)
class ScenePhotos:
    """It reads generated photos by name."""

    config: ScenesConfig

    def image(self, name: str) -> np.ndarray:
        return render_image(self.config, name)

    def size(self, name: str) -> tuple[int, int]:
        return self.config.size, self.config.size


def open_scenes(config: DataConfig) -> TaggedPhotos:
    """Return generated photos as a source. Raises DataError where other classes are asked for."""
    scenes = config.scenes
    classes = scene_classes(scenes)
    if config.classes not in (None, classes):
        asked = ", ".join(config.classes or ())
        raise DataError(
            f"classes are {asked}; generated scenes show {', '.join(classes)}. Leave `classes` out, and set "
            f"`scenes.class_count` (1 to {MAX_SCENE_CLASSES})."
        )
    counts = {"train": scenes.count, "val": scenes.val_count}
    splits = {split: tuple(f"{split}_{index:05d}" for index in range(counts[split])) for split in SPLITS}
    tag_table = {name: scene_tags(scenes, name) for names in splits.values() for name in names}
    return TaggedPhotos(classes, splits, tag_table, ScenePhotos(scenes))


def scene_classes(config: ScenesConfig) -> tuple[str, ...]:
    """Return the names of the classes shown."""
    return tuple(kind.name for kind in KINDS[: config.class_count])


def scene_tags(config: ScenesConfig, name: str) -> tuple[str, ...]:
    """Return the tags of a scene, in the order of the classes."""
    shown = {thing.class_index for thing in arrange(config, name)}
    return tuple(KINDS[class_index].name for class_index in sorted(shown))


def render_image(config: ScenesConfig, name: str) -> np.ndarray:
    """Return the photo of a scene: uint8 (H, W, 3)."""
    rng = _random(config, name, PIXEL_STREAM)
    canvas = draw_ground(config.size, rng)
    for thing in arrange(config, name):
        paint(canvas, thing, rng)
    return soften(canvas, rng)


def render_mask(config: ScenesConfig, name: str) -> np.ndarray:
    """Return the exact mask of a scene: uint8 (H, W), labels 0..C."""
    mask = np.full((config.size, config.size), BACKGROUND, np.uint8)
    for thing in arrange(config, name):
        window, u, v = window_of(thing, config.size)
        mask[window][KINDS[thing.class_index].shape(u, v)] = label_of(thing.class_index)
    return mask


def exact_saliency(config: ScenesConfig, name: str) -> np.ndarray:
    """Return the saliency of a scene, known and not estimated: uint8 (H, W), WHITE on every thing, 0 elsewhere."""
    return np.where(render_mask(config, name) == BACKGROUND, 0, WHITE).astype(np.uint8)


def is_scene(config: ScenesConfig, name: str) -> bool:
    """Tell whether `name` is one of the configured scenes."""
    split, _, index = name.partition("_")
    counts = {"train": config.count, "val": config.val_count}
    return split in counts and index.isdecimal() and name == f"{split}_{int(index):05d}" and int(index) < counts[split]


def write_folder(config: DataConfig, root: Path) -> Path:
    """Write the scenes as a folder source with masks (`training.data.folder`), and return its path."""
    photos = open_scenes(config)
    for split, names in photos.splits.items():
        write_whole(root / "ImageSets" / f"{split}.txt", "".join(f"{name}\n" for name in names))
        for name in names:
            write_whole(root / "JPEGImages" / f"{name}.jpg", to_jpeg(photos.image(name), JPEG_QUALITY))
            write_whole(root / "SegmentationClass" / f"{name}.png", mask_to_png(render_mask(config.scenes, name)))
    write_whole(root / "classes.txt", "".join(f"{name}\n" for name in photos.classes))
    with whole_file(root / "labels.csv") as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("name", "classes"))
        writer.writerows((name, " ".join(tags)) for name, tags in photos.tag_table.items())
    return root


def _random(config: ScenesConfig, name: str, stream: int) -> np.random.Generator:
    split, _, index = name.partition("_")
    return np.random.default_rng((config.random_seed, SPLITS.index(split), int(index), stream))


def arrange(config: ScenesConfig, name: str) -> tuple[Thing, ...]:
    """Return the things of a scene, one to three, larger ones first: later ones hide parts of earlier ones."""
    rng = _random(config, name, LAYOUT_STREAM)
    things: list[Thing] = []
    count = int(rng.integers(1, MAX_THINGS + 1))
    for _ in range(30 * count):
        diameter = SMALLEST + (LARGEST - SMALLEST) * math.sqrt(rng.random())  # Larger ones come more often.
        radius = config.size * diameter / 2
        y, x = rng.uniform(0.6 * radius, config.size - 0.6 * radius, 2)
        if all(math.hypot(y - o.y, x - o.x) > SPACING * (radius + o.radius) for o in things):
            class_index = int(rng.integers(config.class_count))
            things.append(Thing(class_index, float(y), float(x), float(radius), rng.uniform(0, 2 * math.pi)))
        if len(things) == count:
            break
    return tuple(sorted(things, key=lambda thing: -thing.radius))
