"""The verb `compare`: every method on common ground, one table.

Each row is a classifier trained on the tags of `train` with the same backbone, views and budget. Its maps on `val`, plain
and class-conditional (CCRM), are measured as they are, after PAMR and after IRN's random walk, whose edge network is
trained on the row's own maps. Gated by the photos' tags, as in the papers; a map's threshold is the best of 0.05 to 0.95
on `val`, for every row alike. A row that is done is not done again.
"""

import json
import re
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning_fabric import Fabric
from pydantic import Field

from app.pamr import refine_pamr
from app.preprocess import resize_image
from training.classifier import load_classifier, torch_classifier, validation_map
from training.config import IrnConfig, LocalizeConfig, RefinementConfig, RunConfig, Section, validate_config
from training.data import DataConfig, TaggedPhotos, open_source
from training.evaluate import Sweep, sweep_maps
from training.export import current_commit
from training.localize import Localizer, StoredMaps, localize_photos, make_localizer
from training.methods import Classifier
from training.refine_maps import Refiner, chosen_photos, fit_edge_network, fit_refinement_network, irn_refiner
from training.run import VERBS, do

INFERENCES = ("plain", "class-conditional")
REFINEMENTS = ("none", "pamr", "irn")
COLUMNS = ("map mIoU", "precision", "recall", "s/image", "+ PAMR", "s", "+ IRN walk", "s")


class Row(Section):
    """A classifier: what differs from the common [classifier] table, merged into it.

    With `refined` the row is DRS's refinement network, trained on the maps of that classifier, in its place. `run` names
    the folder of the training, so that two rows can share one; the row's own name where left out.
    """

    name: str
    classifier: dict[str, Any] = Field(default_factory=dict)
    refined: bool = False
    run: str | None = None


class CompareConfig(Section):
    """The table: rows, and what they have in common."""

    name: str
    out: Path
    data: DataConfig
    classifier: dict[str, Any] = Field(default_factory=dict)
    localize: LocalizeConfig = LocalizeConfig()
    irn: IrnConfig = IrnConfig()
    drs: RefinementConfig = RefinementConfig()
    rows: tuple[Row, ...] = Field(min_length=1)


def compare(config: CompareConfig) -> Path:
    """Train and measure every row; write `figures.json` and `table.md` into the run's folder."""
    photos = open_source(config.data)
    rows = []
    for row in config.rows:
        path = config.out / slug(row.name) / "figures.json"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            figures = measure_row(config, row, photos)
            path.write_text(json.dumps(figures, indent=1))
        rows.append({"name": row.name} | json.loads(path.read_text()))
    out = config.out / "table.md"
    out.write_text(format_table(config, rows))
    return out


def measure_row(config: CompareConfig, row: Row, photos: TaggedPhotos) -> dict[str, Any]:
    """Train what a row needs and measure its maps."""
    own = run_config(config, row)
    out = config.out / slug(row.name)
    do(VERBS["fit"], own)
    classifier: Classifier = load_classifier(own, len(photos.classes))
    if row.refined:
        classifier = fit_refinement_network(own, photos, out / "refinement")
    device = Fabric(accelerator=own.classifier.fit.accelerator, devices=1).device
    model = torch_classifier(own, photos.classes, classifier, device)
    localizers = {
        inference: make_localizer(model, classifier, config.localize.model_copy(update={"inference": inference}))
        for inference in INFERENCES
    }
    localize_photos(localizers["plain"], photos, chosen_photos(photos, config.irn), out / "cams")
    network = fit_edge_network(own, photos, out / "cams", out / "edges")
    walk = irn_refiner(network, config.irn, config.localize.preferred_size)
    views, batch = own.classifier.views, own.classifier.fit.batch_size
    return {
        "map": round(validation_map(classifier.eval(), photos, views.crop, batch), 2),
        "seed": own.classifier.fit.seed,
        "commit": current_commit(),
        **{inference: measure(config.data, localize, walk) for inference, localize in localizers.items()},
    }


def measure(data: DataConfig, localize: Localizer, walk: Refiner) -> dict[str, dict[str, float]]:
    """Figures of one localizer's maps on `val`: as they are, after PAMR, after the walk."""
    seconds: dict[str, list[float]] = defaultdict(list)

    def maps_of(name: str, image: np.ndarray, class_indices: tuple[int, ...]) -> dict[str, np.ndarray]:
        clock = [time.perf_counter()]
        stored = StoredMaps(class_indices, localize(image, class_indices))
        kinds = {"none": stored.maps()}
        clock.append(time.perf_counter())
        kinds["pamr"] = refine_pamr(resize_image(image, *kinds["none"].shape[1:]), kinds["none"])
        clock.append(time.perf_counter())
        kinds["irn"] = walk(image, stored).maps()
        clock.append(time.perf_counter())
        for kind, taken in zip(REFINEMENTS, np.diff(clock), strict=True):
            seconds[kind].append(float(taken))
        return kinds

    sweeps = sweep_maps(data, "val", maps_of)
    return {kind: figures_of(sweeps[kind], float(np.mean(seconds[kind]))) for kind in REFINEMENTS}


def figures_of(sweep: Sweep, seconds: float) -> dict[str, float]:
    """Of one kind of maps at its best threshold; percent, and seconds per image."""
    threshold, _ = sweep.best()
    return {
        "threshold": threshold,
        **{name: round(value, 2) for name, value in sweep.at_threshold(threshold).summary().items()},
        "seconds": round(seconds, 3),
    }


def run_config(config: CompareConfig, row: Row) -> RunConfig:
    """The run that trains a row's classifier."""
    run = slug(row.run or row.name)
    values = {
        "name": f"{config.name}-{run}"[:41].rstrip("-"),
        "out": config.out / run,
        "data": config.data,
        "classifier": merged(config.classifier, row.classifier),
        "localize": config.localize,
        "refine": {"method": "irn", "irn": config.irn, "drs": config.drs},
    }
    return validate_config(RunConfig, values, f"row {row.name!r}")


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with the entries of `changes`, tables merged entry by entry; `options` are replaced as a whole."""
    result = dict(base)
    for key, value in changes.items():
        tables = key != "options" and isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if tables else value
    return result


def slug(name: str) -> str:
    """A row's name as the name of a folder."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def format_table(config: CompareConfig, rows: list[dict[str, Any]]) -> str:
    """The table in Markdown, with what it took to make it."""
    commits, seeds = ({str(row[key]) for row in rows} for key in ("commit", "seed"))
    header = ["classifier", "mAP", "inference", *COLUMNS]
    lines = [
        f"# {config.name}: the methods on common ground",
        "",
        f"Made by `python -m training compare`; seed {', '.join(sorted(seeds))}, commit {', '.join(sorted(commits))}. "
        "Percent on `val`, tags given, every map at its best threshold (in brackets); seconds per image on the machine "
        "that made it.",
        "",
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
    ]
    for row in rows:
        for inference in INFERENCES:
            kinds: dict[Literal["none", "pamr", "irn"], Any] = row[inference]
            plain = kinds["none"]
            cells = [row["name"], f"{row['map']:.1f}", inference, miou(plain)]
            cells += [f"{plain['precision']:.1f}", f"{plain['recall']:.1f}", f"{plain['seconds']:.2f}"]
            for kind in ("pamr", "irn"):
                cells += [miou(kinds[kind]), f"{kinds[kind]['seconds']:.2f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def miou(figures: dict[str, float]) -> str:
    """A mean IoU and the threshold it belongs to."""
    return f"{figures['miou']:.1f} ({figures['threshold']:.2f})"
