"""Who labels the photos of a folder: the models in this process, or a server. Both answer alike."""

import io
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from dataclasses import dataclass, replace
from email.message import Message
from http import HTTPStatus
from http.client import HTTPException
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np

from app.http.parameters import AnalyzeParameters
from app.http.receive import whole_number
from app.inference.analysis import Analyzer
from app.inference.errors import DataError, RateLimitError, ServerGoneError, UnavailableError
from app.inference.image.decode import Photo, decode
from app.inference.labels import BACKGROUND
from app.runtime.model_store import Catalog, ModelStore, pin
from app.runtime.settings import Settings

TIMEOUT = 120  # A server has this many seconds to answer.
LONGEST_WAIT_SECONDS = 30  # A busy server is asked again after this time at most.
TRIES = 6  # A busy server is asked this many times in all.
SHOWN_SIDE = 640  # Overlays have this long side in px at most.


@dataclass(frozen=True)
class Labelled:
    """One photo's results. photo: as decoded, perhaps at reduced size. label_map and mask: uint8 (H, W), of the maps and of
    the segmenter; mask and probabilities (C + 1, h, w) are None where no segmenter is served. scores: (C,). present: class
    indices held to be there.
    """

    photo: Photo
    label_map: np.ndarray
    mask: np.ndarray | None
    probabilities: np.ndarray | None
    scores: np.ndarray
    present: tuple[int, ...]


class Labeller(Protocol):
    """Labels photos. classes: what the labels mean. provenance: what made them, as JSON can hold it."""

    classes: tuple[str, ...]
    provenance: dict[str, Any]

    def label(self, data: bytes, tags: tuple[str, ...] | None) -> Labelled: ...


class InProcess:
    """The models of a directory, in this process."""

    def __init__(self, settings: Settings, parameters: AnalyzeParameters) -> None:
        catalog: Catalog = ModelStore(settings).load()
        cam = catalog.choose("cam", parameters.model)
        segmenter = catalog.defaults.get("segmentation")
        if parameters.segmenter is not None:
            segmenter = catalog.choose("segmentation", parameters.segmenter)
        if segmenter and segmenter.card.classes != cam.card.classes:
            raise DataError(f"{pin(cam)} and {pin(segmenter)} know different classes; name others")
        self.settings, self.classes = settings, cam.card.classes
        self.analyzer = Analyzer(parameters.options(), (cam,), segmenter)
        self.provenance = {
            "models": {pin(engine): engine.sha256 for engine in (cam, segmenter) if engine},
            "parameters": parameters.model_dump(exclude_unset=True),
        }

    def label(self, data: bytes, tags: tuple[str, ...] | None) -> Labelled:
        """Return what the service's `/analyze` answers."""
        analysis = self.analyzer.asking(tags=tags).read(data, max_image_pixels=self.settings.max_image_pixels)
        label, found = analysis.pseudo_label, analysis.mask if self.analyzer.segmenter else None
        return Labelled(
            analysis.photo,
            label.label_map,
            found.mask if found else None,
            found.probabilities if found else None,
            label.scores,
            label.class_indices,
        )


class Remote:
    """A running service, asked over HTTP. `api_key` is sent to it, and to nobody it sends on to."""

    def __init__(self, address: str, parameters: AnalyzeParameters, api_key: str | None = None) -> None:
        self._api_key = api_key
        self.address = address.rstrip("/")
        if urllib.parse.urlsplit(self.address).scheme not in ("http", "https"):
            raise DataError(f"--server {address!r} is not the address of a server; write http://HOST:PORT")
        self.query = {name: str(value) for name, value in parameters.model_dump(exclude_unset=True).items()}
        served = self._served()
        cam, segmenter = self._chosen(served, "cam", "model"), self._chosen(served, "segmentation", "segmenter")
        if cam is None:
            raise DataError(f"{self.address} serves no cam model; GET {self.address}/models lists those it does")
        self.classes = tuple(cam["classes"])
        self.provenance = {
            "server": self.address,
            "models": {f"{model['name']}/{model['version']}": model["sha256"] for model in (cam, segmenter) if model},
            "parameters": self.query,
        }

    def label(self, data: bytes, tags: tuple[str, ...] | None) -> Labelled:
        """`POST /analyze`. How large a photo may be is the server's to say: it is decoded here once the server took it."""
        query = {**self.query, "format": "npz"} | ({"tags": ",".join(tags)} if tags else {})
        address = f"{self.address}/analyze?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(address, data, {"Content-Type": "image/*"})
        try:
            body = self._ask(request)
        except ServerGoneError as error:  # It may also have hung up on a body far larger than it takes.
            self._ask(urllib.request.Request(f"{self.address}/healthz"))
            raise DataError(
                f"{error}, but to other requests: perhaps {len(data)} bytes are more than it takes"
            ) from None
        found = read_reply(body, decode(data, input_long_side=SHOWN_SIDE))
        return emptied(found) if tags == () else found

    def _served(self) -> list[dict[str, Any]]:
        """Return what `GET /models` lists. Raises DataError where something else than a tag2mask answers."""
        try:
            body = self._ask(urllib.request.Request(f"{self.address}/models"))
        except DataError as error:
            raise DataError(f"{self.address}/models: {error}; give the address of a tag2mask service") from None
        keys = ("name", "version", "task", "default", "sha256", "classes")
        try:
            return [{key: model[key] for key in keys} for model in json.loads(body)["models"]]
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f"{self.address}/models is not the list of models a tag2mask service gives; name one's address"
            ) from None

    def _chosen(self, served: list[dict[str, Any]], task: str, parameter: str) -> dict[str, Any] | None:
        """Return the model that the server takes for a task: the one that is named, in its highest version, or the
        default.

        None where none is named and the server has no default. Raises DataError for a name it does not serve.
        """
        wanted = self.query.get(parameter)
        fitting = sorted((model for model in served if model["task"] == task), key=lambda model: -model["version"])
        for model in fitting:
            names = (model["name"], f"{model['name']}/{model['version']}")
            if wanted in names if wanted else model["default"]:
                return model
        if wanted:
            raise DataError(
                f"{self.address} serves no {task} model {wanted}; GET {self.address}/models lists those it does"
            )
        return None

    def _ask(self, request: urllib.request.Request) -> bytes:
        """Return the body of the answer. Raises DataError with what the server says, after some patience where it is
        busy.
        """
        for attempt in range(TRIES):
            status, headers, body = self._send(request)
            if status == HTTPStatus.OK:
                return body
            if status not in (UnavailableError.status, RateLimitError.status) or attempt == TRIES - 1:
                raise DataError(f"the server refuses it: {_detail(body) or f'HTTP status {status}'}")
            wait = whole_number(headers.get("Retry-After", ""))
            time.sleep(min(LONGEST_WAIT_SECONDS, 1 if wait is None else wait))
        raise AssertionError("the last try returns or raises")

    def _send(self, request: urllib.request.Request) -> tuple[int, Message, bytes]:
        """Status, headers and body of the answer. Raises ServerGoneError where there is none, or not all of it."""
        if self._api_key:
            request.add_unredirected_header("X-API-Key", self._api_key)
        try:
            try:
                reply = urllib.request.urlopen(request, timeout=TIMEOUT)  # nosec B310
            except urllib.error.HTTPError as error:
                reply = error  # an answer like any other
            with reply:
                return reply.status, reply.headers, reply.read()
        except (OSError, HTTPException) as error:
            raise ServerGoneError(f"{self.address} does not answer ({getattr(error, 'reason', error)})") from None


def read_reply(body: bytes, photo: Photo) -> Labelled:
    """Return the arrays of an `/analyze?format=npz`. Raises DataError for a body that is none, or not whole."""
    try:
        with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
            return Labelled(
                photo,
                arrays["label_map"],
                arrays.get("mask"),
                arrays.get("probabilities"),
                arrays["scores"],
                tuple(arrays["present"].tolist()),
            )
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise DataError(
            f"the server's answer, {len(body)} bytes, cannot be read as the arrays of /analyze ({error}); label the photo again"
        ) from None


def emptied(found: Labelled) -> Labelled:
    """Return the results of a photo that is known to hold no class: a server cannot be asked for none of them."""
    mask, probabilities = found.mask, found.probabilities
    if mask is not None and probabilities is not None:
        mask = np.full_like(mask, BACKGROUND)
        probabilities = np.zeros_like(probabilities)
        probabilities[BACKGROUND] = 1
    label_map = np.full_like(found.label_map, BACKGROUND)
    return replace(found, label_map=label_map, mask=mask, probabilities=probabilities, present=())


def _detail(body: bytes) -> str:
    """Return what a problem document says; nothing where the body is none."""
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return ""
