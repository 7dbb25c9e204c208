"""A module gets its optimiser here, and its learning rate at every step."""

from typing import Any, Protocol

import torch
from torch import Tensor

from training.config.learning import FitConfig


class Learner(Protocol):
    """`fit` needs this of a module: losses of a batch (the entry "loss" is minimised) and groups of parameters.

    A group is {"params", "lr_scale" (times the base rate), and optionally "weight_decay"}.
    """

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]: ...

    def parameter_groups(self) -> list[dict[str, Any]]: ...


def learning_rate_factor(step: int, total: int, config: FitConfig) -> float:
    """Return the factor of the base rate at `step` of `total`: linear warm-up, then poly, cosine or stepwise decay.

    The warm-up begins with `warmup_start`; one from zero begins a step later, where its first would be wasted.
    """
    if step < config.warmup_steps:
        late = 0 if config.warmup_start else 1
        return config.warmup_start + (1 - config.warmup_start) * (step + late) / (config.warmup_steps + late)
    done = (step - config.warmup_steps) / max(1, total - config.warmup_steps)
    if config.schedule == "poly":
        return (1 - done) ** config.poly_power
    if config.schedule == "cosine":
        return float(0.5 * (1 + torch.cos(torch.tensor(torch.pi * done))))
    return 0.1 ** sum(step >= milestone * total for milestone in config.milestones)


def make_optimizer(module: Learner, config: FitConfig) -> torch.optim.Optimizer:
    """Return SGD or AdamW over the module's groups, each with its own share of the base rate."""
    groups = [
        {"weight_decay": config.weight_decay} | group | {"lr": config.lr * group["lr_scale"]}
        for group in module.parameter_groups()
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)
    return torch.optim.AdamW(groups, lr=config.lr)


def set_learning_rates(optimizer: torch.optim.Optimizer, config: FitConfig, factor: float) -> None:
    """Give every group its share of `factor` times the base rate."""
    for group in optimizer.param_groups:
        group["lr"] = config.lr * group["lr_scale"] * factor
