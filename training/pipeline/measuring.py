"""The stage `evaluate` takes the figures of a run's exported files, and of the smaller files that may take their place."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.inference.errors import ConfigError
from app.inference.files.whole_file import write_whole
from training.config.run_config import RunConfig
from training.data import TaggedPhotos
from training.export.int8 import calibration_images
from training.export.onnx_file import ExportError, card_of, shrink, update_figures
from training.masks.evaluate import Evaluation, evaluate_file, label_figures
from training.stages.pseudo_label import SUMMARY as LABELLED

EXPORTED = "exported.json"  # This file in a run's folder lists its ONNX files.
MAX_LOSS = 0.5  # Fewer bits may cost this many points of mean IoU.


def evaluate(config: RunConfig, photos: TaggedPhotos) -> Path:
    """Measure the exported files and the pseudo-labels; write `figures.json` and the figures into the cards."""
    figures: dict[str, Any] = {"models": {}}
    for path in exported(config):
        measured = measure(path, config, photos)
        if config.export.precision != card_of(path).precision == "float32":
            measured = replace_by_smaller(path, config, photos, measured)
        sha256 = update_figures(path, measured.figures, measured.measured_on)
        figures["models"][measured.model] = asdict(measured) | {"sha256": sha256}
    if (config.out / "pseudo_labels" / LABELLED).is_file():
        figures |= label_figures(config.data, photos, config.out / "pseudo_labels")
    path = config.out / "figures.json"
    write_whole(path, json.dumps(figures, indent=1))
    return path


def measure(path: Path, config: RunConfig, photos: TaggedPhotos) -> Evaluation:
    """Return the figures of an exported file on the report split."""
    crf = config.segmenter is not None and config.segmenter.crf
    return evaluate_file(path, config.data, None, config.export.common, crf, scales=True, photos=photos)


def replace_by_smaller(path: Path, config: RunConfig, photos: TaggedPhotos, full: Evaluation) -> Evaluation:
    """Put a file in the run's precision in the place of a measured float32 one; the card keeps both figures.

    Raises ExportError, and leaves the float32 file, where a mean IoU falls by more than half a point or cannot be
    measured for want of masks.
    """
    main = [name for name in full.figures if name.endswith("miou")]
    if not main:
        raise ExportError(
            f'{path}: without masks in `{full.split}` {config.export.precision} cannot be judged; set precision = "float32"'
        )
    shrunk = shrink(path, config.export.precision, calibration_images(photos, card_of(path)))
    try:
        measured = measure(shrunk, config, photos)
        lost = max(full.figures[name] - measured.figures[name] for name in main)
        if lost > MAX_LOSS:
            raise ExportError(
                f"{path}: {config.export.precision} costs {lost:.2f} points of mean IoU; the limit is {MAX_LOSS}"
            )
        kept = {f"float32_{name}": full.figures[name] for name in main}
        update_figures(shrunk, kept, full.measured_on)
        shrunk.replace(path)
    finally:
        shrunk.unlink(missing_ok=True)
    return measured


def exported(config: RunConfig) -> list[Path]:
    """Return the ONNX files of the run. Raises ConfigError where it has not been exported."""
    path = config.out / EXPORTED
    if not path.is_file():
        raise ConfigError(f"run {config.name} has not been exported; `python -m training export CONFIG` does it")
    return [Path(entry) for entry in json.loads(path.read_text())]
