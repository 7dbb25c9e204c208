"""How fast training and localization are: `fit` beside the bare forward and backward loop, and views in batches beside one at a time."""

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.inference.maps.class_conditional import ConditionalOptions
from app.inference.maps.localization import ScaleCams, conditional_cams, scale_cams
from training.config.learning import FitConfig, ViewConfig
from training.config.run_config import RunConfig
from training.data import TaggedPhotos, open_source
from training.data.scenes import write_folder
from training.data.views import TaggedViews
from training.fit.device import make_fabric
from training.fit.loop import fit
from training.fit.optimizer import make_optimizer
from training.methods import Classifier
from training.stages.classifier import build_classifier, torch_classifier

BATCH = 8
STEPS = 3  # of a turn
PHOTOS = 64
SIDE = 320  # px, of the photos
# The recipe of the shipped maps has these.
CLASSIFIER = {"method": "cam", "backbone": "timm/tf_efficientnet_lite0", "output_stride": 16}
LOCALIZE = {"preferred_size": SIDE, "scales": [0.75, 1.0, 1.4], "flip": True}
VIEWS = ViewConfig(long_side=(256, 320), crop=288)


def training_ratios(rounds: int) -> dict[str, dict[str, float | str]]:
    """Return images a second of `fit` and of its loader beside those of the bare loop, and what batches of views gain, at which difference."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        scenes = {"source": "scenes", "scenes": {"count": PHOTOS, "val_count": 1, "size": SIDE}}
        config = RunConfig.model_validate(
            {"name": "bench", "out": folder, "data": scenes, "classifier": CLASSIFIER, "localize": LOCALIZE}
        )
        root = write_folder(config.data, Path(folder) / "photos")
        photos = open_source(config.data.model_copy(update={"source": "folder", "root": root}))
        classifier = build_classifier(config.classifier, len(photos.classes))
        table = fit_ratios(classifier, photos, Path(folder), rounds)
        return table | view_ratios(config, classifier, photos, rounds)


def fit_ratios(classifier: Classifier, photos: TaggedPhotos, out: Path, rounds: int) -> dict[str, dict[str, Any]]:
    """Return how `fit`, which reads its photos itself here, and its loader alone compare with steps on batches that are there already."""
    views = TaggedViews(photos, photos.names("train"), VIEWS, 0)
    turns: dict[str, list[float]] = {"loop": [], "fit": [], "loader": []}
    for number in range(rounds):
        batches = [batch_of(views, step) for step in range(STEPS)]
        turns["loop"].append(BATCH * STEPS / cpu_seconds(partial(bare_steps, classifier, batches)))
        # A run's beginning and end, with its checkpoint, come once in minutes: two runs of different length leave them out.
        short, long = (
            cpu_seconds(partial(fit_steps, classifier, views, steps, out / f"{number}-{steps}"))
            for steps in (1, 1 + STEPS)
        )
        turns["fit"].append(BATCH * STEPS / (long - short))
        turns["loader"].append(BATCH * STEPS / cpu_seconds(lambda: [batch_of(views, step) for step in range(STEPS)]))
    return {
        "fit, with its loader": {
            "rate / loop": statistics.median(own / loop for own, loop in zip(turns["fit"], turns["loop"], strict=True))
        },
        "the loader alone": {
            "rate / loop": statistics.median(
                own / loop for own, loop in zip(turns["loader"], turns["loop"], strict=True)
            )
        },
    }


def batch_of(views: TaggedViews, step: int) -> dict[str, torch.Tensor]:
    """Return a batch as the loader makes it."""
    items = [views[0, (BATCH * step + place) % len(views)] for place in range(BATCH)]
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}


def bare_steps(classifier: Classifier, batches: list[dict[str, torch.Tensor]]) -> None:
    """Do forward, backward and the optimiser's step, and nothing else."""
    module = classifier.train().to(memory_format=torch.channels_last)
    optimizer = make_optimizer(module, FitConfig())
    for batch in batches:
        losses = module.losses(batch)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()


def fit_steps(classifier: Classifier, views: TaggedViews, steps: int, out: Path) -> None:
    """Do so many steps by `fit`."""
    config = FitConfig(epochs=steps, max_steps=steps, batch_size=BATCH, accelerator="cpu")
    fit(make_fabric(config), classifier, views, config, out)


def view_ratios(
    config: RunConfig, classifier: Classifier, photos: TaggedPhotos, rounds: int
) -> dict[str, dict[str, Any]]:
    """Return how much faster maps are where views of one size go to the network together, and how far the maps differ."""
    model = torch_classifier(config, photos.classes, classifier)
    apart = OneByOne(model)
    image = photos.image(photos.names("train")[0])
    few = ConditionalOptions(rounds=2)
    ways: dict[str, tuple[Callable[[], ScaleCams], Callable[[], ScaleCams]]] = {
        "plain maps, views in batches": (lambda: scale_cams(model, image), lambda: scale_cams(apart, image)),
        "class-conditional maps, views in batches": (
            lambda: conditional_cams(model, image, (0,), few),
            lambda: conditional_cams(apart, image, (0,), few),
        ),
    }
    table: dict[str, dict[str, Any]] = {}
    for name, (together, singly) in ways.items():
        ratios = [cpu_seconds(singly) / cpu_seconds(together) for _ in range(rounds)]
        pairs = zip(together().cams, singly().cams, strict=True)
        furthest = max(float(np.abs(one - other).max()) for one, other in pairs)
        table[name] = {"rate / one at a time": statistics.median(ratios), "largest difference": f"{furthest:.1e}"}
    return table


class OneByOne:
    """It is a model that looks at the images of a batch one after the other."""

    def __init__(self, model: Any) -> None:
        self.model, self.card = model, model.card

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        answers = [self.model.run(image[None]) for image in images]
        return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of something; the first time of anything is not measured."""
    start = time.process_time()
    work()
    return time.process_time() - start
