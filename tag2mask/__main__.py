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
NEEDED_TO_TRAIN = "torch"
USAGE = """usage: tag2mask VERB ...

serve                 the HTTP service and its page, with the models in ./models or those that came with tag2mask
label PHOTOS          label a folder of photos: masks, COCO, YOLO, and a page to look through them
triton                write what NVIDIA's Triton needs to serve the same models
train RECIPE          the whole road from tagged photos to served models; RECIPE is a file, or the name of one that came
                      with tag2mask: tag2mask train own --set data.root=PHOTOS
evaluate, export, fit, localize, pseudo-label, ...
                      one step of training alone

tag2mask VERB --help says more of a verb, tag2mask training --help lists every step of training.
"""


def main(arguments: list[str] | None = None) -> int:
    """Hand the rest of the line to the service or to training. Exit status 2 for a line that cannot be read."""
    verb, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if verb in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if verb == "--version":
        from importlib.metadata import version

        print(version("tag2mask"))
        return 0
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    find_models()
    if verb in SERVICE:
        return run("app.__main__", [] if verb == "serve" else [verb], rest)
    if importlib.util.find_spec(NEEDED_TO_TRAIN) is None:
        nearest = difflib.get_close_matches(verb, (*SERVICE, TRAIN), n=1)
        meant = f" Did you mean {nearest[0]!r}?" if nearest else ""
        print(f"tag2mask: {verb!r} is none of {', '.join(SERVICE)}.{meant} Every other verb is training's, which is not "
              "installed: pip install 'tag2mask[training]', or the same of a checkout.", file=sys.stderr)  # fmt: skip
        return 2
    if verb in (TRAIN, "run"):
        return run("training.__main__", ["run"], [recipe(rest[0]), *rest[1:]] if rest else rest)
    return run("training.__main__", [] if verb == "training" else [verb], rest)


def run(module: str, verb: list[str], rest: list[str]) -> int:
    """Call a package's own `main`."""
    status: int | None = importlib.import_module(module).main([*verb, *rest])
    return status or 0


def find_models() -> None:
    """Serve ./models where that folder is there, else the models that came along, unless TAG2MASK_MODELS names one."""
    if not Path("models").is_dir() and (ROOT / "models").is_dir():
        os.environ.setdefault("TAG2MASK_MODELS", str(ROOT / "models"))


def recipe(written: str) -> str:
    """Return the file of a recipe: as written, or the one of that name among those that came along."""
    known = ROOT / "experiments" / f"{written.removesuffix('.toml')}.toml"
    return str(known) if not Path(written).exists() and known.is_file() else written


if __name__ == "__main__":
    sys.exit(main())
