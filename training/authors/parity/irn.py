"""IRN is compared as AMR's repository (jieqin-ai/AMR, de39168) carries it: its network and its random walk."""

import numpy as np
import torch
from torch import Tensor

from app.inference.labels import BACKGROUND, IGNORE_INDEX
from training.authors.parity.amr import TOTAL_STEPS, fit_of
from training.authors.parity.reference import Claim, Claims, Reference, images
from training.authors.parity.training_step import Training, training_claims
from training.authors.released import irn
from training.backbones import build_backbone
from training.refinement.irn import IrnNetwork
from training.refinement.random_walk import paths, random_walk

MODULE, NETWORK = 1e-5, 1e-4
RADIUS = 5


def irn_walk(reference: Reference) -> Claims:
    """Yield the walk by squaring, in float32; the neighbours and the number of lines of each length."""
    cam, edge = reference.input("cam"), reference.input("edge")
    walked = random_walk(cam, edge[0], RADIUS, beta=10.0, doublings=8, exponent=1.5, dense=True)
    yield Claim("rw", walked[:, None], MODULE)
    lines = paths(RADIUS)
    yield Claim("search_dst", np.array([line[0] for line in lines]), 0)
    yield Claim("n_paths", np.unique([len(line) for line in lines], return_counts=True)[1], 0)


@torch.no_grad()
def irn_net(reference: Reference) -> Claims:
    """Claim the edge map and the displacement of an image and its mirror image, padded to 128 x 128."""
    network = IrnNetwork(build_backbone("resnet50-irn", 16))
    network.load_state_dict(irn.convert(reference.state("irn_edge_displacement")))
    image = images((1, 3, 96, 112), 8)
    edge, displacement = network.eval().predict(torch.cat([image, image.flip(-1)]), padded_size=128)
    yield Claim("edge", edge.numpy(), NETWORK)
    yield Claim("dp", displacement.numpy(), NETWORK)


def irn_step(reference: Reference) -> Claims:
    """Yield two steps of the released train_irn.py."""
    network = IrnNetwork(build_backbone("resnet50-irn", 16), radius=10)
    batch = {"images": images((2, 3, 128, 128), 17), "label_maps": label_maps()}
    mean = ("dp_layers.6.4.running_mean",)  # The released code takes it once at the end, not in the steps.
    training = Training(fit_of(lr=0.1), TOTAL_STEPS, ("loss", "edge", "displacement"), mean)
    return training_claims(reference, "irn_edge_displacement", irn.convert, network, batch, training)


def label_maps() -> Tensor:
    """Return blocks of 8 x 8 px of one label, moved by (3, 1): which pixel of four stands for them shows. int64 (2,
    128, 128).
    """
    blocks = torch.randint(0, 4, (2, 16, 16), generator=torch.Generator().manual_seed(18))
    pixels = blocks.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)
    return torch.tensor([BACKGROUND, 3, 15, IGNORE_INDEX])[torch.roll(pixels, (3, 1), (1, 2))]
