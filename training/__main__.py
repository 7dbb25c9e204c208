"""tag2mask's offline package: `python -m training VERB`, where every verb does one step from a run's configuration.

run CONFIG             all verbs in order, each once; stops and goes on where it stood (--dry-run: two steps of each)
fit CONFIG             a classifier from tags
localize CONFIG        activation maps of every photo
refine CONFIG          better maps: IRN's random walk, DRS's refinement network, or fusion with other runs' maps
saliency CONFIG        what stands out in every photo, estimated; or --data DIR --out DIR [--method NAME]
pseudo-label CONFIG    label maps from the maps; or --model FILE.onnx --data DIR --out DIR
segment CONFIG         a segmenter from the label maps
export CONFIG          ONNX files into models/NAME/VERSION
evaluate CONFIG        figures of the exported files; or --model FILE.onnx --data DIR --split NAME [--json]
report CONFIG          report.html
sheet                  one picture: photos beside every model's heatmaps and masks (--models FILE.onnx ... --data DIR)
review DIR             how well `python -m app label` ranked a folder's photos, against masks (--data DIR)
compare CONFIG         one table of many methods
pretrain CONFIG        a backbone from photos of single objects
import                 authors' weights (--method), or a network of torchvision (--torchvision), as a model that serves
parity DIR...          differences from expected outputs of the authors' code, array by array
corrections choose, add SOURCE, learn CONFIG, watch CONFIG, simulate CONFIG: photos to correct are named, corrected masks taken in,
                       learned, both whenever some come, and what they would be worth is said
scenes DIR             generated photos with tags and exact masks, to try things on
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.inference.engine import Engine
from app.inference.errors import ConfigError, Tag2MaskError
from app.inference.files.whole_file import refusal
from app.inference.options import Options
from training.authors.parity import format_table, run_parity
from training.config.learning import PretrainConfig
from training.config.run_config import RunConfig, read_config
from training.data import DataConfig, open_source
from training.masks.evaluate import evaluate_file
from training.pipeline.compare import CompareConfig, compare
from training.pipeline.corrections import add_corrections_verb
from training.pipeline.dry_run import dry
from training.pipeline.preflight import needs_of, require
from training.pipeline.run import VERBS, do, photos_of, run
from training.pipeline.verbs_of_files import add_verbs_of_files, folder_of
from training.stages.pretrain import pretrain
from training.stages.pseudo_label import pseudo_label_folder
from training.stages.saliency import DEFAULT_METHOD, ESTIMATORS, write_saliency
from training.stages.shard import Shard

# This is what a line of the command begins with, as its user wrote it.
PROGRAM = "tag2mask" if Path(sys.argv[0]).stem == "tag2mask" else "python -m training"
# Flags of the verbs that also work on one ONNX file and a folder, without a configuration.
STANDALONE: dict[str, dict[str, dict[str, Any]]] = {
    "evaluate": {
        "--json": {"action": "store_const", "const": True, "help": "print the figures as JSON"},
        "--crf": {"action": "store_const", "const": True, "help": "a segmenter's masks after a dense CRF as well"},
        "--scales": {"action": "store_const", "const": True, "help": "a segmenter's masks of several views as well"},
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
    except OSError as error:  # The disk or the rights refuse something.
        print(f"error: {refusal(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the command line; `act` is the function to call with it."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in ("run", *VERBS, "compare", "pretrain"):
        command = verbs.add_parser(verb)
        standalone = verb in ("pseudo-label", "evaluate")
        command.add_argument(
            "config", type=Path, metavar="CONFIG", nargs="?" if standalone or verb == "saliency" else None
        )
        command.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="override the file")
        if verb == "run":
            command.add_argument("--dry-run", action="store_true", help="two steps of every stage on generated scenes")
        if verb in VERBS and VERBS[verb].shared:
            command.add_argument("--shard", metavar="I/N", help="every N-th photo from the I-th on, counted from 0")
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
    saliency = verbs.choices["saliency"]
    saliency.add_argument("--data", type=Path, metavar="DIR")
    saliency.add_argument("--out", type=Path, metavar="DIR")
    saliency.add_argument("--method", metavar="NAME", help=f"{', '.join(ESTIMATORS)}; default {DEFAULT_METHOD}")
    saliency.set_defaults(act=act_saliency)
    parity = verbs.add_parser("parity")
    parity.add_argument("directories", type=Path, nargs="+", metavar="DIR")
    parity.set_defaults(act=act_parity)
    add_verbs_of_files(verbs)
    add_corrections_verb(verbs)
    return parser.parse_args(arguments)


def act_on_config(options: argparse.Namespace) -> object:
    """Do the verb named on the command line."""
    flags = [
        flag for flag in ("--data", "--split", "--on-error", *STANDALONE.get(options.verb, {})) if given(options, flag)
    ]
    if given(options, "--model"):
        if options.config is not None or options.set or given(options, "--shard"):
            raise ConfigError(f"{options.verb} takes a CONFIG, or --model FILE.onnx --data DIR, not both")
        return act_evaluate(options) if options.verb == "evaluate" else act_pseudo_label(options)
    if options.config is None or flags:
        used = f"; got {', '.join(flags)} without --model" if flags else ""
        file = " or --model FILE.onnx --data DIR" if hasattr(options, "model") else ""
        raise ConfigError(f"{options.verb} takes a CONFIG alone{',' if file else ''}{file}{used}")
    if options.verb == "compare":
        return compare(read_config(CompareConfig, options.config, options.set))
    if options.verb == "pretrain":
        return pretrain(read_config(PretrainConfig, options.config, options.set))
    config = read_config(RunConfig, options.config, options.set)
    if options.verb == "run":
        return act_run(config, options.dry_run)
    do(
        VERBS[options.verb],
        config,
        shard=Shard.parse(options.shard) if given(options, "--shard") else Shard.of_process(),
    )
    return config.out


def act_run(config: RunConfig, dry_run: bool) -> Path | str:
    """Do the run, or try its stages out in small, which needs nothing and leaves nothing."""
    if not dry_run:
        return start_run(config)
    with tempfile.TemporaryDirectory() as directory:
        start_run(dry(config, Path(directory)))
    return f"every stage of {config.name} runs; nothing was kept"


def start_run(config: RunConfig) -> Path:
    """Say what the run needs, stop where something is missing, else do it."""
    photos = photos_of(config)
    needs = needs_of(config, photos)
    for need in needs:
        print(f"needs {need.what}" + (f"\n      MISSING: {need.missing}" if need.missing else ""), flush=True)
    require(needs)
    return run(config, photos)


def given(options: argparse.Namespace, flag: str) -> bool:
    """Tell whether a flag was used."""
    return getattr(options, flag.removeprefix("--").replace("-", "_"), None) is not None


def act_evaluate(options: argparse.Namespace) -> str:
    """Measure one ONNX file."""
    common = tuple(name for name in (options.common or "").split(",") if name)
    crf, scales = bool(options.crf), bool(options.scales)
    measured = evaluate_file(options.model, folder_of(options), options.split, common, crf, scales)
    if options.json:
        return json.dumps(asdict(measured), indent=1)
    lines = [f"{measured.model} version {measured.version} on {measured.measured_on}"]
    return "\n".join(lines + [f"{name:24} {value:7.2f}" for name, value in measured.figures.items()])


def act_pseudo_label(options: argparse.Namespace) -> Path:
    """Make label maps of a folder by one ONNX file and the photos' tags."""
    if options.out is None:
        raise ConfigError("pseudo-label --model needs --out DIR, where the label maps go")
    model = Engine(options.model, intra_op_threads=0)
    if model.card.task != "cam":
        raise ConfigError(f"{options.model} is a {model.card.task} model; pseudo-labels are made from a cam model")
    asked = Options(
        background_threshold=options.background_threshold,
        foreground_threshold=options.foreground_threshold,
        refine=options.refine or "none",
    )
    background = model.card.background_threshold if asked.background_threshold is None else asked.background_threshold
    foreground = background if asked.foreground_threshold is None else asked.foreground_threshold
    if not 0 <= background <= foreground <= 1:
        raise ConfigError(f"thresholds {background} and {foreground}: 0 <= background <= foreground <= 1 must hold")
    photos = open_source(folder_of(options).model_copy(update={"classes": model.card.classes}))
    names = photos.names(options.split) if options.split else tuple(photos.tag_table)
    return pseudo_label_folder(model, photos, names, options.out, asked)


def act_saliency(options: argparse.Namespace) -> object:
    """Estimate the saliency of a run's photos by its [saliency] table, or of a folder's."""
    flags = [flag for flag in ("--data", "--out", "--method") if given(options, flag)]
    if options.config is not None and not flags:
        return act_on_config(options)
    if options.config is not None or options.set or options.data is None or options.out is None:
        raise ConfigError(
            f"saliency takes a CONFIG, whose [saliency] table names the method, or --data DIR --out DIR [--method NAME]; "
            f"got {', '.join(flags) or 'neither'}"
        )
    data = DataConfig(source="folder", root=options.data)
    return write_saliency(data, open_source(data), options.out, options.method or DEFAULT_METHOD)


def act_parity(options: argparse.Namespace) -> str:
    """Return the table of differences. Exit status 1 where an array differs or is missing."""
    rows = run_parity(options.directories)
    table = format_table(rows)
    if not all(row.ok for row in rows):
        print(table)
        raise SystemExit(1)
    return table


if __name__ == "__main__":
    sys.exit(main())
