"""The bare loop, which all are measured beside: it needs no server, and nothing of `app`; all that it shares is the model's file."""

import io
import os
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
