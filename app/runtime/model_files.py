"""The files of a models directory lie as `NAME/VERSION/model.onnx`, as Triton's model repository has it."""

from contextlib import suppress
from pathlib import Path

from app.inference.errors import ModelStoreError

MODEL_FILE = "model.onnx"
DEPTH = 2  # A model's file lies this many folders deep: NAME/VERSION.
Key = tuple[str, int]  # It is (name, version).
Stamp = tuple[int, int, int]  # A file looks so from outside: time of change, size, inode.


def find_model_files(directory: Path) -> dict[Key, Path]:
    """Return the path of every `NAME/VERSION/model.onnx` under `directory` by (name, version), sorted; hidden folders are left alone.

    A version is a whole number above 0 without leading zeros. Raises ModelStoreError where there is no such directory or
    file.
    """
    if not directory.is_dir():
        raise ModelStoreError(f"there is no models directory {str(directory)!r}. Set TAG2MASK_MODELS to the right one.")
    found = (path for path in directory.glob(f"*/*/{MODEL_FILE}") if is_version(path.parent.name))
    paths = [path for path in found if not path.parent.parent.name.startswith(".")]
    if not paths:
        misplaced = [reason for reasons in find_misplaced(directory).values() for reason in reasons.values()]
        raise ModelStoreError(
            f"the models directory {str(directory)!r} holds no NAME/VERSION/{MODEL_FILE}. Put a model there (see "
            f"`python -m training export`), or set TAG2MASK_MODELS to another directory. {' '.join(misplaced[:1])}".rstrip()
        )
    return dict(sorted(((path.parent.parent.name, int(path.parent.name)), path) for path in paths))


def find_misplaced(directory: Path) -> dict[str, dict[str, str]]:
    """Return, by name and folder ("" where there is none), what is wrong with an ONNX file there, beside the versions.

    Hidden files and folders are left alone, and what lies beside a `model.onnx`.
    """
    found: dict[str, dict[str, str]] = {}
    for path in sorted(path for pattern in ("*", "*/*", "*/*/*") for path in directory.glob(f"{pattern}.onnx")):
        *folders, file = path.relative_to(directory).parts
        served = len(folders) == DEPTH and is_version(folders[-1])
        if any(part.startswith(".") for part in (*folders, file)) or (served and path.with_name(MODEL_FILE).exists()):
            continue
        name, folder = folders[0] if folders else path.stem, "".join(folders[1:])
        if served:
            reason = f"its name is not {MODEL_FILE}. Move it to {path.with_name(MODEL_FILE)}."
        else:
            reason = "it lies in no folder of a version" if len(folders) < DEPTH else f"{folder!r} is no version"
            target = directory / name / "VERSION" / MODEL_FILE
            reason += f". Move it to {target}, VERSION being the whole number that its metadata state."
        reasons = found.setdefault(name, {})
        reasons[folder] = f"{reasons.get(folder, '')} {path} is not served: {reason}".strip()
    return found


def is_version(folder: str) -> bool:
    """Tell whether a folder's name is a whole number above 0 without leading zeros."""
    return folder.isascii() and folder.isdigit() and not folder.startswith("0")


def stamps_of(paths: dict[Key, Path]) -> dict[Key, Stamp]:
    """Return what the files look like from outside; one that is gone by now is left out."""
    stamps = {}
    for key, path in paths.items():
        with suppress(OSError):
            status = path.stat()
            stamps[key] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return stamps
