"""The one training loop trains any module with losses, on a CPU, a GPU or several, resumable to the bit.

A batch, and so a step, is a function of (seed, epoch, batch number); the checkpoint holds the rest: weights, optimiser,
progress and the state of torch's generators. (With 16-bit floats of a GPU the loss scale starts afresh; on a CPU several
processes differ from one in the statistics of batch normalisation.)
"""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from app.inference.errors import ConfigError, Tag2MaskError
from training.checkpoint import load_checkpoint, save_checkpoint
from training.config.learning import FitConfig
from training.data.sampling import EpochSampler
from training.fit.log import Log
from training.fit.optimizer import Learner, learning_rate_factor, make_optimizer, set_learning_rates

CHECK_CLOCK = 4  # The clock is looked at every this many steps.
Metrics = dict[str, float]


class Views(Protocol):
    """Training takes these: a number of photos, and a dict of tensors for a key (epoch, index)."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]: ...


@dataclass
class Progress:
    """It says where a run stands."""

    epoch: int = 0
    batch: int = 0  # It counts within the epoch.
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def fit(
    fabric: Fabric,
    module: Learner,
    dataset: Views,
    config: FitConfig,
    out: Path,
    *,
    validate: Callable[[nn.Module], Metrics] | None = None,
    sampler: EpochSampler | None = None,
) -> Progress:
    """Train `module` (a `Learner`) and leave `last.ckpt`, `log.csv` and TensorBoard events in `out`.

    Args:
        dataset: gives a dict of tensors for a key (epoch, index).
        validate: measures after every epoch, in the first process alone.
        sampler: the order of the photos, made for this process; every photo once an epoch where None.

    With `epochs = 0` nothing is trained or written. Where `out` holds a `last.ckpt`, training goes on from there. Returns the progress with the figures per epoch.
    """
    if config.batch_size % fabric.world_size:
        raise ConfigError(f"batch_size {config.batch_size} must be a multiple of the {fabric.world_size} processes")
    if not config.epochs:
        return Progress()
    torch.manual_seed(config.seed)
    assert isinstance(module, nn.Module)
    network: nn.Module = module.to(memory_format=torch.channels_last)
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    wrapped, optimizer = fabric.setup(network, make_optimizer(module, config))
    wrapped.mark_forward_method("losses")
    sampler = sampler or EpochSampler(
        len(dataset), config.batch_size, config.seed, fabric.global_rank, fabric.world_size
    )
    loader: DataLoader[Any] = DataLoader(
        cast(Dataset[Any], dataset),
        config.batch_size // fabric.world_size,
        sampler=sampler,
        num_workers=config.workers,
        drop_last=True,
        generator=torch.Generator(),  # Starting an epoch must not move torch's own generator.
    )
    batches = fabric.setup_dataloaders(loader, use_distributed_sampler=False)
    loop = _Loop(fabric, wrapped, optimizer, sampler, batches, config, out, validate)
    loop.resume()
    loop.run()
    return loop.progress


@dataclass
class _Loop:
    fabric: Fabric
    module: Any
    optimizer: Any
    sampler: EpochSampler
    loader: Any
    config: FitConfig
    out: Path
    validate: Callable[[nn.Module], Metrics] | None
    progress: Progress = field(default_factory=Progress)

    def resume(self) -> None:
        path = self.out / "last.ckpt"
        if path.is_file():
            state = self._state()
            load_checkpoint(self.fabric, path, state)
            noted = state["progress"]  # An older release noted more.
            self.progress = Progress(**{name: noted[name] for name in vars(self.progress)})
            torch.set_rng_state(state["rng"].cpu())
            if "cuda_rng" in state:
                torch.cuda.set_rng_state(state["cuda_rng"].cpu())

    def run(self) -> None:
        total = self.config.epochs * self.sampler.batches
        if self.config.max_steps:
            total = min(total, self.config.max_steps)
        bar = tqdm(
            total=total, initial=self.progress.step, desc=self.out.name, unit="step", dynamic_ncols=True,
            disable=not self.fabric.is_global_zero, mininterval=5,
        )  # fmt: skip
        with closing(Log(self.out, self.progress.step, self.fabric.is_global_zero)) as log, closing(bar):
            while self.progress.step < total:
                self._epoch(total, log, bar)

    def _epoch(self, total: int, log: Log, bar: tqdm) -> None:
        progress = self.progress
        self.sampler.seek(progress.epoch, progress.batch)
        self.module.train()
        saved = time.monotonic()
        for batch in self.loader:
            factor = learning_rate_factor(progress.step, total, self.config)
            losses = self._step(batch, factor)
            progress.step, progress.batch = progress.step + 1, progress.batch + 1
            bar.set_postfix(loss=f"{losses['loss']:.3f}", epoch=progress.epoch, refresh=False)
            bar.update()
            if progress.step % self.config.log_every == 0:
                log.write(progress.step, progress.epoch, {"lr": self.config.lr * factor} | self._mean(losses))
            if progress.step >= total:
                break
            if progress.step % CHECK_CLOCK == 0 and self._due(saved):
                self._save("last.ckpt")
                saved = time.monotonic()
        self._end_epoch(log)

    def _due(self, saved: float) -> bool:
        """Tell whether it is time for a checkpoint, by the clock of the first process."""
        return self.fabric.broadcast(time.monotonic() - saved > self.config.checkpoint_seconds)

    def _step(self, batch: dict[str, Tensor], factor: float) -> dict[str, float]:
        set_learning_rates(self.optimizer, self.config, factor)
        with self.fabric.autocast():  # Fabric wraps `forward` alone in it where there is one process.
            losses = self.module.losses(batch)
        self._require_finite(losses["loss"].detach(), factor)
        self.optimizer.zero_grad()
        self.fabric.backward(losses["loss"])
        if self.config.clip_norm:
            self.fabric.clip_gradients(self.module, self.optimizer, max_norm=self.config.clip_norm)
        self.optimizer.step()
        return {name: float(value.detach()) for name, value in losses.items()}

    def _mean(self, losses: dict[str, float]) -> dict[str, float]:
        """Return the losses of the whole batch: the mean over the processes, which have equal shares of it."""
        values = torch.tensor([*losses.values()], dtype=torch.float64, device=self.fabric.device)
        means = cast(Tensor, self.fabric.all_reduce(values, reduce_op="mean"))
        return dict(zip(losses, means.tolist(), strict=True))

    def _require_finite(self, loss: Tensor, factor: float) -> None:
        """Raise ConfigError in every process where the loss of one is not finite: one that went on would wait for ever."""
        finite = bool(torch.isfinite(loss))
        broken = self.fabric.all_reduce(torch.zeros_like(loss) if finite else torch.ones_like(loss), reduce_op="sum")
        if not cast(Tensor, broken):
            return
        where = "of another process is not finite" if finite else f"became {float(loss)}"
        raise ConfigError(
            f"the loss {where} at step {self.progress.step} with lr {self.config.lr * factor:.2g}; lower fit.lr or raise "
            f"fit.warmup_steps"
        )

    def _measured(self, validate: Callable[[nn.Module], Metrics]) -> Metrics:
        """Return the figures of the first process, which alone measures; its error, where it has one, is raised in all."""
        outcome: Metrics | Tag2MaskError = {}
        if self.fabric.is_global_zero:
            try:
                with torch.no_grad(), self.fabric.autocast():
                    outcome = validate(self.module.module)  # The bare module does not wait for the other processes.
            except Tag2MaskError as error:
                outcome = error
        outcome = self.fabric.broadcast(outcome)
        if isinstance(outcome, Tag2MaskError):
            raise outcome
        return outcome

    def _end_epoch(self, log: Log) -> None:
        progress = self.progress
        progress.epoch, progress.batch = progress.epoch + 1, 0
        metrics: Metrics = {}
        if self.validate is not None:
            self.module.eval()
            metrics = self._measured(self.validate)
            log.write(progress.step, progress.epoch, metrics)
            progress.history.append({"epoch": progress.epoch, "step": progress.step, **metrics})
            if self.fabric.is_global_zero:
                shown = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
                tqdm.write(f"{self.out.name}: epoch {progress.epoch}: {shown}")
        self._save("last.ckpt")

    def _state(self) -> dict[str, Any]:
        state = {
            "module": self.module,
            "optimizer": self.optimizer,
            "progress": vars(self.progress),
            "rng": torch.get_rng_state(),
        }
        if self.fabric.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state()
        return state

    def _save(self, name: str) -> None:
        save_checkpoint(self.fabric, self.out / name, self._state())
