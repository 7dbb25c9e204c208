"""The verb `compare` puts every method on common ground, and makes one table.

Each row is a classifier trained on the tags of `train` with the same backbone and views, for the epochs that stand in its
row. Its maps on the report split, plain and class-conditional (CCRM), are measured as they are, after PAMR, after IRN's random walk,
whose edge network is trained on the row's own maps, and after PAMR inside what is salient (DRS's rule without its
"ignore"). Gated by the photos' tags, as in the papers; a map's threshold is the best of 0.01 to 0.95 there, for every
row alike. A row that is done is not done again.
"""

import json
import re
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from app.inference.arrays import resize_bilinear
from app.inference.errors import ConfigError
from app.inference.files.whole_file import write_whole
from app.inference.image.preprocess import resize_image
from app.inference.maps.fusion import fuse_maps
from app.inference.maps.pamr import refine_pamr
from training.config.learning import Section
from training.config.map_tables import ClassifierConfig, DrsConfig, IrnConfig, LocalizeConfig
from training.config.run_config import RunConfig, validate_config
from training.data import DataConfig, TaggedPhotos, open_source
from training.data.sampling import evenly_spaced
from training.export.onnx_file import current_commit
from training.fit.device import own_device
from training.masks.confusion import Sweep
from training.masks.evaluate import sweep_maps
from training.methods import Classifier, FirstStage
from training.pipeline.run import VERBS, do
from training.stages.classifier import check_classifier, load_classifier, torch_classifier, validation_map
from training.stages.localize import Localizer, StoredMaps, localize_photos, make_localizer
from training.stages.refine import Refiner, finished, fit_edge_network, fit_refinement_network, irn_refiner
from training.stages.saliency import choose_method

INFERENCES = ("plain", "class-conditional")
REFINEMENTS = {"pamr": "PAMR", "irn": "IRN walk"}
SALIENT = 50  # A pixel is salient above this of 255: DRS's limit.


class Row(Section):
    """It is a classifier: what differs from the common [classifier] table, merged into it.

    `spotlight` names the row whose training AMR's spotlight branch starts from; its epochs come before the row's own.
    With `refined` the row is DRS's refinement network, trained on the maps of that classifier, in its place. `run` names
    the folder of the training, so that two rows can share one; the row's own name where left out. With `fuse` nothing is
    trained: the row's maps are the plain ones of the rows it names, fused (`app.inference.maps.fusion`).
    """

    name: str
    classifier: dict[str, Any] = Field(default_factory=dict)
    spotlight: str | None = None
    refined: bool = False
    run: str | None = None
    fuse: tuple[str, ...] = ()


class CompareConfig(Section):
    """It says what the table holds: rows, and what they have in common."""

    name: str
    out: Path
    data: DataConfig
    classifier: dict[str, Any] = Field(default_factory=dict)
    localize: LocalizeConfig = LocalizeConfig()
    saliency: tuple[str, ...] = ()  # They are methods of `training.stages.saliency`.
    # So many of the report split are measured, evenly spaced; None means all.
    photos: int | None = Field(default=None, ge=1)
    irn: IrnConfig = IrnConfig()
    drs: DrsConfig = DrsConfig()
    rows: tuple[Row, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _rows_that_exist(self) -> "CompareConfig":
        slugs = [slug(row.name) for row in self.rows]
        twice = sorted({name for name in slugs if slugs.count(name) > 1})
        if twice:
            raise ValueError(f"rows share the folders {twice}; give them names that differ in letters or digits")
        for number, row in enumerate(self.rows):
            if row.fuse and (row.classifier or row.spotlight or row.refined or row.run):
                raise ValueError(f"row {row.name!r} trains nothing: beside `fuse` it has a name alone")
            trained = [other.name for other in self.rows[:number] if not other.fuse and not other.refined]
            unknown = [name for name in row.fuse if name not in trained]
            if unknown:
                raise ValueError(f"row {row.name!r} fuses {unknown}; there are {trained} before it")
        return self


def compare(config: CompareConfig) -> Path:
    """Train and measure every row; write `figures.json` and `table.md` into the run's folder."""
    photos = open_source(config.data)
    rows = []
    for row in config.rows:
        path = config.out / slug(row.name) / "figures.json"
        settings = settings_of(config, row)
        begun = path.with_name("settings.json")
        if begun.is_file() and json.loads(begun.read_text()) != settings:
            raise ConfigError(
                f"row {row.name!r} of {config.out} was made with other settings; remove {path.parent}, or give the table "
                f"another `out`"
            )
        write_whole(begun, json.dumps(settings, indent=1))
        if not path.is_file():
            work = measure_fused if row.fuse else measure_row
            write_whole(path, json.dumps(work(config, row, photos), indent=1))
        rows.append({"name": row.name} | json.loads(path.read_text()))
    out = config.out / "table.md"
    write_whole(out, format_table(config, rows, photos.report_split))
    return out


def settings_of(config: CompareConfig, row: Row) -> dict[str, Any]:
    """Return what a row's figures depend on."""
    common = config.model_dump(mode="json", exclude={"rows", "name", "out", *(() if row.refined else ("drs",))})
    fused = {other.name: settings_of(config, other) for other in config.rows if other.name in row.fuse}
    own = row.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)
    return common | {"row": own} | ({"fused": fused} if fused else {})


def measure_row(config: CompareConfig, row: Row, photos: TaggedPhotos) -> dict[str, Any]:
    """Train what a row needs and measure its maps."""
    own = run_config(config, row)
    out = config.out / slug(row.name)
    do(VERBS["fit"], own, lambda: photos)
    classifier: Classifier = load_classifier(own, len(photos.classes))
    if row.refined:
        classifier = fit_refinement_network(own, photos, out / "refinement")
    localizers = {inference: localizer_of(own, photos, classifier, inference) for inference in INFERENCES}
    localize_photos(localizers["plain"], photos, evenly_spaced(photos.names("train"), config.irn.photos), out / "cams")
    network = fit_edge_network(own, photos, out / "cams", out / "edges")
    walk = irn_refiner(network, config.irn, config.localize.preferred_size)
    views, batch = own.classifier.views, own.classifier.fit.batch_size
    return {
        "map": round(validation_map(classifier.eval(), photos, photos.report_split, views.crop, batch), 2),
        "seed": own.classifier.fit.seed,
        "epochs": own.classifier.fit.epochs,
        "commit": current_commit(),
        **{inference: measure(config, photos, localize, walk) for inference, localize in localizers.items()},
    }


def localizer_of(own: RunConfig, photos: TaggedPhotos, classifier: Classifier, inference: str) -> Localizer:
    """Return how a row's classifier is asked for maps."""
    device = own_device(own.classifier.fit)
    model = torch_classifier(own, photos.classes, classifier, device)
    return make_localizer(model, classifier, own.localize.model_copy(update={"inference": inference}))


def measure_fused(config: CompareConfig, row: Row, photos: TaggedPhotos) -> dict[str, Any]:
    """Measure the fused maps of rows that were trained before."""
    runs = [run_config(config, other) for other in config.rows if other.name in row.fuse]
    localizers = [localizer_of(own, photos, load_classifier(own, len(photos.classes)), "plain") for own in runs]

    def localize(image: np.ndarray, class_indices: tuple[int, ...]) -> StoredMaps:
        methods = [localizer(image, class_indices) for localizer in localizers]
        return finished(methods[0], fuse_maps([stored.maps() for stored in methods]))

    return {"commit": current_commit(), "plain": measure(config, photos, localize)}


def measure(
    config: CompareConfig, photos: TaggedPhotos, localize: Localizer, walk: Refiner | None = None
) -> dict[str, dict[str, float]]:
    """Return the figures of one localizer's maps on the report split: as they are, after each refinement, inside what is salient."""
    seconds: dict[str, list[float]] = defaultdict(list)
    saliency = {method: choose_method(method, config.data, photos) for method in config.saliency}

    def timed(kind: str, work: Callable[..., Any], *arguments: Any) -> Any:
        start = time.perf_counter()
        result = work(*arguments)
        seconds[kind].append(time.perf_counter() - start)
        return result

    def maps_of(name: str, image: np.ndarray, class_indices: tuple[int, ...]) -> dict[str, np.ndarray]:
        stored = timed("none", localize, image, class_indices)
        maps = stored.maps()
        pamr = timed("pamr", refine_pamr, resize_image(image, *maps.shape[1:]), maps)
        kinds = {"none": maps, "pamr": pamr}
        if walk is not None:
            kinds["irn"] = timed("irn", walk, image, stored).maps()
        for method, make in saliency.items():
            salient = timed(method, make, name).astype(np.float32)[None]
            kinds[method] = pamr * (resize_bilinear(salient, *maps.shape[1:]) > SALIENT)
        return kinds

    sweeps = sweep_maps(config.data, photos, photos.report_split, maps_of, config.photos)
    return {kind: figures_of(sweep, float(np.mean(seconds[kind]))) for kind, sweep in sweeps.items()}


def figures_of(sweep: Sweep, seconds: float) -> dict[str, float]:
    """Return the figures of one kind of maps at its best threshold; percent, and seconds per image."""
    threshold, _ = sweep.best()
    return {
        "threshold": threshold,
        **{name: round(value, 2) for name, value in sweep.at_threshold(threshold).summary().items()},
        "seconds": round(seconds, 3),
    }


def run_config(config: CompareConfig, row: Row) -> RunConfig:
    """Return the run that trains a row's classifier."""
    run = slug(row.run or row.name)
    classifier = merged(config.classifier, row.classifier)
    if row.spotlight is not None:
        weights = config.out / slug(row.spotlight) / "classifier" / "weights.pt"
        options = classifier.get("options", {})
        first = first_stage_of(row, classifier.get("method", "cam"), options)
        classifier["options"] = options | {first.weights_option: str(weights)}
    values = {
        "name": f"{config.name}-{run}"[:41].rstrip("-"),
        "out": config.out / run,
        "data": config.data,
        "classifier": classifier,
        "localize": config.localize,
        "refine": {"method": "irn", "irn": config.irn, "drs": config.drs},
    }
    return validate_config(RunConfig, values, f"row {row.name!r}")


def first_stage_of(row: Row, name: str, options: dict[str, Any]) -> FirstStage:
    """Return the first stage of a row's method. Raises ConfigError where the method trains in one stage."""
    method, checked = check_classifier(ClassifierConfig(method=name, options=options))
    first = method.first_stage(checked)
    if first is None:
        raise ConfigError(
            f"row {row.name!r}: {name} trains in one stage, so `spotlight` means nothing to it; leave it out"
        )
    return first


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with the entries of `changes`, tables merged entry by entry; `options` are replaced as a whole."""
    result = dict(base)
    for key, value in changes.items():
        tables = key != "options" and isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if tables else value
    return result


def slug(name: str) -> str:
    """Return a row's name as the name of a folder."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def format_table(config: CompareConfig, rows: list[dict[str, Any]], split: str) -> str:
    """Return the table in Markdown, with what it took to make it."""
    commits, seeds = ({str(row[key]) for row in rows if key in row} for key in ("commit", "seed"))
    refinements = REFINEMENTS | {method: f"PAMR, saliency `{method}`" for method in config.saliency}
    header = ["classifier", "epochs", "mAP", "inference", "map mIoU", "precision", "recall", "s/image"]
    header += [part for title in refinements.values() for part in (title, "s/image")]
    lines = [
        f"# {config.name}: the methods on common ground",
        "",
        f"Made by `python -m training compare`; seed {', '.join(sorted(seeds))}, commit {', '.join(sorted(commits))}. "
        f"Percent on {config.photos or 'all'} photos of `{split}`, tags given, every map at its best threshold (in "
        "brackets); seconds per image on the machine that made it.",
        "",
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
    ]
    for row in rows:
        for inference in filter(row.__contains__, INFERENCES):
            kinds = row[inference]
            plain = kinds["none"]
            trained = [str(row["epochs"]), f"{row['map']:.1f}", inference] if "epochs" in row else ["", "", "fused"]
            cells = [row["name"], *trained, miou(plain)]
            cells += [f"{plain['precision']:.1f}", f"{plain['recall']:.1f}", f"{plain['seconds']:.2f}"]
            for kind in refinements:
                cells += [miou(kinds[kind]), f"{kinds[kind]['seconds']:.2f}"] if kind in kinds else ["", ""]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def miou(figures: dict[str, float]) -> str:
    """Return a mean IoU and the threshold it belongs to."""
    return f"{figures['miou']:.1f} ({figures['threshold']:.2f})"
