"""AMR (jieqin-ai/AMR, de39168) is compared: its module, its network, its loss, and one climb of its localization."""

import warnings

import torch
from torch import Tensor

from app.inference.labels import VOC_CLASSES
from training.authors.parity.reference import Claim, Claims, Reference, images, normal, tag_rows
from training.authors.parity.training_step import Training, training_claims
from training.authors.released import amr
from training.config.learning import FitConfig
from training.methods.amr import AMM, AmrClassifier, gaussian, merge_pair
from training.methods.cam import CamClassifier
from training.refinement.advcam import AdvcamConfig, Step, advcam, climb
from training.refinement.advcam import image_pair as image_pair_of

MODULE, NETWORK, CLIMB, CHAOTIC_CLIMB = 1e-5, 1e-4, 1e-3, 5e-3
TOTAL_STEPS = 10  # They are so few that the rate's decay shows in the second.


def amr_module(reference: Reference, normalization: str) -> AMM:
    """Return an AMM of 32 channels with the fill rule's weights; whole-batch statistics, evaluation mode."""
    state = {}
    for key, tensor in reference.state("amm_32_16").items():
        name = f"amm.{key}"
        for gate, modulation in amr.GATES.items():
            name = name.replace(gate, modulation)
        state[name.removeprefix("modulation.")] = tensor
    module = AMM(32, 16, "batch", "running" if normalization == "running" else "batch")
    module.load_state_dict(state)
    return module.eval()


def amr_network(reference: Reference, normalization: str) -> AmrClassifier:
    """Return AMR on ResNet-50 with the released code's switches and the fill rule's weights; evaluation mode."""
    options = AmrClassifier.Options(statistics="batch", gate_normalization=normalization, pair_first_two=True)
    network = AmrClassifier(len(VOC_CLASSES), "resnet50-irn", 16, None, options)
    network.load_state_dict(amr.convert(reference.state("amr_net")))
    return network.eval()


def image_pair() -> Tensor:
    """Return an image and its mirror image (2, 3, 96, 96)."""
    image = images((1, 3, 96, 96), 4)
    return torch.cat([image, image.flip(-1)])


@torch.no_grad()
def amr_amm(reference: Reference) -> Claims:
    """Yield the module, its channel gate alone, and the projection."""
    x = normal((2, 32, 7, 9), 3)
    module = amr_module(reference, "running")
    yield Claim("x", x.numpy(), 0)
    yield Claim("channel", module.channel(x).numpy(), MODULE)
    yield Claim("out", module(x).numpy(), MODULE)
    yield Claim("gauss", gaussian(x, "batch").numpy(), MODULE)


@torch.no_grad()
def amr_amm_bnbatch(reference: Reference) -> Claims:
    """Yield the module as the released scripts run it."""
    x = normal((2, 32, 7, 9), 3)
    yield Claim("x", x.numpy(), 0)
    yield Claim("out", amr_module(reference, "batch")(x).numpy(), MODULE)


@torch.no_grad()
def amr_net(reference: Reference) -> Claims:
    """Return both branches on a pair, and the distance of their maps."""
    network = amr_network(reference, "running")
    pair = image_pair()
    merged = []
    for number, (branch, _) in enumerate(network.branches(), start=1):
        logits, cams = branch(pair)
        merged.append(merge_pair(cams))
        yield Claim(f"logits{number}", logits.numpy(), NETWORK)
        yield Claim(f"cam{number}", merged[-1].numpy(), NETWORK)
        yield Claim(
            f"cam_step{number}_preact", branch.get_submodule("classifier")(branch.backbone(pair)[-1]).numpy(), NETWORK
        )
    labels = torch.zeros(2, len(VOC_CLASSES))
    yield Claim("loss_cps", network.losses({"images": pair, "image_labels": labels})["agreement"].numpy(), NETWORK)
    yield Claim("loss_cps_validate", (merged[0][1:] - merged[1][1:]).abs().mean().numpy(), NETWORK)


@torch.no_grad()
def amr_net_bnbatch(reference: Reference) -> Claims:
    """Yield the compensation branch as the released scripts run it."""
    network = amr_network(reference, "batch")
    pair = image_pair()
    logits, cams = network.compensation(pair)
    yield Claim("logits2", logits.numpy(), NETWORK)
    yield Claim("cam2", merge_pair(cams).numpy(), NETWORK)
    preactivation = network.compensation.classifier(network.compensation.backbone(pair)[-1])
    yield Claim("cam_step2_preact", preactivation.numpy(), NETWORK)
    agreement = (merge_pair(network.spotlight(pair)[1]) - merge_pair(cams)).abs().mean()
    yield Claim("loss_cps", agreement.numpy(), NETWORK)


@torch.no_grad()
def amr_loss(reference: Reference) -> Claims:
    """Yield the training loss and its parts."""
    network = amr_network(reference, "running")
    labels = torch.from_numpy(reference.input("label"))
    losses = network.losses({"images": image_pair(), "image_labels": labels})
    yield Claim("cls1", losses["spotlight"].numpy(), NETWORK)
    yield Claim("cls2", losses["compensation"].numpy(), NETWORK)
    yield Claim("total", losses["loss"].numpy(), NETWORK)


def amr_advcam(reference: Reference) -> Claims:
    """Yield three climbs of each branch, as the released scripts run it.

    Without oneDNN, whose rounding depends on the number of threads: one of a million ReLUs lies so close to zero that a
    different last bit flips it, and the gradient of the second branch then differs by 15 %.
    """
    network = amr_network(reference, "batch")
    # The first branch climbs towards one class, the second towards another.
    classes = reference.input("classes").tolist()
    for number, ((branch, _), class_index) in enumerate(zip(network.branches(), classes, strict=True), start=1):
        steps: list[Step] = []
        with (
            warnings.catch_warnings(action="ignore"),
            torch.backends.mkldnn.flags(enabled=False),
        ):  # It warns of Intel GPUs.
            total = climb(branch, image_pair(), class_index, AdvcamConfig(), 3, steps.append)
        first = steps[0]
        yield Claim(f"init{number}", first.region[None].numpy(), CLIMB)
        yield Claim(f"loss{number}", first.objective.numpy(), CLIMB)
        yield Claim(f"grad_s4_{number}", first.gradient[..., ::4, ::4].numpy(), CLIMB)
        yield Claim(f"mask{number}", first.discriminative[None].numpy(), CLIMB)
        for index, step in enumerate(steps):
            tolerance = CLIMB if index == 0 else CHAOTIC_CLIMB
            yield Claim(f"it{index}_img_s4_{number}", step.images[..., ::4, ::4].numpy(), tolerance)
        yield Claim(f"accum3_{number}", total.numpy(), CLIMB)


def amr_advcam_scales(reference: Reference) -> Claims:
    """Claim what make_cam.py makes of two scales, the smaller one with half the steps: both branches, joined, in float64 (see above)."""
    network = amr_network(reference, "batch").double()
    image = reference.input("image")
    yield Claim("half", image_pair_of(image, max(image.shape), 0.5)[0].numpy(), MODULE)
    climbing = AdvcamConfig(steps=12, scales=(0.5, 1.0), short=(0.5,))
    with warnings.catch_warnings(action="ignore"):
        maps = advcam(network, image, (8, 14), max(image.shape), climbing)
    yield Claim("cam", maps.cams[0], CLIMB)


def amr_step(reference: Reference) -> Claims:
    """Yield two steps of the released train_amr.py, of three photos. Its optimiser takes the weight decay for the momentum."""
    options = AmrClassifier.Options(
        statistics="batch", gate_normalization="batch", pair_first_two=True, detached=True, freeze=True
    )
    network = AmrClassifier(len(VOC_CLASSES), "resnet50-irn", 16, None, options)
    batch = {"images": images((3, 3, 64, 64), 13), "image_labels": tag_rows((2, 14), (14,), (5,))}
    parts = ("loss", "spotlight", "compensation", "agreement")
    training = Training(fit_of(lr=0.01), TOTAL_STEPS, parts)
    return training_claims(reference, "amr_net", amr.convert, network, batch, training)


def amr_cam_step(reference: Reference) -> Claims:
    """Yield two steps of the released train_cam.py, AMR's first stage; at its rate these weights would grow without bound."""
    options = CamClassifier.Options(freeze=True)
    network = CamClassifier(len(VOC_CLASSES), "resnet50-irn", 16, None, options)
    batch = {"images": images((2, 3, 64, 64), 13), "image_labels": tag_rows((2, 14), (14,))}
    training = Training(fit_of(lr=1e-5), TOTAL_STEPS)
    return training_claims(reference, "amr_cam", amr.convert_cam, network, batch, training)


def fit_of(lr: float) -> FitConfig:
    """Return the released optimiser of IRN and AMR."""
    return FitConfig(lr=lr, momentum=1e-4, nesterov=False, weight_decay=1e-4)
