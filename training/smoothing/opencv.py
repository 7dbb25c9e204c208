"""OpenCV makes some estimates and refinements; the extra `saliency` brings it."""

import contextlib
import importlib
from types import ModuleType

from app.inference.errors import ConfigError


def load_opencv() -> ModuleType:
    """Return OpenCV with its contributed modules. Raises ConfigError where they are not installed."""
    cv2 = None
    with contextlib.suppress(ImportError):
        cv2 = importlib.import_module("cv2")
    if cv2 is None or not hasattr(cv2, "saliency") or not hasattr(cv2, "ximgproc"):  # Plain OpenCV has the same name.
        raise ConfigError(
            'estimates of saliency and graph cuts need the extra `saliency`: pip install ".[saliency]" in the checkout'
        )
    return cv2
