import time
from pathlib import Path

import numpy as np
import pytest

from labelgen.engines.one_pixel.edges import edge_similarity
from labelgen.engines.one_pixel.equations import similarity
from labelgen.engines.one_pixel.features import FeatureFolder, Features, compute_features
from labelgen.images import write_png


def scene(height: int = 24, width: int = 40) -> np.ndarray:
    """Blue above grey, with a red box on the border."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2] = (60, 120, 220)
    image[height // 2 :] = (110, 110, 110)
    image[height // 3 : -height // 4, width // 3 : width // 2] = (200, 30, 30)
    return image


def unseen(image_HW3: np.ndarray, map_HW: np.ndarray) -> np.ndarray:
    """Two dimensions: how much of a superpixel is red, and how much is not; one of three is less than nothing."""
    red = np.bincount(map_HW.ravel(), image_HW3[..., 0].ravel() > 150) / np.bincount(map_HW.ravel())
    return np.stack([red, 1 - red, -np.ones(len(red))], axis=1)


class Counted:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self, image_HW3: np.ndarray) -> Features:
        self.times += 1
        return compute_features(image_HW3, 12, unseen)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    write_png(tmp_path / "a.png", scene())
    return tmp_path / "a.png"


def equal(one: Features, other: Features) -> bool:
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


def test_features_are_rows_of_one_superpixel_each() -> None:
    features = compute_features(scene(), 12, unseen)
    S = features.number
    assert sorted(np.unique(features.map_HW)) == list(range(S))
    assert features.imaging_SK.shape == (S, 128)
    assert features.saliency_3SK.shape == (3, S, 32)
    assert features.semantic_SD.shape == (S, 3)
    for rows in (features.imaging_SK, *features.saliency_3SK, features.semantic_SD):
        np.testing.assert_allclose(rows.astype(float).sum(1), 1, atol=5e-3)
    assert (features.semantic_SD[:, 2] == 0).all()  # what is negative says nothing


def test_context_is_edges_times_saliency_of_the_image_times_the_better_of_its_parts() -> None:
    features = compute_features(scene(), 12, unseen)
    whole, one, other = (similarity(rows, rows) for rows in features.saliency_3SK)
    edges = edge_similarity(features.pairs_M2, features.edge_M.astype(np.float32), features.number)
    np.testing.assert_allclose(features.context(), edges * whole * np.maximum(one, other), atol=1e-6)
    np.testing.assert_allclose(np.diag(features.context()), 1, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (16, 16)])
def test_an_image_of_one_superpixel_is_its_own_context(size: tuple[int, int]) -> None:
    features = compute_features(np.full((*size, 3), 40, np.uint8), 1, unseen)
    assert features.number == 1
    np.testing.assert_allclose(features.context(), [[1]], atol=1e-5)


def test_features_are_computed_once(image: Path, tmp_path: Path) -> None:
    compute = Counted()
    first = FeatureFolder(tmp_path / "kept", {"superpixels": 12}, compute).of(image)
    again = FeatureFolder(tmp_path / "kept", {"superpixels": 12}, compute)
    assert equal(again.of(image), first)
    assert compute.times == 1
    assert [path.suffix for path in (tmp_path / "kept").rglob("*") if path.is_file()] == [".npz"]


def test_other_settings_or_a_changed_image_are_other_features(image: Path, tmp_path: Path) -> None:
    compute = Counted()
    folder = FeatureFolder(tmp_path / "kept", {"superpixels": 12}, compute)
    folder.of(image)
    FeatureFolder(tmp_path / "kept", {"superpixels": 13}, compute).of(image)
    assert compute.times == 2
    time.sleep(0.01)  # file systems count time in steps
    write_png(image, scene()[::-1])
    changed = folder.of(image)
    assert compute.times == 3
    assert equal(folder.of(image), changed)
    assert compute.times == 3


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_broken_file_is_made_again(damage: str, image: Path, tmp_path: Path) -> None:
    compute = Counted()
    folder = FeatureFolder(tmp_path / "kept", {}, compute)
    first, file = folder.of(image), folder.file_of(image)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes({"cut": data[: len(data) // 2], "flipped": data, "empty": b""}[damage])
    assert equal(folder.of(image), first)
    assert compute.times == 2
    assert equal(folder.of(image), first)
    assert compute.times == 2
