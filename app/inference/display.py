"""Colours to look at differ from PASCAL VOC's palette, which masks are stored with: it has dull ones (its cat is brown) and near ones."""

import numpy as np

# Hues follow each other by the golden angle, in degrees: however many classes there are, their hues lie well apart.
TURN = 137.508
# Classes take these values of OKLCH in turn, so that classes of near hues differ in lightness.
LIGHTNESS = (0.72, 0.62, 0.8)
CHROMA = 0.19  # All colours have this chroma of OKLCH.

# These matrices lead from OKLab to the cube roots of cone responses, and on to linear sRGB (Björn Ottosson,
# https://bottosson.github.io/posts/oklab/, public domain).
TO_CONES = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
)
TO_LINEAR = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def display_colours(labels: np.ndarray) -> np.ndarray:
    """Return a bright colour for each label, uint8 RGB (N, 3); a label has the same one in every photo."""
    labels = np.asarray(labels)
    hue = np.radians(TURN * labels)
    lightness = np.take(LIGHTNESS, labels % len(LIGHTNESS))
    lab = np.stack([lightness, CHROMA * np.cos(hue), CHROMA * np.sin(hue)], axis=-1)
    linear = ((lab @ TO_CONES.T) ** 3 @ TO_LINEAR.T).clip(0, 1)
    gamma = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (gamma * np.iinfo(np.uint8).max).round().astype(np.uint8)


def css_colour(colour: np.ndarray) -> str:
    """Return the colour as #rrggbb."""
    return "#" + bytes(colour.tolist()).hex()
