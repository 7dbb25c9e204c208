"""Whom people would take instead: each serves the bare loop at `/segment`, with as many workers as there are cores.

    python -m benchmarks.peers.NAME MODEL SIZE PORT

Each runs without any of `app`, in the environment of tests/environments/peers.txt (`make peers`), as its own documentation has it.
"""
