"""A detection function for CVAT: the regions of `GET /segment` as masks or polygons of a task's frames.

    cvat-cli task auto-annotate TASK_ID --function-file integrations/cvat_function.py --allow-unmatched-labels \\
        -p url=str:http://127.0.0.1:8000

asks a running tag2mask; with `-p models=str:models` instead of `url` the models run in this process (then tag2mask has to
be importable: `pip install '.[cpu]'` and PYTHONPATH=.). Further parameters: `model` ("NAME" or "NAME/VERSION") and `tags`
("dog,person"), all the classes that are in the frames: what looks like another becomes one of these. `--conv-mask-to-poly`
gives polygons, which have no holes, `--conf-threshold` leaves out classes of a lower mean probability. Interface:
https://docs.cvat.ai/docs/api_sdk/sdk/auto-annotation/.

It needs cvat-cli and `cvat-sdk[masks]`, and for `url` nothing else.
"""

import base64
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import cvat_sdk.auto_annotation as cvataa
import cvat_sdk.models
import numpy as np
import PIL.Image
from cvat_sdk.masks import encode_mask

TIMEOUT_SECONDS = 300
DEFAULT_URL = "http://127.0.0.1:8000"

Found = tuple[str, float, Any]  # class, score in [0, 1], region


def to_png(image: PIL.Image.Image) -> bytes:
    """A frame of any mode as a PNG file, which keeps its pixels, depth and transparency for tag2mask to read as it reads
    every photo. Metadata stay behind: the frame lies as CVAT shows it.
    """
    if image.mode in ("I;16B", "I;16L", "I;16N"):
        image = PIL.Image.fromarray(np.asarray(image).astype(np.uint16))
    elif image.mode in ("RGBa", "La", "PA"):
        image = image.convert("RGBA")
    elif image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"):
        image = image.convert("RGB")
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1, exif=b"", icc_profile=None)
    return file.getvalue()


class Segmenter(Protocol):
    """What finds regions."""

    @property
    def classes(self) -> Sequence[str]:
        """The names it knows."""
        ...

    def masks(self, photo: bytes) -> Iterator[Found]:
        """bool (H, W) of every class in a photo, a PNG file."""
        ...

    def polygons(self, photo: bytes) -> Iterator[Found]:
        """[x, y, x, y, ...] in pixels, of every part of every class."""
        ...


class Server:
    """A running tag2mask."""

    def __init__(self, url: str, model: str | None, tags: str | None) -> None:
        self.url = url.rstrip("/")
        if model is None:
            listed = json.loads(self._ask("/models"))["models"]
            defaults = [entry for entry in listed if entry["task"] == "segmentation" and entry["default"]]
            if not defaults:
                raise cvataa.BadFunctionError(f"{self.url} serves no segmentation model")
            model = f"{defaults[0]['name']}/{defaults[0]['version']}"
        self.query = {"model": model} | ({"tags": tags} if tags else {})
        listed = json.loads(self._ask("/classes", {"model": model}))["classes"]
        self.classes = [entry["class"] for entry in listed]

    def masks(self, photo: bytes) -> Iterator[Found]:
        for found in json.loads(self._ask("/segment", {**self.query, "format": "hf"}, photo)):
            with PIL.Image.open(io.BytesIO(base64.b64decode(found["mask"]))) as mask:
                yield found["label"], found["score"], np.asarray(mask) > 0

    def polygons(self, photo: bytes) -> Iterator[Found]:
        query = {**self.query, "format": "json", "regions": "polygons"}
        for found in json.loads(self._ask("/segment", query, photo))["classes"]:
            for outline in found["polygons"]:
                yield found["class"], found["score"], outline

    def _ask(self, path: str, query: dict[str, str] | None = None, photo: bytes | None = None) -> bytes:
        """The body of the answer. Raises BadFunctionError."""
        request = Request(f"{self.url}{path}?{urlencode(query or {})}", photo, {"Content-Type": "image/png"})
        try:
            with urlopen(request, timeout=TIMEOUT_SECONDS) as reply:
                return reply.read()
        except HTTPError as error:
            with error:
                reason = error.read().decode(errors="replace")
            raise cvataa.BadFunctionError(f"{self.url} answers {error.code}: {reason}") from None
        except OSError as error:
            raise cvataa.BadFunctionError(f"{self.url} cannot be asked: {error}") from None


class Models:
    """A models directory, in this process."""

    def __init__(self, directory: str, model: str | None, tags: str | None) -> None:
        from app.inference.analysis import Analyzer
        from app.inference.options import Options
        from app.runtime.model_store import ModelStore
        from app.runtime.settings import Settings

        engine = ModelStore(Settings(models=directory)).load().choose("segmentation", model)
        self.classes = engine.card.classes
        names = tuple(tag.strip() for tag in tags.split(",")) if tags else None
        self.analyzer = Analyzer(Options(tags=names), segmenter=engine)

    def masks(self, photo: bytes) -> Iterator[Found]:
        from app.inference.label_maps.regions import regions_in
        from app.inference.labels import class_index_of

        found = self.analyzer.read(photo).mask
        for label, where in regions_in(found.mask):
            yield self.classes[class_index_of(label)], found.scores[label], where

    def polygons(self, photo: bytes) -> Iterator[Found]:
        from app.inference.label_maps.regions import polygons_of

        for name, score, where in self.masks(photo):
            for outline in polygons_of(where):
                yield name, score, outline


class Function:
    """What `cvat-cli` calls for every frame."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self.ids = {name: number for number, name in enumerate(segmenter.classes)}
        labels = [cvataa.label_spec(name, number, type="mask") for name, number in self.ids.items()]
        self.spec = cvataa.DetectionFunctionSpec(labels=labels)

    def detect(
        self, context: cvataa.DetectionFunctionContext, image: PIL.Image.Image
    ) -> list[cvat_sdk.models.LabeledShapeRequest]:
        threshold = context.conf_threshold or 0
        photo = to_png(image)
        if context.conv_mask_to_poly:
            found = self.segmenter.polygons(photo)
            return [cvataa.polygon(self.ids[name], region) for name, score, region in found if score >= threshold]
        found = self.segmenter.masks(photo)
        return [cvataa.mask(self.ids[name], encode_mask(where)) for name, score, where in found if score >= threshold]


def create(
    url: str | None = None, models: str | None = None, model: str | None = None, tags: str | None = None
) -> Function:
    """The function, of the server at `url` or of the directory `models`. Raises BadFunctionError."""
    if url and models:
        raise cvataa.BadFunctionError("url= names a server and models= a directory: give one of them")
    return Function(Models(models, model, tags) if models else Server(url or DEFAULT_URL, model, tags))
