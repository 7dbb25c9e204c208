"""A run needs things before it starts: data, weights, saliency, extras, memory of the GPU. They are printed, and checked.

A long run should stop in its first second, not after its first day.
"""

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from app.inference.errors import ConfigError
from training.backbones import PRETRAINED, build_backbone
from training.config.map_tables import ClassifierConfig
from training.config.run_config import RunConfig
from training.masks.check import fault_of_masks
from training.pipeline.run import Photos, photos_of
from training.smoothing.opencv import load_opencv
from training.stages.classifier import check_classifier
from training.stages.saliency import DEFAULT_METHOD, check_method
from training.stages.segmenter import check_segmenter

MIB, GIB = 1 << 20, 1 << 30
LEAST_FREE = 50 * MIB  # The smallest run writes this many bytes; most write far more.
SHARE_IN_SIGHT = 0.95  # The system shows this share of the memory that a GPU is sold with.


@dataclass(frozen=True)
class Need:
    """It is something a run needs. missing: what to do about it where it is not there; None where it is."""

    what: str
    missing: str | None = None


def needs_of(config: RunConfig, photos: Photos | None = None) -> list[Need]:
    """List what the run needs and can be looked at beforehand; `photos` opens the run's photos where a need asks for them."""
    photos = photos or photos_of(config)
    return [
        *place_needs(config),
        *data_needs(config),
        *mask_needs(config, photos),
        *network_needs(config),
        *weight_needs(config),
        *fusion_needs(config, photos),
        *saliency_needs(config),
        *extra_needs(config),
        *opencv_needs(config),
        *gpu_needs(config),
    ]


def require(needs: list[Need]) -> None:
    """Raise ConfigError where something is missing, with every remedy."""
    missing = [f"{need.what}: {need.missing}" for need in needs if need.missing]
    if missing:
        raise ConfigError(f"{len(missing)} of {len(needs)} needs are missing; " + "; ".join(missing))


def data_needs(config: RunConfig) -> Iterator[Need]:
    """Look at the photos and their tags."""
    data = config.data
    if data.source == "scenes":
        yield Need(f"data: {data.scenes.count} + {data.scenes.val_count} generated scenes")
        return
    there = data.root is not None and data.root.is_dir()
    remedy = None if there else "no such folder; put the data there, or name another with --set data.root=DIR"
    yield Need(f"data: {data.source} in {data.root}", remedy)
    if data.extra is not None:
        remedy = None if data.extra.is_dir() else "no such folder; put it there, or leave out data.extra"
        yield Need(f"data: further photos in {data.extra}", remedy)


def place_needs(config: RunConfig) -> Iterator[Need]:
    """Look at the folders for the results and the models, and the room in them."""
    for what, folder in (("out", config.out), ("[export] models", config.export.models)):
        above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        remedy = None
        if not above.is_dir():
            remedy = f"{above} is a file; name a folder"
        elif not os.access(above, os.W_OK | os.X_OK):
            remedy = f"{above} may not be written to; name another folder, or give this user the right"
        elif (free := shutil.disk_usage(above).free) < LEAST_FREE:
            remedy = f"{free // MIB} MiB are free there, {LEAST_FREE // MIB} at least are needed; make room, or name another disk"
        yield Need(f"{what}: results go to {folder}", remedy)


def mask_needs(config: RunConfig, photos: Photos) -> Iterator[Need]:
    """Look at masks that can be measured against, where the photos that are reported have any."""
    if config.data.source != "scenes" and config.data.root is not None and config.data.root.is_dir():
        count, fault = fault_of_masks(config.data, photos())
        if fault:
            yield Need(f"masks of {count} photos, to measure by", fault)


def weight_needs(config: RunConfig) -> Iterator[Need]:
    """Look at the weights that networks start from; pre-trained ones are fetched now where they are not here yet."""
    tables: list[tuple[str, Any]] = [("segmenter", config.segmenter)]
    if not config.supervised:
        refine = config.refine
        if refine is not None and refine.method != "fusion":
            tables.insert(0, (f"refine.{refine.method}", getattr(refine, refine.method)))
        tables.insert(0, ("classifier", config.classifier))
        yield from first_stage_needs(config.classifier)
        if (mosaic := config.classifier.mosaic) is not None:
            remedy = None if mosaic.photos.is_file() else "no such file; put it there, or leave out [classifier.mosaic]"
            yield Need(f"[classifier.mosaic] photos of single objects in {mosaic.photos}", remedy)
    for name, table in tables:
        if table is None:
            continue
        network = getattr(table, "network", None)
        if network is not None:
            yield Need(
                f"[{name}] a trained network {network}", None if network.is_file() else "no such file; import it"
            )
            continue
        what = f"[{name}] {table.backbone} starts from "
        if table.weights is None:
            yield Need(what + "random weights")
        elif table.weights == "classifier":
            own, theirs = (name.removesuffix("-irn") for name in (table.backbone, config.classifier.backbone))
            remedy = None if own == theirs else f"that is a {theirs}; name the same backbone, or a file of weights"
            yield Need(what + "the run's classifier", remedy)
        elif table.weights == PRETRAINED:
            remedy = refusal(build_backbone, table.backbone, table.output_stride, PRETRAINED)
            yield Need(what + "its pre-trained weights", remedy)
        else:
            remedy = None if Path(table.weights).is_file() else "no such file; put it there, or name another one"
            yield Need(what + table.weights, remedy)


def first_stage_needs(settings: ClassifierConfig) -> Iterator[Need]:
    """Look at the weights of a method's first stage, where the configuration names a file of them."""
    if refusal(check_classifier, settings):  # `network_needs` reports it.
        return
    method, options = check_classifier(settings)
    first = method.first_stage(options)
    file = None if first is None else settings.options.get(first.weights_option)
    if first is not None and file is not None:
        remedy = None if Path(file).is_file() else "no such file; train that classifier first"
        yield Need(f"[classifier] its {first.method} branch starts from {file}", remedy)


def refusal(work: Callable[..., Any], *arguments: Any) -> str | None:
    """Return the message of the ConfigError that `work` raises; None where it raises none."""
    try:
        work(*arguments)
    except ConfigError as error:
        return str(error)
    return None


def network_needs(config: RunConfig) -> Iterator[Need]:
    """Look at the method and the architecture: whether they exist and know their options."""
    if not config.supervised:
        yield Need(f"[classifier] {config.classifier.method}", refusal(check_classifier, config.classifier))
    if config.segmenter is not None:
        yield Need(f"[segmenter] {config.segmenter.architecture}", refusal(check_segmenter, config.segmenter))


def fusion_needs(config: RunConfig, photos: Photos) -> Iterator[Need]:
    """Look at maps of other runs, of every photo."""
    if config.refine is None or config.supervised:
        return
    for folder in config.refine.others:
        remedy = None if folder.is_dir() else "no such folder; `localize` the run it belongs to first"
        if folder == config.out / "cams":  # It is the run's own.
            remedy = None
        elif remedy is None:
            names = photos().labelled_names()
            missing = [name for name in names if not (folder / f"{name}.npz").is_file()]
            if missing:
                remedy = (
                    f"{len(missing)} of {len(names)} photos are not there (first: {missing[0]}); `localize` that run"
                )
        yield Need(f"[refine] maps in {folder}", remedy)


def saliency_needs(config: RunConfig) -> Iterator[Need]:
    """Look at the folder of saliency, or the library that estimates it."""
    if config.saliency is None or config.supervised:
        return
    folder = config.saliency.folder
    if folder is not None:
        remedy = None
        if not folder.is_dir():
            remedy = (
                f"no such folder; do the run it belongs to first, write grey PNGs there, or --set 'saliency={{ estimate = "
                f'"{DEFAULT_METHOD}" }}\''
            )
        yield Need(f"saliency: PNGs in {folder}", remedy)
    else:
        remedy = refusal(check_method, config.saliency.estimate, config.data)
        yield Need(f"saliency: the estimate {config.saliency.estimate!r}", remedy)


def extra_needs(config: RunConfig) -> Iterator[Need]:
    """Look at the dense CRF, an extra that is built from source."""
    segmenter, labelled = config.segmenter, not config.supervised
    refine = config.refine if labelled else None
    table = getattr(refine, refine.method, None) if refine else None
    users = {
        "pseudo_label": labelled and config.pseudo_label.refine == "crf",
        f"refine.{refine.method}" if refine else "refine": getattr(table, "refine", None) == "crf",
        "segmenter": segmenter is not None and segmenter.crf,
    }
    tables = [table for table, uses in users.items() if uses]
    if tables:
        there = importlib.util.find_spec("pydensecrf") is not None
        remedy = None if there else 'not installed; pip install ".[crf]" in the checkout, or use "pamr"'
        yield Need(f"dense CRF for {', '.join(f'[{table}]' for table in tables)}", remedy)


def opencv_needs(config: RunConfig) -> Iterator[Need]:
    """Look at OpenCV, where the labels are made by graph cuts."""
    if not config.supervised and config.pseudo_label.refine == "grabcut":
        yield Need('OpenCV for [pseudo_label] refine = "grabcut"', refusal(load_opencv))


def gpu_needs(config: RunConfig) -> Iterator[Need]:
    """Look at the memory of the GPU, where the configuration states how much."""
    wanted = config.needs.gpu_memory_gib
    if wanted is None:
        return
    what = f"GPU with {wanted:g} GiB"
    if not torch.cuda.is_available():
        remedy = "torch sees no GPU; --set needs={} runs it on the CPU all the same, for weeks"
        yield Need(what, remedy)
        return
    there = torch.cuda.get_device_properties(0).total_memory / GIB
    too_small = f"this one has {there:.0f} GiB; lower the batch sizes, and needs.gpu_memory_gib"
    yield Need(what, None if there >= SHARE_IN_SIGHT * wanted else too_small)
