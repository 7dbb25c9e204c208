"""A job takes one request about one photo through a worker: it knows what was chosen before, and how the reply is made."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, TypeVar
from urllib.parse import urlencode

from starlette.responses import Response

from app.http.formats import media_type
from app.http.reply.schemas import Reply
from app.http.request.parameters import PhotoParameters
from app.inference.analysis import Analysis, Analyzer
from app.inference.maps.localization import ScaleCams
from app.inference.stopwatch import Stopwatch
from app.runtime.loaded_model import LoadedModel
from app.runtime.map_store import view_key
from app.runtime.model_store import pin
from app.runtime.settings import Settings
from app.runtime.upload_store import Upload

Asked = TypeVar("Asked", bound=PhotoParameters, covariant=True)


@dataclass
class Job(Generic[Asked]):
    """It holds a photo, the models to run on it and the format to answer in. It can be sent to another process.

    parameters: those of the request's query. cams: the model of the maps, and those its maps are fused with. segmenter: the model of the mask. analyzer: the same
    models, with what is asked of them. defaults: the model of each task where none is named. class_index: of the one class
    that is asked for. etag: names the result (`app.http.reply.caching`). kept: what the models of the maps said of the photo before,
    by `view_keys`; what they say now is added. others: the same for the further photos of the request. left_out: the models that
    know other classes, where all were to be fused.
    """

    upload: Upload
    parameters: Asked
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
    kept: dict[str, bytes] = field(default_factory=dict)
    others: tuple["Job[Asked]", ...] = ()
    left_out: tuple[LoadedModel, ...] = ()

    def answered_by(self, answer: Callable[["Job[Asked]"], Response]) -> tuple[Response, Stopwatch, dict[str, bytes]]:
        """Return an answer to the job, the stages of the work, and what is to be kept of it."""
        return answer(self), self.stopwatch, self.kept

    @cached_property
    def analysis(self) -> Analysis:
        """The analysis of the photo begins when it is first read, on a worker."""
        self.stopwatch.add_lap("queue", 1000 * (time.perf_counter() - self.submitted))
        kept = [self.kept.get(key) for key in self.view_keys]
        return self.analyzer.read(
            self.upload.data,
            max_image_pixels=self.settings.max_image_pixels,
            stopwatch=self.stopwatch,
            known=[ScaleCams.from_bytes(content) if content else None for content in kept],
        )

    @property
    def view_keys(self) -> list[str]:
        """What each model of the maps says of the photo is kept under these keys (`app.runtime.map_store`)."""
        side = self.analyzer.input_long_side
        views = [(engine.sha256, *self.analyzer.plain_views(engine)) for engine in self.cams]
        return [view_key(self.upload.id, *view, side) for view in views]

    @property
    def engines(self) -> tuple[LoadedModel, ...]:
        """The headers of a reply name these models: those of the maps, or of the mask where it is asked for alone."""
        return self.cams or ((self.segmenter,) if self.segmenter else ())

    @cached_property
    def pins(self) -> dict[str, dict[str, str]]:
        """For each task, this query parameter names its models by version: those that answer, else the default."""
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
        for key, views in zip(self.view_keys, self.analysis.found_out, strict=False):
            if views and key not in self.kept:
                self.kept[key] = views.to_bytes()
        notes = {"X-Image-Note": self.analysis.note} if self.analysis.note else {}
        if self.left_out:
            notes["X-Models-Left-Out"] = ", ".join(map(pin, self.left_out))
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
            content, 200, {**provenance, **notes, **self.caching, **(headers or {})}, media_type(self.format)
        )

    @property
    def caching(self) -> dict[str, str]:
        """These headers let a client keep the result and ask whether it still holds."""
        return {"ETag": self.etag, "Cache-Control": "private, no-cache", "Vary": "Accept, Cookie"}
