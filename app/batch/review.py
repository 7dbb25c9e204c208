"""`review.html` shows the photos of a labelled folder, the worst first, to accept, tag anew or reject.

The page is one file that a browser opens from the disk; photos are taken from JPEGImages/ beside it, regions are drawn from
outlines that it holds. Choices are kept in the browser until they are saved as `choices.csv` (`app.inference.files.choices`).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from PIL import Image

from app.inference.display import css_colour, display_colours
from app.inference.files.choices import Choice
from app.inference.label_maps.regions import borders_of, count_labels
from app.inference.labels import BACKGROUND, IGNORE_INDEX, label_of

PARTS = Path(__file__).with_name("review_page")
SHOWN_SIDE = 640  # Outlines are traced at this long side in px.
TOLERANCE = 0.7  # An outline may stray this many px from its pixels.
MIN_CORNERS = 4  # The smallest ring has this many corners, its first one counted twice.
POOR = 0.5  # A sign below this value is named as a reason.


def outlines_of(mask: np.ndarray) -> dict[str, Any]:
    """Return the regions of a uint8 (H, W) mask as SVG paths, each with a place inside for its name: {"size": [width,
    height], "paths": {label: [path, x, y]}}.
    """
    factor = min(1.0, SHOWN_SIDE / max(mask.shape))
    height, width = (max(1, round(side * factor)) for side in mask.shape)
    small = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
    labels = [label for label, pixels in enumerate(count_labels(small)) if pixels and label != BACKGROUND]
    return {"size": [width, height], "paths": {str(label): outline_of(small == label) for label in labels}}


def outline_of(where: np.ndarray) -> tuple[str, int, int]:
    """Return a bool (H, W) region as an SVG path, with its holes (fill-rule evenodd), and a place inside its largest
    part.
    """
    rings, largest = [], shapely.Polygon()
    for shell, *holes in borders_of(where):
        simple = shapely.Polygon(shell, holes).simplify(TOLERANCE)
        largest = max(largest, simple, key=lambda part: part.area)
        for ring in (simple.exterior, *simple.interiors):
            corners = shapely.get_coordinates(ring)
            if len(corners) >= MIN_CORNERS:
                rings.append("M" + "L".join(f"{x:.0f} {y:.0f}" for x, y in corners[:-1]) + "Z")
    inside = shapely.maximum_inscribed_circle(largest, tolerance=1).coords[0] if largest.area else (0, 0)
    return "".join(rings), round(inside[0]), round(inside[1])


def reasons_of(record: Mapping[str, Any]) -> list[str]:
    """Return why a photo may be labelled badly, in sentences, the weightiest first; empty where no sign is poor."""
    quality, tags, present = record["quality"], record["tags"], record.get("present")
    found = [region["class_name"] for region in record["regions"]]
    said: list[tuple[float, str]] = []
    if tags is not None and set(tags) != set(found):
        said.append((quality["consistency"], difference(found, tags, "the tags name", "which no tag names")))
    elif tags is None and quality["consistency"] < POOR and present is not None:
        said.append(
            (
                quality["consistency"],
                difference(found, present, "the classifier finds", "whose score is below its threshold"),
            )
        )
    elif quality["consistency"] < POOR:  # A record of an earlier release does not say what the classifier found.
        said.append((quality["consistency"], "The label and the classifier do not name the same classes."))
    agreement, margin = quality["agreement"], quality["margin"]
    if agreement is not None and agreement < POOR:
        said.append((agreement, f"The mask and the heatmaps share {agreement:.0%} of their area."))
    if margin is not None and margin < POOR:
        said.append((margin, f"The segmenter hesitates: its best class leads by {margin:.0%} on average."))
    if not found:
        said.append((POOR, "Nothing was found: the whole photo is background."))
    return [sentence[0].upper() + sentence[1:] for _, sentence in sorted(said)]


def difference(found: Sequence[str], known: Sequence[str], who: str, lacking: str) -> str:
    """Return in words which classes a label does not hold although they are known, and which it holds although not."""
    missing = [name for name in known if name not in found]
    surplus = [name for name in found if name not in known]
    parts = [f"{who} {', '.join(missing)}, which the label does not hold"] if missing else []
    parts += [f"the label holds {', '.join(surplus)}, {lacking}"] if surplus else []
    return f"{'; '.join(parts)}."


def entry_of(record: Mapping[str, Any], choices: Mapping[str, Choice]) -> dict[str, Any]:
    """Return what the page knows of a photo."""
    choice = choices.get(record["name"])
    return {
        "name": record["name"],
        "quality": round(record["quality"]["estimate"], 4),
        "tags": record["tags"],
        "found": {str(region["label"]): round(region["share"], 4) for region in record["regions"]},
        "why": reasons_of(record),
        **record["outlines"],
        "choice": None if choice is None else {"kind": choice.kind, "tags": list(choice.tags)},
    }


def review_page(records: Sequence[Mapping[str, Any]], classes: Sequence[str], choices: Mapping[str, Choice]) -> str:
    """Return the page for these records, in their order."""
    photos = [entry_of(record, choices) for record in records]
    labels = [label_of(index) for index in range(len(classes))]
    colours = [css_colour(colour) for colour in display_colours(np.array(labels))]
    known = json.dumps([photos, list(classes)], sort_keys=True).encode()
    data = {
        "id": hashlib.sha256(known).hexdigest()[:16],  # Choices that the browser keeps belong to what it was shown.
        "classes": {str(label): name for label, name in zip(labels, classes, strict=True)},
        "colours": dict(zip(map(str, labels), colours, strict=True)),
        "ignore": str(IGNORE_INDEX),
        "photos": photos,
    }
    page, style, script = ((PARTS / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js"))
    shown = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    filled = page.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
    return filled.replace("/*DATA*/", shown)  # This comes last, since a name may read like a placeholder.
