"""A request is answered here: results are worked out and described, and become JSON, headers and problem documents."""
