"""`make check-cuda`: what the service answers on CUDA, against the CPU, for every model of a models directory.

Compared are the graph's outputs at two sizes and two batch sizes (the contract), the localization maps of real photos,
and the masks and classes of `/segment`. Ends with 0 where all agree, 1 where something differs, 2 where there is no CUDA
or no model to compare, and says why.
"""

import argparse
import io
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from app.inference.analysis import Analyzer
from app.inference.engine import Device, Engine
from app.inference.errors import DeviceError
from app.inference.image.preprocess import geometry_of, resize_image
from app.inference.options import Options
from app.main import create_app
from app.runtime.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = sorted((ROOT / "tests" / "photos").glob("*.jpg"))

# CUDA computes float32 convolutions in TF32 (a mantissa of 10 bits instead of 23) and sums in another order.
VALUE_TOLERANCE = 1e-2  # of the largest value
MASK_TOLERANCE = 5e-3  # share of pixels whose label differs

Finding = tuple[str, float, float]  # what was compared, how far apart the two are, the limit


def difference(reference: np.ndarray, other: np.ndarray) -> float:
    """Largest difference over the largest value; for label maps (uint8) the share of pixels that differ."""
    if reference.shape != other.shape or reference.dtype != other.dtype:
        return float("inf")
    if reference.dtype == np.uint8:
        return float(np.mean(reference != other))
    return float(np.abs(reference - other).max() / max(np.abs(reference).max(), 1e-12))


def finding(what: str, reference: np.ndarray, other: np.ndarray) -> Finding:
    return what, difference(reference, other), MASK_TOLERANCE if reference.dtype == np.uint8 else VALUE_TOLERANCE


def read_photo(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def compare_outputs(cpu: Engine, other: Engine) -> Iterator[Finding]:
    """The graph's outputs at two sizes and two batch sizes."""
    photos = [read_photo(path) for path in PHOTOS[:2]]
    for scale in (1.0, 0.75):
        size = geometry_of(photos[0].shape, cpu.card.preferred_size, scale)
        images = np.stack([resize_image(photo, size.input_height, size.input_width) for photo in photos])
        for batch in (images[:1], images):
            expected, found = cpu.run(batch), other.run(batch)
            shape = "x".join(map(str, batch.shape[:3]))
            yield from (finding(f"{name} of {shape}", expected[name], found[name]) for name in cpu.card.outputs)


def compare_maps(cpu: Engine, other: Engine) -> Iterator[Finding]:
    """Class scores and localization maps of the photos, at the scales of the model card."""
    for path in PHOTOS:
        photo = read_photo(path)
        expected, found = (Analyzer(Options(), (engine,)).look_at(photo).maps() for engine in (cpu, other))
        yield finding(f"scores of {path.name}", expected.scores, found.scores)
        yield finding(f"localization maps of {path.name}", expected.maps, found.maps)


def compare_segment(models: Path, device: Device) -> Iterator[Finding]:
    """`/segment` of the whole service: the masks, and the scores of the classes found on more than a sliver."""
    with (
        TestClient(create_app(Settings(models=models, device="cpu"))) as cpu,
        TestClient(create_app(Settings(models=models, device=device))) as other,
    ):
        wait_until_ready(cpu)
        wait_until_ready(other)
        for path in PHOTOS:
            masks = [np.asarray(Image.open(io.BytesIO(segment(client, path, "png")))) for client in (cpu, other)]
            yield finding(f"/segment mask of {path.name}", *masks)
            expected, found = (found_classes(segment(client, path, "json")) for client in (cpu, other))
            for name in sorted(expected | found):
                scores = [np.array([each.get(name, 0.0)]) for each in (expected, found)]
                yield finding(f"/segment score of {name} in {path.name}", *scores)


def segment(client: TestClient, path: Path, form: str) -> bytes:
    reply = client.post(f"/segment?format={form}", content=path.read_bytes(), headers={"content-type": "image/jpeg"})
    reply.raise_for_status()
    return reply.content


def found_classes(reply: bytes) -> dict[str, float]:
    """Class name -> score, of the classes that cover enough pixels not to come and go with the tolerance of the mask."""
    return {each["class"]: each["score"] for each in json.loads(reply)["classes"] if each["share"] > 2 * MASK_TOLERANCE}


def wait_until_ready(client: TestClient, limit_seconds: float = 120) -> None:
    end = time.monotonic() + limit_seconds
    while client.get("/readyz").status_code != 200:
        if time.monotonic() > end:
            raise TimeoutError(f"the service was not ready within {limit_seconds} seconds")
        time.sleep(0.1)


def compare_all(models: Path, device: Device) -> Iterator[Finding]:
    """Everything, for every model file below `models`. Raises DeviceError where `device` cannot be had."""
    tasks = set()
    for path in sorted(models.glob("*/*/model.onnx")):
        cpu, other = Engine(path, device="cpu", whole=True), Engine(path, device=device, whole=True)
        tasks.add(cpu.card.task)
        comparisons = [compare_outputs, compare_maps] if cpu.card.task == "cam" else [compare_outputs]
        for compare in comparisons:
            for what, distance, limit in compare(cpu, other):
                yield f"{cpu.card.name}/{cpu.card.version}: {what}", distance, limit
    if "segmentation" in tasks:
        yield from compare_segment(models, device)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=ROOT / "models", help="models directory (default: models)")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="compared with the CPU (default: cuda)"
    )
    options = parser.parse_args(arguments)
    if not any(options.models.glob("*/*/model.onnx")):
        print(f"Nothing to compare: no NAME/VERSION/model.onnx below {options.models}.")
        return 2
    apart = count = 0
    try:
        for what, distance, limit in compare_all(options.models, options.device):
            count, apart = count + 1, apart + (distance > limit)
            print(f"{'differs' if distance > limit else 'agrees':8}{distance:9.2e} (limit {limit:.0e})  {what}")
    except DeviceError as error:
        print(f"CUDA cannot be compared here: {error}")
        return 2
    print(f"{count - apart} of {count} comparisons of {options.device} with the CPU agree.")
    return 1 if apart else 0


if __name__ == "__main__":
    sys.exit(main())
