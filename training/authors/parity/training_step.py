"""Two whole training steps are compared with those of the authors' code: losses, gradients, and what the optimiser made of them.

Both sides compute in float64 with dropout off: in float32 a rounding flips a ReLU here and there, which alone changes a
gradient by a thousandth. The second step shows what the first cannot, momentum and the decay of the rate. Tensors are
listed under the authors' names, each once, in the order of the names.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from training.authors.parity.reference import Claim, Claims, Reference
from training.config.learning import FitConfig
from training.fit.optimizer import Learner, learning_rate_factor, make_optimizer, set_learning_rates

STEPS = 2
SAMPLES = 8  # So many entries of a tensor are compared, from its first to its last.
STEP = 1e-5
SMALL_NUMBERS = 1e-4

State = dict[str, Tensor]


@dataclass(frozen=True)
class Training:
    """It says how the authors' script trains.

    total_steps: of the run that the two begin. parts: names of the losses to compare. uncounted: the last parts of names of
    tensors that no optimiser moves and ours moves otherwise.
    """

    fit: FitConfig
    total_steps: int
    parts: tuple[str, ...] = ("loss",)
    uncounted: tuple[str, ...] = ()


def training_claims(
    reference: Reference,
    model: str,
    convert: Callable[[State], State],
    network: nn.Module,
    batch: dict[str, Tensor],
    training: Training,
) -> Claims:
    """Train `network`, filled as the authors' `model`, on `batch` for two steps; what came out, as the fixtures hold it."""
    state = reference.state(model)
    network.load_state_dict(convert(state))
    network.double().train()
    for module in network.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    losses, norms = two_steps(cast(Learner, network), {key: value.double() for key, value in batch.items()}, training)
    for part in training.parts:
        yield Claim(part, [step[part] for step in losses], STEP)
    yield Claim("gradient_norm", norms, STEP)
    end = by_authors_names(network.state_dict(), state, convert, ("num_batches_tracked", *training.uncounted))
    sizes, updates = [], []
    for name, tensor in end.items():
        update = tensor - state[name].reshape(tensor.shape)
        sizes.append(float(update.norm()))
        updates.append(sample(update) / (sizes[-1] / len(update.flatten()) ** 0.5 or 1))
    changed = np.array(sizes) > 0
    yield Claim("changed", changed, 0)
    yield Claim("update_log", np.log(np.where(changed, sizes, 1)), SMALL_NUMBERS)
    yield Claim("update", np.stack(updates), SMALL_NUMBERS)
    yield Claim("weights", np.stack([sample(tensor) for tensor in end.values()]), STEP)


def two_steps(network: Learner, batch: State, training: Training) -> tuple[list[dict[str, float]], list[list[float]]]:
    """Return the losses of two steps, and the norms of the gradients of each of the optimiser's groups."""
    optimizer = make_optimizer(network, training.fit)
    losses, norms = [], []
    for step in range(STEPS):
        set_learning_rates(optimizer, training.fit, learning_rate_factor(step, training.total_steps, training.fit))
        parts = network.losses(batch)
        optimizer.zero_grad()
        parts["loss"].backward()
        losses.append({name: float(value.detach()) for name, value in parts.items()})
        norms.append([gradient_norm(group["params"]) for group in optimizer.param_groups])
        optimizer.step()
    return losses, norms


def gradient_norm(parameters: Sequence[nn.Parameter]) -> float:
    """Return the norm of all gradients together."""
    squares = [parameter.grad.square().sum() for parameter in parameters if parameter.grad is not None]
    return float(torch.stack(squares).sum().sqrt())


def sample(tensor: Tensor) -> np.ndarray:
    """Return evenly spaced entries of a tensor, (SAMPLES,)."""
    flat = tensor.flatten()
    return flat[torch.arange(SAMPLES) * (len(flat) - 1) // (SAMPLES - 1)].numpy()


def by_authors_names(ours: State, state: State, convert: Callable[[State], State], uncounted: tuple[str, ...]) -> State:
    """Return our tensors by the authors' names in `state`, in their order; names that end in one of `uncounted` are
    left out.

    Which is which shows where `convert` puts tensors that are each filled with a number of their own. A row of ours may be
    a tensor of theirs, and several names of theirs may be one tensor (an alias), which then has the first.
    """
    names = {id(state[name]): name for name in sorted(state, reverse=True)}
    numbers = {name: number for number, name in enumerate(sorted(names.values()))}
    marks = convert({
        name: torch.tensor(numbers[names[id(tensor)]]).expand(tensor.shape) for name, tensor in state.items()
    })  # fmt: skip
    found: State = {}
    for key, tensor in ours.items():
        whole = bool((marks[key] == marks[key].flatten()[0]).all())
        for rows, value in [(marks[key], tensor)] if whole else zip(marks[key], tensor, strict=True):
            found[list(numbers)[int(rows.flatten()[0])]] = value
    return {name: found[name] for name in sorted(found) if not name.endswith(uncounted)}
