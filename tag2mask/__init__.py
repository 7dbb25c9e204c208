"""tag2mask from Python: `Client` asks a running service about photos; the command `tag2mask` serves, labels and trains.

from tag2mask import Client

with Client("http://localhost:8000") as client:
    mask = client.segment("cat.jpg", tags=["cat"])
    mask.labels                      # numpy, uint8 (H, W): 0 is the background
    mask.to_pillow().save("cat.png")
    for photo, result in client.segment_many(paths, concurrency=4):
        ...
"""

from tag2mask.client import Client
from tag2mask.problems import Problem, ServerGoneError
from tag2mask.results import Analysis, ClassScore, Heatmap, Mask

__all__ = ["Analysis", "ClassScore", "Client", "Heatmap", "Mask", "Problem", "ServerGoneError"]
