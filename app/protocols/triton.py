"""`python -m app triton` writes the files that let NVIDIA's Triton serve a models directory as it lies: `models/NAME/config.pbtxt`.

Triton's names, types and shapes of a model are then those of this service's `/v2` (`app.protocols.open_inference`). Triton looks for
the file beside the model alone, so it goes there. A file that says so already is left untouched: that of the models that come
with tag2mask, which may lie where an installer put them.
"""

from pathlib import Path

from app.inference.engine import Engine
from app.inference.files.whole_file import write_whole
from app.inference.model_card import IMAGE_INPUT
from app.protocols.tensors import CHANNELS
from app.runtime.model_files import find_model_files
from app.runtime.settings import Settings

CONFIG_FILE = "config.pbtxt"
PLATFORM = "onnxruntime_onnx"  # Triton calls ONNX Runtime and its files so.
# Triton joins so many images of one size, of whichever requests, into one batch at most.
MAX_BATCH = 8


def write_configs(settings: Settings) -> list[Path]:
    """Write the file of every model in the models directory that has it not; returns all. Raises ModelStoreError, ModelCardError."""
    # They are sorted, so the last stays.
    newest = {name: path for (name, _), path in find_model_files(settings.models).items()}
    written = []
    for name, path in newest.items():
        engine = Engine(path, device="cpu")
        file, content = settings.models / name / CONFIG_FILE, config_of(engine)
        if not file.is_file() or file.read_bytes() != content.encode():
            write_whole(file, content)
        written.append(file)
    return written


def config_of(engine: Engine) -> str:
    """Return the file of a model, in protobuf's text format. Triton puts the number of images before each `dims`."""
    tensors: list[tuple[str, str, str, tuple[int, ...]]] = [("input", IMAGE_INPUT, "UINT8", (-1, -1, -1, CHANNELS))]
    tensors += [("output", name, datatype, shape) for name, (datatype, shape) in engine.interface.items()]
    blocks = [
        f'{kind} {{\n  name: "{name}"\n  data_type: TYPE_{datatype}\n  dims: {list(shape[1:])}\n}}\n'
        for kind, name, datatype, shape in tensors
    ]
    head = f'name: "{engine.card.name}"\nplatform: "{PLATFORM}"\nmax_batch_size: {MAX_BATCH}\n'
    return f"{head}version_policy {{ all {{ }} }}\ndynamic_batching {{ }}\n{''.join(blocks)}"
