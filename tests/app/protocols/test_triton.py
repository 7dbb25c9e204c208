"""The files for Triton: parsed as Triton parses them, and held against what `/v2` says of the same models."""

import os
import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.__main__ import main
from app.protocols.triton import CONFIG_FILE, write_configs
from app.runtime.settings import Settings
from tests.app.server import ROOT

model_config = pytest.importorskip("tritonclient.grpc.model_config_pb2")
text_format = pytest.importorskip("google.protobuf.text_format")


def read(path: Path):
    return text_format.Parse(path.read_text(encoding="utf-8"), model_config.ModelConfig())


def test_names_types_and_shapes_are_those_of_v2(client: TestClient, models_directory: Path, tmp_path: Path) -> None:
    models = shutil.copytree(models_directory, tmp_path / "models")
    written = write_configs(Settings(models=models))
    assert [path.relative_to(models) for path in written] == [
        Path(name, CONFIG_FILE) for name in ("cam_colours", "deeplab_colours", "drs_colours")
    ]
    for path in written:
        config, here = read(path), client.get(f"/v2/models/{path.parent.name}").json()
        assert (config.name, config.platform) == (here["name"], here["platform"])
        assert config.max_batch_size > 1
        assert config.version_policy.WhichOneof("policy_choice") == "all"  # /v2 serves every version too
        for tensors, named in ((config.input, here["inputs"]), (config.output, here["outputs"])):
            # Triton's own metadata put the batch before the dims, and drop TYPE_.
            said = [
                (each.name, model_config.DataType.Name(each.data_type).removeprefix("TYPE_"), [-1, *each.dims])
                for each in tensors
            ]
            assert said == [(each["name"], each["datatype"], each["shape"]) for each in named]


def test_shipped_models_have_their_files(tmp_path: Path, monkeypatch, capsys) -> None:
    """`python -m app triton` writes them anew."""
    models = shutil.copytree(ROOT / "models", tmp_path / "models", ignore=shutil.ignore_patterns(CONFIG_FILE))
    monkeypatch.setenv("TAG2MASK_MODELS", str(models))
    main(["triton"])
    said = capsys.readouterr().out.split()
    assert said == [str(path) for path in sorted(models.glob(f"*/{CONFIG_FILE}"))]
    for path in models.glob(f"*/{CONFIG_FILE}"):
        shipped = ROOT / "models" / path.relative_to(models)
        assert shipped.read_text(encoding="utf-8") == path.read_text(encoding="utf-8")
    os.utime(models / "cam" / CONFIG_FILE, (0, 0))
    (models / "drs" / CONFIG_FILE).write_text("another version's")
    main(["triton"])
    assert (models / "cam" / CONFIG_FILE).stat().st_mtime == 0  # what is right is left untouched
    assert read(models / "drs" / CONFIG_FILE).name == "drs"
