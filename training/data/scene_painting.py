"""The things of a generated scene, and the ground they lie on, are painted here, from a random stream."""

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from training.config.data import MAX_SCENE_CLASSES

WHITE, PUPIL = 255, 24  # These are the brightness of a white pixel, and of the dark middle of a head, of 255.
HUE_SPREAD = 0.09  # A body's hue strays this far, in turns; class hues are 1/6 apart.

Plane = np.ndarray  # float32 (H, W)


@dataclass(frozen=True)
class Kind:
    """It is a class of things. Coordinates (u, v) are in radii of the thing, before it is turned.

    shape: (u, v) -> bool, inside the body. texture: (u, v) -> [0, 1], the mix of its two tones. hue: mean of the
    body, in turns. head: centre u, v and radius. head_colour: RGB.
    """

    name: str
    shape: Callable[[Plane, Plane], Plane]
    texture: Callable[[Plane, Plane], Plane]
    hue: float
    head: tuple[float, float, float]
    head_colour: tuple[int, int, int]


def _star(u: Plane, v: Plane) -> Plane:
    return np.hypot(u, v) < 0.72 + 0.28 * np.cos(5 * np.arctan2(v, u))


KINDS = (
    Kind(
        "disc",
        shape=lambda u, v: np.hypot(u, v) < 0.92,
        texture=lambda u, v: 0.5 + 0.5 * np.sin(11 * np.hypot(u, v)),
        hue=0.04,
        head=(0.0, -0.5, 0.3),
        head_colour=(250, 230, 40),
    ),
    Kind(
        "stripes",
        shape=lambda u, v: (np.abs(u) < 0.95) & (np.abs(v) < 0.55),
        texture=lambda u, v: (np.sin(14 * u) > 0).astype(np.float32),
        hue=0.20,
        head=(0.65, 0.0, 0.3),
        head_colour=(240, 40, 40),
    ),
    Kind(
        "checks",
        shape=lambda u, v: np.maximum(np.abs(u), np.abs(v)) < 0.78,
        texture=lambda u, v: (np.sin(9 * u) * np.sin(9 * v) > 0).astype(np.float32),
        hue=0.37,
        head=(-0.42, -0.42, 0.3),
        head_colour=(60, 230, 240),
    ),
    Kind(
        "star",
        shape=_star,
        texture=lambda u, v: 0.5 + 0.5 * np.cos(5 * np.arctan2(v, u)),
        hue=0.54,
        head=(0.6, 0.0, 0.26),
        head_colour=(250, 80, 230),
    ),
    Kind(
        "cross",
        shape=lambda u, v: (np.minimum(np.abs(u), np.abs(v)) < 0.36) & (np.maximum(np.abs(u), np.abs(v)) < 0.95),
        texture=lambda u, v: 0.5 + 0.5 * np.clip(u + v, -1, 1),
        hue=0.71,
        head=(0.0, 0.66, 0.28),
        head_colour=(80, 240, 60),
    ),
    Kind(
        "ring",
        shape=lambda u, v: np.abs(np.hypot(u, v) - 0.68) < 0.28,
        texture=lambda u, v: (np.sin(13 * u) * np.sin(13 * v) > 0.3).astype(np.float32),
        hue=0.87,
        head=(-0.68, 0.0, 0.26),
        head_colour=(60, 90, 250),
    ),
)
assert len(KINDS) == MAX_SCENE_CLASSES


@dataclass(frozen=True)
class Thing:
    """It is one thing of a scene: centre and radius in pixels, angle in radians."""

    class_index: int
    y: float
    x: float
    radius: float
    angle: float


def draw_ground(size: int, rng: np.random.Generator) -> np.ndarray:
    """Return noise of several octaves between two colours, with strokes and patches in the colours of bodies: float (H,
    W, 3).
    """
    noise = sum(
        _enlarge(rng.random((cells, cells), np.float32), size) * weight
        for cells, weight in ((3, 0.4), (6, 0.3), (12, 0.2), (32, 0.1))
    )
    first, second = (_colour(rng.random(), rng.uniform(0.05, 0.45), rng.uniform(0.25, 0.85)) for _ in range(2))
    ground = first + (second - first) * np.clip(2 * noise - 0.5, 0, 1)[..., None]
    image = Image.fromarray(ground.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(5, 13))):
        colour = tuple(int(value) for value in _body_colour(rng.random(), rng))
        y, x = rng.uniform(0, size, 2)
        if rng.random() < 0.7:
            angle, length = rng.uniform(0, 2 * math.pi), size * rng.uniform(0.1, 0.5)
            end = (x + length * math.cos(angle), y + length * math.sin(angle))
            draw.line(((x, y), end), fill=colour, width=max(1, round(size * rng.uniform(0.01, 0.05))))
        else:
            height, width = size * rng.uniform(0.02, 0.07, 2)
            draw.ellipse((x - width, y - height, x + width, y + height), fill=colour)
    return np.array(image, np.float32)


def _enlarge(grid: np.ndarray, size: int) -> np.ndarray:
    weights = _bilinear(len(grid), size)
    return weights @ grid @ weights.T


@lru_cache(maxsize=64)
def _bilinear(cells: int, size: int) -> np.ndarray:
    """Return (size, cells) weights that enlarge `cells` values to `size`, linearly, ends on ends."""
    position = np.linspace(0, cells - 1, size, dtype=np.float32)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(cells, dtype=np.float32)))


def window_of(thing: Thing, size: int) -> tuple[tuple[slice, slice], Plane, Plane]:
    """Return the part of the canvas a thing may cover, and its (u, v) coordinates."""
    rows, columns = (
        slice(max(0, math.floor(centre - thing.radius)), min(size, math.ceil(centre + thing.radius) + 1))
        for centre in (thing.y, thing.x)
    )
    y, x = np.ogrid[rows, columns]
    dy, dx = (y - thing.y) / thing.radius, (x - thing.x) / thing.radius
    cos, sin = math.cos(thing.angle), math.sin(thing.angle)
    return (rows, columns), (cos * dx + sin * dy).astype(np.float32), (cos * dy - sin * dx).astype(np.float32)


def paint(canvas: np.ndarray, thing: Thing, rng: np.random.Generator) -> None:
    """Paint a thing over the canvas, float (H, W, 3): its textured body, and the head with its pupil."""
    kind = KINDS[thing.class_index]
    window, u, v = window_of(thing, canvas.shape[0])
    body = kind.shape(u, v)
    dark, bright = (_body_colour(kind.hue, rng) for _ in range(2))
    mix = 0.15 + 0.7 * kind.texture(u, v)
    shade = 1 + 0.2 * np.clip(-u - v, -1, 1)  # Things are lit from one side.
    colours = (dark * 0.75 + (bright - dark * 0.75) * mix[..., None]) * shade[..., None]
    centre_u, centre_v, radius = kind.head
    distance = np.hypot(u - centre_u, v - centre_v) / radius
    colours[distance < 1] = kind.head_colour
    colours[distance < 0.35] = PUPIL
    canvas[window][body] = colours[body]


def _body_colour(hue: float, rng: np.random.Generator) -> np.ndarray:
    return _colour(hue + rng.normal(0, HUE_SPREAD), rng.uniform(0.3, 0.75), rng.uniform(0.4, 0.9))


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32) * WHITE


def soften(canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur by about a pixel, as a lens does, and add a sensor's noise and exposure: uint8 (H, W, 3)."""
    for axis in (0, 1):
        padded = np.concatenate([canvas.take([0], axis), canvas, canvas.take([-1], axis)], axis)
        length = canvas.shape[axis]
        before, after = (padded.take(range(start, start + length), axis) for start in (0, 2))
        canvas = 0.5 * canvas + 0.25 * (before + after)
    noise = rng.normal(0, 5, canvas.shape).astype(np.float32)
    return np.clip(canvas * rng.uniform(0.8, 1.15) + noise, 0, WHITE).astype(np.uint8)
