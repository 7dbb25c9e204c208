"""Files are written whole or not at all, whatever stops the program meanwhile; where the disk refuses one, it is said here what to do."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.inference.files.file_names import shown

try:
    import fcntl
except ImportError:  # Windows has no such locks.
    fcntl = None  # type: ignore[assignment]

# For the number that the system gives an error, its user can do this.
REMEDIES = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "Make room there, or name another folder; the same command goes on."
    ),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS),
        "Name a folder of your own, or change who may read and write this one.",
    ),
    **dict.fromkeys(
        (errno.EISDIR, errno.ENOTDIR, errno.EEXIST),
        "Something else has the name of a file or folder that is needed: move it, or name another folder.",
    ),
    errno.ENAMETOOLONG: "Give the file a shorter name.",
}


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; what was written takes the place of `path` when the block ends.

    The folder is made where it is missing. Where the block raises, `path` stays as it was and what was begun is removed; where
    the program is killed, a hidden file that ends in .partial is left and the next writing overwrites it. Programs that write
    the same file at a time write beside each other, and the last one's content stays. An OSError names `path`.
    Pillow is given no path, for it takes a part of a JPEG that found room for the whole: `write_whole` takes its bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, lock = free_partial(path)
    try:
        with naming(path, partial):
            yield partial
            partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    finally:
        os.close(lock)


def free_partial(path: Path) -> tuple[Path, int]:
    """Return a hidden file beside `path` that no other program writes to, and its lock: a file descriptor, free once it is closed.

    What a killed program left is free. A disk without locks gives one file to all.
    """
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]  # The name may be too long with more behind it.
    number = 0
    while True:
        partial = path.with_name(f".{digest}{number or ''}.partial")
        with naming(path, partial):
            lock = os.open(partial, os.O_WRONLY | os.O_CREAT, 0o666)
        if fcntl is None:
            return partial, lock
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), partial.stat()):
                return partial, lock
        except BlockingIOError:
            number += 1
        except FileNotFoundError:  # Its writer has put it in its place meanwhile.
            pass
        except OSError:  # This disk has no locks.
            return partial, lock
        os.close(lock)


@contextmanager
def naming(path: Path, written: Path | None = None) -> Iterator[None]:
    """Name `path` in an OSError that names no file, as of a full disk, or names the one that is `written` in its place."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(written)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_whole(path: Path, content: str | bytes) -> None:
    """Write bytes, or a text as UTF-8, to `path`, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def refusal(error: OSError, path: Path | str = "the system") -> str:
    """Return in sentences what the disk, the rights or the network refuse: the file (or `path`), the reason, the remedy."""
    sentence = f"{shown(error.filename or path)}: {error.strerror or error}."
    remedy = REMEDIES.get(error.errno or 0)
    return f"{sentence} {remedy}" if remedy else sentence
