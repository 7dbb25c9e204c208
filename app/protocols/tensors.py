"""A request of the Open Inference Protocol becomes images, and outputs its reply: JSON, with the tensors in it or as bytes behind it.

A tensor as JSON takes some hundred times the work of its bytes, so JSON is small (`max_json_bytes`) and every list in it has a
limit, which is looked at before its entries are. All of this runs on a worker, never on the event loop.
"""

import json
import time
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, FailFast, Field, ValidationError, field_validator
from starlette.responses import Response

from app.http.request.receive import whole_number
from app.inference.engine import MASK
from app.inference.errors import ParameterError, ReplyTooLargeError, UploadTooLargeError
from app.inference.image.preprocess import MIN_INPUT_SIDE
from app.inference.label_maps.segmentation import masks_at_input_size
from app.inference.model_card import IMAGE_INPUT
from app.inference.stopwatch import Stopwatch
from app.runtime.loaded_model import LoadedModel
from app.runtime.settings import Settings

HEADER_LENGTH = "Inference-Header-Content-Length"
LONGEST_NUMBER = {"uint8": 4}  # A number and its comma take this many bytes in JSON.
MAX_NUMBER = 25  # A floating point number and its comma take this many bytes in JSON at most.
# So many numbers are written in one go: json holds the interpreter lock, and the event loop wants its turn.
NUMBERS_AT_A_TIME = 16_384
CHANNELS = 3
MAX_VALUE = np.iinfo(np.uint8).max
MAX_OUTPUTS = 16
MAX_PARAMETERS = 32
MAX_NAME = 200  # A name has this many characters at most.
INT32 = np.iinfo(np.int32).max

# Some clients write null for what they do not say, and numbers for names.
Parameters = Annotated[
    Annotated[dict[str, Any], Field(max_length=MAX_PARAMETERS)],
    BeforeValidator(lambda value: {} if value is None else value),
    Field(default_factory=dict),
]
Name = Annotated[
    str, Field(max_length=MAX_NAME), BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)
]


class Tensor(BaseModel):
    """It is one input of a request."""

    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0, le=INT32)]], FailFast()]
    datatype: str
    parameters: Parameters
    data: list[Any] | None = None


class Output(BaseModel):
    """It names an output that is asked for."""

    name: str
    parameters: Parameters


class InferRequest(BaseModel):
    """It is the JSON of a request."""

    id: Name | None = None
    inputs: Annotated[list[Tensor], FailFast()] = Field(min_length=1, max_length=1)
    outputs: Annotated[list[Output], FailFast()] = Field(default_factory=list, max_length=MAX_OUTPUTS)
    parameters: Parameters

    @field_validator("outputs", mode="before")
    @classmethod
    def _none_is_all(cls, outputs: Any) -> Any:
        return [] if outputs is None else outputs


@dataclass(frozen=True)
class Inferred:
    """It holds the reply to a request, the number of images in it, and the stages of the work."""

    reply: Response
    images: int
    stopwatch: Stopwatch


def infer_from(
    engine: LoadedModel, body: bytes, header_length: str | None, settings: Settings, submitted: float
) -> Inferred:
    """Answer a request's body. Raises ParameterError, UploadTooLargeError, ReplyTooLargeError."""
    stopwatch = Stopwatch()
    stopwatch.add_lap("queue", 1000 * (time.perf_counter() - submitted))
    with stopwatch.stage("decode"):
        asked, images = read_request(body, header_length, settings)
    names = [output.name for output in asked.outputs] or list(engine.card.outputs)
    unknown = [output for output in names if output not in engine.card.outputs]
    if unknown:
        raise ParameterError(
            f"the model has no output {unknown[0][:80]!r}; there are {', '.join(engine.card.outputs)}."
        )
    if any("classification" in output.parameters for output in asked.outputs):
        raise ParameterError("the extension 'classification' is not offered; ask for the output without it.")
    with stopwatch.stage("predict"):
        outputs = engine.run(images)
        if MASK in set(names) - outputs.keys():
            outputs[MASK] = masks_at_input_size(outputs["logits"], *images.shape[1:3])
    with stopwatch.stage("encode"):
        reply = respond(asked, engine, {name: outputs[name] for name in names}, settings.max_reply_bytes)
    return Inferred(reply, len(images), stopwatch)


def read_request(body: bytes, header_length: str | None, settings: Settings) -> tuple[InferRequest, np.ndarray]:
    """Return the request and its images, uint8 (N, H, W, 3). Raises ParameterError, UploadTooLargeError."""
    length = len(body) if header_length is None else whole_number(header_length)
    if length is None or length > len(body):
        raise ParameterError(
            f"{HEADER_LENGTH}: {(header_length or '')[:40]!r} is not a length within the {len(body)} bytes sent."
        )
    if length > settings.max_json_bytes:
        raise UploadTooLargeError(
            f"the JSON has {length} bytes; the limit is {settings.max_json_bytes} (TAG2MASK_MAX_JSON_BYTES). Send the tensor as "
            f"binary data behind the JSON, which may have {settings.max_upload_bytes} bytes with it.",
            limit=settings.max_json_bytes,
        )
    try:
        asked = InferRequest.model_validate_json(body[:length])
    except ValidationError as error:
        first = error.errors(include_input=False, include_context=False, include_url=False)[0]
        where = ".".join(str(part)[:80] for part in first["loc"]) or "the body"
        raise ParameterError(f"{where}: {first['msg'][:300]}.") from None
    tensor = asked.inputs[0]
    if tensor.name != IMAGE_INPUT or tensor.datatype != "UINT8":
        raise ParameterError(
            f"the input is '{IMAGE_INPUT}' of type UINT8, not {tensor.name[:80]!r} of type {tensor.datatype[:20]!r}."
        )
    check_shape(tensor.shape, settings.max_input_pixels)
    return asked, read_tensor(tensor, body[length:])


def check_shape(shape: list[int], max_pixels: int) -> None:
    """Raise ParameterError unless it is (N, H, W, 3) within the limits."""
    if len(shape) != CHANNELS + 1 or shape[0] < 1 or shape[-1] != CHANNELS or min(shape[1:3]) < MIN_INPUT_SIDE:
        raise ParameterError(
            f"shape {shape[:8]} is not (N, H, W, {CHANNELS}) with N of at least 1 and sides of at least {MIN_INPUT_SIDE}."
        )
    pixels = shape[0] * shape[1] * shape[2]
    if pixels > max_pixels:
        raise ParameterError(
            f"shape {shape} holds {pixels} pixels; the limit is {max_pixels} (TAG2MASK_MAX_INPUT_PIXELS). Send fewer images at a "
            f"time, or smaller ones.",
            limit=max_pixels,
        )


def read_tensor(tensor: Tensor, binary: bytes) -> np.ndarray:
    """Return the values of an input, from the JSON or from the bytes behind it. Raises ParameterError."""
    count = int(np.prod(tensor.shape, dtype=np.int64))
    size = tensor.parameters.get("binary_data_size")
    if size is not None:
        if size != count or len(binary) != count:
            stated = repr(size)[:40]
            raise ParameterError(f"{count} bytes are expected; {stated} are stated and {len(binary)} were sent.")
        return np.frombuffer(binary, np.uint8).reshape(tensor.shape)
    values = flattened(tensor.data or [], tensor.shape)
    if len(values) != count or not 0 <= min(values) <= max(values) <= MAX_VALUE:
        raise ParameterError(f"`data` must hold {count} whole numbers from 0 to {MAX_VALUE}, flat or nested.")
    return np.array(values, np.uint8).reshape(tensor.shape)


def flattened(data: list[Any], shape: list[int]) -> list[int]:
    """Return the whole numbers of a list, flat or nested along the axes of `shape`; none where it is neither, or holds
    anything else.
    """
    for _ in shape[1:]:
        if not data or type(data[0]) is not list:
            break
        if not all(type(entry) is list for entry in data) or len({len(entry) for entry in data}) != 1:
            return []
        data = list(chain.from_iterable(data))
    if all(type(value) is int for value in data):
        return data
    if not all(type(value) is int or (type(value) is float and value.is_integer()) for value in data):
        return []
    return [int(value) for value in data]  # JavaScript and pandas write 1 as 1.0.


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


def respond(asked: InferRequest, engine: LoadedModel, outputs: dict[str, np.ndarray], limit: int) -> Response:
    """Return the outputs, as bytes behind the JSON where that was asked for. Raises ReplyTooLargeError, ParameterError."""
    everything = bool(asked.parameters.get("binary_data_output"))
    wanted = {output.name: bool(output.parameters.get("binary_data", everything)) for output in asked.outputs}
    check_size(outputs, {name: wanted.get(name, everything) for name in outputs}, limit)
    pieces, blocks = [], []
    for name, values in outputs.items():
        entry: dict[str, Any] = {"name": name, "datatype": engine.interface[name][0], "shape": list(values.shape)}
        if wanted.get(name, everything):
            blocks.append(values.tobytes())
            entry["parameters"] = {"binary_data_size": len(blocks[-1])}
            pieces += [json.dumps(entry).encode(), b", "]
        else:
            pieces += [json.dumps(entry)[:-1].encode(), b', "data": [', *numbers_of(name, values), b"]}, "]
    pieces[-1] = pieces[-1].removesuffix(b", ")
    reply = {"model_name": engine.card.name, "model_version": str(engine.card.version)}
    if asked.id is not None:
        reply["id"] = asked.id
    pieces = [json.dumps(reply)[:-1].encode(), b', "outputs": [', *pieces, b"]}"]
    if not blocks:
        return Response(b"".join(pieces), 200, media_type="application/json")
    headers = {HEADER_LENGTH: str(sum(map(len, pieces)))}
    return Response(b"".join([*pieces, *blocks]), 200, headers, "application/octet-stream")


def numbers_of(name: str, values: np.ndarray) -> list[bytes]:
    """Return the values as JSON, without brackets, in pieces. Raises ParameterError for what JSON has no number for."""
    if not np.isfinite(values).all():
        raise ParameterError(f"the output '{name}' holds values that are not finite; ask for it as binary data.")
    flat, pieces = values.ravel(), []
    for begin in range(0, flat.size, NUMBERS_AT_A_TIME):
        numbers = flat[begin : begin + NUMBERS_AT_A_TIME].tolist()
        pieces += [b"," if begin else b"", json.dumps(numbers, separators=(",", ":"))[1:-1].encode()]
    return pieces
