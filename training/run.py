"""The verb `run`: all verbs in order from one configuration, each done once."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.errors import ConfigError
from training.classifier import fit_classifier, load_classifier, torch_classifier
from training.config import RunConfig
from training.data import open_source
from training.evaluate import Evaluation, evaluate_file, label_figures
from training.export import ExportError, export_model, halve_weights, update_figures
from training.localize import localize_split
from training.pseudo_label import SUMMARY as LABELLED
from training.pseudo_label import pseudo_label_run
from training.report import write_report
from training.segmenter import fit_segmenter, load_segmenter, segmenter_card
from training.served import ServedClassifier, ServedSegmenter
from training.supervised import write_ground_truth

STATE = "state.json"
MAX_LOSS = 0.5  # points of mean IoU that half-precision weights may cost


@dataclass(frozen=True)
class Stage:
    """A verb of the pipeline: the tables of the configuration its result depends on, and what it does."""

    name: str
    tables: tuple[str, ...]
    work: Callable[[RunConfig], Any]


def run(config: RunConfig) -> Path:
    """Do every stage that is not done yet, in order; returns the report's path.

    A stage that was stopped goes on where it stood. Raises ConfigError where the run's folder was made with other
    settings: results are never silently mixed or thrown away.
    """
    for stage in STAGES:
        if stage.name != "segment" or config.segmenter is not None:
            do(stage, config)
    return config.out / "report.html"


def do(stage: Stage, config: RunConfig) -> None:
    """Do one stage unless it is done, and note that it is."""
    settings = settings_of(stage, config)
    noted = read_state(config.out).get(stage.name)
    if noted:
        before = settings_of(stage, RunConfig(name=config.name, out=config.out, **noted["settings"]))
        changed = [table for table in stage.tables if before[table] != settings[table]]
        if changed:
            raise ConfigError(
                f"{config.out} holds a '{stage.name}' made with other settings ({', '.join(changed)}); "
                f"give the run another `out`, or remove {config.out} to start afresh"
            )
        if noted["done"]:
            return
    note(config.out, stage.name, settings, done=False)
    stage.work(config)
    note(config.out, stage.name, settings, done=True)


def settings_of(stage: Stage, config: RunConfig) -> dict[str, Any]:
    """The tables a stage depends on, defaults filled in."""
    values = config.model_dump(mode="json")
    return {table: values[table] for table in stage.tables}


def read_state(out: Path) -> dict[str, Any]:
    """What is noted of the run's stages."""
    path = out / STATE
    return json.loads(path.read_text()) if path.is_file() else {}


def note(out: Path, stage: str, settings: dict[str, Any], *, done: bool) -> None:
    """Note where a stage stands, whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    partial = out / f"{STATE}.partial"
    partial.write_text(json.dumps(read_state(out) | {stage: {"settings": settings, "done": done}}, indent=1))
    partial.replace(out / STATE)


def segment(config: RunConfig) -> Path:
    """Train the segmenter on the run's pseudo-labels, or, where the file says so by name, on ground truth."""
    label_maps = config.out / "pseudo_labels"
    if config.segmenter is not None and config.segmenter.labels == "ground-truth":
        label_maps = write_ground_truth(config.data, open_source(config.data), config.out / "ground_truth")
    return fit_segmenter(config, label_maps)


def export(config: RunConfig) -> list[Path]:
    """Write the run's classifier and segmenter as ONNX files; note their paths in `exported.json`."""
    photos = open_source(config.data)
    noted = config.model_dump(mode="json")
    classifier = load_classifier(config, len(photos.classes))
    card = torch_classifier(config, photos, classifier, "cpu").card
    tables = {key: noted[key] for key in ("data", "classifier", "localize")}
    models = config.export.models
    paths = [export_model(ServedClassifier(classifier), card.model_copy(update={"config": tables}), models,
                          config.export.version)]  # fmt: skip
    if config.segmenter is not None:
        segmenter = load_segmenter(config, len(photos.classes))
        card = segmenter_card(config, photos.classes).model_copy(update={"config": noted})
        paths.append(export_model(ServedSegmenter(segmenter), card, models, config.export.version))
    (config.out / "exported.json").write_text(json.dumps([str(path) for path in paths]))
    return paths


def evaluate(config: RunConfig) -> Path:
    """Measure the exported files and the pseudo-labels; write `figures.json` and the figures into the cards."""
    figures: dict[str, Any] = {"models": {}}
    for path in exported(config):
        measured = evaluate_file(path, config.data, "val", config.export.common)
        update_figures(path, measured.figures)
        if config.export.precision == "float16":
            measured = replace_by_half(path, config, measured)
        figures["models"][measured.model] = asdict(measured)
    if (config.out / "pseudo_labels" / LABELLED).is_file():
        figures |= label_figures(config.data, config.out / "pseudo_labels")
    path = config.out / "figures.json"
    path.write_text(json.dumps(figures, indent=1))
    return path


def replace_by_half(path: Path, config: RunConfig, full: Evaluation) -> Evaluation:
    """Put a file of half-precision weights in the place of a measured float32 one; the card keeps both figures.

    Raises ExportError, and leaves the float32 file, where a mean IoU falls by more than half a point.
    """
    halved = halve_weights(path)
    measured = evaluate_file(halved, config.data, "val", config.export.common)
    main = [name for name in full.figures if name.endswith("miou")]
    lost = max((full.figures[name] - measured.figures[name] for name in main), default=0.0)
    if lost > MAX_LOSS:
        halved.unlink()
        raise ExportError(f"{path}: half precision costs {lost:.2f} points of mean IoU; the limit is {MAX_LOSS}")
    update_figures(halved, measured.figures | {f"float32_{name}": full.figures[name] for name in main})
    halved.replace(path)
    return measured


def exported(config: RunConfig) -> list[Path]:
    """The ONNX files of the run. Raises ConfigError where it has not been exported."""
    path = config.out / "exported.json"
    if not path.is_file():
        raise ConfigError(f"run {config.name} has not been exported; `python -m training export CONFIG` does it")
    return [Path(entry) for entry in json.loads(path.read_text())]


def report(config: RunConfig) -> Path:
    """Write `report.html`."""
    return write_report(config, exported(config))


STAGES = (
    Stage("fit", ("data", "classifier"), fit_classifier),
    Stage("localize", ("data", "classifier", "localize"), localize_split),
    Stage("pseudo-label", ("data", "classifier", "localize", "pseudo_label"), pseudo_label_run),
    Stage("segment", ("data", "classifier", "localize", "pseudo_label", "segmenter"), segment),
    Stage("export", ("data", "classifier", "localize", "pseudo_label", "segmenter", "export"), export),
    Stage("evaluate", ("data", "classifier", "localize", "pseudo_label", "segmenter", "export"), evaluate),
    Stage("report", ("data", "classifier", "localize", "pseudo_label", "segmenter", "export"), report),
)
VERBS = {stage.name: stage for stage in STAGES}
