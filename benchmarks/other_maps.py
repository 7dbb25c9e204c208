"""The CPU milliseconds of pytorch-grad-cam's loop and of torch-cam over all classes of a photo, on the backbone of our model, as JSON.

    python -m benchmarks.other_maps PHOTO SIZE

It runs in the environment of tests/environments/peers.txt (`make peers`); what is not installed is left out.
"""

import json
import sys
from pathlib import Path
from typing import Any

import timm
import torch

from app.inference.image.decode import decode
from app.inference.image.preprocess import geometry_of, resize_image
from benchmarks.clock import cpu

CLASSES = 20
BACKBONE = "tf_efficientnet_lite0"


def measure(photo: bytes, preferred_size: int) -> dict[str, float]:
    """Return the milliseconds of each library."""
    torch.set_num_threads(1)
    network = timm.create_model(BACKBONE, num_classes=CLASSES).eval()
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


if __name__ == "__main__":
    path, size = sys.argv[1:]
    json.dump(measure(Path(path).read_bytes(), int(size)), sys.stdout)
