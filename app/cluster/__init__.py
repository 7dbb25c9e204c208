"""`label --engine ray` labels beyond one machine, on Ray Data, and Ray Serve runs the service there; the extra `cluster` brings Ray."""
