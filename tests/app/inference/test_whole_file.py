"""A file that is read is a file that was written to its end, and what the disk refuses is said with its remedy."""

import errno
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.inference.files.whole_file import refusal, whole_file, write_whole

ROOT = Path(__file__).parents[3]


@pytest.fixture
def little_room() -> Iterator[None]:
    """Files of more than 1,000 bytes are refused, as a full disk refuses them."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_is_written_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "figures.json"
    write_whole(path, "[1]")
    with whole_file(path) as partial:
        partial.write_text("[2]")
        assert path.read_text() == "[1]"
    assert path.read_text() == "[2]"
    assert list(path.parent.iterdir()) == [path]


def test_what_is_stopped_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    write_whole(path, "[1]")

    def stop() -> None:
        with whole_file(path) as partial:
            partial.write_text("[2")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert path.read_text() == "[1]"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("little_room")
def test_a_full_disk_names_the_file_and_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    write_whole(path, "[1]")
    with pytest.raises(OSError, match="File too large") as raised:
        write_whole(path, "1" * 2000)
    assert refusal(raised.value) == (
        f"{path}: File too large. Make room there, or name another folder; the same command goes on."
    )
    assert path.read_text() == "[1]"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_place_of_the_file_is_named_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    (tmp_path / "figures.json").mkdir()
    with pytest.raises(IsADirectoryError) as raised:
        write_whole(tmp_path / "figures.json", "[1]")
    assert refusal(raised.value).startswith(f"{tmp_path / 'figures.json'}: Is a directory. Something else has the name")
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


def test_a_name_of_as_many_bytes_as_the_disk_allows_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".npz")
    write_whole(path, "[1]")
    assert list(tmp_path.iterdir()) == [path]


def test_two_programs_that_write_one_file_leave_it_whole_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    code = f"""
from pathlib import Path
from app.inference.files.whole_file import write_whole
for number in range(300):
    write_whole(Path({str(path)!r}), "%d" * 20000)
    assert Path({str(path)!r}).read_text() in ("1" * 20000, "2" * 20000)
"""
    programs = [subprocess.Popen([sys.executable, "-c", code % number], cwd=ROOT) for number in (1, 2)]
    assert [program.wait() for program in programs] == [0, 0]
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_program_left_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    code = f"""
import os, signal
from pathlib import Path
from app.inference.files.whole_file import whole_file
with whole_file(Path({str(path)!r})) as partial:
    partial.write_text("[1, 2, 3")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert len(list(tmp_path.glob(".*.partial"))) == 1
    write_whole(path, "[1]")
    assert path.read_text() == "[1]"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised, whole_file(tmp_path / "copy") as partial:
        partial.write_bytes((tmp_path / "photo.jpg").read_bytes())
    assert refusal(raised.value) == f"{tmp_path / 'photo.jpg'}: No such file or directory."
    assert not list(tmp_path.iterdir())


def test_an_error_without_a_file_is_of_the_system() -> None:
    assert refusal(OSError(errno.ENETUNREACH, "Network is unreachable")) == "the system: Network is unreachable."
