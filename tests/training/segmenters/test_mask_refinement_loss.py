"""Both readings of the mask refinement loss, on numbers computed by hand."""

from math import log

import numpy as np
import pytest
import torch

from training.segmenters.mask_refinement_loss import activated_region, mask_refinement_loss

# one photo of four pixels, three labels; exp(logits) gives p_bg = 1/2, 1/4, 1/2, 4/5
LOGITS = torch.log(torch.tensor([[2.0, 1, 2, 8], [1, 1, 1, 1], [1, 2, 1, 1]])).reshape(1, 3, 2, 2)
SALIENT = torch.tensor([[[True, True], [False, False]]])
ACTIVATED = torch.tensor([[[True, False], [True, False]]])


def test_foreground_reading() -> None:
    expected = -(log(1 / 2) + log(3 / 4) + log(1 / 2) + log(4 / 5)) / 4  # the third pixel becomes foreground
    assert mask_refinement_loss(LOGITS, SALIENT, ACTIVATED).item() == pytest.approx(expected)


def test_ignore_reading() -> None:
    expected = -(log(1 / 2) + log(3 / 4) + log(4 / 5)) / 3  # the third pixel says nothing
    assert mask_refinement_loss(LOGITS, SALIENT, ACTIVATED, "ignore").item() == pytest.approx(expected)


@pytest.mark.parametrize("reading", ["foreground", "ignore"])
def test_padding_does_not_count(reading: str) -> None:
    valid = torch.tensor([[[True, False], [False, True]]])
    expected = -(log(1 / 2) + log(4 / 5)) / 2
    assert mask_refinement_loss(LOGITS, SALIENT, ACTIVATED, reading, valid).item() == pytest.approx(expected)
    assert mask_refinement_loss(LOGITS, SALIENT, ACTIVATED, reading, valid & ~valid).item() == 0


def test_gradient_is_finite_where_the_segmenter_is_certain_and_reaches_no_ignored_pixel() -> None:
    logits = (1000 * LOGITS).requires_grad_()
    loss = mask_refinement_loss(logits, SALIENT, ACTIVATED, "ignore")
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[0, :, 1, 0].any()


def test_activated_region_is_the_top_tenth_of_the_positive_values_of_each_class() -> None:
    maps = np.zeros((2, 5, 8))
    maps[0, :2, :5] = np.arange(1, 11).reshape(2, 5)  # 0.9-quantile of 1..10 is 9.1
    maps[1, 4, :2] = (0.3, 0.1)  # of 0.1 and 0.3 it is 0.28
    region = activated_region(maps)
    assert np.argwhere(region).tolist() == [[1, 4], [4, 0]]
    assert activated_region(maps, quantile=0.5).sum() == 5 + 1


def test_a_photo_without_activations_has_no_activated_region() -> None:
    assert not activated_region(np.zeros((2, 3, 3))).any()
    assert not activated_region(np.zeros((0, 3, 3))).any()
