import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from labelgen.engines.one_pixel import mosf_slices, semantics
from labelgen.engines.one_pixel.semantics import SemanticNetwork, Slices, fusion_slices, nearest, pooling
from labelgen.images import IMAGENET_MEAN, IMAGENET_STD, normalise
from labelgen.maskclip import DenseCLIP
from labelgen.samples import InputError


def classifier(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "resnet":
        config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5)
        return ResNetForImageClassification(config)
    if kind == "convnext":
        config = ConvNextConfig(num_stages=2, hidden_sizes=[8, 16], depths=[1, 1], num_labels=5)
        return ConvNextForImageClassification(config)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return ViTForImageClassification(ViTConfig(**small, patch_size=8, image_size=32, num_labels=5))


# ---- Slices --------------------------------------------------------------------------------------------------------


def test_fifteen_slices_by_the_papers_formula() -> None:
    boxes = mosf_slices(360, 480)
    assert len(boxes) == 15
    expected = [(360 * m // 4, 480 * n // 6) for m in range(3) for n in range(5)]
    assert boxes == [(y, x, y + 180, x + 160) for y, x in expected]


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (37, 101), (720, 960)])
def test_slices_cover_every_pixel_and_lie_in_the_image(size: tuple[int, int]) -> None:
    height, width = size
    seen = np.zeros(size, int)
    for y0, x0, y1, x1 in mosf_slices(height, width):
        assert 0 <= y0 < y1 <= height
        assert 0 <= x0 < x1 <= width
        seen[y0:y1, x0:x1] += 1
    assert seen.min() >= 1


def test_each_pixel_is_seen_in_the_slice_with_the_nearest_centre() -> None:
    height, width = 24, 36
    boxes, slices = mosf_slices(height, width), fusion_slices(height, width)
    rows, columns = nearest(slices.rows, height), nearest(slices.columns, width)
    for y, x in itertools.product(range(height), range(width)):
        distances = [math.hypot(y + 0.5 - (y0 + y1) / 2, x + 0.5 - (x0 + x1) / 2) for y0, x0, y1, x1 in boxes]
        chosen = rows[y] * len(slices.columns) + columns[x]
        assert distances[chosen] == pytest.approx(min(distances))
        y0, x0, y1, x1 = boxes[chosen]
        assert y0 <= y < y1
        assert x0 <= x < x1


# ---- Pooling -------------------------------------------------------------------------------------------------------


def test_superpixels_get_means_of_what_their_pixels_saw_in_their_slice() -> None:
    """Two slices side by side, each of one cell: the left half reads the first, the right half the second."""
    slices = Slices([(0, 2)], [(0, 2), (2, 4)])
    map_HW = np.array([[0, 0, 0, 1], [0, 1, 1, 1]], np.int32)
    mean = pooling(map_HW, slices, (1, 1)) @ np.array([[10.0], [2.0]])
    np.testing.assert_allclose(mean, [[(3 * 10 + 2) / 4], [(10 + 3 * 2) / 4]])


def test_between_cells_pixels_see_what_bilinear_resizing_gives() -> None:
    cells = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    map_HW = np.arange(12 * 20, dtype=np.int32).reshape(12, 20)  # each pixel by itself
    seen = pooling(map_HW, Slices([(0, 12)], [(0, 20)]), (4, 5)) @ cells[0].flatten(1).T.numpy()
    expected = F.interpolate(cells, (12, 20), mode="bilinear")[0].flatten(1).T.numpy()
    np.testing.assert_allclose(seen, expected, atol=1e-5)


# ---- Networks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["resnet", "convnext", "vit"])
def test_class_activations_are_the_classifiers_weights_applied_at_every_place(kind: str, tmp_path: Path) -> None:
    model = classifier(kind).eval()
    model.save_pretrained(tmp_path)
    network = SemanticNetwork.from_pretrained(str(tmp_path), "classes")
    features = SemanticNetwork.from_pretrained(str(tmp_path), "features")
    image = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        seen_BDhw, active_BKhw = features(image), network(image)
    assert active_BKhw.shape == (2, 5, *seen_BDhw.shape[2:])
    weight = model.state_dict()[[name for name in model.state_dict() if name.endswith("weight")][-1]]
    torch.testing.assert_close(active_BKhw[1, :, 0, 1], weight @ seen_BDhw[1, :, 0, 1])


def test_a_resnets_mean_activation_is_its_class_score_without_the_bias(tmp_path: Path) -> None:
    model = classifier("resnet").eval()
    model.save_pretrained(tmp_path)
    network = SemanticNetwork.from_pretrained(str(tmp_path), "classes")
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    pixels = torch.from_numpy(normalise(image, IMAGENET_MEAN, IMAGENET_STD))[None]
    with torch.inference_mode():
        scores = model(pixels).logits[0] - model.classifier[-1].bias
    whole = Slices([(0, 40)], [(0, 56)])
    pooled = network.pooled(image, np.zeros((40, 56), np.int32), whole, 1.0)
    np.testing.assert_allclose(pooled[0], scores, atol=1e-5)


def test_slices_are_seen_alone_and_resized(tmp_path: Path) -> None:
    """What is outside of the slices around a place says nothing there."""
    classifier("resnet").save_pretrained(tmp_path)
    network = SemanticNetwork.from_pretrained(str(tmp_path), "features")
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    other = image.copy()
    other[:, 48:] = 0
    map_HW = (np.arange(96) >= 40).astype(np.int32)[None].repeat(64, 0)
    slices = fusion_slices(64, 96)
    before, after = (network.pooled(pixels, map_HW, slices, 2.0) for pixels in (image, other))
    np.testing.assert_allclose(after[0], before[0], atol=1e-5)  # its slices end at 48
    assert np.abs(after[1] - before[1]).max() > 1e-3
    single = Slices([(0, 64)], [(0, 96)])
    alone, changed = (network.pooled(pixels, map_HW, single, 2.0) for pixels in (image, other))
    assert np.abs(alone[0] - changed[0]).max() > 1e-6


def test_slices_have_the_same_vectors_seen_at_once_or_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier("resnet").save_pretrained(tmp_path)
    network = SemanticNetwork.from_pretrained(str(tmp_path), "classes")
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    map_HW = (np.arange(96) >= 40).astype(np.int32)[None].repeat(64, 0)
    at_once = network.pooled(image, map_HW, fusion_slices(64, 96), 1.0)
    monkeypatch.setattr(semantics, "PIXELS_AT_ONCE", 1)
    np.testing.assert_allclose(network.pooled(image, map_HW, fusion_slices(64, 96), 1.0), at_once, atol=1e-5)


def test_a_missing_network_is_one_line_that_names_the_folder_form(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no image classifier weights at '/no/such': give a local folder"):
        SemanticNetwork.from_pretrained("/no/such", "classes")
    with pytest.raises(InputError, match="no vision backbone weights at '/no/such': give a local folder"):
        SemanticNetwork.from_pretrained("/no/such", "features")


def test_products_in_bfloat16_see_nearly_the_same(tmp_path: Path) -> None:
    classifier("resnet").save_pretrained(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    map_HW = (np.arange(96) >= 40).astype(np.int32)[None].repeat(64, 0)
    exact, coarse = (
        SemanticNetwork.from_pretrained(str(tmp_path), "features", dtype=dtype).pooled(
            image, map_HW, fusion_slices(64, 96), 1.0
        )
        for dtype in ("float32", "bfloat16")
    )
    assert coarse.dtype == np.float32
    assert not np.array_equal(coarse, exact)
    np.testing.assert_allclose(coarse, exact, atol=0.02 * np.abs(exact).max())


def test_clips_own_patches_are_features_too(clip_folder: Path) -> None:
    dense = DenseCLIP.from_pretrained(clip_folder, dtype=torch.float32)
    network = SemanticNetwork.begin("clip", "features", dense)
    image_BHW3 = np.random.default_rng(0).integers(0, 256, (1, 32, 64, 3), np.uint8)
    seen_BDhw = network(torch.from_numpy(image_BHW3).permute(0, 3, 1, 2).float() / 255)
    expected_BDhw = dense.features(dense.normalise(torch.from_numpy(image_BHW3)))
    torch.testing.assert_close(seen_BDhw, expected_BDhw, atol=1e-5, rtol=1e-4)
    with pytest.raises(InputError, match="one_pixel.features=clip has no classifier"):
        SemanticNetwork.begin("clip", "classes", dense)
