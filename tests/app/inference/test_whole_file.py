"""A file that is read is a file that was written to its end."""

from pathlib import Path

import pytest

from app.inference.files.whole_file import whole_file, write_whole


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
