"""A model runs twice before it serves: these runs allocate its memory, and its answers are held against its card.

What can be wrong with a file that loads: channels that are not those of its classes, sizes fixed at the export, values that are
not finite, scores that are no probabilities. Each would otherwise fail one request after another, or answer wrongly.
"""

import numpy as np

from app.inference.engine import Engine
from app.inference.errors import ModelCardError, WorkTimeError
from app.inference.image.preprocess import geometry_of
from app.inference.labels import label_count

LANDSCAPE, PORTRAIT = (3, 4), (4, 3)  # It is (height, width).
SMALLER = 0.25  # The second run sees this share of the preferred size.
ROUNDING = 1e-3  # A score may leave [0, 1] by this much, which is rounding.


def warm(engine: Engine) -> None:
    """Run a grey landscape, then two smaller portraits: black, and noise. Raises ModelCardError, which names the file."""
    size = geometry_of(LANDSCAPE, engine.card.preferred_size)
    grey = np.full((1, size.input_height, size.input_width, 3), 127, np.uint8)
    size = geometry_of(PORTRAIT, engine.card.preferred_size, SMALLER)
    noise = np.random.default_rng(0).integers(0, 256, (size.input_height, size.input_width, 3), np.uint8)
    for images in (grey, np.stack([np.zeros_like(noise), noise])):
        try:
            outputs = engine.run(images)
        except WorkTimeError as error:
            raise ModelCardError(
                f"{engine.path} takes more than {error.details['limit']:g} seconds for its first runs "
                f"(TAG2MASK_MODEL_TRIAL_SECONDS). Export a smaller model, without loops that do not end."
            ) from None
        except Exception as error:  # ONNX Runtime raises classes of its own.
            raise ModelCardError(
                f"{engine.path} fails at images of shape {images.shape}: {_first_line(error)} Export it with dynamic sizes "
                f"(N, H and W), as docs/onnx-contract.md says."
            ) from error
        check_outputs(engine, images, outputs)


def check_outputs(engine: Engine, images: np.ndarray, outputs: dict[str, np.ndarray]) -> None:
    """Raise ModelCardError where outputs for uint8 images (N, H, W, 3) are not what the contract says."""
    card, shape = engine.card, images.shape
    channels = len(card.classes) if card.task == "cam" else label_count(len(card.classes))
    expected: dict[str, tuple[int | None, ...]] = {
        "scores": (shape[0], len(card.classes)),
        "cam": (shape[0], channels, None, None),
        "logits": (shape[0], channels, None, None),
    }
    for name, values in outputs.items():
        wanted = expected[name]
        fits = len(values.shape) == len(wanted) and values.size
        if not fits or any(want not in (None, side) for want, side in zip(wanted, values.shape, strict=True)):
            stated = ", ".join("any" if side is None else str(side) for side in wanted)
            raise _fault(
                engine, f"'{name}' has shape {values.shape} for images {shape}; for {len(card.classes)} classes ({stated}) is "
                f"expected"
            )  # fmt: skip
        if not np.isfinite(values).all():
            raise _fault(engine, f"'{name}' holds values that are not finite")
    if "scores" in outputs and not _within(outputs["scores"], 0, 1):
        low, high = outputs["scores"].min(), outputs["scores"].max()
        raise _fault(engine, f"'scores' go from {low:.3g} to {high:.3g}; they are probabilities, from 0 to 1")


def _within(values: np.ndarray, low: float, high: float) -> bool:
    return bool(low - ROUNDING <= values.min() and values.max() <= high + ROUNDING)


def _fault(engine: Engine, what: str) -> ModelCardError:
    return ModelCardError(f"{engine.path}: the output {what}. Export it anew, as docs/onnx-contract.md says.")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".") + "."
