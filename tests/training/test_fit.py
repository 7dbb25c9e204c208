"""The loop: resuming equals an uninterrupted run, two processes equal one, bad numbers stop it with a remedy."""

import csv
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from app.inference.errors import ConfigError
from tests.training.line import Line, Points
from training.config.learning import FitConfig
from training.data.sampling import EpochSampler, repeat_factors
from training.fit.device import make_fabric
from training.fit.loop import fit
from training.fit.optimizer import learning_rate_factor


@contextmanager
def room(for_bytes: int) -> Iterator[None]:
    """Files of more bytes are refused, as a full disk refuses them."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (for_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def train(out: Path, **changes: object) -> dict[str, Tensor]:
    config = FitConfig(**({"epochs": 3, "batch_size": 8, "lr": 0.05, "accelerator": "cpu"} | changes))
    torch.manual_seed(0)
    model = Line()
    fit(make_fabric(config), model, Points(), config, out)
    return model.state_dict()


def test_resuming_equals_an_uninterrupted_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(tmp_path / "whole")
    steps = 0
    original = Line.losses

    def stopped(self: Line, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        nonlocal steps
        steps += 1
        if steps == 9:  # in the middle of the second epoch
            raise KeyboardInterrupt
        return original(self, batch)

    monkeypatch.setattr(Line, "losses", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", checkpoint_seconds=0.0)
    monkeypatch.setattr(Line, "losses", original)
    resumed = train(tmp_path / "parts", checkpoint_seconds=0.0)
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key
    log = (tmp_path / "parts" / "log.csv").read_text().splitlines()
    assert log[0] == "step,epoch,name,value"


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = train(tmp_path)
    again = train(tmp_path)
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_a_checkpoint_of_an_older_release_which_noted_more_goes_on(tmp_path: Path) -> None:
    even = {"schedule": "step", "milestones": ()}
    train(tmp_path / "run", epochs=1, **even)
    path = tmp_path / "run" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["progress"]["best"] = 1.0
    torch.save(checkpoint, path)
    resumed, whole = train(tmp_path / "run", **even), train(tmp_path / "whole", **even)
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)


def test_an_infinite_loss_stops_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lower fit\.lr"):
        train(tmp_path, lr=1e20)


def test_mixed_precision_reaches_the_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = Line.losses

    def noted(self: Line, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append(self.net[0](batch["x"]).dtype)
        return original(self, batch)

    monkeypatch.setattr(Line, "losses", noted)
    train(tmp_path / "full", max_steps=1)
    train(tmp_path / "mixed", max_steps=1, precision="bf16-mixed")
    assert seen == [torch.float32, torch.bfloat16]


def test_a_device_that_is_not_there_is_an_error_of_the_configuration() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ConfigError, match=r"fit\.accelerator = 'cuda'"):
        make_fabric(FitConfig(accelerator="cuda"))


PROGRAM = """
import os, signal, sys, torch
from app.inference.errors import ConfigError
from pathlib import Path
sys.path.insert(0, ".")
from tests.training.line import Line, Points
from training.config.learning import FitConfig
from training.fit.device import make_fabric
from training.fit.loop import fit
config = FitConfig(epochs=2, batch_size=8, lr=0.05, accelerator="cpu", log_every=1, checkpoint_seconds=0)
fabric = make_fabric(config)
torch.manual_seed(0)
model = Line()
model.net[2] = torch.nn.Identity()
out, mortal, rank = Path(sys.argv[1]), sys.argv[2:] == ["mortal"], fabric.global_rank

class Mortal(Line):
    # Its last process is killed once, in the middle of the second epoch.
    steps = 0

    def losses(self, batch):
        self.steps += 1
        if self.steps == 8 and rank and not (out / "killed").exists():
            (out / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().losses(batch)

if mortal:
    model.__class__ = Mortal

def validate(module):
    with (out / f"measured-{rank}").open("a") as file:
        file.write("once ")
    return {"map": 1.0}

fit(fabric, model, Points(), config, out, validate=validate)
if fabric.is_global_zero:
    torch.save(model.state_dict(), out / "weights.pt")

class Broken(Line):
    def losses(self, batch):
        return {"loss": super().losses(batch)["loss"] * (torch.inf if rank == 1 else 1)}

def refuse(module):
    raise ConfigError("no figures")

for name, module, measure in (("broken", Broken(), None), ("refused", Line(), refuse)):
    if fabric.world_size > 1 and not mortal:
        try:
            fit(fabric, module, Points(), config, out / name, validate=measure)
        except ConfigError as error:
            (out / f"{name}-{rank}").write_text(str(error))
"""


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process and what two of them leave in `one` and `two`; a process that waits for ever fails here."""
    tmp_path = tmp_path_factory.mktemp("processes")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = f"127.0.0.1:{free.getsockname()[1]}"
    node = [
        *torchrun,
        "--nnodes=2",
        "--nproc-per-node=1",
        "--max-restarts=2",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={meeting}",
    ]
    starts = {
        "one": [[sys.executable]],
        "two": [[*torchrun, "--standalone", "--nproc-per-node=2"]],
        "nodes": [[*node, "--local-addr=127.0.0.1"]] * 2,  # a process on each of two nodes, one of which is killed
    }
    # Else processes that start again meet at what those before them left in torchrun's store, and may wait for ever.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ".", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    for name, commands in starts.items():
        (tmp_path / name).mkdir()
        arguments = [str(program), str(tmp_path / name), *(["mortal"] if name == "nodes" else [])]
        started = [
            subprocess.Popen(
                [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
            )
            for command in commands
        ]
        try:
            for process in started:
                said, _ = process.communicate(timeout=240)
                assert process.returncode == 0, said
        finally:
            for process in started:  # torchrun ends those that it started.
                process.terminate()
                process.communicate(timeout=60)
    return tmp_path


@pytest.mark.parametrize("several", ["two", "nodes"])
def test_several_processes_equal_one(processes: Path, several: str) -> None:
    """Weights and the logged losses are those of one process, also where a process died and torchrun started it again."""
    one, two = (torch.load(processes / name / "weights.pt", weights_only=True) for name in ("one", several))
    for key in one:
        assert torch.allclose(one[key], two[key], atol=1e-6), key
    logs = [logged_losses(processes / name / "log.csv") for name in ("one", several)]
    assert len(logs[0]) == 10
    assert logs[1] == pytest.approx(logs[0], abs=1e-5)
    assert (processes / "nodes" / "killed").exists()


def logged_losses(path: Path) -> dict[str, float]:
    """The loss of every step."""
    with path.open(newline="") as file:
        return {row["step"]: float(row["value"]) for row in csv.DictReader(file) if row["name"] == "loss"}


def test_what_stops_one_process_stops_all(processes: Path) -> None:
    stopped = [(processes / "two" / f"broken-{rank}").read_text() for rank in (0, 1)]
    assert "the loss of another process is not finite" in stopped[0]
    assert "the loss became inf" in stopped[1]
    assert [(processes / "two" / f"refused-{rank}").read_text() for rank in (0, 1)] == ["no figures"] * 2


def test_the_first_process_alone_measures(processes: Path) -> None:
    assert (processes / "two" / "measured-0").read_text() == "once once "
    assert not (processes / "two" / "measured-1").exists()


def test_learning_rate_schedules() -> None:
    poly = FitConfig(schedule="poly", warmup_steps=10)
    assert learning_rate_factor(0, 110, poly) == pytest.approx(1 / 11)
    assert learning_rate_factor(10, 110, poly) == 1
    warm = FitConfig(schedule="poly", warmup_steps=10, warmup_start=0.1)
    assert [learning_rate_factor(s, 110, warm) for s in (0, 5, 10)] == pytest.approx([0.1, 0.55, 1])
    assert learning_rate_factor(60, 110, poly) == pytest.approx(0.5**0.9)
    cosine = FitConfig(schedule="cosine")
    assert learning_rate_factor(50, 100, cosine) == pytest.approx(0.5)
    step = FitConfig(schedule="step", milestones=(0.5, 0.75))
    assert [learning_rate_factor(s, 100, step) for s in (49, 50, 75)] == pytest.approx([1, 0.1, 0.01])


def test_sampler_visits_every_photo_once_and_shares_batches() -> None:
    whole = EpochSampler(40, 8, seed=1)
    whole.seek(3)
    keys = list(whole)
    assert sorted(index for _, index in keys) == list(range(40))
    shares = []
    for rank in (0, 1):
        part = EpochSampler(40, 8, seed=1, rank=rank, world=2)
        part.seek(3)
        shares.append(list(part))
    for batch in range(5):
        together = {k for share in shares for k in share[4 * batch : 4 * batch + 4]}
        assert together == set(keys[8 * batch : 8 * batch + 8])


def test_repeat_factors_by_hand() -> None:
    image_labels = torch.zeros(100, 2)
    image_labels[:, 0] = 1
    image_labels[0, 1] = 1
    factors = repeat_factors(image_labels.numpy(), 0.04)
    assert factors[0] == pytest.approx(2)  # sqrt(.04 / .01)
    assert (factors[1:] == 1).all()


def test_losses_and_figures_are_in_the_list_and_in_tensorboard(tmp_path: Path) -> None:
    train(tmp_path, epochs=1, log_every=2)
    (events,) = (tmp_path / "tensorboard").iterdir()
    read = EventAccumulator(str(events)).Reload()
    rows = csv.DictReader((tmp_path / "log.csv").read_text().splitlines())
    listed = {(row["name"], int(row["step"])): float(row["value"]) for row in rows}
    shown = {(tag, event.step): event.value for tag in read.Tags()["scalars"] for event in read.Scalars(tag)}
    assert shown == pytest.approx(listed, rel=1e-4)
    assert ("loss", 2) in listed


@pytest.mark.parametrize(
    ("bytes_left", "log_every", "refused"),
    [(300, 1, "tensorboard/events*"), (1000, 1000, "last.ckpt")],
)
def test_a_full_disk_names_the_file_and_the_same_command_goes_on(
    tmp_path: Path, bytes_left: int, log_every: int, refused: str
) -> None:
    with room(bytes_left), pytest.raises(OSError, match="File too large") as raised:
        train(tmp_path / "run", log_every=log_every)
    assert Path(raised.value.filename).match(f"run/{refused}")
    assert not (tmp_path / "run" / "last.ckpt").exists()
    assert not list(tmp_path.rglob("*.partial"))
    resumed, whole = train(tmp_path / "run"), train(tmp_path / "whole")
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)
