"""A run's report is one HTML file with pictures, curves and the table of figures. It measures, and reads masks for that alone."""

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from app.inference.analysis import Analyzer
from app.inference.arrays import resize_bilinear
from app.inference.display import css_colour
from app.inference.engine import Engine
from app.inference.files.whole_file import write_whole
from app.inference.image.encode import map_to_overlay, mask_to_overlay
from app.inference.labels import label_of, voc_colours
from app.inference.options import Options
from training.config.run_config import RunConfig
from training.data import TaggedPhotos
from training.data.sampling import evenly_spaced
from training.masks.ground_truth import GroundTruth, read_mask
from training.masks.page import render
from training.masks.report_keys import meaning_of
from training.stages.localize import final_maps, load_maps

PHOTOS = 24
SHOWN_SIDE = 400  # Pictures have this long side in px at most.
COLUMNS = {
    "photo": "its tags below it",
    "heatmap": "where the classifier looks for the first tag, with its score",
    "pseudo-label": "what the segmenter is trained on; pale where the pixel is ignored",
    "mask": "what the segmenter says, which is told no tag",
    "truth": "the mask that somebody drew, which measuring alone reads",
}


def write_report(config: RunConfig, photos: TaggedPhotos, models: list[Path]) -> Path:
    """Write `report.html` into the run's folder from what its stages left there."""
    engines = [Engine(path, device="cpu", intra_op_threads=0) for path in models]
    page = render(
        "report.html",
        name=config.name,
        cards=[engine.card for engine in engines],
        explained=COLUMNS,
        legend=legend(photos.classes),
        meaning_of=meaning_of,
        tables=figure_tables(json.loads((config.out / "figures.json").read_text())),
        curves=[(stage, curve(config.out / stage / "log.csv", stage)) for stage in ("classifier", "segmenter")
                if (config.out / stage / "log.csv").is_file()],
        split=photos.report_split,
        photos=photo_rows(config, photos, engines),
        config=config.model_dump_json(indent=1),
    )  # fmt: skip
    path = config.out / "report.html"
    write_whole(path, page)
    return path


def figure_tables(figures: dict[str, Any]) -> list[tuple[str, list[tuple[str, Any]]]]:
    """Return titles and rows of the tables of figures."""
    tables = []
    for name, measured in figures["models"].items():
        tables.append(
            (f"{name} on {measured['photos']} photos of {measured['split']}", list(measured["figures"].items()))
        )
        tables.append((f"{name}: IoU per label", list(measured["iou"].items())))
    rest = {key: value for key, value in figures.items() if key != "models"}
    rows = []
    for key, value in rest.items():
        rows += (
            [(f"{key} {part}", number) for part, number in value.items()] if isinstance(value, dict) else [(key, value)]
        )
    return [*tables, ("Labels, and a constant background as the lower bound", rows)]


def legend(classes: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return every class with its colour in the pictures."""
    colours = voc_colours(label_of(np.arange(len(classes))))
    return [(name, css_colour(colour)) for name, colour in zip(classes, colours, strict=True)]


def curve(path: Path, title: str) -> str:
    """Return everything in a `log.csv` but the learning rate over steps, as a PNG data address."""
    series: dict[str, list[tuple[int, float]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["name"] != "lr":
                series.setdefault(row["name"], []).append((int(row["step"]), float(row["value"])))
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(4 * max(1, len(series)), 2.6), layout="constrained")
        for axis, (name, points) in zip(
            np.ravel(figure.subplots(1, max(1, len(series)))), series.items(), strict=False
        ):
            axis.plot(*zip(*points, strict=True))
            axis.set(title=f"{title}: {name}", xlabel="step")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
    return data_address(buffer.getvalue(), "png")


def photo_rows(config: RunConfig, photos: TaggedPhotos, engines: list[Engine]) -> list[list[tuple[str, str]]]:
    """Return (caption, picture) per column for evenly spaced photos of the report split."""
    truth = GroundTruth(config.data, photos)
    segmenters = [engine for engine in engines if engine.card.task == "segmentation"]
    rows = []
    for name in evenly_spaced(photos.names(photos.report_split), PHOTOS):
        image = shown_size(photos.image(name))
        row = [(f"{name}: {', '.join(photos.tags(name))}", overlay(np.zeros(image.shape[:2], np.uint8), image))]
        row += [("none", "")] * 2 if config.supervised else label_cells(config, photos, name, image)
        row.append(
            ("", overlay(Analyzer(Options(), segmenter=segmenters[0]).look_at(image).mask.mask, image))
            if segmenters
            else ("none", "")
        )
        row.append(("", overlay(shown_size(truth.mask(name)), image)) if truth.has(name) else ("no mask", ""))
        rows.append(row)
    return rows


def label_cells(config: RunConfig, photos: TaggedPhotos, name: str, image: np.ndarray) -> list[tuple[str, str]]:
    """Return the map of a photo's first tag, and its pseudo-label."""
    stored = load_maps(final_maps(config) / f"{name}.npz")
    label_map = shown_size(read_mask(config.out / "pseudo_labels" / f"{name}.png"))
    cells = [("no tag", "")]
    if stored.class_indices:
        first = stored.class_indices[0]
        heatmap = map_to_overlay(resize_bilinear(stored.maps()[:1], *image.shape[:2])[0], image)
        cells = [(f"{photos.classes[first]}, score {stored.views.scores[first]:.2f}", data_address(heatmap, "jpeg"))]
    return [*cells, ("", overlay(label_map, image))]


def shown_size(pixels: np.ndarray) -> np.ndarray:
    """Return a photo (H, W, 3) or label map (H, W) as the report shows it: at most `SHOWN_SIDE` px."""
    height, width = pixels.shape[:2]
    factor = min(1.0, SHOWN_SIDE / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    resampling = Image.Resampling.NEAREST if pixels.ndim == 2 else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(pixels).resize(size, resampling))


def overlay(label_map: np.ndarray, image: np.ndarray) -> str:
    """Return a label map over its photo as a JPEG data address."""
    return data_address(mask_to_overlay(label_map, image), "jpeg")


def data_address(content: bytes, kind: str) -> str:
    """Return the bytes of a picture as an address that carries them."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
