"""Maps of prototypes and of a softmax, and what joins them with plain CAM's."""

import torch
from torch.nn import functional as F

from training.data import DataConfig, open_source
from training.methods.cam import CamClassifier
from training.methods.joined import JoinedClassifier, keep_by_chance
from training.methods.lpcam import PHOTOS, direction_of, prototype_maps
from training.methods.recam import fit_softmax, pooled_by_map, softmax_maps
from training.stages.regression import last_features

HEAD, BODY, GRASS = torch.eye(3)  # what a pixel's features are made of


def test_prototypes_find_what_the_weights_leave_out() -> None:
    """The classifier knows a class by its head; its body is in every photo, too, and nowhere else."""
    torch.manual_seed(0)
    places = torch.cat([(part * 4).repeat(60, 1) for part in (HEAD + BODY * 0.6, BODY + HEAD * 0.6, GRASS)])
    weight, bias = torch.tensor([2.0, 0.5, -2.0]), torch.tensor(-1.0)
    direction = direction_of(places + torch.randn(180, 3) * 0.05, weight, bias)
    photo = torch.stack([HEAD + BODY * 0.6, BODY + HEAD * 0.6, GRASS], dim=1)[None, :, None]  # (1, 3, 1, 3)
    ((head, body, grass),) = prototype_maps(photo, direction[None, :, None, None])[0, 0]
    assert min(head, body) > 0.8 * max(head, body)
    assert grass == 0
    plain = F.conv2d(photo, weight[None, :, None, None])[0, 0, 0]
    assert plain[1] < 0.8 * plain[0]


def test_a_softmax_parts_what_two_classes_share() -> None:
    # The third feature lies in both classes' weights.
    pooled = torch.stack([HEAD + GRASS, BODY + GRASS]).repeat(20, 1)
    start = torch.stack([HEAD + GRASS, BODY + GRASS])
    weights = fit_softmax(pooled, torch.tensor([0, 1]).repeat(20), start)
    parted = softmax_maps(torch.stack([HEAD, GRASS], dim=1)[None, :, None], weights[:, :, None, None])[0, :, 0]
    assert parted[0, 0] > 2 * parted[1, 0]


def test_features_are_pooled_where_the_map_is() -> None:
    features = torch.stack([HEAD, GRASS], dim=1)[:, None]  # (3, 1, 2)
    pooled = pooled_by_map(features, torch.tensor([[[2.0, 0.0]], [[1.0, 4.0]]]))
    torch.testing.assert_close(pooled, torch.stack([HEAD / 2, HEAD / 8 + GRASS / 2]))


def test_the_parts_that_are_kept_come_from_all_of_them() -> None:
    kept: list[torch.Tensor] = []
    for seen in range(1, 10 * PHOTOS + 1):
        keep_by_chance(kept, torch.tensor(seen), seen)
    assert len(kept) == PHOTOS
    assert sum(int(part) > 5 * PHOTOS for part in kept) > PHOTOS / 4


def test_the_maps_are_learned_after_training_and_the_scores_stay() -> None:
    photos = open_source(DataConfig.model_validate({
        "source": "scenes", "scenes": {"count": 12, "val_count": 4, "size": 64, "class_count": 3},
    }))  # fmt: skip
    options = {"bias": True, "freeze": True}
    torch.manual_seed(0)
    plain = CamClassifier(3, "small", 16, "pretrained", CamClassifier.Options(**options)).eval()
    torch.nn.init.normal_(plain.classifier.weight, std=0.3)
    joined = JoinedClassifier(3, "small", 16, "pretrained", JoinedClassifier.Options(**options)).eval()
    joined.load_state_dict(plain.state_dict(), strict=False)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        logits, cams = plain(images)
        torch.testing.assert_close(joined(images), (logits, cams))  # nothing is learned yet
        joined.learn_maps(last_features(joined, photos, photos.names("train"), 64))
        scores, maps = joined(images)
    torch.testing.assert_close(scores, logits)
    strength = cams.amax(dim=(2, 3))
    assert (maps >= cams).all()
    assert (maps.amax(dim=(2, 3)) <= 3 * strength + 1e-5).all()
    assert (maps > 1.1 * cams).any()


def test_photos_of_one_colour_have_a_prototype_all_the_same() -> None:
    direction = direction_of(HEAD.repeat(5, 1), torch.ones(3), torch.tensor(0.0))
    torch.testing.assert_close(direction, HEAD)
