"""What is measured without a server: the stages of a photo, maps beside other libraries', and a folder beside the loop."""

import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from app.batch.folder import label_folder
from app.batch.labellers import InProcess
from app.http.request.parameters import AnalyzeParameters
from app.inference.analysis import Analyzer
from app.inference.engine import Engine
from app.inference.image import encode
from app.inference.image.decode import decode
from app.inference.image.preprocess import geometry_of, resize_image
from app.inference.label_maps.regions import regions_of
from app.inference.options import Options
from app.runtime.settings import Settings
from benchmarks.servers import ROOT

PHOTOS = 24  # of the folder
CLASSES = 20


def cpu(work: Callable[[], object], times: int = 5) -> float:
    """Return the median milliseconds of CPU time of something."""
    work()
    found = []
    for _ in range(times):
        start = time.process_time()
        work()
        found.append(1000 * (time.process_time() - start))
    return statistics.median(found)


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
    """Return the CPU milliseconds of maps; those of other libraries as well, on the backbone of our model, where they are installed."""
    models = {name: newest(name) for name in ("cam", "drs", "amr", "edam")}
    one = Analyzer(Options(scales=(1.0,), flip=False), (models["cam"],))
    each = {
        name: cpu(lambda model=model: Analyzer(Options(), (model,)).read(photo).views) for name, model in models.items()
    }
    ours = cpu(lambda: one.read(photo).maps().maps, rounds)
    table = {
        "maps of all classes, one view": {"ms": ours, "ratio": 1.0},
        "fuse=all": {"ms": cpu(lambda: Analyzer(Options(), tuple(models.values())).read(photo).maps((7,)).maps, 3)},
        "refine=pamr, one class": {
            "ms": cpu(lambda: Analyzer(Options(refine="pamr"), (models["cam"],)).read(photo).maps().maps_of((7,)), 3)
        },
        "class-conditional, one class": {
            "ms": cpu(lambda: Analyzer(Options(conditional=True), (models["cam"],)).read(photo).maps((7,)).maps, 3)
        },
    }
    table["fuse=all"]["ratio"] = table["fuse=all"]["ms"] / sum(each.values())
    for name, milliseconds in other_libraries(photo, models["cam"].card.preferred_size).items():
        table[name] = {"ms": milliseconds, "ratio": milliseconds / ours}
    return table


def other_libraries(photo: bytes, preferred_size: int) -> dict[str, float]:
    """Return the CPU milliseconds of pytorch-grad-cam's loop and of torch-cam's over all classes, on the same backbone."""
    try:
        import timm
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(1)
    network = timm.create_model("tf_efficientnet_lite0", num_classes=CLASSES).eval()
    image = decode(photo).image
    size = geometry_of(image.shape, preferred_size)
    tensor = torch.from_numpy(resize_image(image, size.input_height, size.input_width).copy())
    tensor = (tensor.permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.25
    found = {}
    try:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        cam = GradCAM(network, [network.conv_head])
        found["pytorch-grad-cam, a class at a time"] = cpu(
            lambda: [cam(tensor, [ClassifierOutputTarget(index)]) for index in range(CLASSES)], 3
        )
    except ImportError:
        pass
    try:
        from torchcam.methods import CAM

        extractor = CAM(network, "conv_head", "classifier")

        def all_classes() -> list[Any]:
            scores = network(tensor)
            return [extractor(index, scores) for index in range(CLASSES)]

        with torch.inference_mode():
            found["torch-cam, all classes of one forward"] = cpu(all_classes, 3)
    except ImportError:
        pass
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
