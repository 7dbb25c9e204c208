"""One request about one photo on its way through a worker: what was settled before, and the time each stage took."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlencode

from starlette.responses import Response

from app.decode import Photo, decode
from app.engine import Engine
from app.model_store import Catalog, Task
from app.negotiate import MEDIA_TYPES
from app.schemas import Reply
from app.settings import Settings
from app.upload_store import Upload

PATHS: Mapping[Task, str] = {"cam": "/cam", "segmentation": "/segment"}


@dataclass
class Work:
    """A photo, the model to run on it and the format to answer in. `catalog` is the one the model was chosen from.

    etag: names the result (`app.entity_tag`).
    """

    upload: Upload
    engine: Engine
    catalog: Catalog
    format: str
    settings: Settings
    root_path: str
    etag: str
    submitted: float = field(default_factory=time.perf_counter)
    timings_ms: dict[str, float] = field(default_factory=dict)

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
        with self.stage("decode"):
            long_side = None if input_scale is None else round(self.engine.card.preferred_size * input_scale)
            return decode(self.upload.data, max_image_pixels=self.settings.max_image_pixels, input_long_side=long_side)

    def link(self, path: str, engine: Engine | None, parameters: Mapping[str, object]) -> str:
        """The address of a result of this photo, with the model pinned where one is given."""
        query = {"image": self.upload.id, **parameters}
        if engine:
            query["model"] = f"{engine.card.name}/{engine.card.version}"
        return f"{self.root_path}{path}?{urlencode(query, safe='/,')}"

    def respond(self, body: Reply | bytes, headers: Mapping[str, str] | None = None) -> Response:
        """The HTTP answer, with the provenance in headers too: a PNG has no other place for it."""
        content = body if isinstance(body, bytes) else body.model_dump_json().encode()
        card = self.engine.card
        provenance = {
            "X-Image-Id": self.upload.id,
            "X-Model": f"{card.name}/{card.version}",
            "X-Model-SHA256": self.engine.sha256,
            "X-Model-Method": card.method,
            "Server-Timing": ", ".join(f"{name};dur={ms:g}" for name, ms in self.timings_ms.items()),
        }
        return Response(content, 200, {**provenance, **self.caching, **(headers or {})}, MEDIA_TYPES[self.format])

    @property
    def caching(self) -> dict[str, str]:
        """What lets a client keep the result and ask whether it still holds."""
        return {"ETag": self.etag, "Cache-Control": "private, no-cache", "Vary": "Accept, Cookie"}
