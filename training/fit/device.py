"""A run works on these devices, in the processes that torchrun started."""

import os

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException

from app.inference.errors import ConfigError
from training.config.learning import FitConfig


def make_fabric(config: FitConfig) -> Fabric:
    """Return one device, or as many processes as torchrun started. Raises ConfigError where the device cannot be had."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    nodes = int(os.environ.get("WORLD_SIZE", 1)) // local
    try:
        fabric = Fabric(accelerator=config.accelerator, devices=local, num_nodes=nodes, precision=config.precision)
        fabric.launch()
    except (RuntimeError, ValueError, MisconfigurationException) as error:
        raise ConfigError(f"fit.accelerator = {config.accelerator!r} with {local} devices: {error}") from None
    return fabric


def own_device(config: FitConfig) -> torch.device:
    """Return the device of a process that works for itself, also where torchrun started others beside it."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return Fabric(accelerator=config.accelerator, devices=1).device
    if config.accelerator == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
