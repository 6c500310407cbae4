import numpy as np
import pytest

from labelgen.engines.one_pixel.refinement import UNLABELLED, bands_of, choose

NAN = np.nan
IS_OBJECT = np.array([True, True, False, False])
ALL = np.ones((1, 4), bool)


@pytest.mark.parametrize(
    ("scores", "allowed", "label"),
    [
        ([0.06, 0.05, 0.9, 0.8], [1, 1, 1, 1], 0),  # an object where one reaches 0.05, whatever the scenes' scores
        ([0.04, 0.03, 0.9, 0.8], [1, 1, 1, 1], 2),  # else the best scene
        ([0.04, 0.03, 0.01, 0.05], [1, 1, 1, 1], 3),
        ([0.04, 0.03, 0.01, 0.02], [1, 1, 1, 1], UNLABELLED),
        ([0.9, 0.06, 0.9, 0.8], [0, 1, 0, 1], 1),  # only what the band allows
        ([0.9, 0.04, 0.9, 0.8], [0, 1, 0, 1], 3),
        ([0.9, 0.9, 0.9, 0.9], [0, 0, 0, 0], UNLABELLED),
        ([NAN, 0.5, 0.9, NAN], [1, 1, 1, 1], 1),  # a class without a score is no candidate
        ([NAN, NAN, NAN, 0.3], [1, 1, 1, 1], 3),
        ([NAN, NAN, NAN, NAN], [1, 1, 1, 1], UNLABELLED),
    ],
)
def test_an_object_wins_where_it_is_sure_enough_else_a_scene(
    scores: list[float], allowed: list[int], label: int
) -> None:
    chosen = choose(np.array([scores], np.float32), np.array([allowed], bool), IS_OBJECT, 0.05)
    assert chosen.tolist() == [label]


@pytest.mark.parametrize(("margin", "label"), [(0.0, 0), (1.0, 0), (1.1, 2)])
def test_a_margin_asks_objects_to_beat_scenes(margin: float, label: int) -> None:
    scores = np.array([[0.84, 0.1, 0.8, 0.2]], np.float32)
    assert choose(scores, ALL, IS_OBJECT, 0.05, margin).tolist() == [label]


def test_objects_need_no_margin_over_scenes_that_are_none() -> None:
    assert choose(np.array([[0.3, 0.1, NAN, 0.01]], np.float32), ALL, IS_OBJECT, 0.05, 2.0).tolist() == [0]


@pytest.mark.parametrize("is_object", [np.zeros(4, bool), np.ones(4, bool)])
def test_all_classes_may_be_of_one_kind(is_object: np.ndarray) -> None:
    assert choose(np.array([[0.3, 0.4, 0.2, 0.1]], np.float32), ALL, is_object, 0.05).tolist() == [1]


def test_a_superpixel_is_in_the_band_of_its_middle() -> None:
    map_HW = np.array([[0], [0], [0], [1], [2], [2], [3], [3]])  # middles of 1.5, 3.5, 5 and 7 of 8 rows
    assert bands_of(map_HW, 4).tolist() == [0, 1, 2, 3]
    assert bands_of(map_HW, 1).tolist() == [0, 0, 0, 0]
    assert bands_of(np.zeros((1, 1), int), 4).tolist() == [2]
