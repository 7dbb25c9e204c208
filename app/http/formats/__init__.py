"""Replies have these formats: there is one file for each kind, and one entry for each word of `format=`.

A new format is a file with a `Format` and an entry in `FORMATS`: `format=`, the `Accept` header, the links of other replies and
the errors that list the formats all follow.
"""

from collections.abc import Callable

from app.http.formats.arrays import NPY, NPZ
from app.http.formats.coco import COCO
from app.http.formats.format import Format, Maps, Mask
from app.http.formats.hugging_face import HUGGING_FACE
from app.http.formats.pictures import GRAY8, GRAY16, OVERLAY, PNG

JSON = Format("json", "application/json")  # `app.http.reply.describe` writes it, which knows the request as well.
# Where a client likes several formats equally the order decides, and of those that share a media type the first stands for it.
FORMATS: dict[str, Format] = {
    each.word: each for each in (PNG, OVERLAY, GRAY8, GRAY16, NPY, JSON, NPZ, COCO, HUGGING_FACE)
}

__all__ = [
    "FORMATS",
    "JSON",
    "NPZ",
    "Format",
    "Maps",
    "Mask",
    "all_maps_words",
    "json_words",
    "map_words",
    "mask_words",
    "media_type",
    "with_json",
]


def mask_words() -> tuple[str, ...]:
    """Return the formats of a label map, but JSON."""
    return _words(lambda each: each.mask)


def map_words() -> tuple[str, ...]:
    """Return the formats of the map of one class, but JSON."""
    return _words(lambda each: each.map)


def all_maps_words() -> tuple[str, ...]:
    """Return the formats of the maps of all classes, but JSON."""
    return _words(lambda each: each.maps)


def json_words() -> tuple[str, ...]:
    """Return the formats that are JSON: what is said of several photos at once."""
    return tuple(word for word, each in FORMATS.items() if each.media_type == JSON.media_type)


def with_json(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return these formats and JSON, in the order of `FORMATS`: the first one is the default."""
    return tuple(word for word in FORMATS if word in (*words, JSON.word))


def media_type(word: str) -> str:
    """Return the media type of a format."""
    return FORMATS[word].media_type


def _words(encoder: Callable[[Format], object]) -> tuple[str, ...]:
    return tuple(word for word, each in FORMATS.items() if encoder(each) is not None)
