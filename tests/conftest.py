"""How the tests are shared among processes: a file's tests stay together, for the sake of its fixtures, but for the recipes.

A dry run of a recipe takes up to a minute and shares nothing with the next.
"""

import pytest

APART = "test_recipes.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name the group of every test (`pytest --dist loadgroup`)."""
    for item in items:
        if item.path.name != APART:
            item.add_marker(pytest.mark.xdist_group(str(item.path)))
