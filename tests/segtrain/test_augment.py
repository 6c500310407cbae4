import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from labelgen.samples import InputError
from segtrain.augment import AugmentConfig, Geometry, sample_colours, sample_geometry, view_weights
from segtrain.batch import change_colours, warp_images
from segtrain.data import FILL

CONFIG = AugmentConfig(crop_height=20, crop_width=30, scales=(1.0, 1.0))


def warp_image(image: NDArray[np.uint8], geometry: Geometry) -> NDArray[np.float32]:
    rows = geometry.source_rows(geometry.crop_height).astype(np.float32)
    columns = geometry.source_columns(geometry.crop_width).astype(np.float32)
    crops = warp_images(*(torch.from_numpy(array.copy())[None] for array in (image, rows, columns)))
    return crops[0].permute(1, 2, 0).numpy()


def seen(weights: NDArray[np.float32]) -> list[int]:
    """Rows or columns of the crop that lie in the view."""
    return np.flatnonzero(weights.any(1)).tolist()


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
    crop = warp_image(image, Geometry(1.0, 7, 9, False, 20, 30))
    np.testing.assert_allclose(crop, image[7:27, 9:39], atol=1e-3)
    flipped = warp_image(image, Geometry(1.0, 7, 9, True, 20, 30))
    np.testing.assert_allclose(flipped, image[7:27, 9:39][:, ::-1], atol=1e-3)


def test_outside_the_image_the_crop_is_filled_and_its_labels_are_missing() -> None:
    image = np.full((10, 10, 3), 200, np.uint8)
    geometry = Geometry(1.0, 0, 0, False, 20, 30)
    crop = warp_image(image, geometry)
    np.testing.assert_allclose(crop[15, 5], FILL)
    np.testing.assert_allclose(crop[:10, :10], 200, atol=1e-3)
    rows, columns = view_weights(geometry, (0, 0, 10, 10), (2, 2), 20, 30)
    assert (rows.shape, columns.shape) == ((20, 2), (30, 2))
    assert (seen(rows), seen(columns)) == (list(range(10)), list(range(10)))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scale", [0.7, 1.0, 2.3])
def test_image_and_logits_are_warped_alike(scale: float, flip: bool) -> None:
    """A smooth ramp, once as an image and once as logits of one patch a pixel, looks the same after the warp."""
    height, width = 60, 80
    ramp = np.add.outer(np.arange(height), np.arange(width)).astype(np.float32)
    image = np.repeat(ramp[..., None], 3, 2).astype(np.uint8)
    geometry = Geometry(scale, 6, 8, flip, 24, 32)
    crop = warp_image(image, geometry)[..., 0]
    rows, columns = view_weights(geometry, (0, 0, height, width), ramp.shape, 24, 32)
    inside = np.ix_(seen(rows)[2:-2], seen(columns)[2:-2])
    assert crop[inside].size > 500
    np.testing.assert_allclose(crop[inside], (rows @ ramp @ columns.T)[inside], atol=0.01)


def test_local_view_lands_where_its_box_is() -> None:
    geometry = Geometry(2.0, 10, 0, False, 20, 40)
    rows, columns = view_weights(geometry, (8, 4, 12, 10), (2, 2), 20, 40)
    assert (seen(rows), seen(columns)) == (list(range(6, 14)), list(range(8, 20)))
    rows, columns = view_weights(geometry, (8, 4, 12, 10), (2, 2), 10, 20)  # on every second pixel
    assert (seen(rows), seen(columns)) == (list(range(3, 7)), list(range(4, 10)))


def test_view_outside_the_crop_fills_nothing() -> None:
    rows, columns = view_weights(Geometry(1.0, 0, 0, False, 9, 9), (90, 90, 99, 99), (2, 2), 9, 9)
    assert not rows.any()
    assert not columns.any()


def test_colours_stay_colours_and_strength_zero_changes_nothing() -> None:
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), np.uint8)).float()
    drawn = [sample_colours(np.random.default_rng(seed), 1.0) for seed in range(20)]
    changed = change_colours(image, torch.from_numpy(np.stack(drawn)))
    assert changed.shape == image.shape
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert ((changed - image).abs().amax((1, 2, 3)) > 1).sum() > 10
    none = torch.from_numpy(sample_colours(np.random.default_rng(0), 0))
    torch.testing.assert_close(change_colours(image, none.expand(20, 4)), image, atol=1e-3, rtol=0)


@pytest.mark.parametrize("bad", [{"crop_width": 0}, {"scales": (2.0, 1.0)}, {"flip": 1.5}])
def test_bad_settings_are_refused(bad: dict) -> None:
    with pytest.raises(InputError, match=f"augment.*{next(iter(bad)).split('_')[0]}"):
        AugmentConfig(**bad)
