"""tag2mask's offline package: `python -m training VERB`, where every verb does one step from a run's configuration.

run CONFIG             all verbs in order, each once; stops and goes on where it stood
fit CONFIG             a classifier from tags
localize CONFIG        activation maps of every photo
pseudo-label CONFIG    label maps from the maps; or --model FILE.onnx --data DIR --out DIR
segment CONFIG         a segmenter from the label maps
export CONFIG          ONNX files into models/NAME/VERSION
evaluate CONFIG        figures of the exported files; or --model FILE.onnx --data DIR --split NAME [--json]
report CONFIG          report.html
pretrain CONFIG        a backbone from photos of single objects
scenes DIR             generated photos with tags and exact masks, to try things on
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.engine import Engine
from app.errors import ConfigError, Tag2MaskError
from app.predict import LabelRule
from training.config import PretrainConfig, RunConfig, read_config, validate_config
from training.data import DataConfig, open_source
from training.data.config import ScenesConfig
from training.data.scenes import write_folder
from training.evaluate import evaluate_file
from training.import_released import import_released
from training.parity import format_table, run_parity
from training.pretrain import pretrain
from training.pseudo_label import pseudo_label_folder
from training.released import CONVERTERS
from training.run import VERBS, do, run

# Flags of the verbs that also work on one ONNX file and a folder, without a configuration.
STANDALONE: dict[str, dict[str, dict[str, Any]]] = {
    "evaluate": {
        "--json": {"action": "store_const", "const": True, "help": "print the figures as JSON"},
        "--common": {"metavar": "CLASS,CLASS", "help": "a second mean IoU over these and the background"},
    },
    "pseudo-label": {
        "--out": {"type": Path, "metavar": "DIR"},
        "--background-threshold": {"type": float},
        "--foreground-threshold": {"type": float},
        "--refine": {"choices": ("none", "pamr")},
    },
}


def main(arguments: list[str] | None = None) -> int:
    """Parse, call one function, print the path written. Exit status 2 for an error of the user's."""
    options = parse(arguments)
    try:
        print(options.act(options))
    except Tag2MaskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; `act` is the function to call with it."""
    parser = argparse.ArgumentParser(
        prog="python -m training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in ("run", *VERBS, "pretrain"):
        command = verbs.add_parser(verb)
        standalone = verb in ("pseudo-label", "evaluate")
        command.add_argument("config", type=Path, metavar="CONFIG", nargs="?" if standalone else None)
        command.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="override the file")
        if standalone:
            command.add_argument("--model", type=Path, metavar="FILE.onnx")
            for flag, settings in {
                "--data": {"type": Path, "metavar": "DIR"},
                "--split": {},
                **STANDALONE[verb],
            }.items():
                command.add_argument(flag, default=None, **settings)
            command.add_argument("--on-error", choices=("fail", "skip"), help="of rows of labels.csv; default fail")
        command.set_defaults(act=act_on_config)
    scenes = verbs.add_parser("scenes")
    scenes.add_argument("root", type=Path, metavar="DIR")
    for key, default in (("count", 400), ("val-count", 100), ("size", 96), ("class-count", 5), ("random-seed", 0)):
        scenes.add_argument(f"--{key}", type=int, default=default)
    scenes.set_defaults(act=act_scenes)
    released = verbs.add_parser("import")
    released.add_argument("--method", required=True, metavar="NAME", help=", ".join(CONVERTERS))
    released.add_argument("--checkpoint", required=True, type=Path, metavar="FILE")
    released.add_argument("--models", type=Path, default=Path("models"), metavar="DIR")
    released.add_argument("--name", help="to serve it under; NAME-released where left out")
    released.set_defaults(act=act_import)
    parity = verbs.add_parser("parity")
    parity.add_argument("directory", type=Path, metavar="DIR")
    parity.set_defaults(act=act_parity)
    return parser.parse_args(arguments)


def act_on_config(options: argparse.Namespace) -> object:
    """Do the verb named on the command line."""
    flags = [
        flag for flag in ("--data", "--split", "--on-error", *STANDALONE.get(options.verb, {})) if given(options, flag)
    ]
    if given(options, "--model"):
        if options.config is not None or options.set:
            raise ConfigError(f"{options.verb} takes a CONFIG, or --model FILE.onnx --data DIR, not both")
        return act_evaluate(options) if options.verb == "evaluate" else act_pseudo_label(options)
    if options.config is None or flags:
        raise ConfigError(
            f"{options.verb} takes a CONFIG alone, or --model FILE.onnx --data DIR with {', '.join(flags)}"
        )
    if options.verb == "pretrain":
        return pretrain(read_config(PretrainConfig, options.config, options.set))
    config = read_config(RunConfig, options.config, options.set)
    if options.verb == "run":
        return run(config)
    do(VERBS[options.verb], config)
    return config.out


def given(options: argparse.Namespace, flag: str) -> bool:
    """Whether a flag was used."""
    return getattr(options, flag.removeprefix("--").replace("-", "_"), None) is not None


def act_evaluate(options: argparse.Namespace) -> str:
    """Figures of one ONNX file."""
    common = tuple(name for name in (options.common or "").split(",") if name)
    measured = evaluate_file(options.model, folder_of(options), options.split or "val", common)
    if options.json:
        return json.dumps(asdict(measured), indent=1)
    lines = [f"{measured.model} version {measured.version} on {measured.photos} photos of {measured.split}"]
    return "\n".join(lines + [f"{name:24} {value:7.2f}" for name, value in measured.figures.items()])


def act_pseudo_label(options: argparse.Namespace) -> Path:
    """Label maps of a folder by one ONNX file and the photos' tags."""
    if options.out is None:
        raise ConfigError("pseudo-label --model needs --out DIR, where the label maps go")
    model = Engine(options.model, intra_op_threads=0)
    if model.card.task != "cam":
        raise ConfigError(f"{options.model} is a {model.card.task} model; pseudo-labels are made from a cam model")
    rule = LabelRule(options.background_threshold, options.foreground_threshold, options.refine or "none")
    background, foreground = rule.thresholds(model.card)
    if not 0 <= background <= foreground <= 1:
        raise ConfigError(f"thresholds {background} and {foreground}: 0 <= background <= foreground <= 1 must hold")
    photos = open_source(folder_of(options).model_copy(update={"classes": model.card.classes}))
    names = photos.names(options.split) if options.split else tuple(photos.tag_table)
    return pseudo_label_folder(model, photos, names, options.out, rule)


def folder_of(options: argparse.Namespace) -> DataConfig:
    """The folder named by --data."""
    if options.data is None:
        raise ConfigError(f"{options.verb} --model needs --data DIR, a folder with labels.csv")
    return DataConfig(source="folder", root=options.data, on_error=options.on_error or "fail")


def act_scenes(options: argparse.Namespace) -> Path:
    """Write generated photos as a folder source."""
    keys = ("count", "val_count", "size", "class_count", "random_seed")
    scenes = validate_config(ScenesConfig, {key: getattr(options, key) for key in keys}, "scenes")
    return write_folder(DataConfig(source="scenes", scenes=scenes), options.root)


def act_import(options: argparse.Namespace) -> Path:
    """An authors' file as a served model."""
    return import_released(options.method, options.checkpoint, options.models, options.name)


def act_parity(options: argparse.Namespace) -> str:
    """The table of differences. Exit status 1 where an array differs or is missing."""
    rows = run_parity(options.directory)
    table = format_table(rows)
    if not all(row.ok for row in rows):
        print(table)
        raise SystemExit(1)
    return table


if __name__ == "__main__":
    sys.exit(main())
