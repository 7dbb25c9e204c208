"""A name means a class by its own spelling, in any case, or by the usual other words for it ("tv", "couch", "bike").

A model's card may bring words of its own (`ModelCard.synonyms`). A name that could mean two classes means none.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence

# Data sets and people use the words of each row for one thing; the classes of PASCAL VOC and COCO are among them.
SYNONYMS = (
    ("aeroplane", "airplane", "plane", "aircraft"),
    ("bicycle", "bike", "cycle"),
    ("motorbike", "motorcycle", "motor bike"),
    ("car", "automobile"),
    ("sofa", "couch", "settee"),
    ("tvmonitor", "tv", "television", "tv monitor", "tv/monitor", "monitor"),
    ("diningtable", "dining table", "table"),
    ("pottedplant", "potted plant", "plant", "houseplant"),
    ("person", "people", "human"),
    ("boat", "ship"),
    ("cow", "cattle"),
    ("cell phone", "mobile phone", "smartphone"),
    ("donut", "doughnut"),
    ("hair drier", "hair dryer"),
)
SEPARATORS = re.compile(r"[\s_/-]+")


def folded(name: str) -> str:
    """Return what two spellings of a name have in common: no case, no separators, accents written one way."""
    return SEPARATORS.sub("", unicodedata.normalize("NFKC", name).casefold())


GROUPS = tuple(frozenset(map(folded, group)) for group in SYNONYMS)


def find_class(name: str, classes: Sequence[str], synonyms: Mapping[str, Sequence[str]] | None = None) -> int | None:
    """Return the index of the class that a name means; None where it means none, or more than one.

    The name as it is written comes first, then its spelling, then the card's words, then the usual ones.
    """
    if name in classes:
        return classes.index(name)
    wanted = folded(name)
    spelled = [folded(entry) for entry in classes]
    own = [{folded(word) for word in (synonyms or {}).get(entry, ())} for entry in classes]
    usual = next((group for group in GROUPS if wanted in group), frozenset())
    for found in (
        [index for index, spelling in enumerate(spelled) if spelling == wanted],
        [index for index, words in enumerate(own) if wanted in words],
        [index for index, spelling in enumerate(spelled) if spelling in usual],
    ):
        if found:
            return found[0] if len(found) == 1 else None
    return None
