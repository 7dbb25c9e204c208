"""One request about one photo on its way through a worker: what was chosen before, and the way to the reply."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from app.http.formats import FORMATS, media_type
from app.http.schemas import Reply
from app.inference.analysis import Analysis, Analyzer
from app.inference.stopwatch import Stopwatch
from app.runtime.loaded_model import LoadedModel
from app.runtime.model_store import pin
from app.runtime.settings import Settings
from app.runtime.upload_store import Upload


@dataclass
class Job:
    """A photo, the models to run on it and the format to answer in. It can be sent to another process.

    cams: the model of the maps, and those its maps are fused with. segmenter: the model of the mask. analyzer: the same
    models, with what is asked of them. defaults: the model of each task where none is named. class_index: of the one class that is asked for. etag: names the result
    (`app.http.caching`). notes: headers that say what is wrong with the photo. others: the same for the
    further photos of the request.
    """

    upload: Upload
    analyzer: Analyzer
    cams: tuple[LoadedModel, ...]
    segmenter: LoadedModel | None
    defaults: dict[str, LoadedModel]
    format: str
    settings: Settings
    root_path: str
    etag: str
    class_index: int | None = None
    submitted: float = field(default_factory=time.perf_counter)
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    notes: dict[str, str] = field(default_factory=dict)
    others: tuple["Job", ...] = ()

    def answered_by(self, answer: Callable[..., Response], *arguments: Any) -> tuple[Response, dict[str, float]]:
        """Return an answer to the job, and the milliseconds of the stages of the work."""
        return answer(self, *arguments), self.stopwatch.milliseconds

    def analyze(self) -> Analysis:
        """Return the analysis of the photo. It is decoded at full size where its own pixels are part of the answer."""
        self.stopwatch.add("queue", 1000 * (time.perf_counter() - self.submitted))
        whole = FORMATS[self.format].shows_photo and self.analyzer.options.size == "image"
        limit = self.settings.max_image_pixels
        analysis = self.analyzer.read(self.upload.data, max_image_pixels=limit, whole=whole, stopwatch=self.stopwatch)
        if analysis.photo.note:
            self.notes["X-Image-Note"] = analysis.photo.note
        return analysis

    @property
    def engines(self) -> tuple[LoadedModel, ...]:
        """The models that a reply's headers name: those of the maps, or of the mask where it is asked for alone."""
        return self.cams or ((self.segmenter,) if self.segmenter else ())

    @property
    def pins(self) -> dict[str, dict[str, str]]:
        """Task -> the query parameter that names its models by version: those that answer, else the default."""
        pins = {task: {"model": pin(engine)} for task, engine in self.defaults.items()}
        if self.segmenter:
            pins["segmentation"] = {"model": pin(self.segmenter)}
        if self.cams:
            names = [pin(engine) for engine in self.cams]
            pins["cam"] = {"model": names[0]} if len(names) == 1 else {"fuse": ",".join(names)}
        return pins

    def link(self, path: str, pinned: Mapping[str, str], parameters: Mapping[str, object]) -> str:
        """Return the address of a result of this photo, with the models pinned."""
        query = {"image": self.upload.id, **parameters, **pinned}
        return f"{self.root_path}{path}?{urlencode(query, safe='/,')}"

    def respond(self, body: Reply | bytes, headers: Mapping[str, str] | None = None) -> Response:
        """Return the HTTP answer, with the provenance in headers too: a PNG has no other place for it."""
        content = body if isinstance(body, bytes) else body.model_dump_json().encode()
        timings = self.stopwatch.milliseconds.items()
        provenance = {
            "X-Image-Id": self.upload.id,
            "X-Model": ", ".join(map(pin, self.engines)),
            "X-Model-SHA256": ", ".join(engine.sha256 for engine in self.engines),
            "X-Model-Method": ", ".join(engine.card.method for engine in self.engines),
            "Server-Timing": ", ".join(f"{name};dur={ms:g}" for name, ms in timings),
        }
        return Response(
            content, 200, {**provenance, **self.notes, **self.caching, **(headers or {})}, media_type(self.format)
        )

    @property
    def caching(self) -> dict[str, str]:
        """What lets a client keep the result and ask whether it still holds."""
        return {"ETag": self.etag, "Cache-Control": "private, no-cache", "Vary": "Accept, Cookie"}
