"""The API's reference shows these replies and problem documents: each answer speaks of one photo with a dog."""

from typing import Any

EXAMPLE_ID = "9f2c4e0d7b1a5c3e8f60d2b49a7c1e5f3d8b6a0c2e4f7915b3d0a8c6e1f42b70"
EXAMPLE_HASH = "4be17c09d2f3a6588e1c7b90f2d35a6417ce80b9d3f2a1564c7e8b09a1d2f3c5"

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
    "thresholds": {"probability": 0.0, "background": None, "foreground": None, "presence": {"cat": 0.3, "dog": 0.3}},
    "refinement": "none",
    "fused_with": [],
    "left_out": [],
    "tags": None,
    "scores": {"cat": 0.11, "dog": 0.96},
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
    "left_out": [],
    "tags": None,
    "class": "dog",
    "label": 12,
    "score": 0.97,
    "presence_threshold": 0.41,
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
    "left_out": [],
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
PER_CLASS = ("label", "score", "presence_threshold", "present")  # A reply about all classes has these of each.
ANALYZE_EXAMPLE = {
    "image": _IMAGE,
    "segment": SEGMENT_EXAMPLE,
    "cam": {
        **{key: value for key, value in CAM_EXAMPLE.items() if key not in PER_CLASS},
        "class": "all",
        "classes": [{key: CAM_EXAMPLE[key] for key in ("class", *PER_CLASS, "links")}],
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
    504: [
        _problem(
            "work-time",
            "Took too long",
            504,
            "the work took more than 60 seconds, which is the limit. Ask for fewer scales, models or rounds, or raise "
            "TAG2MASK_WORK_SECONDS where the service is yours.",
            limit=60,
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
