"""`--dry-run` tries every stage of a recipe, two steps of each training, on generated scenes.

It proves that a recipe holds together before a GPU is paid for: the same stages, methods, networks and rules, but
nothing of its data and weights, small views, one scale, and the CPU.
"""

import importlib.util
from pathlib import Path
from typing import Any

from training.config.learning import TRIAL_SIDE, Section
from training.config.run_config import RunConfig, validate_config
from training.stages.classifier import check_classifier

STEPS = 2
TINY_RATE = 1e-9  # Random weights must survive two steps at a rate meant for trained ones.
SCENES = {"count": 4, "val_count": 2, "size": 96, "class_count": 3, "random_seed": 0}


def dry(config: RunConfig, out: Path) -> RunConfig:
    """Return the run made so small that it takes a minute on a CPU; everything it writes goes under `out`."""
    values = config.model_dump()
    values |= {"out": out, "data": {"source": "scenes", "scenes": SCENES}, "needs": {}}
    values["export"] |= {"models": out / "models", "version": None, "precision": "float32", "common": ()}
    shrink(values)
    take_trials(config, values)
    if values["saliency"] is not None:
        values["saliency"] |= {"folder": None, "estimate": "exact"}
    if values["segmenter"] is not None:
        values["segmenter"]["options"]["msc"] = ()  # They are more scales of one network.
        values["segmenter"]["preferred_size"] = None
    if values["refine"] is not None:
        values["refine"]["others"] = [out / "cams" for _ in values["refine"]["others"]]
    if importlib.util.find_spec("pydensecrf") is None:
        without_crf(values)
    method, options = check_classifier(config.classifier)
    if first := method.first_stage(options):
        values["classifier"]["options"].pop(first.weights_option, None)
    values["classifier"]["mosaic"] = None
    return validate_config(RunConfig, values, f"{config.name} (dry run)")


def without_crf(values: dict[str, Any]) -> None:
    """Put PAMR, which is always here, in the place of the dense CRF, which is an extra."""
    for key, value in values.items():
        if isinstance(value, dict):
            without_crf(value)
        elif key == "refine" and value == "crf":
            values[key] = "pamr"
        elif key == "crf":
            values[key] = False


def take_trials(section: Section, values: dict[str, Any]) -> None:
    """Put into the values of a section, and of those in it, what each of them sets in a trial."""
    for key, value in section.trial.items():
        values[key] = values[key] | value if isinstance(value, dict) else value
    for key in type(section).model_fields:
        inner = getattr(section, key)
        if isinstance(inner, Section):
            take_trials(inner, values[key])


def shrink(table: dict[str, Any]) -> None:
    """Make every training of a table, and of the tables in it, short and small, and let it start from random weights."""
    if "epochs" in table:
        table |= {"epochs": 1, "max_steps": STEPS, "warmup_steps": 0, "workers": 0}
        table |= {
            "batch_size": min(2, table["batch_size"]),
            "accelerator": "cpu",
            "precision": "32-true",
            "lr": TINY_RATE,
        }
    if "crop" in table:
        table |= {"long_side": (TRIAL_SIDE, TRIAL_SIDE), "crop": TRIAL_SIDE, "cutout_size": TRIAL_SIDE // 4}
    if table.get("weights") not in (None, "classifier"):
        table["weights"] = None
    for value in table.values():
        if isinstance(value, dict):
            shrink(value)
