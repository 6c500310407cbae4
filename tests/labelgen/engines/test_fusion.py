from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from labelgen.engines.engine import EngineSpec, absent_is_silent, ask_each
from labelgen.engines.fusion import Fused, FusionConfig, calibrated, fuse, fused_spec
from labelgen.label import Asked, Prepared
from labelgen.samples import ClassSet, InputError
from labelgen.views import View

NAN = np.nan
CLASSES = ClassSet(("road", "sky", "car"), (("road",), ("sky",), ("car",)), ((0, 0, 0),) * 3)
IMAGE = Prepared("a", (16, 32), [View((0, 0, 16, 32), 1.0)], [np.zeros((16, 32, 3), np.uint8)], [0, 2])


class Says:
    """The same of every image that comes on its grid."""

    needs_labels = True

    def __init__(self, patch_px: int, maps_Chw: NDArray[np.float32], **weights: str) -> None:
        self.patch_px, self.maps_Chw, self.weights = patch_px, maps_Chw, weights

    def ask(self, images: list[Prepared], text_TD: torch.Tensor) -> Asked:  # type: ignore[override]
        return ask_each(images, self._maps)

    def _maps(self, image: Prepared, view: int) -> NDArray[np.float32]:
        assert image.pixels_HW3[view].shape[:2] == tuple(self.patch_px * side for side in self.maps_Chw.shape[1:])
        return self.maps_Chw


def maps(*rows: list[float]) -> NDArray[np.float32]:
    """Of grids of one row."""
    return np.array(rows, np.float32)[:, None]


def test_cosines_become_shares_of_the_classes_present_and_other_scores_stay() -> None:
    cosines = maps([0.1, 0.1], [0.9, 0.9], [0.1, 0.2])
    share = 1 / (1 + np.exp(10 * 0.1))
    expected = maps([0.5, share], [NAN, NAN], [0.5, 1 - share])
    np.testing.assert_allclose(calibrated(cosines, [0, 2], 10.0), expected, rtol=1e-5)
    np.testing.assert_array_equal(calibrated(cosines, [0, 2], None), maps([0.1, 0.1], [NAN, NAN], [0.1, 0.2]))
    assert np.isnan(calibrated(cosines, [], 10.0)).all()


def test_things_come_from_the_second_and_stuff_from_the_first() -> None:
    first, second = maps([1, 2], [3, 4], [5, 6]), maps([7, 8], [9, 10], [11, NAN])
    np.testing.assert_array_equal(fuse(first, second, np.array([False, False, True])), maps([1, 2], [3, 4], [11, NAN]))


def test_the_mean_is_of_those_who_say_something() -> None:
    np.testing.assert_array_equal(
        fuse(maps([0.2, 0.4, NAN, NAN]), maps([0.4, NAN, 0.6, NAN]), None),
        np.float32(maps([0.3, 0.4, 0.6, NAN])),
    )


def test_both_are_brought_to_the_finer_grid() -> None:
    coarse = Says(16, absent_is_silent(maps([0.2, 0.4], [0.6, 0.2]), [0, 2], 3), clip="1")
    fine = Says(8, np.full((3, 2, 4), 0.3, np.float32), eye="2")
    fused = Fused((coarse, fine), (None, None), CLASSES, FusionConfig(rule="things"))
    assert (fused.patch_px, fused.weights) == (8, {"first.clip": "1", "second.eye": "2"})
    ((maps_Chw,),) = fused.ask([replace(IMAGE)], torch.zeros(0)).logits()
    np.testing.assert_allclose(maps_Chw[0], [[0.2, 0.25, 0.35, 0.4]] * 2, rtol=1e-5)
    np.testing.assert_allclose(maps_Chw[2], 0.3)
    assert np.isnan(maps_Chw[1]).all()


def test_engines_that_are_fitted_are_not_fused() -> None:
    plain = EngineSpec(about="a", needs="b", cost="c", begin=lambda inputs: Says(8, maps([0.0])))
    with pytest.raises(InputError, match="fitted first cannot be a part of another"):
        fused_spec(plain, replace(plain, fit=lambda inputs, samples, on_step: None))
    assert fused_spec(plain, plain).is_dense is False
    with pytest.raises(InputError, match="fusion.rule must be things or mean"):
        FusionConfig(rule="best")  # type: ignore[arg-type]
