"""The photos of a folder are labelled by the models in this process, or by a server. Both answer alike."""

import io
import json
import zlib
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit
from zipfile import BadZipFile

import numpy as np
import urllib3
from urllib3.util import Retry, Timeout

from app.http.request.parameters import AnalyzeParameters
from app.inference.analysis import Analyzer
from app.inference.errors import DataError, RateLimitError, ServerGoneError, UnavailableError
from app.inference.image.decode import Photo, decode
from app.inference.labels import BACKGROUND
from app.runtime.model_store import Catalog, ModelStore, pin
from app.runtime.settings import Settings

TIMEOUT = 120  # A server has this many seconds to answer.
LONGEST_WAIT_SECONDS = 30  # A busy server is asked again after this time at most.
TRIES = 6  # A busy server is asked this many times in all.
BUSY = (RateLimitError.status, UnavailableError.status)  # A request that gets one of these is sent again.
CONNECT_SECONDS = 10  # A server that takes no connection for this long is not there.
REDIRECTS = 3  # This many redirects are followed.
CONNECTIONS = 32  # This many connections are kept, one for every photo that may be on its way.
API_KEY_HEADER = "X-API-Key"
SHOWN_SIDE = 640  # Overlays have this long side in px at most.


@dataclass(frozen=True)
class Labelled:
    """It holds one photo's results. photo: as decoded, perhaps at reduced size. label_map and mask: uint8 (H, W), of the maps and of
    the segmenter; mask and probabilities (C + 1, h, w) are None where no segmenter is served. scores: (C,). present: class
    indices held to be there.
    """

    photo: Photo
    label_map: np.ndarray
    mask: np.ndarray | None
    probabilities: np.ndarray | None
    scores: np.ndarray
    present: tuple[int, ...]


class Maker(Protocol):
    """It makes labels. classes: what the labels mean. provenance: what made them, as JSON can hold it."""

    classes: tuple[str, ...]
    provenance: dict[str, Any]


class Labeller(Maker, Protocol):
    """It labels one photo at a time; several threads may ask it."""

    def label(self, data: bytes, tags: tuple[str, ...] | None) -> Labelled: ...


class InProcess:
    """It labels with the models of a directory, in this process."""

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
    """It asks a running service over HTTP. `api_key` is sent to it, and to nobody it sends on to."""

    def __init__(self, address: str, parameters: AnalyzeParameters, api_key: str | None = None) -> None:
        self.address = address.rstrip("/")
        if urlsplit(self.address).scheme not in ("http", "https"):
            raise DataError(f"--server {address!r} is not the address of a server; write http://HOST:PORT")
        self._headers = {API_KEY_HEADER: api_key} if api_key else {}
        self._http = urllib3.PoolManager(
            maxsize=CONNECTIONS,
            timeout=Timeout(connect=CONNECT_SECONDS, read=TIMEOUT),
            retries=Retry(
                total=None,
                connect=0,
                read=0,
                other=0,
                redirect=REDIRECTS,
                status=TRIES - 1,
                allowed_methods=None,  # A POST that is sent again does no harm.
                status_forcelist=BUSY,
                backoff_factor=0.5,
                backoff_max=LONGEST_WAIT_SECONDS,
                retry_after_max=LONGEST_WAIT_SECONDS,
                raise_on_status=False,
                remove_headers_on_redirect=(API_KEY_HEADER,),
            ),
        )
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
        try:
            body = self._ask("POST", f"analyze?{urlencode(query)}", data)
        except ServerGoneError as error:  # It may also have hung up on a body far larger than it takes.
            self._ask("GET", "healthz")
            raise DataError(
                f"{error} It answers other requests, so perhaps {len(data)} bytes are more than it takes."
            ) from None
        found = read_reply(body, decode(data, input_long_side=SHOWN_SIDE))
        return emptied(found) if tags == () else found

    def _served(self) -> list[dict[str, Any]]:
        """Return what `GET /models` lists. Raises DataError where something else than a tag2mask answers."""
        try:
            body = self._ask("GET", "models")
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

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Return the body of the answer; a busy server is asked again. Raises DataError with what the server says, and
        ServerGoneError where it does not answer, or not in full.
        """
        headers = self._headers if body is None else {**self._headers, "Content-Type": "image/*"}
        try:
            reply = self._http.request(method, f"{self.address}/{path}", body=body, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            raise ServerGoneError(
                f"{self.address} does not answer ({cause_of(error)}). Start the service there, or name the address of a running "
                f"one; the same command goes on."
            ) from None
        if reply.status != HTTPStatus.OK:
            raise DataError(f"the server refuses it: {_detail(reply.data) or f'HTTP status {reply.status}'}")
        return reply.data


def cause_of(error: urllib3.exceptions.HTTPError) -> object:
    """Return why a request failed: what the system says of the connection, where it does."""
    reason = getattr(error, "reason", None) or error
    return getattr(reason.__cause__, "strerror", None) or reason


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
