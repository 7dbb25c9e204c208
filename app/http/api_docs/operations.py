"""The OpenAPI document says more of each endpoint than its signature: description, request body, replies and errors."""

from typing import Any

from app.http.api_docs.examples import (
    ANALYZE_EXAMPLE,
    CAM_EXAMPLE,
    CORRECTION_EXAMPLE,
    PROBLEM_EXAMPLES,
    PSEUDO_LABEL_EXAMPLE,
    SEGMENT_EXAMPLE,
)
from app.http.formats import media_type
from app.http.reply.schemas import AnalyzeReply, CamReply, CamsReply, Problem, PseudoLabelReply, SegmentReply
from app.inference.image.kinds import MEDIA_TYPES

PROBLEM_TYPE = "application/problem+json"


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


_POST_ERRORS = _problems(400, 404, 406, 413, 415, 422, 503, 504)
_GET_ERRORS = _problems(400, 404, 406, 422, 503, 504)
_UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "The result that If-None-Match names still holds."}}
_KEPT = " The photo is one posted before: `image=ID` names it, or the cookie that POST /segment sets."

_SEGMENT = {
    "description": "The reply is the mask of a photo at its own size: JSON with regions as COCO RLE, an indexed PNG whose pixel values "
    "are the labels (PASCAL VOC palette), the same values as grey PNG or npy, or an overlay JPEG. `*/*` gives JSON.",
    "response_model": None,
    "tag": "masks",
    "result": _result(SegmentReply, SEGMENT_EXAMPLE, ("png", "overlay", "npy", "npz"), "The mask."),
}
_CAM = {
    "description": "The reply is the class activation map of a class, in [0, 1], divided by its own maximum, at the photo's size: as "
    "colour PNG, overlay JPEG, 8- or 16-bit grey PNG, float32 npy (H, W), or described in JSON. `*/*` gives the PNG. "
    "`X-Class-Score` states the class's score: the map of an absent class looks as convincing as that of a present one. "
    "`class=all` gives JSON, npy (C, H, W), npz, or the regions of the classes present as coco or hf.",
    "tag": "heatmaps",
    "result": _result(CamReply | CamsReply, CAM_EXAMPLE, ("png", "overlay", "npy", "npz"), "The heatmap."),
}
_PSEUDO_LABEL = {
    "description": "The reply is a label map made of the heatmaps of the classes present: 0 is background, 255 is ignore. Without `tags` the "
    "classes present are those whose score reaches their presence threshold. `*/*` gives the indexed PNG.",
    "tag": "pseudo-labels",
    "result": _result(PseudoLabelReply, PSEUDO_LABEL_EXAMPLE, ("png", "overlay", "npy", "npz"), "The pseudo-label."),
}
_ANALYZE = {
    "description": "One reply holds mask, heatmaps and pseudo-label of one photo: JSON with all three as their own endpoints "
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
    "description": "They are the classes of `model=`, else of the default cam model, else of the default segmentation model.",
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
