"""An ONNX file is held in memory here, ready to run: no other module runs ONNX Runtime."""

import hashlib
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # The official Linux builds report usage unless told not to.
import onnxruntime

from app.inference import deadline
from app.inference.errors import DeviceError, ModelCardError
from app.inference.files.checksum import check_content
from app.inference.files.graph_outputs import without_output
from app.inference.image.preprocess import MIN_INPUT_SIDE
from app.inference.model_card import IMAGE_INPUT, ModelCard

Device = Literal["auto", "cpu", "cuda"]
TENSOR_TYPES = {"tensor(uint8)": "UINT8", "tensor(float)": "FP32"}
OUTPUT_TYPES = dict.fromkeys(("scores", "cam", "logits"), "tensor(float)") | {"mask": "tensor(uint8)"}
CHANNELS = 3
MASK = "mask"
# With one of these instructions a CPU multiplies eight-bit integers faster than floats (x86: VNNI; ARM: dot products).
INTEGER_INSTRUCTIONS = {"avx512_vnni", "avx_vnni", "asimddp"}
# A clip that the range of the integers behind it makes needless is left out by these, and needed where floats take their place.
CLIPS_BY_INTEGERS = ["ClipQuantRewrite", "ReluQuantRewrite"]
# An input of more pixels than this many squares of the preferred size is large: a view at 1.5 times that size is not.
LARGE = 2.25
UINT8 = 2  # ONNX has this number for the element type of a mask.
CUDA_PROVIDER, CPU_PROVIDER = "CUDAExecutionProvider", "CPUExecutionProvider"


class Engine:
    """It is one model, with its card and its session. It holds no state of a request; `run` may be called from many threads.

    A model whose precision is int8 computes in integers on a CPU that has instructions for them, elsewhere in floats. Spinning is
    off: idle ONNX Runtime threads that spin take the cores from the neighbour that works.
    """

    def __init__(self, path: Path, *, device: Device = "auto", intra_op_threads: int = 1, whole: bool = False) -> None:
        """Load `path`. A segmenter's `mask` is left out of its graph, and `run` does not give it, unless the model is wanted `whole`:
        whoever wants a mask needs it at another size than the network's, and works it out from the logits
        (`app.inference.label_maps.segmentation`). It takes a tenth of the network's time.

        Raises:
            ModelCardError: not an ONNX file, or one that does not describe itself.
            DeviceError: `device` is "cuda" and ONNX Runtime did not take it.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise ModelCardError(f"{self.path} does not exist; a model is a file models/NAME/VERSION/model.onnx.")
        content = self.path.read_bytes()
        check_content(content, str(self.path))
        self.sha256 = hashlib.sha256(content).hexdigest()
        left_out: int | None = None
        if not whole:
            content, left_out = without_output(content, MASK)
        self._left_out = (
            {} if left_out is None else {MASK: "tensor(uint8)" if left_out == UINT8 else "tensor of another type"}
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = intra_op_threads
        options.inter_op_num_threads = 1
        # There would be one pattern for every size of photo, and the memory of each would be kept.
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = _providers(device)
        integers = providers == [CPU_PROVIDER] and has_integer_instructions()
        if not integers:  # The pairs of conversions that stand for integers are taken out.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
            options.add_session_config_entry("session.enable_quant_qdq_cleanup", "1")
        left_alone = [] if integers else CLIPS_BY_INTEGERS
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=providers, disabled_optimizers=left_alone
            )
        except Exception as error:  # ONNX Runtime raises classes of its own for a file that is no model
            if device == "cuda":
                raise DeviceError(f"{self.path} could not be loaded on CUDA: {error}. {_CUDA_REMEDY}") from error
            raise ModelCardError(f"{self.path} is not a model ONNX Runtime can load: {error}") from error
        self.card = self._read_card()
        self.providers: list[str] = self._session.get_providers()
        if device == "cuda" and CUDA_PROVIDER not in self.providers:
            raise DeviceError(f"{self.path}: ONNX Runtime fell back to {self.providers}. {_CUDA_REMEDY}")
        self._check_interface()

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Run a batch, uint8 RGB (N, H, W, 3). Returns the task's outputs by name (see `ModelCard.outputs`), but for what is left out.

        Raises WorkTimeError where the time of the work that this thread does is over (`app.inference.deadline`), or ends meanwhile,
        and ClientLeftError where nobody waits for it.
        """
        try:
            return self._run_in_time(images)
        finally:
            if self._is_large(images):
                self._give_memory_back()

    def _run_in_time(self, images: np.ndarray) -> dict[str, np.ndarray]:
        limit, options = deadline.current(), onnxruntime.RunOptions()
        if limit is None:
            return self._run(images, options)
        limit.check()
        with deadline.ending(options, limit):
            try:
                return self._run(images, options)
            except Exception:  # ONNX Runtime raises classes of its own, for a run that was ended too
                limit.check()
                raise

    def _run(self, images: np.ndarray, options: onnxruntime.RunOptions) -> dict[str, np.ndarray]:
        names = [name for name in self.card.outputs if name not in self._left_out]
        outputs = self._session.run(names, {IMAGE_INPUT: images}, options)
        if self._is_large(images):  # They lie in ONNX Runtime's memory, which is to be given back.
            outputs = [output.copy() for output in outputs]
        return dict(zip(names, outputs, strict=True))

    def _is_large(self, images: np.ndarray) -> bool:
        return self.providers == [CPU_PROVIDER] and images[..., 0].size > LARGE * self.card.preferred_size**2

    def _give_memory_back(self) -> None:
        """Have the system take back what a large input needed. ONNX Runtime does so at the end of a run, but for what lies around memory that
        is in use, such as that run's outputs: so it is one more run, of the smallest input, whose memory is numpy's.
        """
        image = np.zeros((1, MIN_INPUT_SIDE, MIN_INPUT_SIDE, CHANNELS), np.uint8)
        with suppress(Exception):  # A model that does not take so small an input keeps its memory.
            outputs = {
                name: np.empty_like(output) for name, output in self._run(image, onnxruntime.RunOptions()).items()
            }
            binding, options = self._session.io_binding(), onnxruntime.RunOptions()
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
            binding.bind_ortvalue_input(IMAGE_INPUT, onnxruntime.OrtValue.ortvalue_from_numpy(image))
            for name, output in outputs.items():
                binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(output))
            self._session.run_with_iobinding(binding, options)

    @property
    def interface(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Each output has a datatype, as the Open Inference Protocol names it, and a shape, with -1 where it varies."""
        nodes = {
            node.name: (TENSOR_TYPES[node.type], tuple(side if isinstance(side, int) else -1 for side in node.shape))
            for node in self._session.get_outputs()
            if node.name in self.card.outputs
        }
        nodes |= {name: (TENSOR_TYPES[kind], (-1, -1, -1)) for name, kind in self._left_out.items()}
        return {name: nodes[name] for name in self.card.outputs}

    def _read_card(self) -> ModelCard:
        try:
            metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        except UnicodeDecodeError as error:
            raise ModelCardError(f"{self.path}: its metadata are no text ({error}). Export the model again.") from error
        return ModelCard.from_metadata(metadata, str(self.path))

    def _check_interface(self) -> None:
        inputs = {node.name: node.type for node in self._session.get_inputs()}
        outputs = {node.name: node.type for node in self._session.get_outputs()} | self._left_out
        wanted = {name: OUTPUT_TYPES[name] for name in self.card.outputs}
        if inputs != {IMAGE_INPUT: "tensor(uint8)"} or not wanted.items() <= outputs.items():
            raise ModelCardError(
                f"{self.path}: a {self.card.task} model takes {{'{IMAGE_INPUT}': 'tensor(uint8)'}} and gives {wanted}; this "
                f"file takes {inputs} and gives {outputs}. Export it as docs/onnx-contract.md says."
            )
        (image,) = self._session.get_inputs()
        batch, height, width, channels = (*image.shape, *[None] * 4)[:4]
        fixed = [side for side in (batch, height, width) if isinstance(side, int)]
        if len(image.shape) != 4 or fixed or (channels != CHANNELS and isinstance(channels, int)):
            raise ModelCardError(
                f"{self.path}: its input '{IMAGE_INPUT}' has shape {image.shape}; (N, H, W, 3) with N, H and W dynamic is "
                f"expected. Export it with dynamic axes, as docs/onnx-contract.md says."
            )


_CUDA_REMEDY = (
    "Install the 'gpu' extra (onnxruntime-gpu with its CUDA and cuDNN packages) on a machine with an NVIDIA driver, "
    "or set TAG2MASK_DEVICE=cpu."
)


def has_integer_instructions(cpu: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the CPU multiplies eight-bit integers faster than floats; where nobody says, ARM does and others do not."""
    try:
        return not INTEGER_INSTRUCTIONS.isdisjoint(cpu.read_text().split())
    except OSError:
        return platform.machine().lower() in ("arm64", "aarch64")


def _providers(device: Device) -> list[str]:
    """Return the providers to ask ONNX Runtime for; it names those it took in `Engine.providers`."""
    available = onnxruntime.get_available_providers()
    if device == "cpu" or (device == "auto" and CUDA_PROVIDER not in available):
        return [CPU_PROVIDER]
    if CUDA_PROVIDER not in available:
        raise DeviceError(f"TAG2MASK_DEVICE=cuda, but ONNX Runtime offers only {available}. {_CUDA_REMEDY}")
    if hasattr(onnxruntime, "preload_dlls"):  # It finds the CUDA and cuDNN libraries of the installed NVIDIA packages.
        onnxruntime.preload_dlls()
    return [CUDA_PROVIDER, CPU_PROVIDER]
