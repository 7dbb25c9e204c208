"""Writes docs/api.md from the service's OpenAPI document: `python docs/make_api.py` (or `make api`)."""

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from app.main import create_app  # noqa: E402
from app.runtime.settings import Settings  # noqa: E402

PAGE = ROOT / "docs" / "api.md"
HEAD = """# The HTTP interface

Made from the OpenAPI document by `make api`; the running service shows it with examples at `/docs`, and as JSON at
`/openapi.json`. Working programs: [curl](examples/quickstart.sh), [Python](examples/quickstart.py),
[JavaScript](examples/quickstart.mjs). Besides what stands here the service speaks the Open Inference Protocol under `/v2`
(raw tensors, for Triton's and KServe's clients), Label Studio's ML backend protocol under `/label-studio`, and shows a page
at `/`.
"""
FORMATS = """Boxes are COCO's `[x, y, width, height]` in pixels. A photo may have 20 MB (`TAG2MASK_MAX_UPLOAD_BYTES`) and 25 million pixels
(`TAG2MASK_MAX_IMAGE_PIXELS`).

## Formats

`?format=` goes before the `Accept` header.

| format | type | a mask or pseudo-label | a heatmap |
|---|---|---|---|
| `json` | application/json | regions with score, pixels, box, run lengths or polygons; links | score, thresholds, links |
| `png` | image/png | indexed, PASCAL VOC's palette; the pixel values are the labels | colours |
| `overlay` | image/jpeg | over the photo | over the photo |
| `gray8`, `gray16` | image/png | the labels as grey values | round(255 x value), round(65535 x value) |
| `npy` | application/x-npy | uint8 (H, W) | float32 (H, W) |
| `npz` | application/x-npz | all arrays it is made of | the maps at the size of the network input |
| `coco` | application/json | a COCO data set of this photo | what exceeds the threshold, likewise |
| `hf` | application/json | `[{label, score, mask}]`, as Hugging Face's image segmentation answers | likewise |
"""


COMMON = """## Common parameters

These mean the same wherever they stand; every endpoint names below which of them it takes.
"""
SHARED_BY = 2  # endpoints: a parameter that so many describe in the same words is a common one
TABLE = ["| parameter | values | default | meaning |", "|---|---|---|---|"]

Operation = dict[str, Any]


def page(document: dict[str, Any]) -> str:
    """The document as Markdown."""
    endpoints = {path: list(methods.items()) for path, methods in document["paths"].items()}
    rows = {path: rows_of([operation for _, operation in methods]) for path, methods in endpoints.items()}
    count = Counter(row for own in rows.values() for row in own.values())
    common = {row: name for own in rows.values() for name, row in own.items() if count[row] >= SHARED_BY}
    parts = [HEAD, document["info"]["description"], "", FORMATS, COMMON, *TABLE, *common, ""]
    for path, methods in endpoints.items():
        parts.append(f"## {' and '.join(f'`{method.upper()}`' for method, _ in methods)} `{path}`\n")
        parts += [*said_of(methods), *parameters_of(rows[path], common), *replies_of([each for _, each in methods])]
    return "\n".join(parts).rstrip() + "\n"


def rows_of(operations: list[Operation]) -> dict[str, str]:
    """The parameters of an endpoint, name -> row: GET has all that POST has."""
    longest = max((operation.get("parameters", []) for operation in operations), key=len)
    return {parameter["name"]: row(parameter) for parameter in longest}


def said_of(methods: list[tuple[str, Operation]]) -> list[str]:
    """What each method does; what the first has said is not said again."""
    lines, said = [], ""
    for method, operation in methods:
        own = operation.get("description", "").removeprefix(said).strip()
        lines.append(f"`{method.upper()}`: {operation['summary']}. {own}".rstrip() + "\n")
        said = said or operation.get("description", "")
    return lines


def parameters_of(rows: dict[str, str], common: dict[str, str]) -> list[str]:
    """The common parameters that an endpoint takes, by name, and its own, with all that is to say of them."""
    shared = [f"`{name}`" for name, row in rows.items() if row in common]
    own = [row for row in rows.values() if row not in common]
    lines = [f"Common parameters: {', '.join(shared)}.\n"] if shared else []
    return [*lines, *TABLE, *own, ""] if own else lines


def replies_of(operations: list[Operation]) -> list[str]:
    """An example of the JSON reply, and of every refusal the status."""
    lines = []
    content = operations[0]["responses"].get("200", {}).get("content", {}).get("application/json", {})
    if "example" in content:
        lines += ["The reply as JSON:\n", "```json", compact(content["example"]), "```", ""]
    refusals = {status: said["description"] for each in operations for status, said in each["responses"].items()}
    listed = [f"{status} ({refusals[status]})" for status in sorted(refusals) if status > "304"]
    return [*lines, f"Refusals: {', '.join(listed)}.\n" if listed else ""]


def compact(value: object) -> str:
    """A value as JSON, whose lists of numbers and words take one line each."""
    return re.sub(
        r"\[\s+([^\[\]{}]*?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", json.dumps(value, indent=1)
    )


def row(parameter: dict[str, Any]) -> str:
    """One parameter as a row of the table."""
    schema = parameter["schema"]
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
    default = "" if schema.get("default") is None else f"`{schema['default']}`"
    cells = [f"`{parameter['name']}`", ", ".join(map(values_of, kinds)), default, parameter.get("description", "")]
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def values_of(kind: dict[str, Any]) -> str:
    """What a parameter may be."""
    if "enum" in kind:
        return ", ".join(f"`{value}`" for value in kind["enum"])
    if "minimum" in kind and "maximum" in kind:
        return f"{kind['type']} from {kind['minimum']:g} to {kind['maximum']:g}"
    return {"string": "text"}.get(kind["type"], kind["type"])


def reference() -> str:
    """The page as it should be now."""
    return page(create_app(Settings(models=ROOT / "models", device="cpu")).openapi())


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
