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
# It has Linux's C library ask for memory in pages of 2 MB instead of 4 kB, which the processor finds in less time: a network takes 4 %
# less. The library reads this when a process begins, and other systems do not.
LARGE_PAGES = "glibc.malloc.hugetlb=1"
_starting = threading.Lock()


def start_importing() -> None:
    """Start that process, unless it runs. It finds `app` where this process does."""
    if not FORKS:
        return
    with _starting:
        CONTEXT.set_forkserver_preload(list(IMPORTED))
        theirs = dict(os.environ)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), theirs.get("PYTHONPATH")]))
        os.environ.setdefault("GLIBC_TUNABLES", LARGE_PAGES)
        try:
            forkserver.ensure_running()
        finally:
            for name in ("PYTHONPATH", "GLIBC_TUNABLES"):
                if name in theirs:
                    os.environ[name] = theirs[name]
                else:
                    del os.environ[name]
