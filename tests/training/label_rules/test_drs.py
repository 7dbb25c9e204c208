"""DRS's label rule on numbers computed by hand."""

import numpy as np

from training.label_rules.drs import drs_pseudo_label


def test_drs_pseudo_label_by_hand() -> None:
    maps = np.array([[[0.5, 0.5, 0.1, 0.95, 1.2]], [[0.4, 0.1, 0.1, 0.95, 0.0]]], np.float32)
    saliency = np.array([[255, 0, 255, 0, 50]], np.uint8)
    # salient: best class; not salient: background wins; salient and unclaimed: ignore;
    # two maps and the background above .9: ignore; a map above 1 beats the background outside the salient part
    assert drs_pseudo_label(maps, (0, 1), saliency).tolist() == [[1, 0, 255, 255, 1]]
