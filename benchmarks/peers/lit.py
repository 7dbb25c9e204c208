"""LitServe: an API whose `predict` is the loop, in a worker process for each core."""

import sys
from pathlib import Path
from typing import Any

import litserve
from fastapi import Request, Response

from benchmarks.bare_loop import CORES, bare_loop


class Segmenter(litserve.LitAPI):
    """It answers with the mask of the form's file."""

    def __init__(self, model: Path, preferred_size: int) -> None:
        super().__init__(api_path="/segment")
        self.model, self.preferred_size = model, preferred_size

    def setup(self, device: Any) -> None:
        self.answer = bare_loop(self.model, self.preferred_size)

    def decode_request(self, request: Request) -> bytes:
        content: bytes = request["file"].file.read()
        return content

    def predict(self, data: bytes) -> bytes:
        return self.answer(data)

    def encode_response(self, mask: bytes) -> Response:
        return Response(mask, media_type="image/png")


if __name__ == "__main__":
    path, size, listening = sys.argv[1:]
    server = litserve.LitServer(
        Segmenter(Path(path), int(size)),
        accelerator="cpu",
        workers_per_device=CORES,
        healthcheck_path="/readyz",
        timeout=False,
    )
    server.run(host="127.0.0.1", port=int(listening), log_level="warning", generate_client_file=False, access_log=False)
