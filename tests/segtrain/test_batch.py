"""Augmentation in batches where the student is, against numpy and OpenCV sample by sample."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labelgen.images import IMAGENET_MEAN, IMAGENET_STD, resize_image, silenced
from labelgen.samples import Sample
from labelgen.store import LocalView
from labelgen.training.order import Order
from pipeline.datasets import DATASETS
from segtrain.augment import AugmentConfig, Geometry, sample_geometry, view_weights
from segtrain.batch import TrainBatch, augment, change_colours, pseudo_labels, warp_images
from segtrain.data import PseudoLabelledImages, RawBatch, WarpedLogits, collate
from segtrain.online import resize_images
from tests.segtrain import reference

CPU = torch.device("cpu")
SIZES = [(60, 80), (45, 101), (160, 90)]


def pixels(image_B3HW: torch.Tensor) -> np.ndarray:
    """(B, H, W, 3) in 0..255 of normalised ones."""
    return 255 * (image_B3HW.permute(0, 2, 3, 1).numpy() * np.array(IMAGENET_STD) + np.array(IMAGENET_MEAN))


@pytest.mark.parametrize("scales", [(0.3, 0.9), (1.0, 1.0), (1.0, 3.0)])
def test_images_of_several_sizes_are_warped_as_opencv_warps_each(scales: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    config = AugmentConfig(crop_height=50, crop_width=70, scales=scales)
    images = [rng.integers(0, 256, (*SIZES[i % 3], 3), np.uint8) for i in range(12)]
    geometries = [sample_geometry(rng, config, *image.shape[:2]) for image in images]

    def sample(image: np.ndarray, g: Geometry) -> RawBatch:
        positions = (g.source_rows(50).astype(np.float32), g.source_columns(70).astype(np.float32))
        arrays = (image, *positions, np.zeros(4, np.float32), np.ones(2, bool))
        return RawBatch(*(torch.from_numpy(array.copy()) for array in arrays))

    raw = collate([sample(image, geometry) for image, geometry in zip(images, geometries, strict=True)])
    assert raw.image_BHW3.shape == (12, 160, 101, 3)
    crops = warp_images(raw.image_BHW3, raw.rows_BY, raw.columns_BX).permute(0, 2, 3, 1).numpy()
    for crop, image, geometry in zip(crops, images, geometries, strict=True):
        np.testing.assert_allclose(crop, reference.warp_image(image, geometry), atol=0.1)


def test_pseudo_labels_of_several_grids_equal_those_of_each_alone() -> None:
    rng = np.random.default_rng(1)
    config = AugmentConfig(crop_height=50, crop_width=70, scales=(0.4, 2.5))
    parts, expected, present = [], [], rng.random((30, 6)) < 0.6
    present[7] = False
    for is_present_C in present:
        height, width = SIZES[rng.integers(3)]
        geometry = sample_geometry(rng, config, height, width)
        y0, x0 = int(rng.integers(height // 2)), int(rng.integers(width // 2))
        box = (y0, x0, int(rng.integers(y0 + 1, height + 1)), int(rng.integers(x0 + 1, width + 1)))
        logits = rng.standard_normal((6, *rng.integers(1, 9, 2))).astype(np.float32)
        weights = view_weights(geometry, box, logits.shape[1:], 25, 35)
        parts.append(WarpedLogits(*map(torch.from_numpy, (logits, *weights))))
        expected.append(reference.pseudo_labels(LocalView(box, 1.0, logits), geometry, is_present_C, 25, 35))
    samples = [
        RawBatch(torch.zeros(1), torch.zeros(1), torch.zeros(1), torch.zeros(4), torch.from_numpy(p), part)
        for part, p in zip(parts, present, strict=True)
    ]
    raw = collate(samples)
    assert raw.global_view is not None
    np.testing.assert_array_equal(pseudo_labels(raw.global_view, raw.is_present_BC), np.stack(expected))


def test_pixels_of_which_nothing_is_said_are_ignored_on_the_crop() -> None:
    logits = np.array([[[np.nan, 0.1, np.nan]], [[0.2, 0.3, np.nan]]], np.float32)
    geometry = Geometry(1.0, 0, 0, False, 2, 12)
    weights = view_weights(geometry, (0, 0, 2, 12), (1, 3), 2, 12)
    view = WarpedLogits(*(torch.from_numpy(part)[None] for part in (silenced(logits), *weights)))
    (pseudo,) = pseudo_labels(view, torch.tensor([[True, True]])).tolist()
    assert pseudo == [[1] * 8 + [255] * 4] * 2
    (pseudo,) = pseudo_labels(view, torch.tensor([[True, False]])).tolist()
    assert pseudo == [[255] * 4 + [0] * 4 + [255] * 4] * 2


@pytest.mark.parametrize("hue", [-20, 0, 7, 20])
@pytest.mark.parametrize("saturation", [0.5, 1, 1.5])
def test_colours_change_as_in_opencvs_hsv(hue: float, saturation: float) -> None:
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (40, 40, 3), np.uint8)
    image[:5] = image[:5, :, :1]  # greys
    image[5], image[6] = 0, 255
    colours = np.array([10, 1.3, saturation, hue], np.float32)
    changed = change_colours(torch.from_numpy(image).permute(2, 0, 1)[None].float(), torch.from_numpy(colours)[None])
    np.testing.assert_allclose(changed[0].permute(1, 2, 0), reference.change_colours(image, colours), atol=0.1)


@pytest.mark.parametrize("size", [(60, 80), (97, 111), (31, 45), (20, 90), (60, 40)])
def test_images_are_resized_for_clip_as_in_the_cache(size: tuple[int, int]) -> None:
    images = np.random.default_rng(3).integers(0, 256, (2, 60, 80, 3), np.uint8)
    resized = resize_images(torch.from_numpy(images), *size).numpy().astype(int)
    for ours, image in zip(resized, images, strict=True):
        np.testing.assert_allclose(ours, resize_image(image, *size), atol=1)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("others", [{"views": "base"}, {"views": "local"}, {"views": "local", "local_crops": True}])
def test_a_batch_of_the_loader_equals_the_reference(
    others: dict[str, Any], stride: int, samples: list[Sample], store_path: Path
) -> None:
    config = AugmentConfig(crop_height=64, crop_width=96, scales=(0.4, 2.0), photometric=0.5)
    data = PseudoLabelledImages(samples, store_path, config, seed=0, loss_stride=stride, **others)
    compare(data)


def test_truth_equals_the_reference(toy_root: Path, store_path: Path) -> None:
    config = AugmentConfig(crop_height=64, crop_width=96, scales=(0.4, 2.0), photometric=0.5)
    spec = DATASETS["toy"]
    samples = spec.list_samples(toy_root, "train", with_truth=True)
    data = PseudoLabelledImages(
        samples,
        store_path,
        config,
        seed=0,
        views="truth",
        loss_stride=2,
        read_truth=lambda sample: spec.read_truth(str(sample["label_path"])),
    )
    compare(data)


def compare(data: PseudoLabelledImages) -> None:
    places = [place for step in range(3) for place in Order(len(data.samples), 4, 0).places(step)]
    batch: TrainBatch = augment(collate([data[place] for place in places]), CPU)
    wanted = [reference.augmented(data, place) for place in places]
    np.testing.assert_array_equal(batch.global_pseudo_BHW, np.stack([w.global_HW for w in wanted]))
    np.testing.assert_array_equal(batch.local_pseudo_BHW, np.stack([w.local_HW for w in wanted]))
    np.testing.assert_allclose(pixels(batch.image_B3HW), np.stack([w.image_HW3 for w in wanted]), atol=1)
    if data.local_crops:
        assert batch.local_image_B3HW is not None
        expected = np.stack([w.local_image_HW3 for w in wanted if w.local_image_HW3 is not None])
        np.testing.assert_allclose(pixels(batch.local_image_B3HW), expected, atol=1)
