"""Names that people spell a little wrong lead to the names they mean."""

import difflib
from collections.abc import Iterable

LIKENESS = 0.6  # Two spellings that are less alike than this, by difflib's ratio, are no slip of the pen.
LONGEST = 100  # So many characters of a name are compared at most: the comparison's time grows with their square.


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the entry of `known` spelled most like `name`, or None where none is close."""
    by_folded = {entry.casefold(): entry for entry in known}
    matches = difflib.get_close_matches(name.casefold()[:LONGEST], by_folded, n=1, cutoff=LIKENESS)
    return by_folded[matches[0]] if matches else None
