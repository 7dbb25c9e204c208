"""The verb `corrections simulate` says what corrected photos would be worth, in which order, where masks are there to tell.

The true masks of the first photos of an order stand for what people would draw; a photo whose mask lacks a class that it is
tagged with is passed over, for a person who corrects it would draw that. The segmenter goes on with them as
`corrections learn` does, and is measured on the report split. Every cell of the table is a folder with its figures, so that
a simulation that was stopped goes on, and can be carried on with more orders, counts or seeds.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from app.inference.engine import Engine
from app.inference.errors import ConfigError
from app.inference.files.whole_file import whole_file, write_whole
from app.inference.maps.localization import Model
from training.checkpoint import load_weights
from training.config.learn import SimulateConfig
from training.data import TaggedPhotos, open_source
from training.data.sampling import evenly_spaced
from training.masks.evaluate import measure_served
from training.masks.supervised import whole_masks, write_ground_truth
from training.pipeline.orders import ORDERS, Pool, Signs, signs_of
from training.segmenters import Segmenter
from training.stages.go_on import START, go_on, newest_file, others_of, read_segmenter
from training.stages.last_layers import RememberingModel, Trunk

RESULT = "result.json"  # A cell's figures; a cell that has them is done.
# The table and the plot have these figures, under these titles.
FIGURES = {"miou": "without tags", "tagged_miou": "tags given"}


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
    names = evenly_spaced(photos.names("train"), config.pool)

    def find_signs() -> Mapping[str, Signs]:
        cam, served = (Engine(file, device="cpu") for file in (newest_file(config.cam), path))
        return signs_of(cam, served, photos, names, config.out / "signs.json")

    pool = Pool(photos, names, find_signs)
    model, trunk = RememberingModel(segmenter, card), Trunk(segmenter, photos, card.preferred_size)
    for cell in (BEFORE, *cells(config)):
        if (config.out / cell.folder / RESULT).is_file():
            continue
        load_weights(config.out / START, segmenter)
        if cell.count:
            taught = whole_masks(config.data, photos, ORDERS[cell.order](pool, cell.seed), cell.count)
            learn_cell(config, segmenter, trunk, photos, taught, cell)
        measure(config, model, photos, cell)
    return write_results(config)


def cells(config: SimulateConfig) -> Iterator[Cell]:
    """Yield every cell, those of the first count first."""
    for count in config.counts:
        for seed in config.seeds:
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
    """Write the figures of a segmenter's masks, without tags and with them, and without them the IoU of each label."""
    figures, confusion = measure_served(model, config.data, photos, photos.names(config.split or photos.report_split))
    iou = dict(zip(("background", *photos.classes), np.round(confusion.iou(), 2).tolist(), strict=True))
    kept = {figure: figures[figure] for figure in FIGURES}
    write_whole(config.out / cell.folder / RESULT, json.dumps(asdict(cell) | kept | {"iou": iou}))


def write_results(config: SimulateConfig) -> Path:
    """Write `table.md`, `plot.svg` and `results.json` of the cells that are done; returns the table's path."""
    found = [json.loads(path.read_text()) for path in sorted(config.out.glob(f"*-*/{RESULT}"))]
    results = [result for result in found if result["count"]]
    (before,) = (result for result in found if not result["count"])
    counts = sorted({result["count"] for result in results})
    lines = []
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axis, (key, title) in zip(figure.subplots(1, len(FIGURES)), FIGURES.items(), strict=True):
        values: dict[str, dict[int, list[float]]] = {order: {} for order in ORDERS}
        for result in results:
            values[result["order"]].setdefault(result["count"], []).append(result[key])
        lines += [f"Mean IoU, {title}; before any correction: {before[key]:.2f}", ""]
        lines += [f"| order | {' | '.join(f'{count} photos' for count in counts)} |", "|---" * (len(counts) + 1) + "|"]
        for order, known in values.items():
            if known:
                cells_of = (written(known.get(count), before[key]) for count in counts)
                lines.append(f"| {order} | {' | '.join(cells_of)} |")
                draw(axis, order, {0: [before[key]], **known})
        lines.append("")
        axis.set(title=title, xlabel="photos corrected", ylabel="mean IoU in percent", xscale="symlog")
        axis.set_xticks([0, *counts], ["0", *map(str, counts)])
        axis.legend()
    with whole_file(config.out / "plot.svg") as partial:
        figure.savefig(partial, format="svg")
    write_whole(config.out / "results.json", "[\n" + ",\n".join(map(json.dumps, found)) + "\n]\n")
    table = config.out / "table.md"
    write_whole(table, "\n".join(lines))
    return table


def draw(axis: Axes, order: str, values: Mapping[int, list[float]]) -> None:
    """Draw the mean over the seeds against the number of photos, with a bar from the least to the largest."""
    counts = sorted(values)
    means = np.array([np.mean(values[count]) for count in counts])
    least, most = (np.array([pick(values[count]) for count in counts]) for pick in (min, max))
    axis.errorbar(counts, means, [means - least, most - means], marker="o", capsize=3, label=order)


def written(values: list[float] | None, before: float) -> str:
    """Return a cell of the table: the mean over the seeds, what that is more than before, and the seeds' spread."""
    if values is None:
        return ""
    mean = float(np.mean(values))
    spread = f", {len(values)} seeds {min(values):.2f} to {max(values):.2f}" if len(values) > 1 else ""
    return f"{mean:.2f} ({mean - before:+.2f}{spread})"
