"""Worker processes come from one process that has imported everything: each of them is a fork of it.

A fork is there in some 20 ms and shares the memory of what was imported. Windows has none: there each process starts from nothing.
This module imports nothing of the project, so that the imports can begin before anything else (`app.__main__`).
"""

import multiprocessing
import os
import sys
import threading
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]  # `app` is found there.
FORKS = sys.platform != "win32"
CONTEXT: Any = multiprocessing.get_context("forkserver" if FORKS else "spawn")
# What the workers do is in these modules. The first has them ignore the signals that are meant for the service.
IMPORTED = (
    *("app.runtime.workers.unsignalled", "app.runtime.workers.worker"),
    *("app.http.reply.answers", "app.protocols.label_studio.predict", "app.protocols.tensors"),
)
_starting = threading.Lock()


def start_importing() -> None:
    """Start that process, unless it runs. It finds `app` where this process does."""
    if not FORKS:
        return
    with _starting:
        CONTEXT.set_forkserver_preload(list(IMPORTED))
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([before] if before else [])])
        try:
            forkserver.ensure_running()
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before
