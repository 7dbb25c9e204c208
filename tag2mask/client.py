"""The client asks the service about one photo, or about many at a time, with retries."""

import io
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, TypeVar
from urllib.parse import urlencode, urlsplit

import numpy as np
import urllib3
from PIL import Image
from urllib3.util import Retry, Timeout

from tag2mask.problems import ClientError, Problem, ServerGoneError
from tag2mask.results import Analysis, ClassScore, Heatmap, Mask, scores_of

Photo = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | np.ndarray
P = TypeVar("P", bound=Photo)
Found = TypeVar("Found")
Tags = Sequence[str] | None
Option = str | int | float | bool | Sequence[float] | Sequence[str] | None

BUSY = (429, 502, 503, 504)  # The service is full, or starts: a request that gets one of these is sent again.
OK = 200
LONGEST_PAUSE_SECONDS = 30
TYPE = "image/*"  # the service tells the format by the bytes
WITH_COLOURS = (3, 4)  # an array with this many values a pixel is RGB, or RGB with transparency
PNG_MODES = (
    "1",
    "L",
    "LA",
    "P",
    "RGB",
    "RGBA",
    "I;16",
)  # Pillow writes pictures of these modes as PNG; CMYK, say, is none


class Client:
    """Asks one service. It may be used by several threads at a time.

    Args:
        address: of the service, with the prefix of a proxy where there is one.
        timeout: seconds to wait for an answer.
        retries: how often a request is sent again where the service is busy or the connection breaks; every request
            can be repeated without harm.
        headers: sent with every request, for a proxy that asks for a token, say.

    Every method about a photo takes it as a path, bytes of a file, an open file, a Pillow image or uint8 (H, W, 3), and
    further parameters of the HTTP interface by name (docs/api.md): `refine="pamr"`, `threshold=0.5`, `model="cam/3"`.
    Each raises Problem where the service refuses, ServerGoneError where none answers.
    """

    def __init__(
        self,
        address: str = "http://localhost:8000",
        *,
        timeout: float = 120,
        retries: int = 5,
        concurrency: int = 4,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if urlsplit(address).scheme not in ("http", "https"):
            raise ValueError(f"{address!r} is not the address of a service; write http://HOST:PORT")
        if concurrency < 1:
            raise ValueError(f"concurrency={concurrency}: at least 1 request must be allowed at a time")
        self.address, self.concurrency = address.rstrip("/"), concurrency
        retry = Retry(
            retries,
            allowed_methods=None,  # POST too: the service keeps nothing that a second one would spoil
            status_forcelist=BUSY,
            backoff_factor=0.5,
            backoff_max=LONGEST_PAUSE_SECONDS,
            raise_on_status=False,
            redirect=3,
        )
        self._http = urllib3.PoolManager(
            maxsize=concurrency, retries=retry, timeout=Timeout(connect=10, read=timeout), headers=headers
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.clear()

    def models(self) -> list[dict[str, Any]]:
        """Return the models that are served, each with its card."""
        models: list[dict[str, Any]] = self._json("GET", "models")["models"]
        return models

    def classes(self, model: str | None = None) -> list[str]:
        """Return the class names of a model; of the default one where none is named."""
        return [entry["class"] for entry in self._json("GET", "classes", {"model": model})["classes"]]

    def segment(self, photo: Photo, *, tags: Tags = None, **options: Option) -> Mask:
        """Return the mask of a photo. tags: all classes known to be in it; no other is found then."""
        return Mask.of(self._about(photo, "segment", tags, options), name_of(photo))

    def pseudo_label(self, photo: Photo, *, tags: Tags = None, **options: Option) -> Mask:
        """Return the label map that a segmenter would be trained on, 255 where the pixel is ignored."""
        return Mask.of(self._about(photo, "pseudo-label", tags, options), name_of(photo))

    def scores(self, photo: Photo, *, tags: Tags = None, **options: Option) -> tuple[ClassScore, ...]:
        """Return how sure the classifier is of every class."""
        return scores_of(self._about(photo, "cam", tags, {"class": "all", **options}))

    def heatmap(self, photo: Photo, class_name: str, *, tags: Tags = None, **options: Option) -> Heatmap:
        """Return where the classifier looks for a class, at the photo's size; `size="model"` gives the smaller map it
        made.
        """
        query = query_of(tags, {"class": class_name, **options, "format": "npy"})
        reply = self._send("POST", "cam", query, content_of(photo))
        values = np.load(io.BytesIO(reply.data), allow_pickle=False)
        return Heatmap(class_name, float(reply.headers["X-Class-Score"]), values, reply.headers["X-Model"])

    def analyze(self, photo: Photo, *, tags: Tags = None, **options: Option) -> Analysis:
        """Return all results of a photo by one request."""
        reply, name = self._about(photo, "analyze", tags, options), name_of(photo)
        mask = None if reply["segment"] is None else Mask.of(reply["segment"], name)
        return Analysis(scores_of(reply["cam"]), Mask.of(reply["pseudo_label"], name), mask, reply)

    def segment_many(
        self,
        photos: Iterable[P],
        *,
        tags: Callable[[P], Tags] | None = None,
        concurrency: int | None = None,
        on_error: Literal["raise", "return"] = "raise",
        **options: Option,
    ) -> Iterator[tuple[P, "Mask | Problem"]]:
        """Yield (photo, mask) of many photos in their order, several asked about at a time. tags: photo -> what is in
        it.

        With on_error="return" a photo that is refused, or whose file cannot be read, gives (photo, Problem), and the others go
        on.
        """

        def one(photo: P) -> Mask:
            return self.segment(photo, tags=tags(photo) if tags else None, **options)

        return self.many(one, photos, concurrency=concurrency, on_error=on_error)

    def many(
        self,
        ask: Callable[[P], Found],
        photos: Iterable[P],
        *,
        concurrency: int | None = None,
        on_error: Literal["raise", "return"] = "raise",
    ) -> Iterator[tuple[P, "Found | Problem"]]:
        """Yield (photo, what `ask(photo)` gives) in the order of the photos: `client.many(client.analyze, paths)`.

        At most `concurrency` photos are asked about at a time, and no more than twice as many are taken ahead, so that
        a generator of a million photos is walked as fast as the results are used.
        """
        width = self.concurrency if concurrency is None else concurrency
        if width < 1:
            raise ValueError(f"concurrency={width}: at least 1 request must be allowed at a time")
        waiting: deque[tuple[P, Future[Found]]] = deque()
        coming = iter(photos)
        pool = ThreadPoolExecutor(width, "tag2mask")
        try:
            while True:
                for photo in islice(coming, 2 * width - len(waiting)):
                    waiting.append((photo, pool.submit(ask, photo)))
                if not waiting:
                    return
                photo, future = waiting.popleft()
                try:
                    found: Found | Problem = future.result()
                except Problem as problem:
                    if on_error == "raise":
                        raise
                    found = problem
                except OSError as error:  # The photo's file cannot be read.
                    if on_error == "raise":
                        raise
                    found = Problem.of_file(error)
                yield photo, found
        finally:
            pool.shutdown(cancel_futures=True)

    def _about(self, photo: Photo, path: str, tags: Tags, options: Mapping[str, Option]) -> dict[str, Any]:
        """Return the JSON reply about a photo."""
        return self._json("POST", path, query_of(tags, {**options, "format": "json"}), content_of(photo))

    def _json(
        self, method: str, path: str, query: Mapping[str, Option] | None = None, body: bytes | None = None
    ) -> dict[str, Any]:
        data = self._send(method, path, query or {}, body).data
        try:
            parsed: dict[str, Any] = json.loads(data)
        except ValueError:
            raise ClientError(
                f"{self.address}/{path} answers with something else than JSON; give the address of a tag2mask service"
            ) from None
        return parsed

    def _send(
        self, method: str, path: str, query: Mapping[str, Option], body: bytes | None = None
    ) -> urllib3.BaseHTTPResponse:
        """Return a successful answer. Raises Problem, ServerGoneError."""
        fields = {name: written(value) for name, value in query.items() if value is not None}
        headers = {**self._http.headers, **({"Content-Type": TYPE} if body is not None else {})}
        address = f"{self.address}/{path}" + (f"?{urlencode(fields)}" if fields else "")
        try:
            reply = self._http.request(method, address, body=body, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", None) or error
            said = getattr(reason.__cause__, "strerror", None) or reason  # What the system says of the connection.
            raise ServerGoneError(
                f"{self.address} does not answer ({said}). Start the service there, or give the address of a running one."
            ) from None
        if reply.status != OK:
            raise Problem.of(reply.status, reply.data)
        return reply


def query_of(tags: Tags, options: Mapping[str, Option]) -> dict[str, Option]:
    """Return the parameters of a request. Raises ValueError for tags that cannot be sent."""
    if isinstance(tags, str):
        raise ValueError(f"tags={tags!r} is one text; write a list of class names: tags=[{tags!r}]")
    for tag in tags or ():
        if "," in tag:
            raise ValueError(f"the tag {tag!r} holds a comma, which separates tags in a request; write two")
    if tags is not None and not tags:
        raise ValueError("tags=[] names no class; leave it out where nothing is known of the photo")
    return {**options, "tags": None if tags is None else ",".join(tags)}


def written(value: Option) -> str:
    """Return a value as a query holds it; several are separated by commas."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (str, int, float)) or value is None else ",".join(map(str, value))


def content_of(photo: Photo) -> bytes:
    """Return the photo as bytes of a file; pictures in memory become PNG, which loses nothing."""
    if isinstance(photo, bytes):
        return photo
    if isinstance(photo, (str, os.PathLike)):
        return Path(photo).read_bytes()
    if isinstance(photo, np.ndarray):
        grey, colour = photo.ndim == 2, photo.ndim == 3 and photo.shape[2] in WITH_COLOURS
        if photo.dtype != np.uint8 or not (grey or colour):
            raise ValueError(
                f"an array of {photo.dtype} {photo.shape} is no photo; give uint8 (H, W, 3) with values from 0 to 255"
            )
        photo = Image.fromarray(photo)
    if isinstance(photo, Image.Image):
        if photo.mode not in PNG_MODES:
            photo = photo.convert("RGB")
        buffer = io.BytesIO()
        photo.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()
    if not hasattr(photo, "read"):
        raise TypeError(f"{photo!r} is no photo; give a path, bytes, an open file, a Pillow image or an array")
    return photo.read()


def name_of(photo: Photo) -> str:
    """Return the file name of a photo that has one, for data sets."""
    named = photo if isinstance(photo, (str, os.PathLike)) else getattr(photo, "filename", getattr(photo, "name", ""))
    return Path(os.fspath(named)).name if isinstance(named, (str, os.PathLike)) and named else "photo"
