"""Imported first by the process that worker processes are forked from: at a SIGTERM or SIGHUP to all of a service's processes the
service itself finishes what it has, and needs its workers for it. The process ends when the service does.
"""

import signal

for _name in ("SIGTERM", "SIGHUP"):
    if hasattr(signal, _name):
        signal.signal(getattr(signal, _name), signal.SIG_IGN)
