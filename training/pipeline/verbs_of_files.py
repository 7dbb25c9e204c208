"""These verbs know no configuration: they work on files and folders."""

import argparse
from pathlib import Path
from typing import Any

from app.inference.errors import ConfigError
from app.inference.files.tags import name_of
from training.authors.import_released import import_released
from training.authors.import_torchvision import import_torchvision
from training.authors.released import CONVERTERS
from training.config.data import ScenesConfig
from training.config.run_config import validate_config
from training.data import DataConfig
from training.data.scenes import write_folder
from training.masks.review import review
from training.masks.sheet import MAX_SHOWN, SHOWN, write_sheet


def add_verbs_of_files(verbs: Any) -> None:
    """Add the verbs to the command line; `act` is the function to call with the options."""
    sheet = verbs.add_parser("sheet")
    sheet.add_argument("--models", type=Path, metavar="FILE.onnx", nargs="+", required=True)
    sheet.add_argument("--data", type=Path, metavar="DIR", required=True)
    sheet.add_argument("--out", type=Path, metavar="FILE.jpg", required=True)
    sheet.add_argument("--split")
    shown = sheet.add_mutually_exclusive_group()
    shown.add_argument("--count", type=int, default=SHOWN)
    shown.add_argument("--photos", metavar="NAME", nargs="+", default=(), help="these instead of evenly spaced ones")
    sheet.add_argument("--on-error", choices=("fail", "skip"), help="of rows of labels.csv; default fail")
    sheet.set_defaults(act=act_sheet)
    reviewed = verbs.add_parser("review")
    reviewed.add_argument("labelled", type=Path, metavar="DIR")
    reviewed.add_argument("--data", type=Path, metavar="DIR", required=True)
    reviewed.add_argument("--on-error", choices=("fail", "skip"), help="of rows of labels.csv; default fail")
    reviewed.set_defaults(act=lambda options: review(options.labelled, folder_of(options)))
    scenes = verbs.add_parser("scenes")
    scenes.add_argument("root", type=Path, metavar="DIR")
    for key, default in (("count", 400), ("val-count", 100), ("size", 96), ("class-count", 5), ("random-seed", 0)):
        scenes.add_argument(f"--{key}", type=int, default=default)
    scenes.set_defaults(act=act_scenes)
    released = verbs.add_parser("import")
    network = released.add_mutually_exclusive_group(required=True)
    network.add_argument("--method", metavar="NAME", help=f"of the authors' file: {', '.join(CONVERTERS)}")
    network.add_argument("--torchvision", metavar="NAME", help="its network, such as resnet50 or deeplabv3_resnet50")
    released.add_argument("--checkpoint", type=Path, metavar="FILE", help="torchvision's are downloaded where left out")
    released.add_argument("--classes", metavar="CLASS,CLASS", help="to keep of a classifier of torchvision")
    released.add_argument("--models", type=Path, default=Path("models"), metavar="DIR")
    released.add_argument("--name", help="to serve it under; METHOD-released, or torchvision's name, where left out")
    released.set_defaults(act=act_import)


def folder_of(options: argparse.Namespace) -> DataConfig:
    """Return the folder named by --data."""
    if options.data is None:
        raise ConfigError(f"{options.verb} --model needs --data DIR, a folder with labels.csv")
    return DataConfig(source="folder", root=options.data, on_error=options.on_error or "fail")


def act_sheet(options: argparse.Namespace) -> Path:
    """Write a contact sheet."""
    named = tuple(name_of(name) for name in options.photos)
    count = len(named) or options.count
    if not 1 <= count <= MAX_SHOWN:
        raise ConfigError(f"--{'photos' if named else 'count'} {count}: a sheet shows 1 to {MAX_SHOWN} photos")
    return write_sheet(options.models, folder_of(options), options.split, count, options.out, named)


def act_scenes(options: argparse.Namespace) -> Path:
    """Write generated photos as a folder source."""
    keys = ("count", "val_count", "size", "class_count", "random_seed")
    scenes = validate_config(ScenesConfig, {key: getattr(options, key) for key in keys}, "scenes")
    return write_folder(DataConfig(source="scenes", scenes=scenes), options.root)


def act_import(options: argparse.Namespace) -> Path:
    """Make a served model of an authors' file, or of a network of torchvision."""
    if options.torchvision is not None:
        classes = None if options.classes is None else [name.strip() for name in options.classes.split(",")]
        return import_torchvision(options.torchvision, options.models, options.checkpoint, classes, options.name)
    if options.checkpoint is None:
        raise ConfigError("import --method needs --checkpoint FILE, the authors' file of weights")
    if options.classes is not None:
        raise ConfigError(f"--classes goes with --torchvision; the classes of {options.method} are PASCAL VOC's twenty")
    return import_released(options.method, options.checkpoint, options.models, options.name)
