"""Writes docs/api.md from the service's OpenAPI document: `python docs/make_api.py` (or `make api`)."""

import sys
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


def page(document: dict[str, Any]) -> str:
    """The document as Markdown."""
    parts = [HEAD, document["info"]["description"], "", FORMATS]
    for path, methods in document["paths"].items():
        parts.append(f"## {' and '.join(f'`{method.upper()}`' for method in methods)} `{path}`\n")
        operations = list(methods.values())
        longest = max(operations, key=lambda operation: len(operation.get("parameters", [])))
        said = ""
        for method, operation in methods.items():
            own = operation.get("description", "").removeprefix(said).strip()
            parts.append(f"`{method.upper()}`: {operation['summary']}. {own}".rstrip() + "\n")
            said = said or operation.get("description", "")
        if longest.get("parameters"):
            parts += ["| parameter | values | default | meaning |", "|---|---|---|---|"]
            parts += [row(parameter) for parameter in longest["parameters"]]
            parts.append("")
        refusals = sorted({status for operation in operations for status in operation["responses"] if status > "304"})
        parts.append(f"Refusals: {', '.join(refusals)}.\n" if refusals else "")
    return "\n".join(parts).rstrip() + "\n"


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
