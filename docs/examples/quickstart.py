"""Everything one photo has to give, from Python: .venv/bin/python docs/examples/quickstart.py [PHOTO] [SERVER]

Needs numpy and pillow beside the standard library; the environment that `make serve` makes has them.
"""

import io
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image

photo = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/photos/cat.jpg")
server = sys.argv[2] if len(sys.argv) > 2 else "http://localhost:8000"


def ask(path: str, body: bytes | None = None) -> bytes:
    """POST a photo, or GET what belongs to one."""
    request = urllib.request.Request(server + path, body, {"Content-Type": "image/*"} if body else {})
    try:
        with urllib.request.urlopen(request) as reply:
            return reply.read()
    except urllib.error.HTTPError as error:  # a problem document (RFC 9457) says what is wrong and what to do
        sys.exit(json.load(error)["detail"])
    except urllib.error.URLError as error:
        sys.exit(f"{server} does not answer ({error.reason}); `make serve` starts the service")


# Mask, heatmaps and pseudo-label in one reply.
found = json.loads(ask("/analyze", photo.read_bytes()))
for region in found["segment"]["classes"]:
    print(f"{region['class']}: {region['share']:.0%} of the photo, score {region['score']:.2f}")
best = max(found["cam"]["classes"], key=lambda entry: entry["score"])
print(f"the classifier is surest of {best['class']} ({best['score']:.2f})")

# Links lead to every other form of the same result, with the model pinned.
mask = np.asarray(Image.open(io.BytesIO(ask(found["segment"]["links"]["png"]))))
heatmap = np.load(io.BytesIO(ask(best["links"]["npy"])))
print(f"mask {mask.shape} {mask.dtype}, labels {sorted(set(mask.ravel().tolist()))}")
print(f"heatmap {heatmap.shape} {heatmap.dtype}, from {heatmap.min():.2f} to {heatmap.max():.2f}")

# The arrays behind it all.
arrays = np.load(io.BytesIO(ask(f"/analyze?image={found['image']['id']}&format=npz")))
for name in arrays.files:
    print(f"{name:14} {arrays[name].dtype} {arrays[name].shape}")
