"""How the tests are chosen and shared among processes, and what the run says of those it skipped.

A test that needs an environment of its own (`@pytest.mark.environment`) runs with `--environment NAME`, where it is alone
with its kind. A file's tests stay in one process, for the sake of its fixtures, but for the recipes: a dry run of a recipe
shares nothing with the next. The tests of the page stay together. The longest come first, so that the processes end together.
"""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

APART = "tests/training/pipeline/test_recipes.py"
TOGETHER = "tests/app/page/"  # One process runs all tests below this path, because they share a service and a browser.
# These paths hold the longest tests, the longest of all first.
LONGEST = (
    "tests/test_tutorial.py",
    "tests/training/pipeline/test_run.py",
    "tests/training/test_fit.py",
    APART,
    "tests/training/methods/test_networks.py",
    TOGETHER,
    "tests/training/authors/",
    "tests/training/",
    "tests/tag2mask/",
    "tests/app/http/test_server.py",
    "tests/app/guard/",
    "tests/app/batch/",
)


class ByFile(LoadScopeScheduling):
    """Hands out files, single tests of the file `APART`, and all files of `TOGETHER` as one."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(APART):
            return nodeid
        return TOGETHER if nodeid.startswith(TOGETHER) else nodeid.split("::", 1)[0]


def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes run the tests: one more than there are cores, because tests of the service wait half of their time."""
    return (os.cpu_count() or 1) + 1


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """Make what `pytest --numprocesses auto` shares the tests out with, in the order that they were collected in."""
    config.option.loadscopereorder = False
    return ByFile(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that `make test` uses."""
    parser.addoption("--environment", metavar="NAME", help="run the tests that need tests/environments/NAME.txt alone")
    parser.addoption("--skipped-to", type=Path, metavar="FILE", help="append what was skipped to FILE")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave files and folders alone that hold no test of the environment asked for: importing them all, and what the folders'
    own `conftest.py` import, takes longer than the tests.
    """
    wanted = config.getoption("--environment")
    if wanted is None or not (collection_path.is_dir() or collection_path.suffix == ".py"):
        return None
    files = collection_path.rglob("*.py") if collection_path.is_dir() else [collection_path]
    return not any(f'environment("{wanted}")' in file.read_text(encoding="utf-8") for file in files) or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of the environment asked for; without one, those that need none. The longest come first."""
    wanted = config.getoption("--environment")
    chosen, others = [], []
    for item in items:
        marker = item.get_closest_marker("environment")
        (chosen if (marker.args[0] if marker else None) == wanted else others).append(item)
    if others:
        config.hook.pytest_deselected(items=others)
    items[:] = sorted(chosen, key=rank_of)


def rank_of(item: pytest.Item) -> int:
    """The place in `LONGEST` of a test, behind it for those of other paths."""
    return next((place for place, path in enumerate(LONGEST) if item.nodeid.startswith(path)), len(LONGEST))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Count and name every skipped test, by reason."""
    skipped = [(reason_of(report), report.nodeid) for report in terminalreporter.stats.get("skipped", ())]
    lines = []
    for reason, count in sorted(Counter(reason for reason, _ in skipped).items()):
        lines.append(f"{count} skipped: {reason}")
        lines += [f"    {nodeid}" for why, nodeid in skipped if why == reason]
    if lines:
        terminalreporter.section(f"{len(skipped)} tests were skipped")
        terminalreporter.write_line("\n".join(lines))
    if lines and (path := config.getoption("--skipped-to")):
        with path.open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")


def reason_of(report: Any) -> str:
    """The reason a skipped test gave."""
    told = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return told.removeprefix("Skipped: ")
