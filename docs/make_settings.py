"""Writes docs/settings.md from the fields of `app.runtime.settings.Settings`: `python docs/make_settings.py` (or `make api`)."""

import ast
import inspect
import itertools
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from app.runtime.settings import PREFIX, Settings  # noqa: E402

PAGE = ROOT / "docs" / "settings.md"
# A word of a setting's name -> its unit; other settings are numbers of what their name says, or texts.
UNITS = {"seconds": "seconds", "bytes": "bytes", "pixels": "pixels", "threads": "threads", "price": "million pixels"}
HEAD = """# The settings of the service

This page is made from `app/runtime/settings.py` by `make api`. Every setting is an environment variable of the service (`make serve`,
`python -m app`, the container), which is read once, when it starts; `python -m app label` heeds `TAG2MASK_MODELS`,
`TAG2MASK_DEVICE`, the default models, the threads and workers, and `TAG2MASK_MAX_IMAGE_PIXELS`. An empty value means the default.
A value that cannot be used ends the start with one line that says why, and a variable of an unknown name is warned about.

```
TAG2MASK_PORT=8123 TAG2MASK_DEVICE=cpu make serve
```

| variable | default | unit | meaning |
| --- | --- | --- | --- |
"""


def meanings() -> dict[str, str]:
    """Setting -> the sentence below it. pydantic could read them too, at every start of the service."""
    (settings,) = ast.parse(inspect.getsource(Settings)).body
    assert isinstance(settings, ast.ClassDef)
    found = {}
    for field, text in itertools.pairwise(settings.body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            found[ast.unparse(field.target)] = " ".join(str(ast.literal_eval(text.value)).split())
    return found


def page() -> str:
    """The page as it should be now."""
    rows, said = [], meanings()
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, "") else f"`{field.default}`"
        unit = next((UNITS[word] for word in name.split("_") if word in UNITS), "")
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {unit} | {said[name]} |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
