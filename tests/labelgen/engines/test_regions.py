from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from labelgen.engines.engine import ask_each
from labelgen.engines.regions import (
    Refined,
    RegionConfig,
    average_in,
    cells_of,
    for_patch,
    lay_over,
    superpixels,
)
from labelgen.engines.sam import Sam, different
from labelgen.label import Asked, Prepared
from labelgen.samples import InputError
from labelgen.views import View
from tests.models import save_sam

NAN = np.nan


class Columns:
    """Scores each patch by its column; remembers in what size it saw views."""

    patch_px, needs_labels, weights = 16, False, {"eye": "0123"}

    def __init__(self) -> None:
        self.seen = list[tuple[int, ...]]()

    def ask(self, images: Sequence[Prepared], text_TD: torch.Tensor) -> Asked:
        return ask_each(images, self._maps)

    def _maps(self, image: Prepared, view: int) -> NDArray[np.float32]:
        height, width = image.pixels_HW3[view].shape[:2]
        self.seen.append((height, width))
        columns_w = np.arange(width // 16, dtype=np.float32)
        return np.tile(columns_w, (2, height // 16, 1)) * np.array([1, -1], np.float32)[:, None, None]


def halves(height: int, width: int, split: int) -> NDArray[np.uint8]:
    """An image that is dark up to a column."""
    image_HW3 = np.full((height, width, 3), 20, np.uint8)
    image_HW3[:, split:] = 230
    return image_HW3


def test_a_map_becomes_its_mean_in_each_region() -> None:
    region_hw = np.array([[7, 7, 3], [7, 3, 3]])
    maps_Chw = np.array([[[1, 2, 3], [6, 5, 7]], [[0, 0, 1], [0, 1, 1]]], np.float32)
    expected = [[[3, 3, 5], [3, 5, 5]], [[0, 0, 1], [0, 1, 1]]]
    np.testing.assert_allclose(average_in(region_hw, maps_Chw), expected)


def test_a_region_says_what_at_least_half_of_it_says() -> None:
    maps_Chw = np.array([[[1, 3, NAN, NAN], [NAN, 2, NAN, NAN]]], np.float32)
    region_hw = np.array([[0, 0, 0, 0], [1, 1, 1, 2]])
    np.testing.assert_array_equal(average_in(region_hw, maps_Chw), [[[2, 2, 2, 2], [NAN, NAN, NAN, NAN]]])


def test_superpixels_follow_the_edges_of_the_image() -> None:
    region_HW = superpixels(halves(32, 48, 19), size_px=8, compactness=10)
    assert len(np.unique(region_HW)) > 8
    assert not set(np.unique(region_HW[:, :19])) & set(np.unique(region_HW[:, 19:]))


def test_small_masks_lie_on_large_ones() -> None:
    masks_NHW = np.zeros((3, 2, 4), np.bool_)
    masks_NHW[0, 0, 1] = masks_NHW[1, 0, :3] = True
    np.testing.assert_array_equal(lay_over(np.zeros((2, 4), np.int64), masks_NHW), [[1, 2, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(lay_over(np.eye(2, dtype=np.int64), np.zeros((0, 2, 2), np.bool_)), np.eye(2))


def test_a_crop_takes_the_regions_of_its_place() -> None:
    region_HW = np.arange(8)[:, None] * 10 + np.arange(12)
    whole = View((0, 0, 8, 12), 1.0)
    np.testing.assert_array_equal(cells_of(region_HW, whole, whole, (8, 12)), region_HW)
    crop = View((2, 4, 6, 12), 2.0)
    np.testing.assert_array_equal(cells_of(region_HW, crop, whole, (4, 8)), region_HW[2:6, 4:])
    enlarged = region_HW.repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(cells_of(enlarged, crop, whole, (8, 16)), enlarged[4:12, 8:])


def test_an_engine_sees_what_it_would_see_and_its_maps_follow_the_image() -> None:
    engine = Columns()
    refined = Refined(engine, RegionConfig(source="slic", size_px=8, patch_px=4))
    views = [View((0, 0, 32, 64), 1.0), View((0, 16, 32, 48), 1.0)]
    image = Prepared("a", (32, 64), views, [halves(32, 64, 36), halves(32, 32, 20)], None)
    ((whole, crop),) = refined.ask([image], torch.zeros(0)).logits()
    assert engine.seen == [(32, 64), (32, 32)]
    assert (whole.shape, crop.shape) == ((2, 8, 16), (2, 8, 8))
    assert refined.weights == {"eye": "0123"}
    np.testing.assert_allclose(whole[1], -whole[0], atol=1e-6)
    # The step between columns 8 and 9, where the image has its edge, is greater than any that bilinear maps have.
    assert (whole[0, :, 9] - whole[0, :, 8]).min() > 0.3
    assert (crop[0, :, 5] - crop[0, :, 4]).min() > 0.3


def test_views_are_resized_for_another_patch() -> None:
    image = Prepared("a", (30, 50), [View((0, 0, 30, 50), 1.0)], [np.zeros((32, 52, 3), np.uint8)], [1])
    (pixels_HW3,) = for_patch(image, 16).pixels_HW3
    assert pixels_HW3.shape == (32, 64, 3)


def test_a_sam_that_is_asked_everywhere_gives_regions(tmp_path: Path) -> None:
    save_sam(tmp_path / "sam")
    sam = Sam.from_pretrained(str(tmp_path / "sam"), "regions.source", at_once=3)
    image_HW3 = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    masks_NHW = sam.everything(image_HW3, points=2, quality=-10.0)
    assert masks_NHW.shape[1:] == (40, 60)
    assert sam.everything(image_HW3, points=2, quality=10.0).shape == (0, 40, 60)
    refined = Refined(Columns(), RegionConfig(source=str(tmp_path / "sam"), quality=0.0))
    assert set(refined.weights) == {"eye", "regions"}
    image = Prepared("a", (40, 60), [View((0, 0, 40, 60), 1.0)], [image_HW3], None)
    assert refined.ask([image], torch.zeros(0)).logits()[0][0].shape == (2, 10, 15)


def test_masks_that_are_the_same_as_a_better_one_are_left_out() -> None:
    masks_NHW = torch.zeros(4, 1, 10, dtype=torch.bool)
    masks_NHW[0, 0, :8] = masks_NHW[1, 0, :9] = masks_NHW[2, 0, 5:] = True
    kept = different(masks_NHW, torch.tensor([0.8, 0.9, 0.7, 1.0]))
    assert torch.equal(kept, masks_NHW[[1, 2]])


def test_bad_settings_and_missing_sams_are_refused() -> None:
    with pytest.raises(InputError, match="regions.size_px must be at least 1, got 0"):
        RegionConfig(source="slic", size_px=0)
    with pytest.raises(InputError, match="no regions.source weights at 'no/such'"):
        Refined(Columns(), RegionConfig(source="no/such"))
