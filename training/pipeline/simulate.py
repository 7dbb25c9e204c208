"""The verb `corrections simulate` says what corrected photos would be worth, in which order, where masks are there to tell.

The true masks of the first photos of an order stand for what people would draw; a photo whose mask lacks a class that it is
tagged with is passed over, for a person who corrects it would draw that. The segmenter goes on with them as
`corrections learn` does, and is measured on the report split. Every cell of the table is a folder with its figures, so that
a simulation that was stopped goes on, and can be carried on with more orders, counts or seeds.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from app.inference.engine import Engine
from app.inference.errors import ConfigError
from app.inference.files.whole_file import whole_file, write_whole
from app.inference.maps.localization import Model
from training.checkpoint import load_weights
from training.config.learn import SimulateConfig
from training.data import TaggedPhotos, open_source
from training.data.sampling import evenly_spaced
from training.masks.evaluate import served_confusion
from training.masks.supervised import whole_masks, write_ground_truth
from training.pipeline.orders import ORDERS, signs_of
from training.segmenters import Segmenter
from training.stages.go_on import START, go_on, newest_file, others_of, read_segmenter
from training.stages.last_layers import RememberingModel, Trunk

RESULT = "result.json"  # A cell's figures; a cell that has them is done.


@dataclass(frozen=True)
class Cell:
    """It is a cell of the table: how many photos are corrected, in which order, and the seed."""

    order: str
    count: int
    seed: int

    @property
    def folder(self) -> str:
        """The folder with its figures has this name."""
        return f"{self.order}-{self.count}-{self.seed}"


BEFORE = Cell("before", 0, 0)


def simulate(config: SimulateConfig) -> Path:
    """Do every cell that is not done, and write the table and the plot; returns the table's path."""
    if unknown := sorted(set(config.orders) - set(ORDERS)):
        raise ConfigError(f"orders: there is no {unknown[0]!r}; there are {', '.join(ORDERS)}")
    path = newest_file(config.model)
    segmenter, card = read_segmenter(path, config.out)
    config = config.model_copy(update={"data": config.data.model_copy(update={"classes": card.classes})})
    photos = open_source(config.data)
    pool = evenly_spaced(photos.names("train"), config.pool)
    cam, served = (Engine(file, device="cpu") for file in (newest_file(config.cam), path))
    signs = signs_of(cam, served, photos, pool, config.out / "signs.json")
    model, trunk = RememberingModel(segmenter, card), Trunk(segmenter, photos, card.preferred_size)
    for cell in (BEFORE, *cells(config)):
        if (config.out / cell.folder / RESULT).is_file():
            continue
        load_weights(config.out / START, segmenter)
        if cell.count:
            taught = whole_masks(config.data, photos, ORDERS[cell.order](signs, photos, cell.seed), cell.count)
            learn_cell(config, segmenter, trunk, photos, taught, cell)
        measure(config, model, photos, cell)
    return write_results(config)


def cells(config: SimulateConfig) -> Iterator[Cell]:
    """Yield every cell, those of the first seed first."""
    for seed in config.seeds:
        for count in config.counts:
            for order in config.orders:
                yield Cell(order, count, seed)


def learn_cell(
    config: SimulateConfig,
    segmenter: Segmenter,
    trunk: Trunk,
    photos: TaggedPhotos,
    taught: tuple[str, ...],
    cell: Cell,
) -> None:
    """Have the segmenter learn from the true masks of `taught`."""
    out = config.out / cell.folder
    write_ground_truth(config.data, photos, out / "corrected", taught)
    corrected = {name: out / "corrected" / f"{name}.png" for name in taught}
    others = others_of(photos, set(taught), config.photos)
    fit = config.fit.model_copy(update={"seed": cell.seed})
    go_on(segmenter, trunk, config.model_copy(update={"fit": fit}), corrected, others, out)


def measure(config: SimulateConfig, model: Model, photos: TaggedPhotos, cell: Cell) -> None:
    """Write the figures of a segmenter's masks, no tags given."""
    names = photos.names(config.split or photos.report_split)
    confusion = served_confusion(model, config.data, photos, names, cell.folder)
    iou = dict(zip(("background", *photos.classes), np.round(confusion.iou(), 2).tolist(), strict=True))
    figures = {"miou": round(confusion.miou(), 2), "iou": iou}
    write_whole(config.out / cell.folder / RESULT, json.dumps(asdict(cell) | figures, indent=1))


def write_results(config: SimulateConfig) -> Path:
    """Write `table.md` and `plot.svg` of the cells that are done."""
    before = json.loads((config.out / BEFORE.folder / RESULT).read_text())["miou"]
    results = [json.loads(path.read_text()) for path in sorted(config.out.glob(f"*-*/{RESULT}"))]
    results = [result for result in results if result["count"]]
    mious: dict[tuple[str, int], list[float]] = {}
    for result in results:
        mious.setdefault((result["order"], result["count"]), []).append(result["miou"])
    counts = sorted({count for _, count in mious})
    orders = [order for order in ORDERS if any(known == order for known, _ in mious)]
    lines = [f"| order | {' | '.join(f'{count} photos' for count in counts)} |", "|---" * (len(counts) + 1) + "|"]
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for order in orders:
        known = [(count, mious[order, count]) for count in counts if (order, count) in mious]
        lines.append(f"| {order} | {' | '.join(written(mious.get((order, count)), before) for count in counts)} |")
        means = [before, *(float(np.mean(values)) for _, values in known)]
        axis.plot([0, *(count for count, _ in known)], means, marker="o", label=order)
    axis.set(xlabel="photos corrected", ylabel="mean IoU in percent", xscale="symlog")
    axis.set_xticks([0, *counts], ["0", *map(str, counts)])
    axis.legend()
    with whole_file(config.out / "plot.svg") as partial:
        figure.savefig(partial, format="svg")
    table = config.out / "table.md"
    write_whole(table, "\n".join([f"Before any correction: {before:.2f}", "", *lines, ""]))
    return table


def written(values: list[float] | None, before: float) -> str:
    """Return a cell of the table: the mean over the seeds, what that is more than before, and the seeds' spread."""
    if values is None:
        return ""
    mean = float(np.mean(values))
    spread = f", {len(values)} seeds {min(values):.2f} to {max(values):.2f}" if len(values) > 1 else ""
    return f"{mean:.2f} ({mean - before:+.2f}{spread})"
