"""What `/docs` and `/openapi.json` say beyond the signatures: descriptions, request bodies, examples, errors."""

from typing import Any

from fastapi import FastAPI

from app.http.formats import media_type
from app.http.schemas import AnalyzeReply, CamReply, CamsReply, Problem, PseudoLabelReply, SegmentReply
from app.inference.image.kinds import MEDIA_TYPES

PROBLEM_TYPE = "application/problem+json"
EXAMPLE_ID = "9f2c4e0d7b1a5c3e8f60d2b49a7c1e5f3d8b6a0c2e4f7915b3d0a8c6e1f42b70"
EXAMPLE_HASH = "4be17c09d2f3a6588e1c7b90f2d35a6417ce80b9d3f2a1564c7e8b09a1d2f3c5"

APPLICATION: dict[str, Any] = {
    "title": "tag2mask",
    "description": (
        "Class activation maps, pseudo-labels and segmentation masks of photos, from models trained on tags alone.\n\n"
        "Send a photo with POST; several in one form are answered as a list in JSON. Every result names it by `image.id` (header `X-Image-Id`), and GET with `image=ID` asks "
        "for its other results without a second upload. `format=` or the `Accept` header chooses the format.\n\n"
        "Every result has an `ETag`; a GET with `If-None-Match` is answered 304 while it holds. `Server-Timing` says where "
        "the time went, `X-Request-Id` (the client's own, where it sends one) is in the log.\n\n"
        "Errors come as `application/problem+json` (RFC 9457); `detail` states the value, the limit and the remedy."
    ),
    "license_info": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    "version": "1",
}

# `/docs` brings its viewer's files from this server, and the document goes nowhere to be validated.
VIEWER: dict[str, Any] = {
    "redoc_url": None,
    "favicon_url": "static/icon.svg",
    "swagger_ui_parameters": {"validatorUrl": None},
}

_IMAGE = {"id": EXAMPLE_ID, "width": 500, "height": 375}
_REGION = {
    "class": "dog",
    "label": 12,
    "score": 0.93,
    "pixels": 48210,
    "share": 0.25712,
    "box": [112, 40, 268, 301],
    "rle": {"size": [375, 500], "counts": "ocl06a;1O1N2O0O2N1O1..."},
    "polygons": None,
}
_TIMINGS = {"queue": 0.08, "decode": 5.1, "predict": 61.3, "encode": 2.4}
_DRS = {"name": "drs_small", "version": 1, "sha256": EXAMPLE_HASH, "method": "drs"}
_CAM_LINK = f"/cam?image={EXAMPLE_ID}&class=dog"

SEGMENT_EXAMPLE = {
    "image": _IMAGE,
    "model": {"name": "deeplab_small", "version": 1, "sha256": EXAMPLE_HASH, "method": "deeplabv3plus"},
    "thresholds": {"probability": 0.0, "background": None, "foreground": None, "presence": {}},
    "refinement": "none",
    "fused_with": [],
    "tags": None,
    "classes": [_REGION],
    "scales": [1.0],
    "flip": False,
    "links": {
        "png": f"/segment?image={EXAMPLE_ID}&format=png&model=deeplab_small/1",
        "pseudo_label": f"/pseudo-label?image={EXAMPLE_ID}&model=drs_small/1",
        "cam": {"dog": f"{_CAM_LINK}&model=drs_small/1"},
    },
    "timings_ms": _TIMINGS,
}
CAM_EXAMPLE = {
    "image": _IMAGE,
    "model": _DRS,
    "thresholds": {"probability": None, "background": None, "foreground": None, "presence": {"dog": 0.41}},
    "refinement": "none",
    "fused_with": [],
    "tags": None,
    "class": "dog",
    "label": 12,
    "score": 0.97,
    "present": True,
    "inference": "plain",
    "scales": [0.5, 1.0, 1.5],
    "flip": True,
    "links": {word: f"{_CAM_LINK}&format={word}&model=drs_small/1" for word in ("png", "overlay", "gray16", "npy")},
    "timings_ms": _TIMINGS,
}
PSEUDO_LABEL_EXAMPLE = {
    "image": _IMAGE,
    "model": _DRS,
    "thresholds": {"probability": None, "background": 0.3, "foreground": 0.4, "presence": {}},
    "refinement": "pamr",
    "fused_with": [],
    "tags": ["dog"],
    "present": ["dog"],
    "scores": {"cat": 0.04, "dog": 0.97},
    "inference": "plain",
    "scales": [0.5, 1.0, 1.5],
    "flip": True,
    "classes": [_REGION],
    "ignore": {"pixels": 9120, "share": 0.04864, "rle": {"size": [375, 500], "counts": "dSd02d;2N1O2M2O1N2..."}},
    "links": {"png": f"/pseudo-label?image={EXAMPLE_ID}&tags=dog&refine=pamr&format=png&model=drs_small/1"},
    "timings_ms": _TIMINGS,
}
ANALYZE_EXAMPLE = {
    "image": _IMAGE,
    "segment": SEGMENT_EXAMPLE,
    "cam": {
        **{key: value for key, value in CAM_EXAMPLE.items() if key not in ("label", "score", "present")},
        "class": "all",
        "classes": [{key: CAM_EXAMPLE[key] for key in ("class", "label", "score", "present", "links")}],
    },
    "pseudo_label": PSEUDO_LABEL_EXAMPLE,
    "timings_ms": _TIMINGS,
}


def _problem(kind: str, title: str, status: int, detail: str, **details: Any) -> dict[str, Any]:
    return {"type": f"urn:tag2mask:{kind}", "title": title, "status": status, "detail": detail, **details}


CORRECTION_EXAMPLE = {
    "image": _IMAGE,
    "name": "beach",
    "model": SEGMENT_EXAMPLE["model"],
    "classes": ["dog"],
    "pixels_changed": 3120,
}


PROBLEM_EXAMPLES: dict[int, list[dict[str, Any]]] = {
    400: [
        _problem(
            "upload",
            "No photo in the request",
            400,
            "the request has no body, or no Content-Type. Send the photo as multipart field 'file' (curl -F "
            "file=@photo.jpg) or as raw body of type image/*.",
        ),
        _problem(
            "missing-image",
            "No photo named",
            400,
            "no photo is named. Give image=ID (`image.id` in the reply, or the header X-Image-Id, of the POST that sent "
            "it), keep the cookie that POST /segment sets, or send the photo itself with POST.",
            parameter="image",
        ),
    ],
    403: [
        _problem(
            "switched-off",
            "Not switched on here",
            403,
            "this service takes no corrections. Start it with TAG2MASK_CORRECTIONS=DIR, a folder that it may write.",
        ),
    ],
    404: [
        _problem(
            "unknown-model",
            "Unknown model",
            404,
            "no model 'drs_smal' is served. Did you mean 'drs_small'? There are: deeplab_small, drs_small.",
            parameter="model",
            known=["deeplab_small", "drs_small"],
            nearest="drs_small",
        ),
    ],
    406: [
        _problem(
            "not-acceptable",
            "Nothing acceptable to send",
            406,
            "Accept: 'text/html' allows nothing that can be sent here. Available: application/json (format=json), "
            "image/png (format=png).",
            available=[{"format": "json", "type": "application/json"}, {"format": "png", "type": "image/png"}],
        ),
    ],
    409: [
        _problem(
            "name-taken",
            "Name taken",
            409,
            "a correction of another photo named 'beach' is there. Give this one another name=, or rename its file.",
            parameter="name",
        ),
    ],
    413: [
        _problem(
            "too-many-pixels",
            "Too many pixels",
            413,
            "the photo has 9000 x 6000 = 54000000 pixels; the limit is 25000000. Send a smaller copy, "
            "or raise TAG2MASK_MAX_IMAGE_PIXELS where the service is yours.",
            limit=25_000_000,
            width=9000,
            height=6000,
        ),
    ],
    415: [
        _problem(
            "unsupported-type",
            "Type not supported",
            415,
            "the upload is GIF. Send JPEG, PNG, WebP, TIFF or BMP.",
            allowed=["jpeg", "png", "webp", "tiff", "bmp"],
        ),
    ],
    422: [
        _problem(
            "unknown-class",
            "Unknown class",
            422,
            "unknown class 'dgo'. Did you mean 'dog'? This model knows cat, dog.",
            parameter="class",
            known=["cat", "dog"],
            nearest="dog",
        ),
        _problem(
            "undecodable-image",
            "Photo cannot be decoded",
            422,
            "the JPEG file of 20480 bytes is damaged or truncated (image file is truncated (12 bytes not processed)). "
            "Send the whole file, or save it anew.",
        ),
    ],
    507: [
        _problem(
            "not-stored",
            "Not stored",
            507,
            "the correction of 'beach' cannot be written (No space left on device). Send it again once there is room in the folder of "
            "TAG2MASK_CORRECTIONS, and the right to write.",
        ),
    ],
    503: [
        _problem(
            "queue-full",
            "Too busy",
            503,
            "34 photos are being worked on or waiting, which is the limit; send it again after the seconds in "
            "Retry-After.",
            retry_after_seconds=2,
            limit=34,
        ),
        _problem(
            "store-gone",
            "Kept photos out of reach",
            503,
            "what is kept cannot be looked up: the Redis at redis:6379 does not answer. Send the photo itself with POST, or ask "
            "again later.",
            retry_after_seconds=1,
        ),
    ],
}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI responses for error statuses."""
    responses: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        examples = {example["type"].rpartition(":")[2]: {"value": example} for example in PROBLEM_EXAMPLES[status]}
        content = {PROBLEM_TYPE: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}, "examples": examples}}
        responses[status] = {"description": PROBLEM_EXAMPLES[status][0]["title"], "content": content}
    return responses


def _photo_body() -> dict[str, Any]:
    """Return OpenAPI request body of the endpoints that take a photo."""
    binary = {"type": "string", "format": "binary"}
    form = {"type": "object", "required": ["file"], "properties": {"file": binary}, "additionalProperties": False}
    types = ("application/octet-stream", *MEDIA_TYPES)
    raw = {kind: {"schema": binary} for kind in types}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}, **raw}}}


def _pictures(*words: str) -> dict[str, Any]:
    """Return OpenAPI content of the binary formats."""
    return {media_type(word): {"schema": {"type": "string", "format": "binary"}} for word in words}


def _result(model: Any, example: dict[str, Any], words: tuple[str, ...], description: str) -> dict[int | str, Any]:
    content = {media_type("json"): {"example": example}, **_pictures(*words)}
    return {200: {"model": model, "description": description, "content": content}}


_POST_ERRORS = _problems(400, 404, 406, 413, 415, 422, 503)
_GET_ERRORS = _problems(400, 404, 406, 422, 503)
_UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "The result that If-None-Match names still holds."}}
_KEPT = " Of a photo posted before: `image=ID`, or the cookie that POST /segment sets."

_SEGMENT = {
    "description": "The mask of a photo at its own size: JSON with regions as COCO RLE, an indexed PNG whose pixel values "
    "are the labels (PASCAL VOC palette), the same values as grey PNG or npy, or an overlay JPEG. `*/*` gives JSON.",
    "response_model": None,
    "tag": "masks",
    "result": _result(SegmentReply, SEGMENT_EXAMPLE, ("png", "overlay", "npy", "npz"), "The mask."),
}
_CAM = {
    "description": "The class activation map of a class, in [0, 1], divided by its own maximum, at the photo's size: as "
    "colour PNG, overlay JPEG, 8- or 16-bit grey PNG, float32 npy (H, W), or described in JSON. `*/*` gives the PNG. "
    "`X-Class-Score` states the class's score: the map of an absent class looks as convincing as that of a present one. "
    "`class=all` gives JSON, npy (C, H, W), npz, or the regions of the classes present as coco or hf.",
    "tag": "heatmaps",
    "result": _result(CamReply | CamsReply, CAM_EXAMPLE, ("png", "overlay", "npy", "npz"), "The heatmap."),
}
_PSEUDO_LABEL = {
    "description": "A label map made of the heatmaps of the classes present: 0 background, 255 ignore. Without `tags` the "
    "classes present are those whose score reaches their presence threshold. `*/*` gives the indexed PNG.",
    "tag": "pseudo-labels",
    "result": _result(PseudoLabelReply, PSEUDO_LABEL_EXAMPLE, ("png", "overlay", "npy", "npz"), "The pseudo-label."),
}
_ANALYZE = {
    "description": "Mask, heatmaps and pseudo-label of one photo in one reply: JSON with all three as their own endpoints "
    "describe them, or npz with all arrays (`mask`, `probabilities` at the size of its logits, `maps` at that of the network "
    "input, `label_map`, `scores`, `classes`; `class_indices` are those of the maps, `present` those found). `model` and "
    "`fuse` name cam models, `segmenter` the segmentation model.",
    "tag": "all results",
    "result": _result(AnalyzeReply, ANALYZE_EXAMPLE, ("npz",), "All results."),
}


def _post(name: str, summary: str, endpoint: dict[str, Any]) -> dict[str, Any]:
    return {
        "operation_id": name,
        "tags": [endpoint["tag"]],
        "summary": summary,
        "description": endpoint["description"],
        "responses": {**endpoint["result"], **_POST_ERRORS},
        "openapi_extra": _photo_body(),
    }


def _get(name: str, summary: str, endpoint: dict[str, Any]) -> dict[str, Any]:
    responses = {**endpoint["result"], **_UNCHANGED, **_GET_ERRORS}
    named = {"operation_id": name, "tags": [endpoint["tag"]], "summary": summary}
    return {**named, "description": endpoint["description"] + _KEPT, "responses": responses}


POST_SEGMENT = _post("segment_photo", "Segment a photo", _SEGMENT)
GET_SEGMENT = _get("segment_kept_photo", "Segment a kept photo", _SEGMENT)
POST_CAM = _post("heatmap_of_photo", "Heatmap of a class in a photo", _CAM)
GET_CAM = _get("heatmap_of_kept_photo", "Heatmap of a class in a kept photo", _CAM)
POST_PSEUDO_LABEL = _post("pseudo_label_photo", "Pseudo-label of a photo", _PSEUDO_LABEL)
GET_PSEUDO_LABEL = _get("pseudo_label_kept_photo", "Pseudo-label of a kept photo", _PSEUDO_LABEL)
POST_ANALYZE = _post("analyze_photo", "All results of a photo", _ANALYZE)
GET_ANALYZE = _get("analyze_kept_photo", "All results of a kept photo", _ANALYZE)
PUT_CORRECTION: dict[str, Any] = {
    "operation_id": "save_correction",
    "tags": ["corrections"],
    "summary": "Save a corrected mask",
    "description": "The body is the mask, a PNG of one channel or with a palette, at the photo's upright size, whose pixel values are "
    "the labels (0 background, 255 ignore): what `GET /segment?format=png` answers, with some pixels changed. It goes into the folder "
    "`TAG2MASK_CORRECTIONS` with the photo, and takes the place of an earlier one of the same name; training learns from it "
    "(docs/corrections.md). Where that setting is empty, the service takes none.",
    "responses": {
        200: {"description": "The mask is kept.", "content": {media_type("json"): {"example": CORRECTION_EXAMPLE}}},
        **_problems(400, 403, 404, 409, 413, 415, 422, 503, 507),
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {media_type("png"): {"schema": {"type": "string", "format": "binary"}}},
        }
    },
}
MODELS: dict[str, Any] = {
    "operation_id": "list_models",
    "tags": ["service"],
    "summary": "Models served, with their cards",
    "responses": _problems(422, 503),
}
CLASSES: dict[str, Any] = {
    "operation_id": "list_classes",
    "tags": ["service"],
    "summary": "Classes of a model, with labels and colours",
    "description": "Of `model=`, else of the default cam model, else of the default segmentation model.",
    "responses": _problems(404, 422, 503),
}
HEALTHZ: dict[str, Any] = {
    "operation_id": "get_health",
    "tags": ["service"],
    "summary": "Whether the process is alive",
    "responses": _problems(422),
}
READYZ: dict[str, Any] = {
    "operation_id": "get_readiness",
    "tags": ["service"],
    "summary": "Whether all models are loaded and warm",
    "responses": _problems(422, 503),
}


def add_shared_schemas(app: FastAPI) -> None:
    """Name the schema of problems once in the OpenAPI document: generators of clients make one class of it."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        document["components"]["schemas"].setdefault(Problem.__name__, Problem.model_json_schema())
        return document

    app.openapi = openapi  # type: ignore[method-assign]
