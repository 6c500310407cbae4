import numpy as np
import pytest

from labelgen.images import resize_logits
from labelgen.samples import InputError
from labelgen.views import (
    View,
    ViewConfig,
    confidence,
    count_local,
    global_views,
    largest_local,
    local_views,
    merge,
    to_mask,
)


@pytest.mark.parametrize(("height", "width"), [(720, 960), (1024, 2048), (360, 480), (100, 90), (513, 257)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.9])
def test_local_views_cover_every_pixel(height: int, width: int, overlap: float) -> None:
    seen = np.zeros((height, width), int)
    for view in local_views(ViewConfig(overlap=overlap), "a", height, width):
        y0, x0, y1, x1 = view.box
        assert 0 <= y0 < y1 <= height
        assert 0 <= x0 < x1 <= width
        assert (y1 - y0, x1 - x0) == (min(512, height), min(256, width))
        seen[y0:y1, x0:x1] += 1
    assert seen.min() >= 1


def test_local_views_depend_on_seed_and_image_id_alone() -> None:
    config = ViewConfig()
    assert local_views(config, "a", 720, 960) == local_views(config, "a", 720, 960)
    assert local_views(config, "a", 720, 960) != local_views(config, "b", 720, 960)
    assert local_views(config, "a", 720, 960) != local_views(ViewConfig(seed=1), "a", 720, 960)


def test_zooms_stay_in_range_and_take_few_values() -> None:
    zooms = {v.zoom for i in range(50) for v in local_views(ViewConfig(zoom_levels=3), str(i), 720, 960)}
    assert zooms == {1.0, 1.5, 2.0}


def test_grid_rounds_up_so_that_no_row_is_lost() -> None:
    assert View((0, 0, 360, 480), 1.0).grid(16) == (23, 30)
    assert View((0, 0, 160, 160), 1.1).grid(16) == (11, 11)  # not 12, whatever 1.1 * 160 is in binary
    assert global_views(ViewConfig(global_zooms=(1.0, 2.0)), 32, 48)[1].grid(16) == (4, 6)


def test_merge_averages_overlaps_and_leaves_the_rest_nan() -> None:
    left, right = np.full((1, 1, 1), 1, np.float32), np.full((1, 1, 1), 3, np.float32)
    merged = merge([((0, 0, 1, 2), left), ((0, 1, 1, 3), right)], 1, 4)
    np.testing.assert_array_equal(merged[0], [[1, 2, 3, np.nan]])


def test_absent_class_loses_even_against_negative_scores() -> None:
    logits = np.array([-0.1, -0.2, 0.0], np.float32).reshape(3, 1, 1)
    assert to_mask(logits, np.array([False, True, False])) == 1


def test_image_without_labels_is_all_ignored_and_so_are_unseen_pixels() -> None:
    logits = np.zeros((2, 1, 2), np.float32)
    assert to_mask(logits, np.array([False, False])).tolist() == [[255, 255]]
    logits[:, 0, 1] = np.nan
    assert to_mask(logits, np.array([False, True])).tolist() == [[1, 255]]


def test_a_class_that_is_not_judged_loses_and_takes_no_pixel_of_its_neighbours() -> None:
    logits = np.array([[[np.nan, 0.1]], [[-0.5, np.nan]], [[np.nan, np.nan]]], np.float32)
    assert to_mask(logits, np.array([True, True, True])).tolist() == [[1, 0]]
    assert to_mask(logits, np.array([True, False, True])).tolist() == [[255, 0]]
    resized = resize_logits(logits, 1, 8)
    assert np.isnan(resized[0]).tolist() == [[True] * 4 + [False] * 4]
    assert to_mask(resized, np.array([True, False, True])).tolist() == [[255] * 4 + [0] * 4]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overlap": 1.5}, r"views.overlap must be in \[0, 1\), got 1.5"),
        ({"local_zooms": (2.0, 1.0)}, "views.local_zooms must be a range"),
        ({"global_zooms": ()}, "views.global_zooms must be one or more"),
        ({"local_width": 0}, "views.local_height and local_width must be positive"),
        ({"zoom_levels": 0}, "views.zoom_levels must be at least 1"),
    ],
)
def test_bad_settings_name_field_and_value(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ViewConfig(**settings)


def test_confidence_counts_only_classes_that_are_present() -> None:
    logits = np.log(np.array([[[0.5, 0.2]], [[0.25, 0.2]], [[0.25, 0.6]]], np.float32))
    everything, first_two = np.array([True] * 3), np.array([True, True, False])
    np.testing.assert_allclose(confidence(logits, everything, 1), [[0.5, 0.6]], rtol=1e-5)
    np.testing.assert_allclose(confidence(logits, first_two, 1), [[2 / 3, 0.5]], rtol=1e-5)
    assert confidence(logits, np.zeros(3, bool)).tolist() == [[0.0, 0.0]]


def test_bounds_of_local_views_hold_for_every_image_and_are_reached() -> None:
    for levels, size in ((1, (160, 320)), (5, (720, 960)), (5, (100, 2000)), (3, (1, 1))):
        config = ViewConfig(local_height=200, local_width=120, zoom_levels=levels)
        drawn = [local_views(config, str(i), *size) for i in range(50)]
        assert {len(views) for views in drawn} == {count_local(config, *size)}
        grids = np.array([view.grid(16) for views in drawn for view in views])
        assert tuple(grids.max(0)) == largest_local(config, *size).grid(16)
