"""Write `training/backbones/imagenet_names.csv` from WordNet 3.0 and timm's list of ImageNet's 1,000 classes.

    python experiments/make_imagenet_names.py WORDNET_DIRECTORY      (the one that holds data.noun and index.noun)

Every line is a noun and the ImageNet classes it means: those whose synset is the noun's, or lies below it. A noun of
several senses takes the first sense, in WordNet's order of frequency, that means any class.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path

from timm.data import ImageNetInfo

MAX_CLASSES = 400  # a noun that means more of the 1,000 says too little; "animal" means 398
OUT = Path(__file__).parent.parent / "training" / "backbones" / "imagenet_names.csv"


def read_hypernyms(path: Path) -> dict[str, list[str]]:
    """Offset of a noun synset -> offsets of the synsets above it."""
    hypernyms = {}
    for line in path.read_text(encoding="latin-1").splitlines():
        if line.startswith(" "):  # the licence
            continue
        fields = line.split(" | ")[0].split()
        words = int(fields[3], 16)
        pointers = fields[5 + 2 * words :]
        hypernyms[fields[0]] = [
            target for symbol, target, kind in zip(pointers, pointers[1:], pointers[2:], strict=False)
            if symbol in ("@", "@i") and kind == "n"
        ]  # fmt: skip
    return hypernyms


def meanings(hypernyms: dict[str, list[str]]) -> dict[str, set[int]]:
    """Offset of a synset -> indices of the ImageNet classes that are it, or lie below it."""
    found: dict[str, set[int]] = defaultdict(set)
    for index, name in enumerate(ImageNetInfo().label_names()):
        above = [name.removeprefix("n")]
        while above:
            offset = above.pop()
            found[offset].add(index)
            above += hypernyms[offset]
    return found


def main(directory: Path) -> None:
    """Write the table."""
    found = meanings(read_hypernyms(directory / "data.noun"))
    rows = []
    for line in (directory / "index.noun").read_text(encoding="latin-1").splitlines():
        if line.startswith(" "):
            continue
        fields = line.split()
        senses = fields[-int(fields[2]) :]
        meant = next((found[sense] for sense in senses if sense in found), set())
        if 0 < len(meant) <= MAX_CLASSES:
            rows.append((fields[0].replace("_", " "), " ".join(map(str, sorted(meant)))))
    with OUT.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("noun", "imagenet_classes"), *sorted(rows)])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
