"""The verb `run` does all verbs in order from one configuration, each once."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.inference.errors import ConfigError, DataError, Tag2MaskError
from app.inference.files.whole_file import write_whole
from app.inference.model_card import MASKS, TAGS, ModelCard
from training.config.run_config import RunConfig
from training.data import TaggedPhotos, open_source
from training.export.onnx_file import export_model
from training.export.served import ServedClassifier, ServedSegmenter
from training.fit.device import make_fabric, own_device
from training.masks.corrections.taught import CORRECTED, open_corrections, write_corrected
from training.masks.report import write_report
from training.masks.supervised import write_ground_truth
from training.pipeline.measuring import EXPORTED, evaluate, exported
from training.pipeline.notes import all_done, read_notes, write_note, written
from training.stages.classifier import (
    classifier_card,
    fit_classifier,
    fit_presence_thresholds,
    load_classifier,
    torch_classifier,
)
from training.stages.localize import localize_split
from training.stages.pseudo_label import pseudo_label_run
from training.stages.refine import refine_run
from training.stages.rounds import fit_rounds
from training.stages.saliency import DEFAULT_METHOD, write_saliency
from training.stages.segmenter import (
    SEGMENTER,
    fit_segmenter,
    load_segmenter,
    require_segmenter,
    segmenter_card,
    serve_segmenter,
)
from training.stages.shard import WHOLE, Shard
from training.stages.threshold import agreeing_threshold


@dataclass(frozen=True)
class Stage:
    """It is a verb of the pipeline.

    tables: of the configuration, those its result depends on. needs: the stages whose results it reads.
    table: the stage is left out of runs without this table. tags: it is on the road from tags to labels, which the fully
    supervised upper bound does not take. trained: several processes learn together. shared: each of several processes does
    a shard of the photos, which `work` takes as a third argument.
    """

    name: str
    tables: tuple[str, ...]
    needs: tuple[str, ...]
    work: Callable[..., Any]
    table: str | None = None
    tags: bool = False
    trained: bool = False
    shared: bool = False

    def concerns(self, config: RunConfig) -> bool:
        """Tell whether the run has this stage."""
        return (self.table is None or getattr(config, self.table) is not None) and not (self.tags and config.supervised)


Photos = Callable[[], TaggedPhotos]  # It gives a run's photos, opened at the first call.


def photos_of(config: RunConfig) -> Photos:
    """Return the run's photos, which are opened once, where a stage asks for them."""
    return functools.cache(functools.partial(open_source, config.data))


def run(config: RunConfig, photos: Photos | None = None) -> Path:
    """Do every stage that is not done yet, in order; returns the report's path. All stages share the opened photos.

    A stage that was stopped goes on where it stood. Raises ConfigError where the run's folder was made with other
    settings: results are never silently mixed or thrown away; and in one of several processes, which do a stage at a time.
    """
    if Shard.of_process() != WHOLE:
        raise ConfigError(f"several processes do one stage at a time: torchrun -m training {' | '.join(SHARED)}")
    photos = photos or photos_of(config)
    for stage in STAGES:
        if stage.concerns(config):
            do(stage, config, photos)
    return config.out / "report.html"


def do(stage: Stage, config: RunConfig, photos: Photos | None = None, shard: Shard = WHOLE) -> None:
    """Do one stage, or a shard of one, unless it is done, and note that it is.

    Raises ConfigError where a stage it needs is not done, or this or that one was done with other settings.
    """
    if not stage.concerns(config):
        raise ConfigError(
            f'run {config.name} has labels = "ground-truth", so there is nothing to {stage.name}'
            if stage.tags and config.supervised
            else f"run {config.name} has no [{stage.table}] table; add one to {stage.name}"
        )
    if shard != WHOLE and stage.name not in SHARED:
        raise ConfigError(f"several processes can share {', '.join(SHARED)}; not {stage.name}, which one process does")
    for name in stage.needs:
        if VERBS[name].concerns(config):
            require_done(VERBS[name], config)
    part = shard if stage.shared else WHOLE
    noting = stage.shared or shard.index == 0  # The first of the processes that train together notes for all.
    if is_done(stage, config, part):
        return
    before, files = read_notes(config.out, stage.name).get(part), written(config.out)
    if noting:
        write_note(config.out, stage.name, part, {"settings": settings_of(stage, config), "done": False})
    try:
        stage.work(config, (photos or photos_of(config))(), *((part,) if stage.shared else ()))
    except Tag2MaskError:
        # It was refused before anything was done, so that other settings may follow.
        if noting and written(config.out) == files:
            write_note(config.out, stage.name, part, before)
        raise
    if noting:
        write_note(config.out, stage.name, part, {"settings": settings_of(stage, config), "done": True})


def require_done(stage: Stage, config: RunConfig) -> None:
    """Raise ConfigError unless `stage` is done with the present settings."""
    if not is_done(stage, config):
        raise ConfigError(
            f"{config.out} has no finished '{stage.name}' yet; do it first: python -m training {stage.name}"
        )


def is_done(stage: Stage, config: RunConfig, shard: Shard = WHOLE) -> bool:
    """Tell whether a stage, or a shard of it, is noted as done. Raises ConfigError where it is noted with other settings."""
    notes = read_notes(config.out, stage.name)
    settings = settings_of(stage, config)
    for note in notes.values():
        try:  # Defaults are filled in, for a note that an older release left.
            before = settings_of(stage, RunConfig(name=config.name, out=config.out, **note["settings"]))
        except ValidationError:
            before = {}
        changed = [table for table in stage.tables if before.get(table) != settings[table]]
        if changed:
            raise ConfigError(
                f"{config.out} holds a '{stage.name}' made with other settings ({', '.join(changed)}); "
                f"give the run another `out`, or remove {config.out} to start afresh"
            )
    return all_done(notes) or bool(shard in notes and notes[shard]["done"])


def settings_of(stage: Stage, config: RunConfig) -> dict[str, Any]:
    """Return the tables a stage depends on, defaults filled in."""
    values = config.model_dump(mode="json")
    return {table: values[table] for table in stage.tables}


def saliency(config: RunConfig, photos: TaggedPhotos) -> Path:
    """Have the run's saliency at hand: the folder it names, or an estimate of every photo.

    Raises DataError where the folder lacks a photo.
    """
    assert config.saliency is not None  # Otherwise this is no stage of the run.
    folder = config.saliency.folder
    if folder is None:
        return write_saliency(config.data, photos, config.out / "saliency", config.saliency.estimate or DEFAULT_METHOD)
    names = photos.labelled_names()
    missing = [name for name in names if not (folder / f"{name}.png").is_file()]
    if missing:
        raise DataError(
            f"{folder} lacks {len(missing)} of {len(names)} photos (first: {missing[0]}.png); write them there"
        )
    return folder


def segment(config: RunConfig, photos: TaggedPhotos) -> Path:
    """Train the segmenter on the run's pseudo-labels, and, where the file names a folder of them, on corrected masks; or,
    where the file says so by name, on ground truth.
    """
    if config.supervised:
        fabric, label_maps = make_fabric(require_segmenter(config).fit), config.out / "ground_truth"
        if fabric.is_global_zero:
            write_ground_truth(config.data, photos, label_maps)
        fabric.barrier()
        return fit_segmenter(config, photos, label_maps, config.out / SEGMENTER)
    corrections, corrected = require_segmenter(config).corrections, None
    if corrections is not None:
        fabric, corrected = make_fabric(require_segmenter(config).fit), config.out / "corrected"
        if fabric.is_global_zero:
            write_corrected(open_corrections(corrections, photos), photos, corrected)
        fabric.barrier()
    return fit_rounds(config, photos, config.out / "pseudo_labels", corrected)


def export(config: RunConfig, photos: TaggedPhotos) -> list[Path]:
    """Write the run's classifier and segmenter as ONNX files; each path is noted in `exported.json` once written."""
    noted = config.model_dump(mode="json")
    todo: list[tuple[Callable[[], ServedClassifier | ServedSegmenter], ModelCard, int | None]] = []
    if not config.supervised:
        tables = {key: noted[key] for key in LABEL}
        classifier = load_classifier(config, len(photos.classes))
        device = own_device(config.classifier.fit)
        model = torch_classifier(config, photos.classes, classifier, device)
        thresholds = fit_presence_thresholds(model, photos, config.classifier.held_out)
        card = classifier_card(config, photos.classes, thresholds)
        card = card.model_copy(update={"config": tables, "taught_by": TAGS})
        if config.export.background_threshold == "saliency":
            for name in ("localize", "saliency"):
                require_done(VERBS[name], config)
            card = card.model_copy(update={"background_threshold": agreeing_threshold(config, photos)})
        todo.append((lambda: ServedClassifier(classifier), card, config.export.version))
    if config.segmenter is not None:
        card = segmenter_card(config, photos.classes)
        changes: dict[str, Any] = {"config": noted, "taught_by": MASKS if config.supervised else TAGS}
        if config.segmenter.corrections is not None:
            taught = open_corrections(config.segmenter.corrections, photos).taught
            changes = {"config": noted | {CORRECTED: sorted(taught)}, "taught_by": card.taught_more(len(taught))}
        card = card.model_copy(update=changes)
        version = config.export.version_of_segmenter
        todo.append((lambda: serve_segmenter(load_segmenter(config, len(photos.classes)), card), card, version))
    path = config.out / EXPORTED
    noted_paths = [Path(entry) for entry in json.loads(path.read_text())] if path.is_file() else []
    paths = list(takewhile(Path.is_file, noted_paths))  # An export that was stopped goes on.
    for build, card, version in todo[len(paths) :]:
        paths.append(export_model(build(), card, config.export.models, version))
        write_whole(path, json.dumps([str(entry) for entry in paths]))
    return paths


def report(config: RunConfig, photos: TaggedPhotos) -> Path:
    """Write `report.html`."""
    return write_report(config, photos, exported(config))


FIT = ("data", "classifier")
LOCALIZE = (*FIT, "localize")
REFINE = (*LOCALIZE, "refine")
LABEL = (*REFINE, "pseudo_label", "saliency")
SEGMENT = (*LABEL, "segmenter")
EXPORT = (*SEGMENT, "export")
STAGES = (
    Stage("saliency", ("data", "saliency"), (), saliency, "saliency", tags=True),
    Stage("fit", FIT, (), fit_classifier, tags=True, trained=True),
    Stage("localize", LOCALIZE, ("fit",), localize_split, tags=True, shared=True),
    Stage("refine", REFINE, ("localize",), refine_run, "refine", tags=True),
    Stage("pseudo-label", LABEL, ("localize", "refine", "saliency"), pseudo_label_run, tags=True, shared=True),
    Stage("segment", SEGMENT, ("fit", "pseudo-label"), segment, "segmenter", trained=True),
    Stage("export", EXPORT, ("fit", "segment"), export),
    Stage("evaluate", EXPORT, ("export",), evaluate),
    Stage("report", EXPORT, ("pseudo-label", "evaluate"), report),
)
VERBS = {stage.name: stage for stage in STAGES}
SHARED = tuple(stage.name for stage in STAGES if stage.shared or stage.trained)  # Several processes can do these.
