"""The Open Inference Protocol, version 2, over HTTP: raw tensors in and out, as Triton, KServe and their clients speak it.

https://github.com/open-inference/open-inference-protocol, with Triton's binary tensors (the JSON's length in the header
`Inference-Header-Content-Length`, the tensors' bytes behind it). Models are read-only: nothing loads or unloads them over the
network. Errors are {"error": why}, as the protocol has it (`app.http.problems`). The tensors are read and written by
`app.protocols.tensors`.
"""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.http.caching import RELEASE
from app.http.receive import receive_body, wait_for_disconnect
from app.inference.engine import Engine
from app.inference.errors import UnsupportedTypeError
from app.inference.model_card import IMAGE_INPUT
from app.protocols.tensors import CHANNELS, HEADER_LENGTH, infer_from
from app.runtime.service import service_of

router = APIRouter(prefix="/v2", include_in_schema=False)


@router.get("")
async def server_metadata() -> Response:
    return JSONResponse({"name": "tag2mask", "version": RELEASE, "extensions": ["binary_tensor_data"]})


@router.get("/health/live")
async def live() -> Response:
    return JSONResponse({"live": True})


@router.get("/health/ready")
async def ready(request: Request) -> Response:
    service_of(request).check_ready()
    return JSONResponse({"ready": True})


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
    body = await receive_body(request, service.settings.max_upload_bytes)
    length = request.headers.get(HEADER_LENGTH)
    return await service.pool.run(
        infer_from, engine, body, length, service.settings, gone=lambda: wait_for_disconnect(request)
    )


def engine_of(request: Request, name: str, version: str) -> Engine:
    """The model of an address. Raises UnknownModelError."""
    return service_of(request).models.catalog.find(f"{name}/{version}" if version else name)
