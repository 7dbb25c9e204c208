"""The choice of a format."""

import pytest

from app.http.request.negotiate import choose_format, parse_accept
from app.inference.errors import NotAcceptableError, ParameterError

SEGMENT = ("json", "png", "overlay")
CAM = ("png", "overlay", "gray8", "gray16", "npy", "json")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "json"),
        ("", "json"),
        ("  ", "json"),
        ("*/*", "json"),
        ("image/png", "png"),
        ("IMAGE/PNG", "png"),
        ("image/jpeg", "overlay"),
        ("image/*", "png"),
        ("image/*, application/json;q=0.9", "png"),
        ("image/*;q=0.8, application/json;q=0.9", "json"),
        ("image/png;q=0.1, */*;q=0.5", "json"),
        ("application/json;q=0, */*", "png"),
        ("image/png;q=0, image/*", "overlay"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8", "json"),
        ("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", "png"),
        ("image/png; charset=utf-8; q=1.0", "png"),
        ("image/png ; q = 0.5 , application/json ; q=0.2", "png"),
        (",,, image/png ,;q=1,", "png"),
        ("nonsense, image/png", "png"),
        ("image/png;q=nan, image/jpeg;q=0.1", "overlay"),
        ("image/png;q=7, image/jpeg;q=0.1", "overlay"),
        ("image/png;q=, image/jpeg", "overlay"),
    ],
)
def test_accept(accept, expected):
    assert choose_format(None, accept, SEGMENT) == expected


@pytest.mark.parametrize(
    "accept", ["text/html", "image/gif", "*/*;q=0", "application/json;q=0", "nonsense", "image/", ";;;"]
)
def test_nothing_acceptable(accept):
    with pytest.raises(NotAcceptableError, match="application/json"):
        choose_format(None, accept, SEGMENT)


def test_first_format_of_a_media_type_stands_for_it():
    assert choose_format(None, "image/png", CAM) == "png"
    assert choose_format(None, "application/x-npy", CAM) == "npy"
    assert choose_format(None, "*/*", CAM) == "png"


def test_format_goes_before_accept():
    assert choose_format("gray16", "application/json", CAM) == "gray16"
    with pytest.raises(ParameterError, match="did you mean 'overlay'"):
        choose_format("overlya", None, CAM)
    with pytest.raises(ParameterError, match="cannot be had of this request"):
        choose_format("npy", None, SEGMENT)


def test_parse_accept():
    assert parse_accept("a/b;q=0.5, c/d") == [("a/b", 0.5), ("c/d", 1.0)]
    assert parse_accept("") == []
    assert len(parse_accept("a/b," * 10_000)) == 10_000
