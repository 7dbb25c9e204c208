"""Which tests a run takes, and that it names what it skipped."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
CONFTEST = (Path(__file__).parent / "conftest.py").read_text(encoding="utf-8")
TESTS = """
import pytest

def test_plain():
    pass

@pytest.mark.environment("crf")
def test_crf():
    pytest.importorskip("a_module_that_is_not_there", reason="no compiler")

@pytest.mark.skip(reason="no data")
@pytest.mark.parametrize("number", [1, 2])
def test_data(number):
    pass
"""


@pytest.fixture
def tests(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini("[pytest]\nmarkers = environment(name): as in pyproject.toml\n")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_some=TESTS, test_broken_elsewhere="import a_module_that_is_not_there")
    elsewhere = pytester.mkdir("elsewhere")
    (elsewhere / "test_other.py").write_text("def test_other(): pass")
    (elsewhere / "conftest.py").write_text("import a_module_that_is_not_there")
    return pytester


def test_every_skip_is_counted_and_named(tests: pytest.Pytester) -> None:
    done = tests.runpytest("test_some.py", "--skipped-to=skipped.txt")
    done.assert_outcomes(passed=1, skipped=2, deselected=1)
    done.stdout.fnmatch_lines(["*2 tests were skipped*", "2 skipped: no data", "*::test_data?1?", "*::test_data?2?"])
    assert (tests.path / "skipped.txt").read_text().splitlines()[0] == "2 skipped: no data"


def test_an_environment_runs_its_own_tests_alone(tests: pytest.Pytester) -> None:
    done = tests.runpytest("--environment=crf", "--skipped-to=skipped.txt")
    done.assert_outcomes(skipped=1, deselected=3)  # nor does it import the file and the folder that are broken
    assert "1 skipped: no compiler" in (tests.path / "skipped.txt").read_text()
