"""The Open Inference Protocol, version 2, takes raw tensors and gives them over HTTP, as Triton, KServe and their clients speak it.

https://github.com/open-inference/open-inference-protocol, with Triton's binary tensors (the JSON's length in the header
`Inference-Header-Content-Length`, the tensors' bytes behind it), its statistics and the index of its model repository. Models are
read-only: nothing loads or unloads them over the network. Errors are {"error": why}, as the protocol has it (`app.http.reply.problems`). The tensors are read and written by
`app.protocols.tensors`.
"""

import time
from collections import defaultdict
from functools import partial

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.http.reply.caching import RELEASE
from app.http.request.receive import receive_body, wait_for_disconnect
from app.inference.errors import ParameterError, ServiceError, UnsupportedTypeError
from app.inference.model_card import IMAGE_INPUT
from app.protocols.model_stats import ModelStats
from app.protocols.tensors import CHANNELS, HEADER_LENGTH, infer_from
from app.runtime.loaded_model import LoadedModel
from app.runtime.model_files import Key
from app.runtime.service import service_of

router = APIRouter(prefix="/v2", include_in_schema=False)
MAX_INDEX_BYTES = 10_000  # The body of a request for the index has this many bytes at most.


class IndexRequest(BaseModel):
    """It asks for the index: `ready` leaves out what is not served."""

    model_config = ConfigDict(extra="ignore")

    ready: bool = False


@router.get("")
async def server_metadata() -> Response:
    return JSONResponse(
        {"name": "tag2mask", "version": RELEASE, "extensions": ["binary_tensor_data", "statistics", "model_repository"]}
    )


@router.get("/health/live")
async def live() -> Response:
    return JSONResponse({"live": True})


@router.get("/health/ready")
async def ready(request: Request) -> Response:
    service_of(request).check_ready()
    return JSONResponse({"ready": True})


@router.get("/models/stats")
async def all_stats(request: Request) -> Response:
    return respond_stats(request, list(service_of(request).models.catalog.engines.values()))


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready")
async def model_ready(request: Request, name: str, version: str = "") -> Response:
    return JSONResponse({"name": engine_of(request, name, version).card.name, "ready": True})


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}")
async def model_metadata(request: Request, name: str, version: str = "") -> Response:
    engine = engine_of(request, name, version)
    versions = sorted(
        number for other, number in service_of(request).models.catalog.engines if other == engine.card.name
    )
    reply = {
        "name": engine.card.name,
        "versions": [str(number) for number in versions],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": IMAGE_INPUT, "datatype": "UINT8", "shape": [-1, -1, -1, CHANNELS]}],
        "outputs": [
            {"name": output, "datatype": datatype, "shape": list(shape)}
            for output, (datatype, shape) in engine.interface.items()
        ],
    }
    return JSONResponse(reply)


@router.post("/models/{name}/infer")
@router.post("/models/{name}/versions/{version}/infer")
async def infer(request: Request, name: str, version: str = "") -> Response:
    engine, service = engine_of(request, name, version), service_of(request)
    if request.headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedTypeError("compressed bodies are not read; send the tensors as they are.")
    service.pool.check_room()
    start, stats = time.perf_counter(), stats_of(request)[engine.card.name, engine.card.version]
    try:
        body = await receive_body(request, service.settings.max_upload_bytes)
        length, left = request.headers.get(HEADER_LENGTH), partial(wait_for_disconnect, request)
        arguments = (engine, body, length, service.settings, time.perf_counter())
        found = await service.pool.run(infer_from, *arguments, gone=left)
    except ServiceError:
        stats.count_failure(1000 * (time.perf_counter() - start))
        raise
    stats.count(found.stopwatch.milliseconds, found.images, 1000 * (time.perf_counter() - start))
    request.state.stopwatch = found.stopwatch
    return found.reply


@router.get("/models/{name}/stats")
@router.get("/models/{name}/versions/{version}/stats")
async def model_stats(request: Request, name: str, version: str = "") -> Response:
    engine = engine_of(request, name, version)
    engines = service_of(request).models.catalog.engines
    chosen = [engine] if version else [engines[key] for key in sorted(engines) if key[0] == engine.card.name]
    return respond_stats(request, chosen)


@router.post("/repository/index")
async def repository_index(request: Request) -> Response:
    """List every version that lies in the models directory, those that are refused with the reason; `{"ready": true}` leaves
    these out.
    """
    body = await receive_body(request, MAX_INDEX_BYTES)
    try:
        asked = IndexRequest.model_validate_json(body or b"{}")
    except ValidationError:
        raise ParameterError('the body is {"ready": true}, {"ready": false} or nothing.') from None
    catalog = service_of(request).models.catalog
    entries = [_index_entry(*key, "READY", "") for key in catalog.engines]
    if not asked.ready:
        refused = catalog.refused.items()
        entries += [_index_entry(*key, "UNAVAILABLE", reason) for key, reason in refused if key not in catalog.engines]
    return JSONResponse(sorted(entries, key=lambda entry: (entry["name"], int(entry["version"]))))


def _index_entry(name: str, version: int, state: str, reason: str) -> dict[str, str]:
    return {"name": name, "version": str(version), "state": state, "reason": reason}


def respond_stats(request: Request, engines: list[LoadedModel]) -> Response:
    """Return the reply with the numbers of these models."""
    stats, cards = stats_of(request), [engine.card for engine in engines]
    found = [stats[card.name, card.version].describe(card.name, card.version) for card in cards]
    return JSONResponse({"model_stats": found})


def stats_of(request: Request) -> defaultdict[Key, ModelStats]:
    """Return the numbers that the application of a request keeps, by name and version of the models that it has served."""
    state = request.app.state
    if not hasattr(state, "model_stats"):
        state.model_stats = defaultdict(ModelStats)
    stats: defaultdict[Key, ModelStats] = state.model_stats
    return stats


def engine_of(request: Request, name: str, version: str) -> LoadedModel:
    """Return the model of an address. Raises UnknownModelError."""
    return service_of(request).models.catalog.find(f"{name}/{version}" if version else name)
