"""How the tests are shared among processes: a file's tests stay together, for the sake of its fixtures, but for the recipes.

A dry run of a recipe takes up to a minute and shares nothing with the next.
"""

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

APART = "test_recipes.py"


class ByFile(LoadScopeScheduling):
    """Hands out files, and single tests of the file `APART`."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.split("::", 1)[0]
        return nodeid if path.endswith(APART) else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """What `pytest --numprocesses auto` shares the tests out with."""
    return ByFile(config, log)
