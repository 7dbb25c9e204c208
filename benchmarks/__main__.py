"""`python -m benchmarks`: measure, print the tables of docs/performance.md, and write all figures as JSON.

Everything is a ratio of two things that took turns in slices of seconds, round after round: what else the machine does meanwhile
falls on both. Each ratio is the median of the rounds, with the lowest and the highest behind it. Besides the rate the CPU time
of an answer is compared, which shows the same where other programs share the cores.
"""

import argparse
import http.client
import importlib.metadata
import io
import json
import platform
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from PIL import Image

from app.inference.engine import Engine
from benchmarks.bare_loop import CORES, bare_loop
from benchmarks.in_process import folder_ratio, map_ratios, stages_of
from benchmarks.servers import ROOT, Request, Server, Slice, loop_slice, peer, service, started
from benchmarks.training import training_ratios

MODEL = "deeplab"
# Width and height: a thumbnail, the usual photo of PASCAL VOC, and what a camera takes.
SIZES = {"small": (160, 120), "voc": (500, 375), "12 megapixels": (4000, 3000)}
CLIENTS = (1, 8, 64)
# These take turns with the service where they are installed (`make peers`).
PEERS = {"naive FastAPI": "naive", "LitServe": "lit", "BentoML": "bento", "Ray Serve": "ray_serve"}
PACKAGES = ("onnxruntime", "numpy", "pillow", "fastapi", "uvicorn", "isal")


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast the service is.")
    parser.add_argument("--rounds", type=int, default=5, help="turns that everybody takes (5)")
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS, help="so many at once (1 8 64)")
    parser.add_argument("--seconds", type=float, default=4, help="length of a turn (4)")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmark.json", help="where the figures go (benchmark.json)"
    )
    options = parser.parse_args()
    figures: dict[str, Any] = {"machine": machine()}
    model = max((ROOT / "models" / MODEL).glob("*/model.onnx"))
    photos = {name: jpeg(size) for name, size in SIZES.items()}
    preferred_size = Engine(model, device="cpu").card.preferred_size
    with ExitStack() as stack:
        asked = {
            "tag2mask": service(queue_size=200),
            **{name: peer(program, model, preferred_size) for name, program in PEERS.items()},
        }
        servers: dict[str, Server] = {}
        for name, command in asked.items():
            try:
                servers[name] = stack.enter_context(started(*command))
            except RuntimeError as error:
                print(f"{name} is left out: {error}")
        answer = bare_loop(model, preferred_size)
        figures["clients"] = [
            show(compare_clients(servers, answer, photos["voc"], clients, options)) for clients in options.clients
        ]
        ours = servers["tag2mask"]
        figures["sizes"] = show(compare_sizes(ours, answer, photos, options))
        figures["requests"] = show(time_requests(ours, photos["voc"], options))
        figures["start"] = show(
            {
                name: {"seconds to first 200": server.seconds_to_first_answer, "peak MB": server.peak_bytes() / 1e6}
                for name, server in servers.items()
            }
        )
    figures["stages"] = show(stages_of(photos))
    figures["maps"] = show(map_ratios(photos["voc"], options.rounds))
    figures["folder"] = show(folder_ratio(photos["voc"], options.rounds))
    figures["training"] = show(training_ratios(options.rounds))
    options.out.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"All figures: {options.out}")


def compare_clients(
    servers: dict[str, Server], answer: Any, photo: bytes, clients: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Return every server's rate and CPU time beside the loop's, for so many clients."""
    request = Request("/segment?format=png", photo)
    found: dict[str, list[Slice]] = {name: [] for name in ("loop", *servers)}
    for _ in range(options.rounds):
        found["loop"].append(loop_slice(lambda: answer(photo), min(clients, CORES), options.seconds))
        for name, server in servers.items():
            found[name].append(server.ask(clients, options.seconds, request))
    table: dict[str, Any] = {}
    for name, slices in found.items():
        p50, p99 = (statistics.median(each.quantile(share) for each in slices) for share in (0.5, 0.99))
        table[f"{name}, {clients} clients"] = {
            "rate / loop": spread(
                [own.per_second / loop.per_second for own, loop in zip(slices, found["loop"], strict=True)]
            ),
            "cpu of loop / own": spread(
                [loop.cpu_milliseconds / own.cpu_milliseconds for own, loop in zip(slices, found["loop"], strict=True)]
            ),
            "p99 / p50": round(p99 / p50, 2),
        }
    return table


def compare_sizes(server: Server, answer: Any, photos: dict[str, bytes], options: argparse.Namespace) -> dict[str, Any]:
    """Return what photos of other sizes cost beside one of VOC's, in CPU time of the service and of the loop."""
    costs: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, photo in photos.items():
            for form in ("png", "json"):
                own = server.ask(1, options.seconds / 2, Request(f"/segment?format={form}", photo))
                costs.setdefault(f"{name}, {form}", []).append(own.cpu_milliseconds)
            loop = loop_slice(lambda photo=photo: answer(photo), 1, options.seconds / 2)
            costs.setdefault(f"{name}, bare loop", []).append(loop.cpu_milliseconds)
    return {
        name: {
            "cpu / voc": spread([own / voc for own, voc in zip(values, costs[f"voc, {kind_of(name)}"], strict=True)])
        }
        for name, values in costs.items()
    }


def kind_of(name: str) -> str:
    """Return what stands behind the size in the name of a row."""
    return name.rpartition(", ")[2]


def time_requests(server: Server, photo: bytes, options: argparse.Namespace) -> dict[str, Any]:
    """Return the milliseconds of requests about a photo that is known, one client."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    image_id = Request("/cam?class=cat", photo).send(connection)["X-Image-Id"]
    connection.close()
    asked = {
        "nothing (/healthz)": Request("/healthz"),
        "map of a known photo, png": Request(f"/cam?class=cat&image={image_id}"),
        "map of a known photo, sent again": Request("/cam?class=cat", photo, form=False),
        "all maps of a known photo, json": Request(f"/cam?class=all&image={image_id}"),
        "class-conditional map of a known photo, png": Request(
            f"/cam?class=cat&inference=class-conditional&image={image_id}"
        ),
    }
    found: dict[str, list[Slice]] = {name: [] for name in asked}
    for _ in range(options.rounds):
        for name, request in asked.items():
            found[name].append(server.ask(1, options.seconds / 4, request))
    return {
        name: {
            "p50 ms": spread([each.quantile(0.5) for each in slices]),
            "cpu ms": spread([each.cpu_milliseconds for each in slices]),
        }
        for name, slices in found.items()
    }


def jpeg(size: tuple[int, int]) -> bytes:
    """Return the photo of a cat of the tests at this size."""
    content = io.BytesIO()
    with Image.open(ROOT / "tests" / "photos" / "cat.jpg") as picture:
        picture.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(content, "JPEG", quality=90)
    return content.getvalue()


def machine() -> dict[str, Any]:
    """Return what the figures were taken on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
        load = float(Path("/proc/loadavg").read_text().split()[0])
    except (OSError, StopIteration):
        name, load = platform.processor(), float("nan")
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return {"cpu": name, "cores": CORES, "load": load, "python": platform.python_version(), **versions, "when": when}


def spread(values: list[float]) -> str:
    """Return the median, with the lowest and the highest behind it."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def show(table: dict[str, Any]) -> dict[str, Any]:
    """Print a table, a row for each entry, and return it."""
    columns = list(dict.fromkeys(column for row in table.values() for column in row))
    print(f"\n| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, row in table.items():
        cells = (row.get(column, "") for column in columns)
        print(
            f"| {name} | {' | '.join(f'{cell:.2f}' if isinstance(cell, float) else str(cell) for cell in cells)} |",
            flush=True,
        )
    return table


if __name__ == "__main__":
    main()
