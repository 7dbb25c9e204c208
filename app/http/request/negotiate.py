"""A reply takes the format that `?format=` names, where given, else one that the `Accept` header does (RFC 9110, section 12.5.1)."""

from collections.abc import Sequence

from app.http.formats import FORMATS, media_type
from app.inference.errors import NotAcceptableError, ParameterError
from app.inference.spelling import nearest_name


def choose_format(wanted: str | None, accept: str | None, available: Sequence[str]) -> str:
    """Return the format word to answer with, one of `available`, whose first entry is the default.

    Of formats that share a media type, the first listed stands for it. Where the client likes several equally, the
    order of `available` decides.

    Raises ParameterError for an unknown `wanted`, NotAcceptableError where `accept` allows none.
    """
    if wanted is not None:
        return _check_word(wanted, available)
    ranges = parse_accept(accept) if accept and accept.strip() else [("*/*", 1.0)]
    qualities = [_quality(media_type(word), ranges) for word in available]
    best = max(qualities)
    if best <= 0:
        types = ", ".join(dict.fromkeys(f"{media_type(word)} (format={word})" for word in available))
        raise NotAcceptableError(
            f"Accept: {accept!r:.200} allows nothing that can be sent here. Available: {types}.",
            available=[{"format": word, "type": media_type(word)} for word in available],
        )
    return available[qualities.index(best)]


def parse_accept(accept: str) -> list[tuple[str, float]]:
    """Return the media ranges of an `Accept` header with their quality; a range that cannot be read is left out."""
    ranges = []
    for entry in accept.split(","):
        media_range, *parameters = (part.strip().lower() for part in entry.split(";"))
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                quality = _parse_quality(value.strip())
        media_range = "*/*" if media_range == "*" else media_range  # Java and old browsers write *.
        if media_range.count("/") == 1:
            ranges.append((media_range, quality))
    return ranges


def _parse_quality(text: str) -> float:
    """Return a quality value; what is no number in [0, 1] counts as 0, as if the range were not there."""
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0


def _quality(kind: str, ranges: list[tuple[str, float]]) -> float:
    """Return the quality the most specific matching range gives to a media type; 0 where none matches."""
    for pattern in (kind, kind.partition("/")[0] + "/*", "*/*"):
        matching = [quality for media_range, quality in ranges if media_range == pattern]
        if matching:
            return max(matching)
    return 0.0


def _check_word(wanted: str, available: Sequence[str]) -> str:
    if wanted in available:
        return wanted
    if wanted in FORMATS:
        problem = f"format={wanted} cannot be had of this request"
    else:
        nearest = nearest_name(wanted, available)
        problem = f"unknown format {wanted[:80]!r}" + (f", did you mean {nearest!r}" if nearest else "")
    raise ParameterError(f"{problem}; use one of {', '.join(available)}.", parameter="format", known=list(available))
