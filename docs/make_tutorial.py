"""Makes the figures and the picture of docs/tutorial.md by the page's own commands: `python docs/make_tutorial.py FOLDER`.

FOLDER gets the photos, the run and the models, some four minutes of one core; stopped at any time, the same command goes on. The figures go
into experiments/tutorial.json with the checksums of what they depend on, and tests/test_figures.py holds the page against them.
"""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
FIGURES = ROOT / "experiments" / "tutorial.json"
PICTURE = ROOT / "docs" / "images" / "tutorial.jpg"
# The recipe, and the weights that it starts from.
SOURCES = ("experiments/tutorial.toml", "training/backbones/small.pt")
MODELS = ("models/things-drs/1/model.onnx", "models/things-deeplab/1/model.onnx")
ROWS = 6  # The picture shows this many photos.


def checksums() -> dict[str, str]:
    """Return the SHA-256 of every file that the figures depend on."""
    return {name: hashlib.sha256((ROOT / name).read_bytes()).hexdigest() for name in SOURCES}


def main() -> None:
    """Make photos and models in the folder, and keep what was measured and what it looks like."""
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    if not (place / "experiments").exists():
        (place / "experiments").symlink_to(ROOT / "experiments")
    commands = re.findall(r"^\.venv-dev/bin/python (-m training .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    commands.append(f"-m training sheet --models {' '.join(MODELS)} --data things --count {ROWS} --out {PICTURE}")
    for command in commands:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, *shlex.split(command)], cwd=place, env=environment, check=True)
    measured = json.loads((place / "runs" / "things" / "figures.json").read_text(encoding="utf-8"))
    figures = {name: model["figures"] for name, model in measured.pop("models").items()}
    kept = {"made_from": checksums(), "models": figures, **measured}
    FIGURES.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
