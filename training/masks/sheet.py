"""The verb `sheet` makes one picture of photos beside what every model makes of them. It measures, and reads masks for that alone."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps
from tqdm import tqdm

from app.inference.analysis import Analyzer
from app.inference.engine import Engine
from app.inference.errors import ConfigError, DataError
from app.inference.files.whole_file import write_whole
from app.inference.image.encode import map_to_overlay, mask_to_overlay, to_jpeg
from app.inference.maps.localization import class_index, localization_map
from app.inference.options import Options
from training.data import DataConfig, TaggedPhotos, open_source
from training.data.sampling import evenly_spaced
from training.masks.ground_truth import GroundTruth

SHOWN = 24  # A sheet shows this many photos, unless it is told otherwise.
CELL = 168  # A picture has this side in px.
CAPTION = 14  # The caption above a picture is this many px high.
GAP = 2  # Pictures lie this many px apart.
# More photos would make the JPEG higher than the 65,500 px it may be.
MAX_SHOWN = 65_500 // (CELL + CAPTION + GAP)
QUALITY = 82


def write_sheet(
    models: list[Path], data: DataConfig, split: str | None, count: int, out: Path, named: tuple[str, ...] = ()
) -> Path:
    """Return a row per photo, as a JPEG: the photo, a heatmap or mask per model, the true mask.

    The photos are `count` evenly spaced ones of the split (None: the report split), or those `named`. A heatmap is that of the photo's first tag.
    Raises ConfigError where the models know different classes, DataError where there is no such photo.
    """
    engines = [Engine(path, device="auto", intra_op_threads=0) for path in models]
    for engine in engines[1:]:
        if engine.card.classes != engines[0].card.classes:
            raise ConfigError(f"{engine.card.name} and {engines[0].card.name} know different classes; make two sheets")
    photos = open_source(data.model_copy(update={"classes": engines[0].card.classes}))
    split = split or photos.report_split
    if missing := set(named) - set(photos.names(split)):
        raise DataError(f"the data has no photo {min(missing)!r} in {split!r}; name others, or another split")
    chosen = named or evenly_spaced(photos.names(split), count)
    if not chosen:
        raise DataError(f"the data has no photo in {split!r}; name another split")
    truth = GroundTruth(data, photos)
    strips = [strip_of(cells(engines, photos, truth, name)) for name in tqdm(chosen, desc="sheet", unit="photo")]
    sheet = Image.new("RGB", (max(strip.width for strip in strips), sum(strip.height for strip in strips)), "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    write_whole(out, to_jpeg(np.asarray(sheet), QUALITY))
    return out


def strip_of(row: list[tuple[str, Image.Image]]) -> Image.Image:
    """Put pictures beside one another, their captions above them."""
    pictures = [ImageOps.contain(picture, (CELL - GAP, CELL)) for _, picture in row]
    strip = Image.new("RGB", (len(row) * CELL, CAPTION + max(picture.height for picture in pictures) + GAP), "white")
    for column, ((caption, _), picture) in enumerate(zip(row, pictures, strict=True)):
        ImageDraw.Draw(strip).text((column * CELL + GAP, 1), caption, fill="black")
        strip.paste(picture, (column * CELL, CAPTION))
    return strip


def cells(engines: list[Engine], photos: TaggedPhotos, truth: GroundTruth, name: str) -> list[tuple[str, Image.Image]]:
    """Return (caption, picture) of the photo, every model's answer, and the true mask where there is one."""
    image, tags = photos.image(name), photos.tags(name)
    row = [(", ".join(tags), Image.fromarray(image))]
    for engine in engines:
        card = engine.card
        if card.task == "segmentation":
            row.append(
                (
                    card.name,
                    opened(mask_to_overlay(Analyzer(Options(), segmenter=engine).look_at(image).mask.mask, image)),
                )
            )
        else:
            index = class_index(card, tags[0])
            analysis = Analyzer(Options(), (engine,)).look_at(image)
            heatmap = opened(map_to_overlay(localization_map(analysis.maps((index,)), index), image))
            row.append((f"{card.name}: {tags[0]} {analysis.scores[index]:.2f}", heatmap))
    if truth.has(name):
        row.append(("truth", opened(mask_to_overlay(truth.mask(name), image))))
    return row


def opened(picture: bytes) -> Image.Image:
    """Return a picture from its encoded bytes."""
    return Image.open(io.BytesIO(picture))
