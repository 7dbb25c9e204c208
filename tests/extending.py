"""The blocks of `docs/extending.md` as modules: what the page says to write is what the tests add."""

import importlib
import itertools
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n# (\S+)\.py\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)  # (path, source)


def changes() -> list[str]:
    """The values of `--set` in the page's command."""
    [command] = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    words = shlex.split(command)
    return [value for word, value in itertools.pairwise(words) if word == "--set"]


@contextmanager
def added(*packages: str) -> Iterator[list[ModuleType]]:
    """Add the page's new files of these packages, and their entries; take both away afterwards. Yields the new modules."""
    modules: list[ModuleType] = []
    tables: list[tuple[dict[str, Any], dict[str, Any]]] = []
    try:
        for path, source in BLOCKS:
            package, _, file = path.replace("/", ".").rpartition(".")
            if package not in packages:
                continue
            if file == "__init__":
                names = vars(importlib.import_module(package))
                tables += [(table, dict(table)) for name, table in names.items() if name.isupper() and name in source]
                exec(compile(source, path, "exec"), dict(names))
            else:
                module = ModuleType(f"{package}.{file}")
                sys.modules[module.__name__] = module
                modules.append(module)
                exec(compile(source, path, "exec"), vars(module))
        yield modules
    finally:
        for table, before in tables:
            table.clear()
            table.update(before)
        for module in modules:
            del sys.modules[module.__name__]
