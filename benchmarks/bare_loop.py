"""Who is measured beside the service: the bare loop, which needs no server, and a handler in FastAPI as it is written first.

    python benchmarks/contestants.py MODEL SIZE PORT

The handler runs as a program, without any of `app`: all that it shares with the service is the model's file.
"""

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def bare_loop(model: Path, preferred_size: int) -> Callable[[bytes], bytes]:
    """Return the least that turns a photo into a mask: decode, resize, run, PNG of the photo's size."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def answer(data: bytes) -> bytes:
        photo = Image.open(io.BytesIO(data)).convert("RGB")
        factor = preferred_size / max(photo.size)
        width, height = (max(32, round(side * factor)) for side in photo.size)
        image = np.asarray(photo.resize((width, height), Image.Resampling.BICUBIC))
        (mask,) = session.run(["mask"], {"image": image[None]})
        content = io.BytesIO()
        Image.fromarray(mask[0]).resize(photo.size, Image.Resampling.NEAREST).save(content, "PNG", compress_level=1)
        return content.getvalue()

    return answer


def serve_naive(model: Path, preferred_size: int, port: int) -> None:
    """Serve the loop behind one handler, which FastAPI runs in its threads."""
    import uvicorn
    from fastapi import FastAPI, Response, UploadFile

    answer, app = bare_loop(model, preferred_size), FastAPI()

    def segment(file: UploadFile) -> Response:
        return Response(answer(file.file.read()), media_type="image/png")

    app.add_api_route("/segment", segment, methods=["POST"])
    app.add_api_route("/readyz", lambda: {"status": "ready"})
    uvicorn.run(app, port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    path, size, port = sys.argv[1:]
    serve_naive(Path(path), int(size), int(port))
