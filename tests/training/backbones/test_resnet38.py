"""ResNet-38: shapes, activations, weight files, and PSA's classifier imported by name."""

from pathlib import Path

import pytest
import torch
from torch import nn

from app.inference.errors import ConfigError, DataError
from training.authors.released import psa
from training.backbones import build_backbone, relu
from training.backbones.resnet38 import WEIGHTS_FILE, BasicBlock, ResNet38


def meta() -> ResNet38:
    with torch.device("meta"):
        return ResNet38(8, relu)


def test_it_has_38_weighted_layers_on_its_main_path_and_the_widths_of_psa() -> None:
    network = meta()
    convolutions = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    assert len([name for name in convolutions if "branch1" not in name]) == 1 + 2 * 15 + 3 * 2  # and the classifier: 38
    assert network.bn7.num_features == network.channels[-1] == 4096
    assert network.b5.conv_branch2a.dilation == (1, 1)
    assert network.b5.conv_branch2b1.dilation == network.b5_1.conv_branch2a.dilation == (2, 2)
    assert network.b6.conv_branch2b1.dilation == (4, 4)


def test_features_have_strides_4_8_8_8() -> None:
    with torch.device("meta"):
        features = ResNet38(8, relu)(torch.empty(2, 3, 97, 129))
    assert [tuple(f.shape) for f in features] == [
        (2, 256, 25, 33),
        (2, 512, 13, 17),
        (2, 1024, 13, 17),
        (2, 4096, 13, 17),
    ]


def test_every_activation_can_be_replaced_and_says_its_stage() -> None:
    asked: list[tuple[int, int]] = []

    def activation(stage: int, channels: int) -> nn.Module:
        asked.append((stage, channels))
        return nn.ReLU()

    with torch.device("meta"):
        network = ResNet38(8, activation)
    assert not [m for m in network.modules() if isinstance(m, nn.ReLU) and m.inplace]
    assert len(asked) == 2 * 15 + 3 * 2 + 1
    assert [channels for stage, channels in asked if stage == 4] == [512, 1024, 2048, 1024, 2048, 4096]
    assert asked[0] == (0, 64)
    # the first activation of a stage is that of the features of the stage before
    assert asked[6] == (0, 128)
    assert asked[12] == (1, 256)


def test_a_block_is_pre_activated() -> None:
    block = BasicBlock(2, 2, 2, 1, (1, 1), (0, 0), relu).eval()
    x = torch.tensor([[-1.0, 2.0]])[:, :, None, None].expand(1, 2, 3, 3)
    block.conv_branch2b1.weight.data.zero_()
    out, activated = block(x)
    assert torch.equal(out, x)  # the shortcut is the raw input
    assert torch.allclose(activated, x.relu(), atol=1e-4)  # what the convolutions see is not


def test_the_final_activation_is_a_switch() -> None:
    network = meta()
    names = set(network.state_dict())
    assert isinstance(network.act7, nn.ReLU)
    network.drop_final_activation()
    assert isinstance(network.act7, nn.Identity)
    assert set(network.state_dict()) == names


def test_other_output_strides_are_refused() -> None:
    with pytest.raises(ConfigError, match="output stride 8, not 16"):
        build_backbone("resnet38", 16)


def test_without_imagenet_weights_it_says_where_to_put_which_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=WEIGHTS_FILE):
        meta().pretrained_state()
    path = tmp_path / "hub" / "checkpoints" / WEIGHTS_FILE
    path.parent.mkdir(parents=True)
    torch.save({"conv1a.weight": torch.ones(64, 3, 3, 3)}, path)
    assert meta().pretrained_state()["conv1a.weight"].sum() == 64 * 27


def psa_state() -> dict[str, torch.Tensor]:
    state = {
        name: torch.zeros((), dtype=value.dtype).expand(value.shape) for name, value in meta().state_dict().items()
    }
    return state | {"fc8.weight": torch.zeros(()).expand(5, 4096, 1, 1)}


def test_psas_keys_become_those_of_the_plain_classifier() -> None:
    ours = psa.convert(psa_state())
    assert ours["classifier.weight"].shape == (5, 4096, 1, 1)
    assert {name.removeprefix("backbone.") for name in ours} == {*meta().state_dict(), "classifier.weight"}


def test_files_of_old_torch_lack_counters() -> None:
    state = {name: value for name, value in psa_state().items() if not name.endswith("num_batches_tracked")}
    assert psa.convert(state)["backbone.bn7.num_batches_tracked"] == 0


def test_a_key_too_few_or_too_many_is_named() -> None:
    few, many = psa_state(), psa_state()
    del few["b5_1.conv_branch2a.weight"]
    many["f8_3.weight"] = torch.zeros(1)
    with pytest.raises(DataError, match=r"b5_1\.conv_branch2a\.weight"):
        psa.convert(few)
    with pytest.raises(DataError, match=r"1 tensors .* f8_3\.weight"):
        psa.convert(many)
