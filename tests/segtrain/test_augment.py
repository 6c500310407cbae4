import numpy as np
import pytest

from labelgen.samples import InputError
from segtrain.augment import AugmentConfig, Geometry, change_colours, sample_geometry, warp_image, warp_logits

CONFIG = AugmentConfig(crop_height=20, crop_width=30, scales=(1.0, 1.0))


def test_every_crop_position_is_reached_the_last_one_too() -> None:
    rng = np.random.default_rng(0)
    drawn = [sample_geometry(rng, CONFIG, 23, 31) for _ in range(300)]
    assert {g.top for g in drawn} == {0, 1, 2, 3}
    assert {g.left for g in drawn} == {0, 1}


def test_same_generator_state_gives_the_same_geometry() -> None:
    first, second = (sample_geometry(np.random.default_rng(3), AugmentConfig(), 600, 2000) for _ in range(2))
    assert first == second


def test_no_scale_and_no_flip_cuts_the_crop_out() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    crop = warp_image(image, Geometry(1.0, 7, 9, False, 20, 30), (0, 0, 0))
    np.testing.assert_array_equal(crop, image[7:27, 9:39])
    flipped = warp_image(image, Geometry(1.0, 7, 9, True, 20, 30), (0, 0, 0))
    np.testing.assert_array_equal(flipped, image[7:27, 9:39][:, ::-1])


def test_outside_the_image_the_crop_is_filled_and_its_labels_are_missing() -> None:
    image = np.full((10, 10, 3), 200, np.uint8)
    geometry = Geometry(1.0, 0, 0, False, 20, 30)
    crop = warp_image(image, geometry, (1, 2, 3))
    assert crop[15, 5].tolist() == [1, 2, 3]
    logits, rows, columns = warp_logits(np.zeros((2, 2, 2), np.float32), (0, 0, 10, 10), geometry, 20, 30)
    assert (rows, columns) == (slice(0, 10), slice(0, 10))
    assert logits.shape == (2, 10, 10)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scale", [0.7, 1.0, 2.3])
def test_image_and_logits_are_warped_alike(scale: float, flip: bool) -> None:
    """A smooth ramp, once as an image and once as logits of one patch a pixel, looks the same after the warp."""
    height, width = 60, 80
    ramp = np.add.outer(np.arange(height), np.arange(width)).astype(np.float32)
    image = np.repeat(ramp[..., None], 3, 2).astype(np.uint8)
    geometry = Geometry(scale, 6, 8, flip, 24, 32)
    crop = warp_image(image, geometry, (0, 0, 0))[..., 0].astype(float)
    logits, rows, columns = warp_logits(ramp[None], (0, 0, height, width), geometry, 24, 32)
    inside = (slice(2, rows.stop - 2), slice(2, columns.stop - 2)) if not flip else (slice(2, 22), slice(4, 30))
    full = np.full((24, 32), np.nan)
    full[rows, columns] = logits[0]
    np.testing.assert_allclose(crop[inside], full[inside], atol=0.75)


def test_local_view_lands_where_its_box_is() -> None:
    logits = np.ones((1, 2, 2), np.float32)
    geometry = Geometry(2.0, 10, 0, False, 20, 40)
    _, rows, columns = warp_logits(logits, (8, 4, 12, 10), geometry, 20, 40)
    assert (rows, columns) == (slice(6, 14), slice(8, 20))
    _, rows, columns = warp_logits(logits, (8, 4, 12, 10), geometry, 10, 20)  # on every second pixel
    assert (rows, columns) == (slice(3, 7), slice(4, 10))


def test_view_outside_the_crop_fills_nothing() -> None:
    _, rows, columns = warp_logits(
        np.ones((1, 2, 2), np.float32), (90, 90, 99, 99), Geometry(1.0, 0, 0, False, 9, 9), 9, 9
    )
    assert np.zeros((9, 9))[rows, columns].size == 0


def test_colours_stay_uint8_and_strength_zero_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    for seed in range(20):
        changed = change_colours(np.random.default_rng(seed), image, 1.0)
        assert (changed.dtype, changed.shape) == (np.uint8, image.shape)
    np.testing.assert_array_equal(change_colours(np.random.default_rng(0), image, 0), image)


@pytest.mark.parametrize("bad", [{"crop_width": 0}, {"scales": (2.0, 1.0)}, {"flip": 1.5}])
def test_bad_settings_are_refused(bad: dict) -> None:
    with pytest.raises(InputError, match=f"augment.*{next(iter(bad)).split('_')[0]}"):
        AugmentConfig(**bad)
