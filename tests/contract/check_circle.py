"""The circle of docs/corrections.md walked with a real Label Studio: draft, correct, export, learn, serve, and the next draft.

True masks stand for what a person draws. Label Studio is started as `check_label_studio.py` says; the
service serves a models directory of its own, for new versions go there, and knows the project that will be made, by number:

    TAG2MASK_MODELS=MODELS TAG2MASK_CORRECTIONS=FOLDER/corrections TAG2MASK_LABEL_STUDIO_URL=http://127.0.0.1:8080 \\
        TAG2MASK_LABEL_STUDIO_TOKEN=TOKEN TAG2MASK_LABEL_STUDIO_PROJECT=1 python -m app
    PYTHONPATH=. python tests/contract/check_circle.py --label-studio http://127.0.0.1:8080 --token TOKEN --project 1 \\
        --models MODELS --data PHOTOS --split train --aside val_dev --folder FOLDER

PHOTOS holds JPEGImages, SegmentationClass, labels.csv and ImageSets; what learns sees no masks but those that were drawn. The photos of
`--split` that `corrections choose` names are corrected. The first half of the corrections comes back by an exported file and is learned
where that makes no version worse, all of them by "Start Training", whose version is served in any case. docs/corrections.md shows what
it said.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import numpy as np
from scipy.ndimage import distance_transform_edt

from app.inference.label_maps.brush import decode_brush, encode_brush
from app.inference.labels import IGNORE_INDEX, VOC_CLASSES, label_of
from tests.contract.check_label_studio import ROOT, User, predictions
from training.masks.confusion import Confusion
from training.masks.ground_truth import read_mask

CORRECTED, KEPT_ASIDE = 30, 100  # So many photos are corrected, and so many others are drafts before and after.
MODELS = {"model": "deeplab", "cam": "cam"}  # By role, the folder of the models that the walk asks.
SAME = 0.5  # A draft whose IoU changes by less, in percent, is counted neither as better nor as worse.
SERVED_SECONDS = 120  # A new version serves within this time.


class Walk:
    """It is the person who walks, with what lies in the folder and the project."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.user = User(given.label_studio, given.token, given.service)
        self.given = given
        self.data = given.folder / "photos"
        self.train, aside = (
            (given.data / "ImageSets" / f"{split}.txt").read_text().split() for split in (given.split, given.aside)
        )
        self.aside = aside[:KEPT_ASIDE]
        self.drafts: dict[str, float] = {}

    def truth(self, name: str) -> np.ndarray:
        return read_mask(self.given.data / "SegmentationClass" / f"{name}.png")

    def make_data(self) -> None:
        """Make a data set of the photos and their tags, without masks."""
        (self.data / "ImageSets").mkdir(parents=True)
        (self.data / "JPEGImages").symlink_to((self.given.data / "JPEGImages").resolve())
        shutil.copy(self.given.data / "labels.csv", self.data)
        (self.data / "ImageSets" / "train.txt").write_text("\n".join(self.train) + "\n")
        (self.data / "ImageSets" / "val.txt").write_text("\n".join(self.aside) + "\n")

    def choose(self) -> None:
        """Ask the segmenter of which masks it is least sure: those are corrected."""
        models = [part for name in ("model", "cam") for part in (f"--{name}", str(self.given.models / MODELS[name]))]
        folder = str(self.given.folder / "corrections")
        choice = ("--data", str(self.data), "--not-in", folder, "--count", str(CORRECTED), *models)
        names = self.run("training", "corrections", "choose", *choice, shows=False).split()
        self.first, self.then = names[: CORRECTED // 2], names[CORRECTED // 2 :]

    def make_project(self) -> None:
        config = (ROOT / "docs" / "label-studio.xml").read_text()
        made = self.user.ask("POST", "/api/projects", json={"title": "things", "label_config": config}).json()
        if made["id"] != self.given.project:
            sys.exit(f"the project is number {made['id']}: start both with that as --project and remove it")
        for name in (*self.first, *self.then, *self.aside):
            photo = (self.data / "JPEGImages" / f"{name}.jpg").read_bytes()
            self.user.ask("POST", f"/api/projects/{self.given.project}/import", files={"file": (f"{name}.jpg", photo)})
        backend = {"project": self.given.project, "url": f"{self.given.service}/label-studio", "title": "tag2mask"}
        connected = self.user.ask("POST", "/api/ml", json=backend).json()
        self.backend = connected["id"]
        self.user.check(f"connected: state {connected['readable_state']}", connected["state"] == "CO")

    def draft(self) -> None:
        """Retrieve predictions for all tasks, measure the newest of each, and count which are better or worse than those before."""
        self.tasks = {Path(task["data"]["image"]).stem[9:]: task for task in predictions(self.user, self.given.project)}
        newest = {name: max(task["predictions"], key=lambda each: each["id"]) for name, task in self.tasks.items()}
        versions = sorted({each["model_version"].partition("@")[0] for each in newest.values()})
        print(f"  drafts by {', '.join(versions)}; mean IoU with the true masks:")
        before = dict(self.drafts)
        for title, names in (("corrected", self.first), ("corrected later", self.then), ("kept aside", self.aside)):
            confusion, changes = Confusion.empty(len(VOC_CLASSES)), []
            for name in names:
                own = Confusion.empty(len(VOC_CLASSES))
                own.add(self.truth(name), mask_of(newest[name]["result"], self.truth(name).shape))
                confusion.counts += own.counts
                self.drafts[name] = own.miou()
                changes.append(self.drafts[name] - before.get(name, self.drafts[name]))
            better, worse = (sum(sign * change > SAME for change in changes) for sign in (1, -1))
            said = f"; {better} are better than before, {worse} worse" if before else ""
            print(f"    {len(names)} {title}: {confusion.miou():.1f}{said}")

    def correct(self, names: list[str]) -> None:
        """Submit what a person would draw as the annotation of each task, made of its draft."""
        for name in names:
            task = self.tasks[name]
            result, draft = regions_of(drawn(self.truth(name))), task["predictions"][-1]["id"]
            body = {"result": result, "parent_prediction": draft, "lead_time": 60}
            self.user.ask("POST", f"/api/tasks/{task['id']}/annotations", json=body)
        print(f"  {len(names)} annotations submitted")

    def run(self, *command: str, shows: bool = True) -> str:
        """Do a command of the tutorial, and return what it prints, which is shown unless `shows` says otherwise."""
        shown = " ".join(command).replace(str(self.given.folder) + "/", "").replace(str(self.given.models), "models")
        print(f"  $ python -m {shown}")
        start, before = time.perf_counter(), os.times()
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "TAG2MASK_LABEL_STUDIO_URL": self.given.label_studio,
            "TAG2MASK_LABEL_STUDIO_TOKEN": self.given.token,
            "TAG2MASK_LABEL_STUDIO_PROJECT": str(self.given.project),
        }
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        said = done.stdout.strip().replace(str(self.given.folder) + "/", "").replace(str(self.given.models), "models")
        if shows:
            print("\n".join(f"    {line}" for line in said.splitlines()))
        if done.returncode:
            sys.exit(done.stderr)
        seconds = os.times().children_user - before.children_user + os.times().children_system - before.children_system
        print(f"    ({time.perf_counter() - start:.0f} s, of CPU {seconds:.0f} s)")
        return said

    def wait_for_newest(self) -> None:
        """Wait until the service serves the newest version that lies there."""
        newest = max(int(path.parent.name) for path in self.given.models.glob("deeplab/*/model.onnx"))
        end = time.monotonic() + SERVED_SECONDS
        while time.monotonic() < end:
            served = httpx2.get(f"{self.given.service}/models").json()["models"]
            here = [model for model in served if (model["name"], model["version"]) == ("deeplab", newest)]
            if here:
                print(f"  served: deeplab/{newest}, taught by {here[0]['taught_by']}")
                return
            time.sleep(1)
        self.user.check(f"deeplab/{newest} is served", False)

    def learning(self, verb: str, *more: str) -> None:
        folder = self.given.folder
        places = {"out": folder / "learn", "data.root": self.data, "corrections.folder": folder / "corrections"}
        places["model"] = self.given.models / "deeplab"
        settings = [part for key, value in places.items() for part in ("--set", f"{key}={value}")]
        self.run("training", "corrections", verb, "experiments/learn.toml", *settings, *more)
        self.wait_for_newest()

    def start_training(self) -> None:
        """Press "Start Training": Label Studio tells the service, which fetches the annotations."""
        self.user.ask("POST", f"/api/ml/{self.backend}/train", json={})
        state = self.user.ask("GET", f"/api/ml/{self.backend}").json()["readable_state"]
        waiting = [path.name for path in (self.given.folder / "corrections" / "incoming").glob("*")]
        self.user.check(f"Start Training: the model's state is {state}; incoming: {', '.join(waiting)}", bool(waiting))

    def compare_exports(self, export: Path) -> None:
        """Hold the exported file against what the command fetches: the same annotations, and the drafts as well."""
        fetched = self.given.folder / "fetched.json"
        self.run("app", "annotations", "--out", str(fetched))
        both = [{task["id"]: task for task in json.loads(path.read_text())} for path in (export, fetched)]
        results = [{number: task["annotations"][0]["result"] for number, task in tasks.items()} for tasks in both]
        self.user.check("the file and what the command fetches hold the same annotations", results[0] == results[1])


def drawn(truth: np.ndarray) -> np.ndarray:
    """The mask with its ignored pixels given to the nearest others, as a person would draw."""
    nearest = distance_transform_edt(truth == IGNORE_INDEX, return_distances=False, return_indices=True)
    return truth[tuple(nearest)]


def regions_of(mask: np.ndarray) -> list[dict]:
    """The brush strokes of a mask, one for each class, as Label Studio keeps them."""
    size = {"original_width": mask.shape[1], "original_height": mask.shape[0], "image_rotation": 0}
    return [
        {"id": name, "type": "brushlabels", "from_name": "mask", "to_name": "image", "origin": "manual", **size,
         "value": {"format": "rle", "rle": encode_brush(mask == label_of(index)), "brushlabels": [name]}}
        for index, name in enumerate(VOC_CLASSES)
        if (mask == label_of(index)).any()
    ]  # fmt: skip


def mask_of(result: list[dict], size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    for region in result:
        label = label_of(VOC_CLASSES.index(region["value"]["brushlabels"][0]))
        mask[decode_brush(region["value"]["rle"], *size)] = label
    return mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--label-studio", default="http://127.0.0.1:8080", help="its address")
    parser.add_argument("--token", required=True, help="a legacy access token of a user there")
    parser.add_argument("--service", default="http://127.0.0.1:8000", help="the address of tag2mask")
    for name in ("models", "data", "folder"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    parser.add_argument("--split", default="train", help="photos of this list are corrected, and all of it may teach")
    parser.add_argument("--aside", default="val", help="photos of this list are drafted before and after")
    parser.add_argument("--project", type=int, default=1, help="the number that a new project will have")
    given = parser.parse_args()
    walk = Walk(given)
    sys.stdout.reconfigure(line_buffering=True)
    version = walk.user.ask("GET", "/api/version").json()["release"]
    print(f"Label Studio {version}; {CORRECTED} photos of {given.split} are corrected, {KEPT_ASIDE} others kept aside")
    print("1. choose, draft")
    walk.make_data()
    walk.choose()
    walk.make_project()
    walk.draft()
    print(f"2. correct {len(walk.first)}, export the project as JSON, learn")
    walk.correct(walk.first)
    export = given.folder / "export.json"
    export.write_bytes(
        walk.user.ask("GET", f"/api/projects/{given.project}/export", params={"exportType": "JSON"}).content
    )
    walk.compare_exports(export)
    folder = str(given.folder / "corrections")
    walk.run("training", "corrections", "add", str(export), "--data", str(walk.data), "--to", folder)
    walk.learning("learn")
    print("3. draft anew")
    walk.draft()
    print(f'4. correct {len(walk.then)} more, press "Start Training", learn')
    walk.correct(walk.then)
    walk.start_training()
    walk.learning("watch", "--once", "--promote")
    print("5. draft anew")
    walk.draft()
    print(f"{walk.user.failures} checks failed" if walk.user.failures else "all checks hold")
    sys.exit(min(walk.user.failures, 1))


if __name__ == "__main__":
    main()
