"""The verb `corrections`: `choose` names photos to correct, `add` takes masks in, `learn` trains the served segmenter on, `watch`
does both whenever masks come in, and `simulate` says what they would be worth.
"""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from app.inference.engine import Engine
from app.inference.errors import ConfigError
from training.config.data import DataConfig
from training.config.learn import LearnConfig, SimulateConfig
from training.config.run_config import RunConfig, read_config
from training.data import TaggedPhotos, open_source
from training.data.sampling import evenly_spaced
from training.masks.corrections.add import add_corrections, rows_there
from training.pipeline.learn import learn
from training.pipeline.orders import ORDERS, Pool, Signs, signs_of
from training.pipeline.simulate import simulate
from training.pipeline.watch import take_in_and_learn, watch
from training.stages.go_on import newest_file


def add_corrections_verb(verbs: Any) -> None:
    """Add the verb to the command line; `act` is the function to call with the options."""
    actions = verbs.add_parser("corrections").add_subparsers(dest="action", required=True, metavar="ACTION")
    add = actions.add_parser("add")
    add.add_argument(
        "source", type=Path, metavar="SOURCE", help="a VOC or CVAT folder, a COCO file, an export, choices.csv"
    )
    add.add_argument("--to", type=Path, metavar="DIR", default=Path("corrections"), help="the folder of corrections")
    choose = actions.add_parser("choose")
    choose.add_argument(
        "--not-in", type=Path, metavar="DIR", default=Path("corrections"), help="leave out photos of these corrections"
    )
    choose.add_argument("--count", type=int, metavar="N", default=30, help="name so many photos")
    choose.add_argument(
        "--order", choices=tuple(ORDERS), default="entropy", help="photos whose masks are least sure come first"
    )
    for role, model in (("model", "deeplab"), ("cam", "cam")):
        choose.add_argument(
            f"--{role}", type=Path, metavar="MODEL", default=Path("models") / model, help="look at photos by this one"
        )
    choose.add_argument("--pool", type=int, metavar="N", default=600, help="look at so many, evenly spaced")
    choose.set_defaults(act=act_choose)
    for action in (add, choose):
        photos = action.add_mutually_exclusive_group(required=True)
        photos.add_argument("--data", type=Path, metavar="DIR", help="the photos, a folder with labels.csv")
        photos.add_argument("--config", type=Path, metavar="CONFIG", help="or the file of the run that they belong to")
    add.add_argument("--drafts", type=Path, metavar="DIR", help="what `python -m app label` wrote: the masks before")
    add.add_argument("--made-by", default="", metavar="NAME", help="who drew them, where the source does not say")
    add.add_argument("--on-error", choices=("fail", "skip"), default="fail", help="of masks that do not fit")
    add.set_defaults(act=act_add)
    for name, act in (("learn", act_learn), ("watch", act_watch), ("simulate", act_simulate)):
        action = actions.add_parser(name)
        action.add_argument("config", type=Path, metavar="CONFIG")
        action.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override the file")
        action.set_defaults(act=act)
    for name in ("learn", "watch"):
        actions.choices[name].add_argument(
            "--promote", action="store_true", help="serve the new version even if it is worse"
        )
    actions.choices["watch"].add_argument("--once", action="store_true", help="end once nothing waits any more")


def data_named(options: argparse.Namespace) -> DataConfig:
    """Return where the photos of `--data` or `--config` come from."""
    if options.data is not None:
        return DataConfig(source="folder", root=options.data)
    return read_config(RunConfig, options.config).data


def photos_named(options: argparse.Namespace) -> TaggedPhotos:
    """Return the photos of `--data` or `--config`."""
    return open_source(data_named(options))


def act_choose(options: argparse.Namespace) -> str:
    """Name the photos to correct next, each on a line."""
    for name in ("count", "pool"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name} {getattr(options, name)}: name 1 photo or more")
    photos, corrected = photos_named(options), rows_there(options.not_in)
    names = evenly_spaced(tuple(name for name in photos.names("train") if name not in corrected), options.pool)

    def find_signs() -> Mapping[str, Signs]:
        cam, segmenter = (Engine(newest_file(path)) for path in (options.cam, options.model))
        known = photos
        if cam.card.classes != known.classes:
            known = open_source(data_named(options).model_copy(update={"classes": cam.card.classes}))
        with tempfile.TemporaryDirectory() as folder:
            return signs_of(cam, segmenter, known, names, Path(folder) / "signs.json")

    return "\n".join(ORDERS[options.order](Pool(photos, names, find_signs), 0)[: options.count])


def act_add(options: argparse.Namespace) -> str:
    """Put masks of another tool into a folder of corrections."""
    if options.drafts is not None and not options.drafts.is_dir():
        raise ConfigError(f"--drafts {options.drafts}: there is no such folder; name what `python -m app label` wrote")
    skip = options.on_error == "skip"
    return add_corrections(options.source, photos_named(options), options.to, options.made_by, options.drafts, skip)


def act_learn(options: argparse.Namespace) -> str:
    """Have a served segmenter learn from corrections."""
    return learn(read_config(LearnConfig, options.config, options.set), options.promote)


def act_watch(options: argparse.Namespace) -> str:
    """Take corrections in and learn from them whenever some come."""
    config = read_config(LearnConfig, options.config, options.set)
    if options.once:
        return "\n".join(take_in_and_learn(config, options.promote)) or f"nothing waits in {config.corrections.folder}"
    for said in watch(config, options.promote):
        tqdm.write(said)
    raise AssertionError("watching ends where it is stopped")


def act_simulate(options: argparse.Namespace) -> Path:
    """Say what corrections would be worth."""
    return simulate(read_config(SimulateConfig, options.config, options.set))
