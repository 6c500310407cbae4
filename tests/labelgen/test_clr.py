"""Class maps made into scores of superpixels, worked out by hand: Eqs. 4 and 6 of "One pixel per class"."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from labelgen.clr import (
    IterateConfig,
    Refinement,
    Regions,
    SlicRefiner,
    class_shares,
    grid_of,
    refine,
    silence,
)
from labelgen.samples import InputError

NAN = np.nan


def test_a_superpixel_has_each_class_by_the_share_of_its_pixels() -> None:
    superpixels_HW = np.array([[0, 0, 1], [0, 0, 2]])
    classes_HW = np.array([[2, 2, 0], [1, 2, 1]], np.uint8)
    shares_SC = class_shares(classes_HW, superpixels_HW, 3)
    np.testing.assert_allclose(shares_SC, [[0, 0.25, 0.75], [1, 0, 0], [0, 1, 0]])


def test_a_number_without_pixels_has_no_shares() -> None:
    shares_SC = class_shares(np.array([[1, 0]], np.uint8), np.array([[0, 2]]), 2)
    np.testing.assert_array_equal(shares_SC, [[0, 1], [0, 0], [1, 0]])


def test_scores_are_averaged_by_the_columns_of_the_context() -> None:
    scores_SC = np.array([[1.0, 0.0], [0.0, 1.0]])
    context_SS = np.array([[3.0, 1.0], [1.0, 0.0]])  # the second superpixel listens to the first one alone
    np.testing.assert_allclose(refine(scores_SC, context_SS), [[0.75, 0.25], [1.0, 0.0]])


def test_a_superpixel_without_context_keeps_its_scores() -> None:
    scores_SC = np.array([[0.9, 0.1], [0.3, 0.7]])
    np.testing.assert_allclose(refine(scores_SC, np.array([[1.0, 0.0], [1.0, 0.0]])), [[0.6, 0.4], [0.3, 0.7]])


def test_superpixels_below_the_threshold_and_classes_out_of_place_are_silent() -> None:
    scores_SC = np.array([[0.5, 0.3, 0.2], [0.4, 0.35, 0.25], [0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.9, 0.1, 0.0]])
    is_allowed_SC = np.ones((5, 3), bool)
    is_allowed_SC[2:4, 0] = False  # what is left of the third is 0.1, of the fourth 0.6
    is_allowed_SC[4] = False
    found_SC = silence(scores_SC, is_allowed_SC, 0.5)
    np.testing.assert_allclose(found_SC, [[0.5, 0.3, 0.2], [NAN] * 3, [NAN] * 3, [NAN, 0.6, 0.0], [NAN] * 3])


class Halves:
    """The left half of an image and the right one, which say nothing to each other; the right one is never class 0."""

    about: Mapping[str, Any] = {"halves": 2}

    def regions(self, image_path: str, image_HW3: np.ndarray) -> Regions:
        height, width = image_HW3.shape[:2]
        halves_HW = np.broadcast_to(np.arange(width) >= width // 2, (height, width)).astype(int)
        return Regions(halves_HW, np.eye(2, dtype=np.float32), np.array([[True, True], [False, True]]))


def test_scores_of_superpixels_lie_on_a_grid_of_two_pixels() -> None:
    refinement = Refinement(Halves(), 0.6)
    classes_HW = np.array([[0, 0, 0, 0, 1, 0], [0, 0, 0, 1, 1, 0], [0, 1, 0, 1, 0, 1]], np.uint8)
    scores_Chw = refinement.scores("a", np.zeros((3, 6, 3), np.uint8), classes_HW, 2)
    assert scores_Chw.shape == (2, *grid_of(3, 6)) == (2, 2, 3)
    # 8 / 9 of the left half are class 0; 5 / 9 of the right one are class 1, which is not enough.
    np.testing.assert_allclose(scores_Chw[0], [[8 / 9, NAN, NAN]] * 2)
    np.testing.assert_allclose(scores_Chw[1], [[1 / 9, NAN, NAN]] * 2)
    scores_Chw = Refinement(Halves(), 0.5).scores("a", np.zeros((3, 6, 3), np.uint8), classes_HW, 2)
    np.testing.assert_allclose(scores_Chw[1], [[1 / 9, 5 / 9, 5 / 9]] * 2)
    assert refinement.about == {"threshold": 0.6, "halves": 2}


def two_colours() -> np.ndarray:
    """Green above, grey below, with a little noise."""
    rng = np.random.default_rng(0)
    image_HW3 = np.full((60, 80, 3), (110, 110, 110))
    image_HW3[:30] = (40, 160, 40)
    return (image_HW3 + rng.integers(-8, 9, image_HW3.shape)).astype(np.uint8)


def test_superpixels_of_like_colour_correct_each_other() -> None:
    classes_HW = np.repeat(np.array([0, 1], np.uint8), 30)[:, None].repeat(80, 1)
    classes_HW[10:16, 20:26] = 2  # most of a superpixel
    refinement = Refinement(SlicRefiner(IterateConfig(superpixels=80), 3), 0.5)
    scores_Chw = refinement.scores("a", two_colours(), classes_HW, 3)
    assert (scores_Chw[:, :9].argmax(0) == 0).all()  # off the border, which some superpixels cross
    assert (scores_Chw[:, 22:].argmax(0) == 1).all()


def test_slic_numbers_superpixels_from_0_and_near_ones_of_like_colour_speak_for_each_other() -> None:
    superpixels_HW, context_SS, is_allowed_SC = SlicRefiner(IterateConfig(superpixels=80), 3).regions(
        "a", two_colours()
    )
    S = len(context_SS)
    assert np.unique(superpixels_HW).tolist() == list(range(S))
    assert is_allowed_SC.shape == (S, 3)
    assert is_allowed_SC.all()
    np.testing.assert_allclose(np.diag(context_SS), 1, atol=1e-4)
    np.testing.assert_allclose(context_SS, context_SS.T, atol=1e-6)
    at, near, far, other = (superpixels_HW[place] for place in ((5, 5), (5, 15), (5, 75), (35, 5)))
    assert context_SS[at, near] > 2 * context_SS[at, far]
    assert context_SS[at, other] < 1e-3


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (16, 16)])
def test_an_image_of_one_superpixel_has_one(size: tuple[int, int]) -> None:
    image_HW3 = np.full((*size, 3), 7, np.uint8)
    regions = SlicRefiner(IterateConfig(superpixels=1), 2).regions("a", image_HW3)
    assert regions.context_SS.tolist() == [[1.0]]
    scores_Chw = Refinement(SlicRefiner(IterateConfig(superpixels=1), 2), 0.5).scores(
        "a", image_HW3, np.ones(size, np.uint8), 2
    )
    assert scores_Chw[1].min() == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 1.5}, r"iterate.threshold must be in \[0, 1\], got 1.5"),
        ({"superpixels": 0}, "iterate.superpixels must be positive, got 0"),
        ({"colour": 0.0}, "iterate.colour must be positive"),
        ({"reach": float("nan")}, "iterate.reach must be positive"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        IterateConfig(**settings)
