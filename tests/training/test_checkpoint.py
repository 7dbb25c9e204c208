"""Weights are written whole or not at all, and what the disk refuses is the system's own error."""

import resource
from pathlib import Path

import pytest
from torch import nn

from training.checkpoint import load_weights, save_weights


def test_a_full_disk_is_said_by_the_system_and_leaves_the_older_weights(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    older, larger = nn.Linear(2, 2), nn.Linear(300, 300)
    save_weights(path, older)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_weights(path, larger)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.name for file in tmp_path.iterdir()] == ["weights.pt"]
    load_weights(path, nn.Linear(2, 2))
