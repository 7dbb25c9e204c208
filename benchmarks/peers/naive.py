"""A handler in FastAPI as it is written first; FastAPI runs it in its threads."""

import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Response, UploadFile

from benchmarks.bare_loop import bare_loop


def serve(model: Path, preferred_size: int, port: int) -> None:
    """Serve the loop behind one handler."""
    answer, app = bare_loop(model, preferred_size), FastAPI()

    def segment(file: UploadFile) -> Response:
        return Response(answer(file.file.read()), media_type="image/png")

    app.add_api_route("/segment", segment, methods=["POST"])
    app.add_api_route("/readyz", lambda: {"status": "ready"})
    uvicorn.run(app, port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    path, size, listening = sys.argv[1:]
    serve(Path(path), int(size), int(listening))
