"""How fast the service is, beside a bare loop and beside what people would take instead: `make bench`."""
