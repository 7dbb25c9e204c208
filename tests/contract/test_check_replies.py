"""The comparison of recorded replies sees what differs and nothing else."""

from pathlib import Path

import httpx2
import pytest

from tests.contract.check_replies import compare, described


def reply(milliseconds: float, label: int, **headers: str) -> httpx2.Response:
    body = {"classes": [{"label": label}], "timings_ms": {"predict": milliseconds}}
    timing = {"server-timing": f"predict;dur={milliseconds}", "x-request-id": str(milliseconds)}
    return httpx2.Response(200, json=body, headers={**timing, **headers})


def test_times_do_not_count_and_values_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert described(reply(1.5, 12)) == described(reply(2.5, 12))
    assert described(reply(1.5, 12)) != described(reply(1.5, 13))
    assert described(reply(1.5, 12)) != described(reply(1.5, 12, etag='"other"'))
    for folder, label in (("before", 12), ("after", 13)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "000.txt").write_text(f"POST /segment\n{described(reply(1, label))}\n")
    assert compare(tmp_path / "before", tmp_path / "before")
    assert not compare(tmp_path / "before", tmp_path / "after")
    assert '"label": 13' in capsys.readouterr().out
