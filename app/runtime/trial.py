"""A model is tried in a process of its own before it is loaded beside those that serve.

Whatever its file does to the runtime, a crash, an endless graph, a computation while it is loaded, it does there: it costs that
process, and the file is refused.
"""

import os
import subprocess
import sys
from pathlib import Path

from app.inference.engine import Device, Engine
from app.inference.errors import ModelCardError, Tag2MaskError
from app.runtime.warm import warm

REFUSED = 3  # the exit status of a trial that says on its standard output what is wrong
ROOT = Path(__file__).parents[2]  # where `app` is found


def try_apart(path: Path, device: Device, threads: int, seconds: float) -> None:
    """Load and warm a model in another process. Raises ModelCardError where that fails, or takes longer than `seconds`."""
    command = [sys.executable, "-m", "app.runtime.trial", str(path.resolve()), device, str(threads)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise ModelCardError(
            f"{path} was not loaded and run twice within {seconds:g} seconds (TAG2MASK_MODEL_TRIAL_SECONDS). Export a smaller model, "
            f"without loops that do not end."
        ) from None
    if done.returncode == REFUSED:
        raise ModelCardError(done.stdout.decode(errors="replace").strip().replace(str(path.resolve()), str(path)))
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise ModelCardError(
            f"{path} ended the process that tried it (status {done.returncode}{': ' + said[0][:300] if said else ''}). Export it "
            f"again."
        )


def main(path: str, device: Device, threads: str) -> int:
    """Try a model in this process; returns the exit status."""
    try:
        warm(Engine(Path(path), device=device, intra_op_threads=int(threads)))
    except Tag2MaskError as error:
        sys.stdout.write(str(error))
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))  # type: ignore[arg-type]
