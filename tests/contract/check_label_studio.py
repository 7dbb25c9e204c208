"""The ML backend against a real Label Studio: what comes out there is the mask of `GET /segment`, pixel for pixel.

In an environment of its own (its dependencies are not the service's), with a user whose token is known. Label Studio takes
no model at an address of its own machine or network as long as its two guards against such addresses are on:

    pip install label-studio
    LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN=true ML_BLOCK_LOCAL_IP=false SSRF_PROTECTION_ENABLED=false \\
        label-studio start --no-browser --port 8080 \\
        --username me@example.org --password PASSWORD --user-token TOKEN

Then the service, told of it, and this script, which makes two projects of the photos (docs/label-studio.xml and
docs/label-studio-polygons.xml), connects the service as their model, retrieves predictions as the Data Manager does, takes
them over as annotations, exports those with Label Studio's own converters and compares; it deletes its projects:

    TAG2MASK_LABEL_STUDIO_URL=http://127.0.0.1:8080 TAG2MASK_LABEL_STUDIO_TOKEN=TOKEN python -m app
    PYTHONPATH=. python tests/contract/check_label_studio.py --label-studio http://127.0.0.1:8080 --token TOKEN PHOTO...

`--token` is a legacy token; the service may be given another one, such as a personal access token. Ends with 0 where all
agrees, else with 1. docs/label-studio.log is what it said.
"""

import argparse
import io
import sys
import time
import zipfile
from pathlib import Path

import httpx2
import numpy as np
import shapely
from PIL import Image

from app.inference.label_maps.brush import decode_brush
from app.inference.labels import VOC_CLASSES, label_of

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = "http://photos.example.org/elsewhere.jpg"
MIN_POLYGON_IOU = 0.97  # polygons are simplified and have no holes


class User:
    """A user of a Label Studio and of the service."""

    def __init__(self, label_studio: str, token: str, service: str) -> None:
        headers = {"Authorization": f"Token {token}"}
        self.client = httpx2.Client(base_url=label_studio, headers=headers, timeout=300, follow_redirects=True)
        self.service = service
        self.failures = 0

    def ask(self, method: str, path: str, **body: object) -> httpx2.Response:
        reply = self.client.request(method, path, **body)
        if not reply.is_success:
            sys.exit(f"{method} {path}: {reply.status_code} {reply.text[:500]}")
        return reply

    def check(self, what: str, holds: bool) -> None:
        self.failures += not holds
        print(f"  {'ok  ' if holds else 'FAIL'} {what}")

    def mask_of(self, photo: Path) -> np.ndarray:
        """uint8 (H, W): what the service answers for the photo itself."""
        reply = httpx2.post(f"{self.service}/segment", files={"file": photo.read_bytes()}, timeout=300)
        image_id = reply.raise_for_status().json()["image"]["id"]
        mask = httpx2.get(f"{self.service}/segment", params={"image": image_id, "format": "png"}, timeout=300)
        return np.asarray(Image.open(io.BytesIO(mask.raise_for_status().content)))


def make_project(user: User, title: str, label_config: str, photos: list[Path]) -> int:
    """A project with the photos and one task of a foreign host, connected to the service."""
    made = user.ask("POST", "/api/projects", json={"title": title, "label_config": label_config}).json()
    project = made["id"]
    for photo in photos:
        named = {"file": (uploaded_name(photo, photos), photo.read_bytes())}
        user.ask("POST", f"/api/projects/{project}/import", files=named)
    user.ask("POST", f"/api/projects/{project}/import", json=[{"data": {"image": FOREIGN}}])
    backend = {"project": project, "url": f"{user.service}/label-studio", "title": "tag2mask"}
    connected = user.ask("POST", "/api/ml", json=backend).json()
    user.check(f"connected: state {connected['readable_state']}", connected["state"] == "CO")
    return project


def predictions(user: User, project: int) -> list[dict]:
    """The tasks with their predictions, after the Data Manager's "Retrieve Predictions" for all of them."""
    query = {"id": "retrieve_tasks_predictions", "project": project}
    start = time.perf_counter()
    user.ask("POST", "/api/dm/actions", params=query, json={"selectedItems": {"all": True, "excluded": []}})
    print(f"  predictions retrieved in {time.perf_counter() - start:.1f} s")
    listed = user.ask("GET", "/api/tasks", params={"project": project, "fields": "all", "page_size": 1000}).json()
    return [user.ask("GET", f"/api/tasks/{task['id']}").json() for task in listed["tasks"]]


def uploaded_name(photo: Path, photos: list[Path]) -> str:
    """A name that Label Studio keeps, with some characters before it."""
    return f"photo{photos.index(photo)}{photo.suffix}"


def photo_of(task: dict, photos: list[Path]) -> Path | None:
    """The photo a task was made of; None for that of the foreign host."""
    return next((photo for photo in photos if task["data"]["image"].endswith(uploaded_name(photo, photos))), None)


def check_predictions(user: User, tasks: list[dict], photos: list[Path]) -> None:
    for task in tasks:
        photo, made = photo_of(task, photos), task["predictions"]
        if photo is None:
            user.check(f"{FOREIGN}: no region", [each["result"] for each in made] == [[]])
            continue
        user.check(
            f"{photo.name}: one prediction, {len(made[0]['result'])} regions, score {made[0]['score']:.3f}",
            len(made) == 1,
        )
        user.ask("POST", f"/api/tasks/{task['id']}/annotations", json={"result": made[0]["result"]})


def check_brushes(user: User, photos: list[Path]) -> None:
    print("brush strokes (docs/label-studio.xml):")
    project = make_project(user, "tag2mask brushes", (ROOT / "docs/label-studio.xml").read_text(), photos)
    tasks = predictions(user, project)
    print(f"  model_version {tasks[0]['predictions'][0]['model_version'][:40]}...")
    check_predictions(user, tasks, photos)
    query = {"exportType": "BRUSH_TO_NUMPY"}
    exported = user.ask("GET", f"/api/projects/{project}/export", params=query).content
    with zipfile.ZipFile(io.BytesIO(exported)) as archive:
        files = {name: np.load(io.BytesIO(archive.read(name))) for name in archive.namelist() if name.endswith(".npy")}
    for task in tasks:
        photo = photo_of(task, photos)
        if photo is None:
            continue
        mask = user.mask_of(photo)
        drawn, own = np.zeros_like(mask), np.zeros_like(mask)
        for index, name in enumerate(VOC_CLASSES):
            for file, alpha in files.items():
                if file.startswith(f"task-{task['id']}-") and file.endswith(f"-{name}-0.npy"):
                    drawn[alpha > 0] = label_of(index)
        for region in task["predictions"][0]["result"]:
            size = region["original_height"], region["original_width"]
            label = label_of(VOC_CLASSES.index(region["value"]["brushlabels"][0]))
            own[decode_brush(region["value"]["rle"], *size)] = label
        differing = [int(np.count_nonzero(mask != other)) for other in (drawn, own)]
        size = f"{mask.shape[1]} x {mask.shape[0]}"
        names = ", ".join(VOC_CLASSES[label - 1] for label in np.unique(mask)[1:]) or "nothing"
        user.check(
            f"{photo.name} ({size}; {names}): {differing[0]} pixels differ in Label Studio's NumPy export",
            not differing[0],
        )
        user.check(f"{photo.name}: {differing[1]} pixels differ in the stored run lengths", not differing[1])
    before = [len(task["predictions"]) for task in tasks if photo_of(task, photos)]
    after = [len(task["predictions"]) for task in predictions(user, project) if photo_of(task, photos)]
    user.check("retrieved again: no prediction is made twice", before == after)
    user.ask("DELETE", f"/api/projects/{project}")


def check_polygons(user: User, photos: list[Path]) -> None:
    print("polygons (docs/label-studio-polygons.xml):")
    project = make_project(user, "tag2mask polygons", (ROOT / "docs/label-studio-polygons.xml").read_text(), photos)
    tasks = predictions(user, project)
    check_predictions(user, tasks, photos)
    exported = user.ask("GET", f"/api/projects/{project}/export", params={"exportType": "JSON"}).json()
    for task in exported:
        photo = photo_of(task, photos)
        if photo is None:
            continue
        mask = user.mask_of(photo)
        drawn = np.zeros_like(mask)
        rows, columns = np.indices(mask.shape) + 0.5  # the pixels' centres
        for region in task["annotations"][0]["result"]:
            to_pixels = np.array([region["original_width"], region["original_height"]]) / 100
            outline = np.array(region["value"]["points"]) * to_pixels
            label = label_of(VOC_CLASSES.index(region["value"]["polygonlabels"][0]))
            drawn[shapely.contains_xy(shapely.Polygon(outline), columns, rows)] = label
        shared, joined = np.count_nonzero((drawn == mask) & (mask > 0)), np.count_nonzero((drawn > 0) | (mask > 0))
        iou = shared / joined if joined else 1.0
        user.check(f"{photo.name}: IoU {iou:.3f} of polygons and mask", iou >= MIN_POLYGON_IOU)
    user.ask("DELETE", f"/api/projects/{project}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--label-studio", default="http://127.0.0.1:8080", help="its address")
    parser.add_argument("--token", required=True, help="a legacy access token of a user there")
    parser.add_argument("--service", default="http://127.0.0.1:8000", help="the address of tag2mask")
    parser.add_argument("photos", nargs="+", type=Path)
    given = parser.parse_args()
    user = User(given.label_studio, given.token, given.service)
    version = user.ask("GET", "/api/version").json()["release"]
    models = httpx2.get(f"{given.service}/models").json()["models"]
    print(f"Label Studio {version}; models: {', '.join(model['name'] for model in models)}")
    check_brushes(user, given.photos)
    check_polygons(user, given.photos)
    print(f"{user.failures} checks failed" if user.failures else "all agrees")
    sys.exit(min(user.failures, 1))


if __name__ == "__main__":
    main()
