"""Imported first by the process that worker processes are forked from: at a SIGTERM or SIGHUP to all of a service's processes the
service itself finishes what it has, and needs its workers for it. The process ends when the service does.

Nothing of what is imported becomes garbage, so that no time is spent looking for it: the workers begin to collect theirs.
"""

import gc
import signal

gc.disable()

for _name in ("SIGTERM", "SIGHUP"):
    if hasattr(signal, _name):
        signal.signal(getattr(signal, _name), signal.SIG_IGN)
