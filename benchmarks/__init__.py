"""How fast the service is, beside a bare loop and beside what people would take instead: `make bench`."""

import os

# As for the service (`app.__main__`), and before numpy is loaded: CPU time would count threads of a multiplication that wait for the next.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
