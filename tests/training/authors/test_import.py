"""The verb `import`: authors' files and torchvision's networks become models that serve, or are refused by name.

That the imported networks compute what the authors' do is `test_parity.py`'s: it goes through the same converters.
"""

import collections
import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

import training.authors.import_released
import training.authors.import_torchvision
from app.inference.analysis import Analyzer
from app.inference.engine import Engine
from app.inference.errors import ConfigError, DataError
from app.inference.labels import VOC_CLASSES
from app.inference.model_card import ModelCard
from app.inference.options import Options
from training.__main__ import main
from training.authors.import_released import import_released
from training.authors.import_torchvision import OLD_DENSENET, kept_indices, unique_names
from training.authors.parity.reference import authors_state
from training.authors.released import CONVERTERS, amr, irn
from training.authors.released.edam import TRANSFORMER
from training.backbones import build_backbone, relu
from training.backbones.resnet38 import WEIGHTS_FILE, ResNet38
from training.checkpoint import read_state
from training.data.augment import normalize

FIXTURES = Path(__file__).resolve().parents[4] / "shared" / "parity"
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
STAGES = (
    (64, 32, 64),
    (256, 32, 128),
    (512, 32, 256),
    (1024, 32, 256),
    (2048, 32, 256),
)  # channels, edge, displacement
IMAGE = np.random.default_rng(0).integers(0, 256, (1, 70, 90, 3), np.uint8)

Shapes = dict[str, tuple[int, ...]]
Exported = list[tuple[nn.Module, ModelCard]]


def twice(shapes: Shapes, aliases: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The keys of an authors' state dict, in which the modules under each prefix of `aliases` are named again."""
    names = {key: [key] for key in shapes}
    for alias, original in aliases.items():
        for key in shapes:
            if key.startswith(original):
                names[key].append(alias + key.removeprefix(original))
    return {name: {"shape": shapes[key], "alias_of": min(same)} for key, same in names.items() for name in same}


def drs_keys(learnable: bool) -> dict[str, dict[str, Any]]:
    shapes: Shapes = {}
    aliases, index, channels = {}, 0, 3
    for block, widths in enumerate(VGG16, start=1):
        for layer, width in enumerate(widths, start=1):
            shapes |= {f"features.{index}.weight": (width, channels, 3, 3), f"features.{index}.bias": (width,)}
            shapes |= {f"layer{block}_relu{layer}.fc.0.weight": (width, width)} if learnable else {}
            aliases[f"layer{block}_conv{layer}."] = f"features.{index}."
            index, channels = index + 2, width
        index += 1
    for layer in (1, 2, 3):
        shapes |= {f"extra_conv{layer}.weight": (512, 512, 3, 3), f"extra_conv{layer}.bias": (512,)}
        shapes |= {f"extra_relu{layer}.fc.0.weight": (512, 512)} if learnable else {}
    return twice(shapes | {"extra_conv4.weight": (20, 512, 1, 1), "extra_conv4.bias": (20,)}, aliases)


def resnet38_shapes() -> Shapes:
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in ResNet38(8, relu).state_dict().items()}


def resnet50_shapes(prefix: str) -> Shapes:
    with torch.device("meta"):
        state = models.resnet50().state_dict()
    return {prefix + key: tuple(value.shape) for key, value in state.items() if not key.startswith("fc.")}


def psa_keys() -> dict[str, dict[str, Any]]:
    return twice(resnet38_shapes() | {"fc8.weight": (20, 4096, 1, 1)}, {})


def edam_keys() -> dict[str, dict[str, Any]]:
    shapes = resnet38_shapes() | {"mask_layer.weight": (21, 4096, 3, 3), "embedding.segment.weight": (5, 128)}
    shapes |= {"d_d.weight": (128, 4096, 1, 1)}
    for index in range(20):
        shapes[f"fc_list.{index}.weight"] = (1, 128, 1, 1)
        for name in TRANSFORMER.values():
            wide = {"feed_forward.w_1.weight": (512, 128), "feed_forward.w_1.bias": (512,)}
            wide |= {"feed_forward.w_2.weight": (128, 512)}
            ordinary = (128, 128) if name.endswith("weight") else (128,)
            shapes[f"trans_list.{index}.0.{name}"] = wide.get(name, ordinary)
    return twice(shapes, {})


def amr_keys() -> dict[str, dict[str, Any]]:
    shapes = resnet50_shapes("resnet50.") | resnet50_shapes("resnet50_2.")
    for block in [key.removesuffix("conv1.weight") for key in shapes if key.startswith("resnet50_2.layer")]:
        if f"{block}bn3.bias" not in shapes:
            continue
        (wide,) = shapes[f"{block}bn3.bias"]
        shapes |= {f"{block}amm.ChannelAMM.mlp.1.weight": (wide // 16, wide), f"{block}amm.ChannelAMM.mlp.1.bias": (wide // 16,),
                   f"{block}amm.ChannelAMM.mlp.3.weight": (wide, wide // 16), f"{block}amm.ChannelAMM.mlp.3.bias": (wide,),
                   f"{block}amm.SpatialAMM.spatial.conv.weight": (1, 2, 7, 7),
                   f"{block}amm.SpatialAMM.spatial.bn.num_batches_tracked": ()}  # fmt: skip
        shapes |= {f"{block}amm.SpatialAMM.spatial.bn.{part}": (1,) for part in BATCH_NORM}
    shapes |= {"classifier.weight": (20, 2048, 1, 1), "classifier2.weight": (20, 2048, 1, 1)}
    aliases = amr.branch_aliases("resnet50", "stage", "backbone")
    aliases |= amr.branch_aliases("resnet50_2", "stage2_", "backbone2")
    return twice(shapes, aliases | {"newly_added.0.": "classifier.", "newly_added.1.": "classifier2."})


def irn_keys() -> dict[str, dict[str, Any]]:
    shapes = resnet50_shapes("resnet50.")
    for stage, (channels, *widths) in enumerate(STAGES):
        for branch, width in zip(("edge_layers", "dp_layers"), widths, strict=True):
            shapes[f"{branch}.{stage}.0.weight"] = (width, channels, 1, 1)
            shapes |= {f"{branch}.{stage}.1.{part}": (width,) for part in ("weight", "bias")}
    for layer, channels in ((5, 768), (6, 448)):
        shapes[f"dp_layers.{layer}.0.weight"] = (256, channels, 1, 1)
        shapes |= {f"dp_layers.{layer}.1.{part}": (256,) for part in ("weight", "bias")}
    shapes |= {"dp_layers.6.3.weight": (2, 256, 1, 1), "dp_layers.6.4.running_mean": (2,)}
    shapes |= {"edge_layers.5.weight": (1, 160, 1, 1), "edge_layers.5.bias": (1,)}
    return twice(shapes, irn.backbone_aliases() | irn.branch_aliases())


KEYS: dict[str, Callable[[], dict[str, dict[str, Any]]]] = {
    "drs": lambda: drs_keys(learnable=True), "drs-refine": lambda: drs_keys(learnable=False), "amr": amr_keys,
    "edam": edam_keys, "psa": psa_keys, "ccrm": psa_keys, "irn": irn_keys,
}  # fmt: skip
FIXTURE_MODELS = {
    "drs": "drs_learnable", "drs-refine": "drs_refine", "amr": "amr_net", "edam": "edam_net", "psa": "resnet38_cls",
    "ccrm": "resnet38_cls", "irn": "irn_edge_displacement",
}  # fmt: skip


@functools.cache
def keys_of(method: str) -> dict[str, dict[str, Any]]:
    """The authors' key -> its shape, and the smallest of the names of its storage."""
    return KEYS[method]()


def constant_state(method: str) -> dict[str, Tensor]:
    """A small file of an authors' shapes: every tensor one number, the same for all its names and for all classes."""
    state = {}
    for key, entry in keys_of(method).items():
        dtype = torch.int64 if key.endswith("num_batches_tracked") else torch.float32
        number = 1.0 if "running_var" in key else 0.01 + 0.01 * (len(re.sub(r"\d", "", entry["alias_of"])) % 3)
        state[key] = torch.tensor(number).to(dtype).expand(entry["shape"])
    return state


def is_constant(value: Tensor) -> bool:
    return bool(value.min() == value.max())


def test_every_method_is_tried() -> None:
    assert set(KEYS) == set(CONVERTERS)


@pytest.mark.skipif(not FIXTURES.is_dir(), reason="the fixtures are not in ../shared/parity")
@pytest.mark.parametrize("method", KEYS)
def test_the_keys_are_the_authors(method: str) -> None:
    theirs = json.loads((FIXTURES / "keys.json").read_text())[FIXTURE_MODELS[method]]
    theirs = {
        key: {"shape": tuple(entry["shape"]), "alias_of": entry.get("alias_of", key)}
        for key, entry in theirs.items()
        if not entry.get("not_filled")
    }
    assert keys_of(method) == theirs


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Exported:
    """What would be written, in place of writing it: the export of these networks takes minutes."""
    calls: Exported = []

    def export(module: nn.Module, card: ModelCard, models: Path) -> Path:
        calls.append((module, card))
        return models / card.name / "1" / "model.onnx"

    for module in (training.authors.import_released, training.authors.import_torchvision):
        monkeypatch.setattr(module, "export_model", export)
    return calls


@pytest.mark.parametrize(
    ("method", "container"),
    [
        ("drs-refine", "state_dict"),
        ("drs-refine", "module."),
        *((name, "bare") for name in ("drs", "amr", "edam", "psa")),
    ],
)
def test_an_authors_file_fills_the_network_whole(
    method: str, container: str, tmp_path: Path, exported: Exported
) -> None:
    state = constant_state(method)
    stored: dict[str, Any] = (
        {f"module.{key}": value for key, value in state.items()} if container == "module." else state
    )
    torch.save({"state_dict": stored, "epoch": 3} if container == "state_dict" else stored, tmp_path / "authors.pth")
    import_released(method, tmp_path / "authors.pth", tmp_path / "models")
    [(module, card)] = exported
    assert (card.name, card.task, card.classes) == (f"{method}-released", "cam", VOC_CLASSES)
    assert card.config == {"released": method, "file": "authors.pth"}
    assert card.flip == (method not in ("drs", "drs-refine"))  # DRS takes the maximum over sizes, without mirroring
    for key, value in module.network.state_dict().items():
        assert is_constant(value), f"{key} was not filled from the file"
    with torch.no_grad():
        scores, cams = module.eval()(torch.from_numpy(IMAGE[:, :64, :80]))
    assert scores.shape == (1, 20)
    assert cams.shape == (1, 20, 64 // card.output_stride, 80 // card.output_stride)
    assert torch.isfinite(scores).all()
    assert torch.isfinite(cams).all()


def test_irns_file_becomes_weights_of_the_edge_network(tmp_path: Path) -> None:
    torch.save(constant_state("irn"), tmp_path / "authors.pth")
    path = import_released("irn", tmp_path / "authors.pth", tmp_path / "models", "edges")
    assert path == tmp_path / "edges.pt"
    assert all(is_constant(value) for value in read_state(path).values())


@pytest.mark.parametrize(("method", "container"), [("drs", "model"), ("drs-refine", "module.")])
def test_an_authors_file_is_served(method: str, container: str, tmp_path: Path) -> None:
    state = authors_state(keys_of(method))  # numbers by the rule of the fixtures: activations stay in range
    if container == "module.":
        state = {f"module.{key}": value for key, value in state.items()}
    torch.save({"model": state} if container == "model" else state, tmp_path / "authors.pth")
    arguments = ["--method", method, "--checkpoint", str(tmp_path / "authors.pth"), "--name", "theirs"]
    assert main(["import", *arguments, "--models", str(tmp_path / "models")]) == 0
    (tmp_path / "authors.pth").unlink()
    engine = Engine(tmp_path / "models/theirs/1/model.onnx", device="cpu")
    assert max(engine.card.export_check.values()) < 1e-4  # of the torch network filled from the same file
    outputs = engine.run(IMAGE)
    assert outputs["scores"].shape == (1, 20)
    assert outputs["cam"].shape == (1, 20, 8, 11)
    assert np.isfinite(outputs["scores"]).all()
    assert outputs["cam"].min() >= 0
    assert outputs["cam"].max() > 0
    engine.path.unlink()


class Surprise:
    """A class of one's own, whose loading would run code."""


MISSING = {
    "drs": "layer3_relu2.fc.0.weight", "drs-refine": "features.12.bias", "amr": "resnet50_2.layer2.1.conv2.weight",
    "edam": "fc_list.19.weight", "psa": "b5_1.conv_branch2a.weight", "ccrm": "fc8.weight", "irn": "edge_layers.5.weight",
}  # fmt: skip
FLAWS = ("missing", "extra", "shape", "code", "text")


@pytest.mark.parametrize(("method", "flaw"), [(method, flaw) for method in KEYS for flaw in FLAWS])
def test_a_flawed_file_is_refused_by_name(
    method: str, flaw: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state: dict[Any, Any] = constant_state(method)
    keys = keys_of(method)
    aliases = {key for key, entry in keys.items() if entry["alias_of"] == keys[MISSING[method]]["alias_of"]}
    said = MISSING[method].rpartition(".")[0].rpartition(".")[2]
    if flaw == "missing":
        state = {key: value for key, value in state.items() if key not in aliases}
    elif flaw == "extra":
        state["surprise.weight"], said = torch.zeros(3), "surprise.weight"
    elif flaw == "shape":
        state |= {key: torch.zeros(2, 2, 2) for key in aliases}
        said = "[2, 2, 2]" if method != "edam" else "(2, 2, 2)"
    elif flaw == "code":
        state["optimizer"], said = Surprise(), "more than tensors would be loaded"
    path = tmp_path / "authors.pth"
    torch.save(state, path)
    if flaw == "text":
        path.write_text("<html>not found</html>")
        said = "authors.pth"
    assert main(["import", "--method", method, "--checkpoint", str(path), "--models", str(tmp_path / "models")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert "authors.pth" in error or "checkpoint" in error
    assert [entry.name for entry in tmp_path.iterdir()] == ["authors.pth"]


def test_keys_that_are_no_names_are_refused(tmp_path: Path) -> None:
    torch.save({0: torch.zeros(1)}, tmp_path / "list.pth")
    with pytest.raises(DataError, match="no state dict"):
        read_state(tmp_path / "list.pth")


@pytest.fixture(scope="module")
def imagenet_state() -> dict[str, Tensor]:
    """ResNet-38 as PSA converts it from MXNet: its modules' names, no counters, and a layer for 1,000 classes."""
    generator = torch.Generator().manual_seed(0)
    shapes = {key: shape for key, shape in resnet38_shapes().items() if not key.endswith("num_batches_tracked")}
    state = {key: torch.rand((), generator=generator).expand(shape) for key, shape in shapes.items()}
    return state | {"fc8.weight": torch.zeros(()).expand(1000, 4096, 1, 1), "linear1000.bias": torch.zeros(1000)}


@pytest.mark.parametrize(("prefix", "named"), [("", False), ("module.", True)])
def test_resnet38_starts_from_a_torch_file_of_imagenet_weights(
    prefix: str, named: bool, imagenet_state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "hub" / "checkpoints" / WEIGHTS_FILE
    path.parent.mkdir(parents=True)
    torch.save({f"{prefix}{key}": value for key, value in imagenet_state.items()}, path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    state = build_backbone("resnet38", 8, str(path) if named else "pretrained").state_dict()
    for key in ("conv1a.weight", "b3_2.bn_branch2a.running_var", "b7.conv_branch2b2.weight", "bn7.bias"):
        assert torch.equal(state[key], imagenet_state[key]), key


def test_resnet38_refuses_files_of_another_network_and_of_another_kind(
    imagenet_state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "hub" / "checkpoints" / WEIGHTS_FILE
    path.parent.mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.save({key: value for key, value in imagenet_state.items() if key != "b4_5.conv_branch2b1.weight"}, path)
    with pytest.raises(ConfigError, match=r"1 of 228.*b4_5\.conv_branch2b1\.weight"):
        build_backbone("resnet38", 8, str(path))
    path.write_bytes((0x112).to_bytes(8, "little") + bytes(64))  # how an MXNet file begins
    with pytest.raises(DataError, match=WEIGHTS_FILE):
        build_backbone("resnet38", 8, "pretrained")


def random_network(name: str, path: Path, **options: Any) -> nn.Module:
    """A network of torchvision with random weights and statistics, also in the file `path`."""
    torch.manual_seed(0)
    network = models.get_model(name, weights=None, **options).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    torch.save(network.state_dict(), path)
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("torchvision")


@pytest.fixture(scope="module")
def resnet18(folder: Path) -> nn.Module:
    return random_network("resnet18", folder / "resnet18.pth")


def import_resnet18(folder: Path, *arguments: str) -> int:
    file = ["--checkpoint", str(folder / "resnet18.pth")]
    return main(["import", "--torchvision", "resnet18", *file, "--models", str(folder / "models"), *arguments])


@pytest.fixture(scope="module")
def engine(folder: Path, resnet18: nn.Module) -> Engine:
    assert import_resnet18(folder) == 0
    return Engine(folder / "models/resnet18/1/model.onnx", device="cpu")


def normalized(images: np.ndarray) -> Tensor:
    return torch.stack([normalize(image) for image in images])


@torch.no_grad()
def test_a_classifiers_scores_and_maps_are_torchvisions(engine: Engine, resnet18: nn.Module) -> None:
    logits = resnet18(normalized(IMAGE))
    features = normalized(IMAGE)
    for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
        features = getattr(resnet18, name)(features)
    maps = torch.einsum("kc,nchw->nkhw", resnet18.fc.weight, features) + resnet18.fc.bias[:, None, None]
    assert torch.allclose(maps.mean(dim=(2, 3)), logits, atol=1e-5 * float(logits.abs().max()))
    outputs = engine.run(IMAGE)
    assert outputs["cam"].shape == (1, 1000, 3, 3)
    assert np.abs(outputs["scores"] - logits.softmax(dim=1).numpy()).max() < 1e-5
    assert np.abs(outputs["cam"] - maps.relu().numpy()).max() < 1e-4 * float(maps.max())


def test_a_classifiers_card_says_what_torchvision_states(engine: Engine) -> None:
    card = engine.card
    assert (card.task, card.method, card.backbone, card.output_stride) == ("cam", "cam", "resnet18", 32)
    assert card.preferred_size == 256
    assert len(card.classes) == len({name.casefold() for name in card.classes}) == 1000
    assert (card.classes[0], card.classes[207]) == ("tench", "golden retriever")
    assert (card.classes[264], card.classes[474]) == ("Cardigan (264)", "cardigan (474)")
    assert set(card.presence_thresholds) == {0.2}
    assert "ImageNet" in card.data
    assert "non-commercial" in card.data_licence
    assert card.config == {
        "torchvision": "resnet18", "weights": "ResNet18_Weights.IMAGENET1K_V1", "file": "resnet18.pth",
    }  # fmt: skip
    assert Analyzer(Options(), (engine,)).look_at(IMAGE[0]).scores.sum() == pytest.approx(1, abs=1e-4)


@torch.no_grad()
def test_kept_classes_keep_their_scores_among_all(engine: Engine, folder: Path, exported: Exported) -> None:
    assert import_resnet18(folder, "--classes", "tabby, golden retriever", "--name", "pets") == 0
    [(pets, card)] = exported
    assert (card.name, card.classes) == ("pets", ("tabby", "golden retriever"))
    kept = [engine.card.classes.index(name) for name in card.classes]
    (scores, cams), everything = pets.eval()(torch.from_numpy(IMAGE)), engine.run(IMAGE)
    assert np.allclose(scores, everything["scores"][:, kept], atol=1e-6)
    assert np.allclose(cams, everything["cam"][:, kept], atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", ["densenet121", "mobilenet_v2", "efficientnet_b0", "regnet_y_400mf"])
def test_every_family_of_classifiers_gives_torchvisions_logits(name: str, tmp_path: Path, exported: Exported) -> None:
    network = random_network(name, tmp_path / "weights.pth")
    assert main(["import", "--torchvision", name, "--checkpoint", str(tmp_path / "weights.pth")]) == 0
    [(module, card)] = exported
    image = normalized(IMAGE[:, :64])
    logits, cams = module.network(image)
    expected = network(image)
    assert torch.allclose(logits, expected, atol=1e-4 * float(expected.abs().max()))
    assert cams.shape[2] == 64 // card.output_stride


def test_densenets_published_files_have_names_of_old() -> None:
    old = "features.denseblock1.denselayer1.norm.1.weight"
    assert OLD_DENSENET.sub(r"\1\2.", old) == "features.denseblock1.denselayer1.norm1.weight"
    assert OLD_DENSENET.sub(r"\1\2.", "features.norm0.weight") == "features.norm0.weight"


@torch.no_grad()
def test_lraspp_reads_two_features(tmp_path: Path, exported: Exported) -> None:
    network = random_network("lraspp_mobilenet_v3_large", tmp_path / "weights.pth", weights_backbone=None)
    arguments = ["--torchvision", "lraspp_mobilenet_v3_large", "--checkpoint", str(tmp_path / "weights.pth")]
    assert main(["import", *arguments]) == 0
    [(module, card)] = exported
    assert (card.method, card.output_stride) == ("lraspp", 8)
    _, mask = module(torch.from_numpy(IMAGE))
    assert torch.equal(mask.long(), network(normalized(IMAGE))["out"].argmax(dim=1))


@torch.no_grad()
def test_a_segmenters_mask_is_the_argmax_of_torchvisions(tmp_path: Path) -> None:
    name = "deeplabv3_mobilenet_v3_large"
    network = random_network(name, tmp_path / "weights.pth", weights_backbone=None, aux_loss=True)  # as published
    arguments = ["--checkpoint", str(tmp_path / "weights.pth"), "--models", str(tmp_path / "models")]
    assert main(["import", "--torchvision", name, *arguments]) == 0
    engine = Engine(tmp_path / "models" / name / "1/model.onnx", device="cpu", whole=True)
    card = engine.card
    assert (card.task, card.classes, card.preferred_size) == ("segmentation", VOC_CLASSES, 520)
    assert (card.method, card.backbone, card.output_stride) == ("deeplabv3", "mobilenet_v3_large", 16)
    assert "COCO" in card.data_licence
    expected = network(normalized(IMAGE))["out"]
    outputs = engine.run(IMAGE)
    assert outputs["logits"].shape[1:] == (21, -(-70 // card.output_stride), -(-90 // card.output_stride))
    enlarged = F.interpolate(torch.from_numpy(outputs["logits"]), size=(70, 90), mode="bilinear", align_corners=False)
    assert torch.allclose(enlarged, expected, atol=1e-4 * float(expected.abs().max()))
    assert (outputs["mask"] != expected.argmax(dim=1).numpy()).mean() <= 1e-3
    assert Analyzer(Options(), segmenter=engine).look_at(IMAGE[0]).mask.mask.shape == (70, 90)


def test_without_a_network_it_says_which_file_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert main(["import", "--torchvision", "resnet50", "--models", str(tmp_path / "models")]) == 2
    error = capsys.readouterr().err
    assert "https://download.pytorch.org/models/resnet50-11ad3fa6.pth could not be downloaded" in error
    assert str(tmp_path / "torch" / "hub" / "checkpoints") in error
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--torchvision", "resnet5"], "Did you mean 'resnet50'?"),
        (["--torchvision", "vit_b_16"], "gives no class activation maps"),
        (["--torchvision", "mobilenet_v3_small"], "gives no class activation maps"),
        (["--torchvision", "efficientnet_v2_l"], "mean [0.5, 0.5, 0.5]"),
        (["--torchvision", "resnet18", "--classes", "tabbi"], "did you mean 'tabby'?"),
        (["--torchvision", "resnet18", "--classes", "tabby,tabby"], "twice"),
        (["--torchvision", "fcn_resnet50", "--classes", "dog"], "segmenter"),
        (["--torchvision", "resnet18", "--name", "My Model"], "got 'My Model'"),
        (["--torchvision", "resnet34"], "does not fit"),
        (["--method", "psa", "--classes", "dog"], "--classes goes with --torchvision"),
        (["--method", "nothing"], "unknown method 'nothing'"),
    ],
)
def test_what_cannot_be_imported_is_refused_with_the_reason(
    arguments: list[str],
    message: str,
    folder: Path,
    resnet18: nn.Module,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = ["--checkpoint", str(folder / "resnet18.pth")]
    assert main(["import", *arguments, *file, "--models", str(tmp_path / "models")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


def test_a_method_needs_a_checkpoint_and_a_command_one_origin(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "--method", "drs"]) == 2
    assert "--checkpoint FILE" in capsys.readouterr().err
    for arguments in ([], ["--method", "drs", "--torchvision", "resnet18"]):
        with pytest.raises(SystemExit):
            main(["import", *arguments])


def test_names_of_imagenet_are_made_unique_by_their_index() -> None:
    assert unique_names(["crane", "dog", "Crane", "crane"]) == ("crane (0)", "dog", "Crane (2)", "crane (3)")
    categories = models.ResNet50_Weights.DEFAULT.meta["categories"]
    names = unique_names(categories)
    alike = collections.Counter(name.casefold() for name in categories)
    assert [a != b for a, b in zip(names, categories, strict=True)] == [alike[b.casefold()] > 1 for b in categories]
    assert kept_indices(names, ("goldfish", "tench")) == [1, 0]
