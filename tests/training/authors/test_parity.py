"""Agreement with the authors' code, and that a disagreement is seen."""

import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from app.inference.errors import DataError
from training.authors.parity import (
    FILES,
    LARGEST_TOLERANCE,
    Claim,
    Reference,
    compare,
    compare_file,
    format_table,
    run_parity,
)
from training.authors.parity.reference import KEYS_FILE, authors_state, fill

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests" / "golden"
ALL = ROOT.parent / "shared" / "parity"
GOLDEN_FILES = sorted(path.stem for path in GOLDEN.glob("*.npz"))
GOLDEN_ARRAYS = [(file, name) for file in GOLDEN_FILES for name in np.load(GOLDEN / f"{file}.npz").files]


def failures(directory: Path, file: str, claims: list[Claim] | None = None) -> list[str]:
    rows = compare_file(Reference(directory, file, list(INPUTS.get(file, ()))), claims)
    return [f"{row.array}: {row.measured} {row.note}" for row in rows if not row.ok]


INPUTS: dict[str, tuple[str, ...]] = {}  # file -> the arrays that our code starts from


@cache
def golden_claims(file: str) -> list[Claim]:
    """What our code computes for a golden file: once, for the networks take seconds."""
    reference = Reference(GOLDEN, file)
    claims = list(FILES[file](reference))
    INPUTS[file] = tuple(reference.inputs)
    return claims


@pytest.mark.parametrize("file", GOLDEN_FILES)
def test_golden_file(file: str) -> None:
    claims = golden_claims(file)
    rows = compare_file(Reference(GOLDEN, file, list(INPUTS[file])), claims)
    assert not [row for row in rows if not row.ok]
    assert {row.array for row in rows} == set(np.load(GOLDEN / f"{file}.npz").files)


@pytest.mark.skipif(not ALL.is_dir(), reason="the larger fixture files are not in ../shared/parity")
@pytest.mark.parametrize("file", sorted(set(FILES) - set(GOLDEN_FILES)))
def test_file(file: str) -> None:
    assert not failures(ALL, file)


def test_every_fixture_file_is_known() -> None:
    if not ALL.is_dir():
        pytest.skip("the larger fixture files are not in ../shared/parity")
    assert {path.stem for path in ALL.glob("*.npz")} | set(GOLDEN_FILES) == set(FILES)


def test_a_file_comes_from_the_first_directory_that_holds_it(tmp_path: Path, copy: Path) -> None:
    assert all(row.ok for row in run_parity([tmp_path, copy], ["drs_module"]))
    (tmp_path / "drs_module.npz").write_bytes(b"damaged")
    assert not any(row.ok for row in run_parity([tmp_path, copy], ["drs_module"]))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN, tmp_path / "copy"))


def change(array: np.ndarray) -> np.ndarray:
    """Values changed by 1 %, or 1 % of them where they are not numbers on a scale (masks, labels, counts)."""
    if array.dtype.kind == "f":
        return (array * 1.01 if array.any() else array + 0.01).astype(array.dtype)
    changed = array.copy().reshape(-1)
    chosen = np.linspace(0, array.size - 1, max(1, round(0.01 * array.size))).astype(int)
    changed[chosen] = changed[chosen] ^ 1
    return changed.reshape(array.shape)


@pytest.mark.parametrize(("file", "name"), GOLDEN_ARRAYS)
def test_a_change_of_one_percent_fails(file: str, name: str, tmp_path: Path) -> None:
    arrays = dict(np.load(GOLDEN / f"{file}.npz"))
    np.savez(tmp_path / f"{file}.npz", **arrays | {name: change(arrays[name])})
    assert failures(tmp_path, file, golden_claims(file))


def test_a_change_of_one_percent_is_above_every_tolerance() -> None:
    reference = np.linspace(-3, 2, 7)
    row = compare("file", Claim("x", reference, tolerance=1.0), {"x": reference * 1.01})
    assert not row.ok
    assert row.tolerance == LARGEST_TOLERANCE
    assert row.measured == pytest.approx(0.01 / 1.01)


def test_a_missing_file_fails(copy: Path) -> None:
    (copy / "drs_module.npz").unlink()
    assert failures(copy, "drs_module")


def test_a_damaged_file_fails(copy: Path) -> None:
    (copy / "drs_module.npz").write_bytes((copy / "drs_module.npz").read_bytes()[:2000])
    assert failures(copy, "drs_module")


@pytest.mark.parametrize("name", ["x", "learnable"])
def test_a_missing_array_fails(name: str, copy: Path) -> None:
    path = copy / "drs_module.npz"
    arrays = dict(np.load(path))
    del arrays[name]
    np.savez(path, **arrays)
    assert failures(copy, "drs_module") == [f"{name}: None missing in the file"]


def test_a_missing_input_fails(copy: Path) -> None:
    path = copy / "drs_rules.npz"
    arrays = dict(np.load(path))
    del arrays["loc"]
    np.savez(path, **arrays)
    assert failures(copy, "drs_rules")


def test_an_array_that_nothing_computes_fails(copy: Path) -> None:
    path = copy / "drs_module.npz"
    np.savez(path, **np.load(path), more=np.zeros(3))
    assert [line.split(":")[0] for line in failures(copy, "drs_module")] == ["more"]


def test_an_array_of_another_shape_or_without_numbers_fails() -> None:
    reference = {"x": np.ones((2, 3))}
    assert not compare("file", Claim("x", np.ones((3, 2)), 1e-4), reference).ok
    assert not compare("file", Claim("x", np.full((2, 3), np.nan), 1e-4), reference).ok
    assert compare("file", Claim("x", np.full((2, 3), 1.00001), 1e-4), reference).ok


def test_share_counts_differing_entries() -> None:
    ours = np.zeros(1000)
    ours[3] = 1
    assert compare("file", Claim("x", ours, 1e-3, share=True), {"x": np.zeros(1000)}).ok
    ours[4] = 1
    assert not compare("file", Claim("x", ours, 1e-3, share=True), {"x": np.zeros(1000)}).ok


def test_the_table_names_every_array_and_counts(copy: Path) -> None:
    (copy / "drs_rules.npz").unlink()
    table = format_table(run_parity([copy], ["drs_module", "drs_rules"]))
    head, *rows, last = table.splitlines()
    assert head.split() == ["file", "array", "measured", "tolerance", "verdict"]
    assert [row.split()[1] for row in rows] == ["x", "learnable", "fixed055", "-"]
    assert "FAIL" in rows[-1]
    assert last == "4 arrays of 2 files: 3 pass, 1 fail"


def test_weights_are_filled_by_name() -> None:
    seed = 2073117033  # the first four bytes of SHA-256("a.matrix"), little end first
    r = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(fill("a.matrix", (2, 3)), r * (2 / 3) ** 0.5)
    assert (fill("bn.running_var", (50,)) >= 1).all()
    assert fill("bn.weight", (5000,)).mean() == pytest.approx(1, abs=0.01)
    assert fill("bn.bias", (5000,)).std() == pytest.approx(0.01, rel=0.1)
    assert fill("bn.num_batches_tracked", ()).dtype == torch.int64
    with pytest.raises(DataError, match="fill rule"):
        fill("scale", (3,))


def test_aliases_share_one_tensor_and_what_is_not_filled_is_left_out() -> None:
    entries = {
        "b.weight": {"shape": [4, 2], "alias_of": "a.weight"},
        "a.weight": {"shape": [4, 2]},
        "pe": {"shape": [1, 4], "not_filled": True},
    }
    state = authors_state(entries)
    assert list(state) == ["b.weight", "a.weight"]
    assert state["a.weight"] is state["b.weight"]
    assert torch.equal(state["a.weight"], fill("a.weight", (4, 2)))


def test_golden_keys_are_those_the_golden_files_need() -> None:
    networks = {"drs_learnable", "drs_fixed055", "drs_refine", "amr_net", "amr_cam", "edam_net", "resnet38_cls"}
    others = {"amm_32_16", "ccrm_standin", "irn_edge_displacement"}
    assert set(json.loads((GOLDEN / KEYS_FILE).read_text())) == networks | others


@pytest.mark.skipif(not ALL.is_dir(), reason="the larger fixture files are not in ../shared/parity")
def test_golden_keys_fill_what_all_keys_fill() -> None:
    golden, everything = (json.loads((folder / KEYS_FILE).read_text()) for folder in (GOLDEN, ALL))
    for model in golden.keys() & everything.keys():
        shapes = {entry.get("alias_of", key): entry["shape"] for key, entry in everything[model].items()}
        assert {entry.get("alias_of", key): entry["shape"] for key, entry in golden[model].items()} == shapes
