"""An entity tag (RFC 9110, section 8.8.3) names a result by all it depends on, before any of it is worked out.

So a client that has the result already is told so (304) at the price of a hash.
"""

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    RELEASE = version("tag2mask")
except PackageNotFoundError:  # It runs from a checkout whose dependencies came another way.
    RELEASE = "0"


def entity_tag(*parts: Any, weak: bool) -> str:
    """Return the tag of a result that depends on these parts, which JSON can hold, and on this release.

    A weak one is for bodies that differ from time to time in what does not matter (timings).
    """
    digest = hashlib.sha256(json.dumps([RELEASE, *parts], sort_keys=True).encode()).hexdigest()
    return f'{"W/" if weak else ""}"{digest[:32]}"'


def matches(tag: str, if_none_match: str) -> bool:
    """Tell whether an If-None-Match header names the tag (or `*`), compared weakly as it asks for."""
    listed = [entry.strip().removeprefix("W/") for entry in if_none_match.split(",")]
    return tag.removeprefix("W/") in listed or listed == ["*"]
