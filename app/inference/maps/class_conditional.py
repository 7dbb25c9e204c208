"""CCRM, class-conditional inference, makes better maps by any trained classifier without training it again.

Sun, Zhang and Barnes, "Inferring the Class Conditional Response Map for Weakly Supervised Semantic Segmentation",
WACV 2022, https://arxiv.org/abs/2110.14309. In pure numpy, over any function images -> maps.

    B_k = M_k / (max M_k + 1e-5)     plain map of class k; M sums the maps of 4 scales and their mirrors   `plain_maps`
    split the photo in four overlapping patches between the mass centres of the B_k                       `split_boxes`
    in every patch, for t = 0 .. 4:                                                                       `erase`
        N_t   = plain maps of the patch, the pixels outside kept_t-1 replaced by the patch's mean colour
        A     = max(A, N_t)
        kept_t = [max over k of A_k < 0.7]
        stop when kept lost less than 2 % of the patch in this round
    map_k = pixel-wise maximum of the patches' A_k, zero where no patch lies

Only the photo's classes take part: they gate the maps, and their centres split the photo. With three classes or more
the released code takes the whole photo four times; once gives the same.

The released code does four things by accident, which `released=True` keeps: (1) the mask of one view is resized from
the mask of the view before, so that it has half the resolution after the scale 0.5; (2) it is not mirrored for mirrored
views, which lose the mirrored region instead; (3) the nearest value is looked up half a pixel off the grid on which the
photo is resized; (4) a box that begins above or left of the photo is a negative index, counted from the far edge, and
shrinks to a sliver. By default the mask of every view comes from the full-size one, on the photo's grid, is mirrored
with the view, and boxes are clamped. (The released code also keeps patches as JPEG files; this does not.)
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from app.inference.arrays import normalize_cam, resize_bilinear
from app.inference.image.preprocess import MIN_INPUT_SIDE, resize_image

# It takes float32 (N, H, W, 3), RGB in [0, 255], all of one size, and gives maps >= 0, (N, C, h, w), at any resolution.
Cams = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class ConditionalOptions:
    """They say how class-conditional inference runs; the defaults are the paper's numbers.

    scales, flip: the views of every patch. rounds: at most so many. erase_threshold: a pixel where a map reaches it is
    erased. min_erased: share of a patch; a round that erases less is the last. buffers: px that the patches reach over
    the mass centres, for photos of one class and of two. released: see the module. batch_pixels: so many pixels at
    most are given to the classifier at once, which changes nothing but memory and speed.
    """

    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)
    flip: bool = True
    rounds: int = 5
    erase_threshold: float = 0.7
    min_erased: float = 0.02
    buffers: tuple[int, int] = (10, 20)
    released: bool = False
    batch_pixels: int = 4_000_000

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # Configurations hold such options.


@dataclass(frozen=True)
class Box:
    """It is a rectangle of pixels: rows top..bottom and columns left..right, the ends not included."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Its rows and columns index an (H, W) array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclass(frozen=True)
class ConditionalMaps:
    """It holds class-conditional maps of one photo and how they came about.

    maps, plain: (K, H, W) float32 in [0, 1]. centres: (K, 2), row and column of the mass centres. boxes: of the four
    patches: top left, top right, bottom left, bottom right. kept: per patch and round, bool (h, w), False where erased.
    """

    maps: np.ndarray
    plain: np.ndarray
    centres: np.ndarray
    boxes: tuple[Box, ...]
    kept: tuple[tuple[np.ndarray, ...], ...]


def class_conditional_maps(
    cams: Cams, image: np.ndarray, class_indices: Sequence[int], options: ConditionalOptions | None = None
) -> ConditionalMaps:
    """Return maps of the classes `class_indices`, at least one, of a photo (H, W, 3) uint8."""
    options = options or ConditionalOptions()
    size = image.shape[:2]
    [plain] = plain_maps(cams, [_Patch(image)], class_indices, options)
    centres = np.stack([mass_centre(each) for each in plain])
    boxes = split_boxes(centres, size, options)
    distinct = [box for box in dict.fromkeys(boxes) if box.bottom > box.top and box.right > box.left]
    patches = {box: _Patch(image[box.slices]) for box in distinct}
    erase(cams, patches.values(), class_indices, options)
    maps = np.zeros_like(plain)
    for box, patch in patches.items():
        where = (..., *box.slices)
        maps[where] = np.maximum(maps[where], patch.maps)
    kept = tuple(tuple(patches[box].kept) if box in patches else () for box in boxes)
    return ConditionalMaps(maps, plain, centres, boxes, kept)


def uint8_cams(run: Callable[[np.ndarray], dict[str, np.ndarray]]) -> Cams:
    """Return a served classifier (uint8 images (N, H, W, 3) -> outputs by name) as the function this module asks for."""

    def cams(images: np.ndarray) -> np.ndarray:
        return run(np.rint(images).clip(0, 255).astype(np.uint8))["cam"]

    return cams


def mass_centre(plain: np.ndarray) -> np.ndarray:
    """Return the row and column of the mass centre of a map (H, W); the middle where the map is zero."""
    total = plain.sum(dtype=np.float64)
    if total <= 0:
        return np.array(plain.shape) / 2
    rows, columns = plain.sum(axis=1, dtype=np.float64), plain.sum(axis=0, dtype=np.float64)
    return np.array([rows @ np.arange(len(rows)), columns @ np.arange(len(columns))]) / total


def split_boxes(centres: np.ndarray, size: tuple[int, int], options: ConditionalOptions) -> tuple[Box, ...]:
    """Return the boxes of the patches top left, top right, bottom left and bottom right of a photo of `size` (H, W)."""
    height, width = size
    if len(centres) > len(options.buffers):
        return (Box(0, height, 0, width),) * 4
    buffer = options.buffers[len(centres) - 1]
    first, last = centres.astype(int).min(axis=0) - buffer, centres.astype(int).max(axis=0) + buffer
    if not options.released:
        first = np.maximum(first, 0)
    (top, left), (bottom, right) = first.tolist(), last.tolist()
    upper, lower = (slice(begin, end).indices(height)[:2] for begin, end in ((None, bottom), (top, None)))
    west, east = (slice(begin, end).indices(width)[:2] for begin, end in ((None, right), (left, None)))
    return Box(*upper, *west), Box(*upper, *east), Box(*lower, *west), Box(*lower, *east)


class _Patch:
    """It holds a piece of the photo and what is known of it: image (h, w, 3), maps A (K, h, w), kept masks of the rounds."""

    def __init__(self, image: np.ndarray) -> None:
        self.image = image
        self.maps: np.ndarray = np.zeros((0, *image.shape[:2]), np.float32)
        self.kept: list[np.ndarray] = []

    def update(self, maps: np.ndarray, options: ConditionalOptions) -> bool:
        """Take in one round's maps; whether another round is due."""
        self.maps = np.maximum(self.maps, maps) if self.kept else maps
        before = self.kept[-1].sum() if self.kept else maps[0].size
        self.kept.append(self.maps.max(axis=0) < options.erase_threshold)
        return bool((before - self.kept[-1].sum()) / maps[0].size >= options.min_erased)


def erase(cams: Cams, patches: Iterable[_Patch], class_indices: Sequence[int], options: ConditionalOptions) -> None:
    """Run the rounds of all patches side by side, until none has another one due."""
    active = list(patches)
    for _ in range(options.rounds):
        maps = plain_maps(cams, active, class_indices, options)
        active = [patch for patch, own in zip(active, maps, strict=True) if patch.update(own, options)]
        if not active:
            break


def plain_maps(
    cams: Cams, patches: Sequence[_Patch], class_indices: Sequence[int], options: ConditionalOptions
) -> list[np.ndarray]:
    """Return normalised maps (K, h, w) of every patch, over all its views, with the pixels erased so far taken out."""
    views = [list(patch_views(patch, options)) for patch in patches]
    answers = run_by_size(cams, [image for each in views for image, _ in each], class_indices, options)
    maps = []
    for patch, own in zip(patches, views, strict=True):
        total = np.zeros((len(class_indices), *patch.image.shape[:2]), np.float32)
        for _, mirrored in own:
            enlarged = resize_bilinear(next(answers), *patch.image.shape[:2])
            total += enlarged[:, :, ::-1] if mirrored else enlarged
        maps.append(normalize_cam(total))
    return maps


def patch_views(patch: _Patch, options: ConditionalOptions) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield (float32 (h, w, 3), mirrored) of every scale, plain and mirrored, pixels erased so far set to the mean
    colour.
    """
    kept = patch.kept[-1] if patch.kept else None
    for scale in options.scales:
        smallest = 1 if options.released else MIN_INPUT_SIDE
        height, width = (max(smallest, round(side * scale)) for side in patch.image.shape[:2])
        resized = resize_image(np.ascontiguousarray(patch.image), height, width).astype(np.float32)
        mean = resized.mean(axis=(0, 1))
        for mirrored in (False, True) if options.flip else (False,):
            image = resized[:, ::-1] if mirrored else resized
            if kept is not None and options.released:
                kept = resize_nearest(kept, height, width)  # The next view's mask is made from this one.
                image = np.where(kept[:, :, None], image, mean)
            elif kept is not None:
                mask = resize_mask(kept, height, width)
                image = np.where((mask[:, ::-1] if mirrored else mask)[:, :, None], image, mean)
            yield image, mirrored


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize bool (h, w) to (height, width) by majority, half-pixel centres; False where both weigh the same."""
    return resize_bilinear(mask[None].astype(np.float32), height, width)[0] > 0.5 + 1e-4


def resize_nearest(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize (h, w) to (height, width) by the nearest value: torch's `interpolate(..., mode="nearest")`."""
    rows = np.arange(height) * mask.shape[0] // height
    columns = np.arange(width) * mask.shape[1] // width
    return mask[rows[:, None], columns]


def run_by_size(
    cams: Cams, images: Sequence[np.ndarray], class_indices: Sequence[int], options: ConditionalOptions
) -> Iterator[np.ndarray]:
    """Yield maps (K, h, w) of each image, in order; images of one size go to the classifier together."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(image.shape, []).append(index)
    answers: dict[int, np.ndarray] = {}
    for (height, width, _), members in groups.items():
        count = max(1, options.batch_pixels // (height * width))
        for start in range(0, len(members), count):
            batch = members[start : start + count]
            maps = cams(np.stack([images[index] for index in batch]))
            answers |= dict(zip(batch, maps[:, list(class_indices)].astype(np.float32, copy=False), strict=True))
    return iter([answers[index] for index in range(len(images))])
