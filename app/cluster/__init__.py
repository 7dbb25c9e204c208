"""`label --engine ray` labels beyond one machine, on Ray Data; the extra `cluster` brings Ray."""
