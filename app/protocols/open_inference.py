"""The Open Inference Protocol, version 2, over HTTP: raw tensors in and out, as Triton, KServe and their clients speak it.

https://github.com/open-inference/open-inference-protocol, with Triton's binary tensors (the JSON's length in the header
`Inference-Header-Content-Length`, the tensors' bytes behind it). Models are read-only: nothing loads or unloads them over the
network. Errors are {"error": why}, as the protocol has it.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.http.caching import RELEASE
from app.http.receive import receive_body
from app.inference.engine import Engine
from app.inference.errors import ParameterError, ReplyTooLargeError, ServiceError, UnsupportedTypeError
from app.inference.image.preprocess import MIN_INPUT_SIDE
from app.inference.model_card import IMAGE_INPUT
from app.runtime.service import Service, service_of

HEADER_LENGTH = "Inference-Header-Content-Length"
LONGEST_NUMBER = {"uint8": 4}  # bytes of a number and its comma in JSON
MAX_NUMBER = 25  # bytes of a floating point number and its comma in JSON
CHANNELS = 3
MAX_VALUE = np.iinfo(np.uint8).max
MAX_OUTPUTS = 16
INT32 = np.iinfo(np.int32).max

router = APIRouter(prefix="/v2", include_in_schema=False)


# Some clients write null for what they do not say, and numbers for names.
Parameters = Annotated[dict[str, Any], BeforeValidator(lambda value: {} if value is None else value)]
Name = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)]


class Tensor(BaseModel):
    """An input."""

    name: str
    shape: list[Annotated[int, Field(ge=0, le=INT32)]]
    datatype: str
    parameters: Parameters = Field(default_factory=dict)
    data: list[Any] | None = None


class Output(BaseModel):
    """An output that is asked for."""

    name: str
    parameters: Parameters = Field(default_factory=dict)


class InferRequest(BaseModel):
    """The JSON of a request."""

    id: Name | None = None
    inputs: list[Tensor] = Field(min_length=1, max_length=1)
    outputs: list[Output] | None = Field(default=None, max_length=MAX_OUTPUTS)
    parameters: Parameters = Field(default_factory=dict)


Endpoint = Callable[..., Awaitable[Response]]


def in_its_error_shape(endpoint: Endpoint) -> Endpoint:
    """Answer what the service refuses as the protocol has it."""

    @wraps(endpoint)
    async def answer(*arguments: Any, **named: Any) -> Response:
        try:
            return await endpoint(*arguments, **named)
        except ServiceError as error:
            return JSONResponse({"error": str(error)}, error.status, error.headers)

    return answer


@router.get("")
@in_its_error_shape
async def server_metadata() -> Response:
    return JSONResponse({"name": "tag2mask", "version": RELEASE, "extensions": ["binary_tensor_data"]})


@router.get("/health/live")
@in_its_error_shape
async def live() -> Response:
    return JSONResponse({"live": True})


@router.get("/health/ready")
@in_its_error_shape
async def ready(request: Request) -> Response:
    service_of(request).models.check_ready()
    return JSONResponse({"ready": True})


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready")
@in_its_error_shape
async def model_ready(request: Request, name: str, version: str = "") -> Response:
    return JSONResponse({"name": engine_of(request, name, version).card.name, "ready": True})


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}")
@in_its_error_shape
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
@in_its_error_shape
async def infer(request: Request, name: str, version: str = "") -> Response:
    engine, service = engine_of(request, name, version), service_of(request)
    if request.headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedTypeError("compressed bodies are not read; send the tensors as they are.")
    service.pool.check_room()
    body = await receive_body(request, service.settings.max_upload_bytes)
    # JSON of many megabytes takes seconds: it is read and written by threads, never by the event loop.
    asked, images = await run_in_threadpool(read_request, body, request.headers.get(HEADER_LENGTH), service)
    names = [output.name for output in asked.outputs or ()] or list(engine.card.outputs)
    unknown = [output for output in names if output not in engine.card.outputs]
    if unknown:
        raise ParameterError(
            f"the model has no output {unknown[0][:80]!r}; there are {', '.join(engine.card.outputs)}."
        )
    if any("classification" in output.parameters for output in asked.outputs or ()):
        raise ParameterError("the extension 'classification' is not offered; ask for the output without it.")
    limit = service.settings.max_reply_bytes
    return await service.pool.run(lambda: respond(asked, engine, select(engine.run(images), names), limit))


def engine_of(request: Request, name: str, version: str) -> Engine:
    """The model of an address. Raises UnknownModelError."""
    return service_of(request).models.catalog.find(f"{name}/{version}" if version else name)


def read_request(body: bytes, header_length: str | None, service: Service) -> tuple[InferRequest, np.ndarray]:
    """The request and its images, uint8 (N, H, W, 3). Raises ParameterError."""
    if header_length is not None and not (header_length.isdecimal() and int(header_length) <= len(body)):
        raise ParameterError(
            f"{HEADER_LENGTH}: {header_length[:40]!r} is not a length within the {len(body)} bytes sent."
        )
    length = len(body) if header_length is None else int(header_length)
    try:
        asked = InferRequest.model_validate_json(body[:length])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise ParameterError(f"{where}: {first['msg']}.") from None
    tensor = asked.inputs[0]
    if tensor.name != IMAGE_INPUT or tensor.datatype != "UINT8":
        raise ParameterError(
            f"the input is '{IMAGE_INPUT}' of type UINT8, not {tensor.name[:80]!r} of type {tensor.datatype[:20]!r}."
        )
    check_shape(tensor.shape, service.settings.max_image_pixels)
    return asked, read_tensor(tensor, body[length:])


def check_shape(shape: list[int], max_pixels: int) -> None:
    """Raise ParameterError unless it is (N, H, W, 3) within the limits."""
    if len(shape) != CHANNELS + 1 or shape[0] < 1 or shape[-1] != CHANNELS or min(shape[1:3]) < MIN_INPUT_SIDE:
        raise ParameterError(
            f"shape {shape[:8]} is not (N, H, W, {CHANNELS}) with N of at least 1 and sides of at least {MIN_INPUT_SIDE}."
        )
    pixels = shape[0] * shape[1] * shape[2]
    if pixels > max_pixels:
        raise ParameterError(f"shape {shape} holds {pixels} pixels; the limit is {max_pixels}.", limit=max_pixels)


def read_tensor(tensor: Tensor, binary: bytes) -> np.ndarray:
    """The values of an input, from the JSON or from the bytes behind it. Raises ParameterError."""
    count = int(np.prod(tensor.shape, dtype=np.int64))
    size = tensor.parameters.get("binary_data_size")
    if size is not None:
        if size != count or len(binary) != count:
            raise ParameterError(f"{count} bytes are expected; {size!r} are stated and {len(binary)} were sent.")
        return np.frombuffer(binary, np.uint8).reshape(tensor.shape)
    try:
        values = np.array(tensor.data)
    except ValueError:  # lists of different lengths
        values = np.array(None)
    if values.dtype.kind == "f" and values.size == count and np.abs(values).max() <= MAX_VALUE:
        whole = np.rint(values)
        values = whole.astype(np.int64) if (whole == values).all() else values  # 1.0, as JavaScript and pandas write 1
    if values.dtype.kind not in "iu" or values.size != count or not 0 <= values.min() <= values.max() <= MAX_VALUE:
        raise ParameterError(f"`data` must hold {count} whole numbers from 0 to {MAX_VALUE}, flat or nested.")
    return values.astype(np.uint8).reshape(tensor.shape)


def select(outputs: dict[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
    """The outputs of these names, in their order."""
    return {name: outputs[name] for name in names}


def check_size(outputs: dict[str, np.ndarray], binary: dict[str, bool], limit: int) -> None:
    """Raise ReplyTooLargeError where the outputs would make too large a reply; numbers as text are taken to be long."""
    total = sum(
        values.nbytes if binary[name] else values.size * LONGEST_NUMBER.get(values.dtype.name, MAX_NUMBER)
        for name, values in outputs.items()
    )
    if total > limit:
        raise ReplyTooLargeError(
            f"the outputs make up to {total} bytes; the limit is {limit} (TAG2MASK_MAX_REPLY_BYTES). Ask for them as binary "
            f"data, for fewer of them, or send fewer or smaller images.",
            limit=limit,
        )


def respond(asked: InferRequest, engine: Engine, outputs: dict[str, np.ndarray], limit: int) -> Response:
    """The outputs, as bytes behind the JSON where that was asked for. Raises ReplyTooLargeError."""
    everything = bool(asked.parameters.get("binary_data_output"))
    wanted = {output.name: bool(output.parameters.get("binary_data", everything)) for output in asked.outputs or ()}
    check_size(outputs, {name: wanted.get(name, everything) for name in outputs}, limit)
    described, blocks = [], []
    for name, values in outputs.items():
        entry: dict[str, Any] = {"name": name, "datatype": engine.interface[name][0], "shape": list(values.shape)}
        if wanted.get(name, everything):
            blocks.append(values.tobytes())
            entry["parameters"] = {"binary_data_size": len(blocks[-1])}
        else:
            entry["data"] = values.ravel().tolist()
        described.append(entry)
    reply = {"model_name": engine.card.name, "model_version": str(engine.card.version), "outputs": described}
    if asked.id is not None:
        reply["id"] = asked.id
    response = JSONResponse(reply)
    if not blocks:
        return response
    header = bytes(response.body)
    headers = {HEADER_LENGTH: str(len(header))}
    return Response(b"".join([header, *blocks]), 200, headers, "application/octet-stream")
