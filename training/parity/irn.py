"""IRN, as AMR's repository (jieqin-ai/AMR, de39168) carries it: its network and its random walk."""

import numpy as np
import torch

from training.backbones import build_backbone
from training.irn import IrnNetwork
from training.parity.reference import Claim, Claims, Reference, images
from training.random_walk import paths, random_walk
from training.released import irn

MODULE, NETWORK = 1e-5, 1e-4
RADIUS = 5


def irn_walk(reference: Reference) -> Claims:
    """The walk by squaring, in float32; the neighbours and the number of lines of each length."""
    cam, edge = reference.input("cam"), reference.input("edge")
    walked = random_walk(cam, edge[0], RADIUS, beta=10.0, doublings=8, exponent=1.5, dense=True)
    yield Claim("rw", walked[:, None], MODULE)
    lines = paths(RADIUS)
    yield Claim("search_dst", np.array([line[0] for line in lines]), 0)
    yield Claim("n_paths", np.unique([len(line) for line in lines], return_counts=True)[1], 0)


@torch.no_grad()
def irn_net(reference: Reference) -> Claims:
    """Edge map and displacement of an image and its mirror image, padded to 128 x 128."""
    network = IrnNetwork(build_backbone("resnet50-irn", 16))
    network.load_state_dict(irn.convert(reference.state("irn_edge_displacement")))
    image = images((1, 3, 96, 112), 8)
    edge, displacement = network.eval().predict(torch.cat([image, image.flip(-1)]), padded_size=128)
    yield Claim("edge", edge.numpy(), NETWORK)
    yield Claim("dp", displacement.numpy(), NETWORK)
