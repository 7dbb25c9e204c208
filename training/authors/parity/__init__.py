"""Our modules agree with the authors' code: every array of every fixture file is recomputed by them and compared.

One module per paper, one function per fixture file, of the same name: it takes the file's `Reference` and yields
`Claim`s. A file, an array or a claim that is missing fails; so does whatever a function raises.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.authors.parity import amr, cam, ccrm, drs, edam, irn
from training.authors.parity.reference import INPUT_DIGESTS, Claim, Claims, Reference, digest

PROOFS: tuple[Callable[[Reference], Claims], ...] = (
    drs.drs_module, drs.drs_learnable, drs.drs_fixed055, drs.drs_refine, drs.drs_rules, drs.drs_maps,
    drs.drs_learnable_step, drs.drs_fixed055_step, drs.drs_refine_step,
    amr.amr_amm, amr.amr_amm_bnbatch, amr.amr_net, amr.amr_net_bnbatch, amr.amr_loss, amr.amr_advcam, amr.amr_advcam_scales,
    amr.amr_step, amr.amr_cam_step,
    cam.cam_scales,
    edam.edam_cam, edam.edam_train, edam.edam_rules, edam.resnet38_cls,
    edam.edam_step, edam.psa_step,
    irn.irn_walk, irn.irn_net, irn.irn_step,
    ccrm.ccrm_1class, ccrm.ccrm_2class, ccrm.ccrm_3class,
)  # fmt: skip
FILES = {proof.__name__: proof for proof in PROOFS}  # The right side reproduces the arrays of a fixture file.

# A fixture changed by 1 % must not pass: an array times 1.01 differs from its origin by 0.0099 of its maximum.
LARGEST_TOLERANCE = 5e-3


@dataclass(frozen=True)
class Row:
    """It is one array that was compared. measured: max |ours - reference| / max |reference|, or the share of entries that differ;
    None where nothing could be compared, `note` then says why.
    """

    file: str
    array: str
    measured: float | None
    tolerance: float
    ok: bool
    note: str = ""


def run_parity(directories: Sequence[Path], files: Iterable[str] | None = None) -> list[Row]:
    """Compare `files`, all that are known by default, each from the first of `directories` that holds it; one row per array."""
    rows = []
    for file in FILES if files is None else files:
        holders = [directory for directory in directories if (directory / f"{file}.npz").is_file()]
        rows += compare_file(Reference((holders or list(directories))[0], file))
    return rows


def compare_file(reference: Reference, claims: Iterable[Claim] | None = None) -> list[Row]:
    """Return the rows of one fixture file; `claims` are what our code computes from it, computed here by default."""
    rows: list[Row] = []
    try:
        arrays = reference.arrays()
        for claim in FILES[reference.file](reference) if claims is None else claims:
            rows.append(compare(reference.file, Claim(*claim), arrays))
    except Exception as error:  # Whatever it is, the table says so, fails, and goes on with the next file.
        rows.append(Row(reference.file, "-", None, 0, False, f"{type(error).__name__}: {error}"))
        return rows
    claimed = {row.array for row in rows}
    for name in arrays:
        if name in reference.inputs:
            same = digest(arrays[name]) == INPUT_DIGESTS.get((reference.file, name))
            rows.append(Row(reference.file, name, None, 0, same, "input" if same else "input, not the published array"))
        elif name not in claimed:
            rows.append(Row(reference.file, name, None, 0, False, "not claimed: nothing of ours computes it"))
    return rows


def compare(file: str, claim: Claim, arrays: dict[str, np.ndarray]) -> Row:
    """Measure one claim against the file's array."""
    tolerance = min(claim.tolerance, LARGEST_TOLERANCE)
    if claim.array not in arrays:
        return Row(file, claim.array, None, tolerance, False, "missing in the file")
    reference, ours = np.asarray(arrays[claim.array], np.float64), np.asarray(claim.ours, np.float64)
    if ours.shape != reference.shape:
        return Row(file, claim.array, None, tolerance, False, f"shape {ours.shape} instead of {reference.shape}")
    measured = measure_share(ours, reference) if claim.share else measure(ours, reference)
    return Row(file, claim.array, measured, tolerance, measured <= tolerance)


def measure(ours: np.ndarray, reference: np.ndarray) -> float:
    """Return max |ours - reference| / max |reference|; it is not a number where either holds one that is none."""
    if reference.size == 0:
        return 0.0
    return float(np.abs(ours - reference).max() / max(1e-12, np.abs(reference).max()))


def measure_share(ours: np.ndarray, reference: np.ndarray) -> float:
    """Return the share of the entries that differ."""
    return float((ours != reference).mean()) if reference.size else 0.0


def format_table(rows: list[Row]) -> str:
    """Return the rows as aligned text: file, array, measured difference, tolerance, verdict; then the counts."""
    head = ("file", "array", "measured", "tolerance", "verdict")
    lines = [head, *((row.file, row.array, *_cells(row)) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
    text = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]) for line in lines
    ]
    failed = sum(not row.ok for row in rows)
    files = len({row.file for row in rows})
    return "\n".join([*text, f"{len(rows)} arrays of {files} files: {len(rows) - failed} pass, {failed} fail"])


def _cells(row: Row) -> tuple[str, str, str]:
    measured = "-" if row.measured is None else f"{row.measured:.1e}"
    tolerance = "equal" if row.tolerance == 0 else f"{row.tolerance:.0e}"
    verdict = "pass" if row.ok else "FAIL"
    return measured, "-" if row.measured is None else tolerance, f"{verdict} ({row.note})" if row.note else verdict


__all__ = ["FILES", "Claim", "Reference", "Row", "compare_file", "format_table", "run_parity"]
