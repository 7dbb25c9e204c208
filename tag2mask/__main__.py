"""The command `tag2mask`: serve, label a folder, train, measure. `tag2mask VERB --help` says what a verb takes."""

import difflib
import importlib
import importlib.util
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAM = (
    HERE / "program"
)  # where an installed tag2mask keeps `app`, `training`, models and recipes; a checkout has none
ROOT = PROGRAM if PROGRAM.is_dir() else HERE.parent

SERVICE = ("serve", "label", "triton")
TRAIN = "train"  # the short name of `training run`
STEPS = (
    *(
        "run",
        "saliency",
        "fit",
        "localize",
        "refine",
        "pseudo-label",
        "segment",
        "export",
        "evaluate",
        "report",
        "compare",
    ),
    *("pretrain", "parity", "sheet", "review", "scenes", "import", "corrections"),
)  # the verbs of `python -m training`
VERBS = (*SERVICE, TRAIN, "training", *STEPS)
MODELS = "TAG2MASK_MODELS"  # the setting that names the folder of models
NEEDED_TO_TRAIN, NEEDED_TO_SERVE = "torch", "onnxruntime"
USAGE = """usage: tag2mask VERB ...

serve                 the HTTP service and its page, at --port 8000, with the models in ./models (NAME/VERSION/model.onnx) or
                      those that came with tag2mask
label PHOTOS          label a folder of photos: masks, COCO, YOLO, and a page to look through them
triton                write what NVIDIA's Triton needs to serve the same models
train RECIPE          the whole road from tagged photos to served models; RECIPE is a file, or the name of one that came
                      with tag2mask: tag2mask train own --set data.root=PHOTOS
review OUT            how well `label` ranked the photos of OUT, against true masks
evaluate, export, fit, localize, pseudo-label, ...
                      one step of training alone

tag2mask VERB --help says more of a verb, tag2mask training --help lists every step of training.
"""


def main(arguments: list[str] | None = None) -> int:
    """Hand the rest of the line to the service or to training. Exit status 2 for a line that cannot be read."""
    verb, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if verb in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if verb in ("-V", "--version", "version"):
        from importlib.metadata import version

        print(version("tag2mask"))
        return 0
    if verb not in VERBS:
        nearest = difflib.get_close_matches(verb, (*VERBS, "--help", "--version"), n=1)
        meant = f"Did you mean {nearest[0]!r}? " if nearest else ""
        return refuse(f"there is no verb {verb!r}. {meant}There are {', '.join(VERBS)}; tag2mask --help says more.")
    if importlib.util.find_spec(NEEDED_TO_SERVE) is None:
        return refuse(
            f"{verb} needs ONNX Runtime, which is not installed: pip install '.[cpu]' (or [gpu]) in the checkout."
        )
    if verb not in SERVICE and importlib.util.find_spec(NEEDED_TO_TRAIN) is None:
        return refuse(
            f"{verb} is a verb of training, which is not installed: pip install '.[training]' in the checkout."
        )
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    find_models(say=verb in SERVICE and not {"-h", "--help"} & set(rest))
    if verb in SERVICE:
        return run("app.__main__", [verb], rest)
    if verb in (TRAIN, "run"):
        return train(rest)
    return run("training.__main__", [] if verb == "training" else [verb], rest)


def train(rest: list[str]) -> int:
    """Do a run, whose recipe may be named as one of those that came along."""
    if not rest or rest[0].startswith("-"):
        return run("training.__main__", ["run"], rest)
    written, *flags = rest
    if not Path(recipe(written)).exists():
        return refuse(
            f"there is no file {written}, and no recipe of that name came along. There are: {', '.join(recipes())} "
            f"(in {ROOT / 'experiments'})."
        )
    return run("training.__main__", ["run"], [recipe(written), *flags])


def refuse(sentence: str) -> int:
    """Say why the line cannot be done; returns the exit status."""
    print(f"tag2mask: {sentence}", file=sys.stderr)
    return 2


def run(module: str, verb: list[str], rest: list[str]) -> int:
    """Call a package's own `main`."""
    status: int | None = importlib.import_module(module).main([*verb, *rest])
    return status or 0


def find_models(say: bool) -> None:
    """Take ./models where a model is in it, else the models that came along, which is said, unless TAG2MASK_MODELS names a folder."""
    came_along = ROOT / "models"
    if os.environ.get(MODELS) or not came_along.is_dir() or any(Path("models").glob("*/*/model.onnx")):
        return
    os.environ[MODELS] = str(came_along)
    if say:
        print(f"tag2mask: no model is in ./models, so those that came along are used ({came_along}). --models DIR takes others.",
              file=sys.stderr)  # fmt: skip


def recipe(written: str) -> str:
    """Return the file of a recipe: as written, or the one of that name among those that came along."""
    known = ROOT / "experiments" / f"{written.removesuffix('.toml')}.toml"
    return str(known) if not Path(written).exists() and known.is_file() else written


def recipes() -> list[str]:
    """Return the names of the recipes of a run that came along."""
    folder = ROOT / "experiments"
    files = (path for path in folder.rglob("*.toml") if "[export]" in path.read_text(encoding="utf-8"))
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in files)


if __name__ == "__main__":
    sys.exit(main())
