"""One analysis: what is asked is worked out when it is read, once, by the models alone that are needed for it."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from app.inference.analysis import Analyzer
from app.inference.engine import Engine
from app.inference.errors import ParameterError, UnknownClassError
from app.inference.image.decode import whole_image
from app.inference.maps.localization import ScaleCams
from app.inference.model_card import ModelCard
from app.inference.options import Options
from tests.app.colour_models import BLACK, GREEN, RED, SIDE, halves, to_file, write_cam_model, write_segmentation_model


@dataclass
class Counted:
    """A real model that notes the shape of every batch it is given."""

    engine: Engine
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def card(self) -> ModelCard:
        return self.engine.card

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        self.shapes.append(images.shape)
        return self.engine.run(images)


@pytest.fixture
def cam(tmp_path: Path) -> Counted:
    return Counted(Engine(write_cam_model(tmp_path, scales=(1.0, 2.0)), device="cpu"))


@pytest.fixture
def segmenter(tmp_path: Path) -> Counted:
    few = ("person", "dog", "cat")
    return Counted(Engine(write_segmentation_model(tmp_path, classes=few), device="cpu"))


IMAGE = halves(RED, BLACK)


def test_nothing_is_run_before_it_is_read_and_nothing_twice(cam: Counted, segmenter: Counted) -> None:
    analysis = Analyzer(Options(), (cam,), segmenter).look_at(IMAGE)
    assert cam.shapes == segmenter.shapes == []
    for _ in range(2):
        assert analysis.pseudo_label.label_map.any()
        assert analysis.maps().maps.any()
        assert analysis.present
    assert [shape[1] for shape in cam.shapes] == [SIDE, 2 * SIDE]  # each scale of the card once
    assert segmenter.shapes == []
    assert analysis.mask is analysis.mask
    assert len(segmenter.shapes) == 1


def test_another_question_about_the_same_views_runs_no_network(cam: Counted) -> None:
    analysis = Analyzer(Options(), (cam,)).look_at(IMAGE)
    free = analysis.pseudo_label
    runs = len(cam.shapes)
    tagged = analysis.asking(tags=("cat",), refine="pamr").pseudo_label
    assert len(cam.shapes) == runs
    assert free.class_indices != tagged.class_indices
    assert analysis.asking(scales=(1.0,)).scores.any()
    assert len(cam.shapes) == runs + 1


def test_a_tag_is_a_class_of_its_own_number_in_every_model(cam: Counted, segmenter: Counted) -> None:
    analysis = Analyzer(Options(tags=("cat",)), (cam,), segmenter).look_at(halves(GREEN, BLACK))
    assert set(np.unique(analysis.pseudo_label.label_map)) == {0, cam.card.classes.index("cat") + 1}
    assert set(np.unique(analysis.mask.mask)) == {0, 3}
    with pytest.raises(UnknownClassError, match="unknown class 'bird'"):  # the segmenter knows three classes
        Analyzer(Options(tags=("bird",)), (cam,), segmenter)


@pytest.mark.parametrize(
    ("options", "long_side"),
    [(Options(), 2 * SIDE), (Options(scales=(0.5,)), SIDE / 2), (Options(conditional=True, scales=(3.0,)), 3 * SIDE)],
)
def test_the_largest_view_of_any_model_decides_how_large_a_photo_is_decoded(
    cam: Counted, segmenter: Counted, options: Options, long_side: float
) -> None:
    analyzer = Analyzer(options, (cam,), segmenter)
    assert analyzer.input_long_side == long_side
    large = to_file(halves(RED, BLACK, 1600, 1600), "JPEG")
    photo = analyzer.read(large).photo
    assert (photo.height, photo.width) == (1600, 1600)
    assert 2 * long_side <= photo.image.shape[0] < 1600
    assert whole_image(photo, large).shape == (1600, 1600, 3)


@pytest.mark.parametrize("options", [Options(flip=True), Options(refine="pamr"), Options(conditional=True)])
def test_what_is_known_of_a_photo_is_not_asked_for_again(cam: Counted, options: Options) -> None:
    analyzer, data = Analyzer(options, (cam,)), to_file(IMAGE)
    first = analyzer.read(data)
    label, scores = first.pseudo_label.label_map, first.scores
    kept = [ScaleCams.from_bytes(views.to_bytes()) for views in first.found_out if views]
    runs = len(cam.shapes)
    second = analyzer.read(data, known=kept)
    assert np.array_equal(second.scores, scores)
    assert len(cam.shapes) == runs
    assert "decode" in second.stopwatch.milliseconds
    assert np.array_equal(second.pseudo_label.label_map, label)
    assert (len(cam.shapes) == runs) is not options.conditional  # CCRM's own views are no plain ones


def test_of_a_photo_that_is_not_whole_nothing_is_kept(cam: Counted) -> None:
    data = to_file(halves(RED, BLACK, 400, 400), "JPEG")
    analysis = Analyzer(Options(), (cam,)).read(data[: len(data) * 3 // 4])
    assert analysis.scores.any()
    assert analysis.note
    assert not analysis.found_out


def test_the_order_of_thresholds_is_checked_before_there_is_a_photo(cam: Counted, segmenter: Counted) -> None:
    below = Options(foreground_threshold=cam.card.background_threshold / 2)
    with pytest.raises(ParameterError, match="lies below the background threshold"):
        Analyzer(below, (cam,))
    Analyzer(below, segmenter=segmenter)  # a mask has none
