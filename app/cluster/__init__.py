"""Beyond one machine: `label --engine ray`, on Ray Data. The extra `cluster` brings Ray."""
