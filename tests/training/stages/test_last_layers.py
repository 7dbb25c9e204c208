"""The last layers alone: what they see, what they leave as it was, and that they learn what they are shown."""

from pathlib import Path

import numpy as np
import pytest
import torch

from app.inference.label_maps.segmentation import keep_classes
from app.inference.labels import IGNORE_INDEX, label_count
from app.inference.model_card import ModelCard
from training.backbones import build_backbone
from training.config.data import DataConfig, ScenesConfig
from training.config.learn import LastLayersFitConfig, LearnConfig
from training.config.learning import CorrectionsConfig
from training.data import TaggedPhotos, open_source
from training.export.served import TorchModel
from training.segmenters import SEGMENTERS, Segmenter, SegmenterOptions
from training.stages.go_on import go_on, others_of
from training.stages.last_layers import LastLayers, RememberingModel, Trunk, TrunkViews, kept_to, label_weights
from training.stages.pseudo_label import write_label_map
from training.stages.segmenter import serve_segmenter

SIZE = 96


@pytest.fixture(scope="module")
def photos() -> TaggedPhotos:
    return open_source(DataConfig(source="scenes", scenes=ScenesConfig(count=8, val_count=2, size=SIZE, class_count=2)))


@pytest.fixture
def segmenter(photos: TaggedPhotos) -> Segmenter:
    torch.manual_seed(0)
    options = SegmenterOptions(channels=8, tag_weight=1.0)
    network = SEGMENTERS["deeplabv3plus"](build_backbone("small", 16, None), label_count(len(photos.classes)), options)
    return network.eval()


def card_of(photos: TaggedPhotos) -> ModelCard:
    return ModelCard(
        name="tiny", version=1, task="segmentation", method="deeplabv3plus", paper="-", backbone="small",
        classes=photos.classes, output_stride=16, preferred_size=SIZE, presence_thresholds=(0.1,) * len(photos.classes),
        data="-", data_licence="-",
    )  # fmt: skip


def label_files(photos: TaggedPhotos, names: tuple[str, ...], label: int, folder: Path) -> dict[str, Path]:
    for name in names:
        write_label_map(folder / f"{name}.png", np.full(photos.size(name), label, np.uint8))
    return {name: folder / f"{name}.png" for name in names}


@pytest.mark.parametrize("architecture", SEGMENTERS)
def test_logits_are_what_the_last_layers_make_of_the_trunk(architecture: str) -> None:
    network = SEGMENTERS[architecture](build_backbone("small", 16, None), 3, SegmenterOptions(channels=8)).eval()
    features = network.backbone(torch.rand(1, 3, 64, 96))
    torch.testing.assert_close(network.logits(features), network.last(network.trunk(features)))
    used = {id(p) for module in network.last_modules() for p in module.parameters()}
    network.last(network.trunk(features).detach()).sum().backward()
    assert used == {id(p) for p in network.parameters() if p.grad is not None}


def test_views_are_crops_of_what_the_whole_photo_gave(
    segmenter: Segmenter, photos: TaggedPhotos, tmp_path: Path
) -> None:
    name, other = photos.names("train")[:2]
    rows, columns = np.indices(photos.size(name))
    write_label_map(tmp_path / f"{name}.png", ((rows // 4 + columns // 4) % 3).astype(np.uint8))
    trunk = Trunk(segmenter, photos, SIZE)
    views = TrunkViews(trunk, {name: tmp_path / f"{name}.png"}, (other,), 3.0, 32, seed=0)
    whole, view = trunk.of(name).float(), views[0, 0]
    assert view["before"].shape == (8, 8, 8)
    assert view["label_maps"].shape == (32, 32)
    assert view["weights"] == 3
    places = [
        (top, left)
        for top in range(whole.shape[1] - 7)
        for left in range(whole.shape[2] - 7)
        if torch.equal(whole[:, top : top + 8, left : left + 8], view["before"])
    ]
    ((top, left),) = places
    assert view["label_maps"][0, 0] == (top + left) % 3
    assert view["corrected"]
    larger = TrunkViews(trunk, {}, (other,), 3.0, 128, seed=0)[0, 0]
    assert (larger["label_maps"][SIZE:] == IGNORE_INDEX).all()
    assert larger["weights"] == 1
    assert not larger["corrected"]
    torch.testing.assert_close(larger["answers"][:, : SIZE // 4, : SIZE // 4], trunk.answers(other).float())


def test_only_the_last_layers_learn_and_they_learn_what_they_are_shown(
    segmenter: Segmenter, photos: TaggedPhotos, tmp_path: Path
) -> None:
    before = {key: value.clone() for key, value in segmenter.state_dict().items()}
    names = photos.names("train")
    corrected = label_files(photos, names[:2], 2, tmp_path / "corrected")
    config = LearnConfig(
        out=tmp_path, data=DataConfig(source="scenes"), corrections=CorrectionsConfig(weight=5), crop=64,
        fit=LastLayersFitConfig(max_steps=30, lr=0.01, batch_size=2), earlier_share=0,
    )  # fmt: skip
    go_on(segmenter, Trunk(segmenter, photos, SIZE), config, corrected, (), tmp_path)
    changed = {key for key, value in segmenter.state_dict().items() if not torch.equal(value, before[key])}
    assert {key.split(".")[0] for key in changed} == {"decoder", "classifier"}
    assert not any("running" in key or key.startswith("decoder.0") for key in changed)
    outputs = RememberingModel(segmenter, card_of(photos)).run(photos.image(names[0])[None])
    assert (outputs["logits"].argmax(axis=1) == 2).mean() > 0.9


def test_a_training_that_was_stopped_goes_on(segmenter: Segmenter, photos: TaggedPhotos, tmp_path: Path) -> None:
    start = {key: value.clone() for key, value in segmenter.state_dict().items()}
    names = photos.names("train")
    corrected = label_files(photos, names[:2], 1, tmp_path / "corrected")

    def trained(steps: tuple[int, ...], out: Path) -> dict[str, torch.Tensor]:
        for count in steps:  # the second call is a process that finds the first epoch done
            segmenter.load_state_dict(start)
            fit = LastLayersFitConfig(max_steps=count, batch_size=2, schedule="step", milestones=())
            config = LearnConfig(
                out=out,
                data=DataConfig(source="scenes"),
                corrections=CorrectionsConfig(),
                crop=64,
                fit=fit,
                earlier_share=0.5,
            )
            go_on(segmenter, Trunk(segmenter, photos, SIZE), config, corrected, names[2:], out)
        return {key: value.clone() for key, value in segmenter.state_dict().items()}

    whole, resumed = trained((12,), tmp_path / "whole"), trained((6, 12), tmp_path / "resumed")
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value)


def test_several_trainings_end_as_their_mean(segmenter: Segmenter, photos: TaggedPhotos, tmp_path: Path) -> None:
    start = {key: value.clone() for key, value in segmenter.state_dict().items()}
    names = photos.names("train")
    corrected = label_files(photos, names[:2], 1, tmp_path / "corrected")

    def trained(trainings: int, seed: int, out: Path) -> torch.Tensor:
        segmenter.load_state_dict(start)
        config = LearnConfig(
            out=out, data=DataConfig(source="scenes"), corrections=CorrectionsConfig(), crop=64, trainings=trainings,
            fit=LastLayersFitConfig(max_steps=4, batch_size=2, seed=seed),
        )  # fmt: skip
        go_on(segmenter, Trunk(segmenter, photos, SIZE), config, corrected, names[2:], out)
        return segmenter.state_dict()["classifier.weight"].clone()

    first, second = trained(1, 0, tmp_path / "first"), trained(1, 1, tmp_path / "second")
    assert not torch.allclose(first, second)
    torch.testing.assert_close(trained(2, 0, tmp_path / "both"), (first + second) / 2)


def test_what_is_remembered_answers_as_the_served_network(segmenter: Segmenter, photos: TaggedPhotos) -> None:
    card, images = card_of(photos), np.stack([photos.image(name) for name in photos.names("train")[:2]])
    served = TorchModel(serve_segmenter(segmenter, card), card, torch.device("cpu")).run(images)
    remembering = RememberingModel(segmenter, card)
    for _ in range(2):
        outputs = remembering.run(images)
        assert set(outputs) == set(served) - {"mask"}
        for key, value in outputs.items():
            np.testing.assert_allclose(value, served[key], rtol=0.02, atol=0.02)  # what is kept is in half precision


def test_normalisation_keeps_its_statistics(segmenter: Segmenter) -> None:
    learner = LastLayers(segmenter)
    learner.train()
    assert not any(module.training for module in learner.modules() if isinstance(module, torch.nn.BatchNorm2d))


def test_what_the_network_answered_before_is_kept_on_other_photos_and_corrections_alone_pull(
    segmenter: Segmenter, photos: TaggedPhotos, tmp_path: Path
) -> None:
    corrected, other = photos.names("train")[:2]
    files = label_files(photos, (corrected,), 1, tmp_path)
    views = TrunkViews(Trunk(segmenter, photos, SIZE), files, (other,), 1.0, 64, seed=0)
    learner = LastLayers(segmenter)

    def pull(index: int) -> float:
        learner.zero_grad()
        learner.losses({key: value[None] for key, value in views[0, index].items()})["loss"].backward()
        return max(float(p.grad.abs().max()) for p in learner.parameters() if p.grad is not None)

    assert pull(0) > 1e-2
    assert pull(1) < 1e-3  # the answers are kept in half precision


def test_what_was_another_class_is_that_of_the_photos_classes_as_in_the_service() -> None:
    logits = torch.randn(1, 4, 2, 2)
    answer = kept_to(logits, torch.tensor([[True, False, True, True]])).softmax(1)[0].numpy()
    served = keep_classes(logits.softmax(1)[0].numpy(), (1, 2), complete=True)
    np.testing.assert_allclose(answer, served, atol=1e-3)


def test_every_class_has_its_turn_among_the_others_and_none_is_corrected(photos: TaggedPhotos) -> None:
    names = photos.names("train")
    others = others_of(photos, {names[0]}, 3)
    assert len(others) == 3
    assert names[0] not in others
    assert {tag for name in others for tag in photos.tags(name)} == set(photos.classes)


def test_the_pixels_of_a_label_together_weigh_as_the_root_of_their_number() -> None:
    targets = torch.zeros(2, 8, 8, dtype=torch.int64)
    # There are 4 pixels of 3, 52 of 0, and 64 of 2, which is not drawn.
    targets[0, :2, :2], targets[0, 7], targets[1] = 3, IGNORE_INDEX, 2
    drawn = (targets != IGNORE_INDEX) & torch.tensor([True, False])[:, None, None]
    weights = label_weights(targets, drawn)
    torch.testing.assert_close(weights[targets == 3].sum() / weights[targets == 0].sum(), torch.tensor((4 / 52) ** 0.5))
    torch.testing.assert_close(weights[drawn].mean(), torch.tensor(1.0))
    assert not weights[~drawn].any()
    assert not label_weights(targets, torch.zeros_like(drawn)).any()
