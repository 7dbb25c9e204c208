"""What is measured without a server: the stages of a photo, maps beside other libraries', and a folder beside the loop."""

import io
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from app.batch.folder import label_folder
from app.batch.labellers import InProcess
from app.http.request.parameters import AnalyzeParameters
from app.inference.analysis import Analyzer
from app.inference.engine import Engine
from app.inference.image import encode
from app.inference.image.preprocess import geometry_of, resize_image
from app.inference.label_maps.regions import regions_of
from app.inference.options import Options
from app.runtime.settings import Settings
from benchmarks.clock import cpu
from benchmarks.servers import PEERS_PYTHON, ROOT

PHOTOS = 24  # of the folder


def newest(name: str) -> Engine:
    """Return the highest version of a model."""
    return Engine(max((ROOT / "models" / name).glob("*/model.onnx")), device="cpu")


def stages_of(photos: dict[str, bytes]) -> dict[str, dict[str, float]]:
    """Return the CPU milliseconds of every stage of `/segment`, by the size of the photo."""
    model = newest("deeplab")
    return {name: stages_of_one(model, data) for name, data in photos.items()}


def stages_of_one(model: Engine, data: bytes) -> dict[str, float]:
    """Return the CPU milliseconds of every stage of one photo's `/segment`."""
    analyzer = Analyzer(Options(), segmenter=model)
    image, found = analyzer.read(data).photo.image, analyzer.read(data).mask
    size = geometry_of(image.shape, model.card.preferred_size)
    small = resize_image(image, size.input_height, size.input_width)
    decoding = cpu(lambda: analyzer.read(data).photo)
    resizing = cpu(lambda: resize_image(image, size.input_height, size.input_width))
    running = cpu(lambda: model.run(small[None]))
    return {
        "decode": decoding,
        "resize": resizing,
        "network": running,
        "mask at the photo's size": max(0.0, cpu(lambda: analyzer.read(data).mask) - decoding - resizing - running),
        "png": cpu(lambda: encode.mask_to_png(found.mask)),
        "regions (json)": cpu(lambda: regions_of(model.card.classes, found.mask, found.scores)),
    }


def map_ratios(photo: bytes, rounds: int) -> dict[str, dict[str, float]]:
    """Return the CPU milliseconds of maps: fused ones beside what their models take one by one, and those of other libraries on the
    backbone of our model, where they are installed.
    """
    models = {name: newest(name) for name in ("cam", "drs", "amr", "edam")}
    one = Analyzer(Options(scales=(1.0,), flip=False), (models["cam"],))
    fused = Analyzer(Options(), tuple(models.values()))
    together = sum(
        cpu(lambda model=model: Analyzer(Options(), (model,)).read(photo).views) for model in models.values()
    )
    ours = cpu(lambda: one.read(photo).maps().maps, rounds)
    table = {
        "maps of all classes, one view": {"ms": ours, "ratio": 1.0},
        "refine=pamr, one class": {
            "ms": cpu(lambda: Analyzer(Options(refine="pamr"), (models["cam"],)).read(photo).maps().maps_of((7,)), 3)
        },
        "class-conditional, one class": {
            "ms": cpu(lambda: Analyzer(Options(conditional=True), (models["cam"],)).read(photo).maps((7,)).maps, 3)
        },
    }
    every_class = tuple(range(len(models["cam"].card.classes)))
    for name, chosen in (("fuse=all, one class", (7,)), ("fuse=all, all classes", every_class)):
        milliseconds = cpu(lambda chosen=chosen: fused.read(photo).maps().maps_of(chosen), 3)
        table[name] = {"ms": milliseconds, "ratio": milliseconds / together}
    for name, milliseconds in other_libraries(photo, models["cam"].card.preferred_size).items():
        table[name] = {"ms": milliseconds, "ratio": milliseconds / ours}
    return table


def other_libraries(photo: bytes, preferred_size: int) -> dict[str, float]:
    """Return the CPU milliseconds of other libraries' maps of all classes, on the same backbone, where they are installed; what they say
    where they fail is for whoever measures.
    """
    with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
        file.write(photo)
        file.flush()
        command = [str(PEERS_PYTHON), "-m", "benchmarks.other_maps", file.name, str(preferred_size)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = {} if done.returncode else json.loads(done.stdout.splitlines()[-1])
    return found


def folder_ratio(photo: bytes, rounds: int) -> dict[str, dict[str, float]]:
    """Return how fast `label` is beside a loop that does the networks' work of the same photos and writes the masks."""
    cam, segmenter = newest("cam"), newest("deeplab")
    analyzer, ratios = Analyzer(Options(), (cam,), segmenter), []
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        photos.mkdir()
        image = np.array(Image.open(io.BytesIO(photo)))
        for number in range(PHOTOS):
            Image.fromarray(np.roll(image, 7 * number, axis=1)).save(photos / f"{number:03d}.jpg", quality=90)
        labeller = InProcess(Settings(models=ROOT / "models", device="cpu"), AnalyzeParameters())
        for number in range(min(rounds, 3)):
            start = time.process_time()
            for path in sorted(photos.iterdir()):
                analysis = analyzer.read(path.read_bytes())
                assert analysis.views
                path.with_suffix(".png").write_bytes(encode.mask_to_png(analysis.mask.mask))
            bare = time.process_time() - start
            for path in photos.glob("*.png"):
                path.unlink()
            start = time.process_time()
            label_folder(photos, Path(folder) / f"out{number}", labeller)
            ratios.append(bare / (time.process_time() - start))
    return {"label": {"cpu of loop / own": statistics.median(ratios)}}
