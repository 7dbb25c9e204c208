"""One request about one photo on its way through a worker: what was settled before, and the time each stage took."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

from starlette.responses import Response

from app.http.negotiate import MEDIA_TYPES
from app.http.schemas import Reply
from app.inference.engine import Engine
from app.inference.image.decode import Photo, decode
from app.inference.image.preprocess import geometry_of
from app.runtime.model_store import Catalog
from app.runtime.settings import Settings
from app.runtime.upload_store import Upload


@dataclass
class Work:
    """A photo, the models to run on it and the format to answer in. `catalog` is the one they were chosen from.

    engines: the model, and those its maps are fused with. segmenter: besides them, for all results at once. etag: names the
    result (`app.http.caching`). notes: headers that say what is wrong with the photo.
    """

    upload: Upload
    engines: tuple[Engine, ...]
    catalog: Catalog
    format: str
    settings: Settings
    root_path: str
    etag: str
    segmenter: Engine | None = None
    submitted: float = field(default_factory=time.perf_counter)
    timings_ms: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def engine(self) -> Engine:
        """The model that answers; the first of several."""
        return self.engines[0]

    @property
    def pinned(self) -> dict[str, str]:
        """The query parameter that names the models, by version."""
        names = [pin(engine) for engine in self.engines]
        return {"model": names[0]} if len(names) == 1 else {"fuse": ",".join(names)}

    def beside(self, *engines: Engine) -> "Work":
        """The same work for other models; the time goes to the same account."""
        return replace(self, engines=engines)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Note the milliseconds of a stage; before the first, those spent waiting for a worker."""
        start = time.perf_counter()
        if not self.timings_ms:
            self.timings_ms["queue"] = round(1000 * (start - self.submitted), 2)
        yield
        self.timings_ms[name] = round(1000 * (time.perf_counter() - start), 2)

    def decode(self, *, input_scale: float | None = None) -> Photo:
        """The photo; at full size, or no larger than a network input of `input_scale` times the model's size needs."""
        sizes = [engine.card.preferred_size for engine in (*self.engines, self.segmenter) if engine]
        with self.stage("decode"):
            long_side = None if input_scale is None else round(max(sizes) * input_scale)
            limit = self.settings.max_image_pixels
            photo = decode(self.upload.data, max_image_pixels=limit, input_long_side=long_side)
        if photo.note:
            self.notes["X-Image-Note"] = photo.note
        return photo

    def result_size(self, photo: Photo, wanted: str) -> tuple[int, int]:
        """(height, width) of a result of size "image" or "model"."""
        if wanted == "image":
            return photo.height, photo.width
        geometry = geometry_of((photo.height, photo.width), self.engine.card.preferred_size)
        return geometry.input_height, geometry.input_width

    def link(self, path: str, pinned: Mapping[str, str], parameters: Mapping[str, object]) -> str:
        """The address of a result of this photo, with the models pinned."""
        query = {"image": self.upload.id, **parameters, **pinned}
        return f"{self.root_path}{path}?{urlencode(query, safe='/,')}"

    def respond(self, body: Reply | bytes, headers: Mapping[str, str] | None = None) -> Response:
        """The HTTP answer, with the provenance in headers too: a PNG has no other place for it."""
        content = body if isinstance(body, bytes) else body.model_dump_json().encode()
        provenance = {
            "X-Image-Id": self.upload.id,
            "X-Model": ", ".join(map(pin, self.engines)),
            "X-Model-SHA256": ", ".join(engine.sha256 for engine in self.engines),
            "X-Model-Method": ", ".join(engine.card.method for engine in self.engines),
            "Server-Timing": ", ".join(f"{name};dur={ms:g}" for name, ms in self.timings_ms.items()),
        }
        return Response(
            content, 200, {**provenance, **self.notes, **self.caching, **(headers or {})}, MEDIA_TYPES[self.format]
        )

    @property
    def caching(self) -> dict[str, str]:
        """What lets a client keep the result and ask whether it still holds."""
        return {"ETag": self.etag, "Cache-Control": "private, no-cache", "Vary": "Accept, Cookie"}


def pin(engine: Engine) -> str:
    """NAME/VERSION."""
    return f"{engine.card.name}/{engine.card.version}"
