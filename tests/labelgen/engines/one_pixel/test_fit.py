import numpy as np
import pytest

from labelgen.engines.one_pixel.config import OnePixelConfig
from labelgen.engines.one_pixel.equations import similarity
from labelgen.engines.one_pixel.features import Features, compute_features
from labelgen.engines.one_pixel.fit import neighbourhood, represent
from labelgen.points import Point
from labelgen.samples import ClassSet

CLASSES = ClassSet(("sky", "road", "car"), (("sky",), ("road",), ("car",)), ((0, 0, 0),) * 3)
SKY, ROAD, CAR = (Point("a", 20, y, train_id) for y, train_id in ((2, 0), (21, 1), (20, 2)))


def brightness(image_HW3: np.ndarray, map_HW: np.ndarray) -> np.ndarray:
    """(S, 2): how bright a superpixel is, and how dark."""
    bright = np.bincount(map_HW.ravel(), image_HW3[..., 0].ravel()) / np.bincount(map_HW.ravel()) / 255
    return np.stack([bright, 1 - bright], axis=1)


def halves(count: int = 12) -> Features:
    """White above black."""
    image = np.zeros((24, 40, 3), np.uint8)
    image[:12] = 255
    return compute_features(image, count, brightness)


@pytest.mark.parametrize("representation", ["semantics", "imaging", "both"])
def test_a_pixel_stands_for_all_that_looks_like_it(representation: str) -> None:
    features, config = halves(), OnePixelConfig(representation=representation)  # type: ignore[arg-type]
    scores_SC = represent([(features, [SKY, ROAD])], CLASSES, config).scores(features, 3, similarity)
    upper = np.unique(features.map_HW[:12])
    assert (scores_SC[upper, 0] > scores_SC[upper, 1]).all()
    lower = np.setdiff1d(np.arange(features.number), upper)
    assert (scores_SC[lower, 1] > scores_SC[lower, 0]).all()
    assert np.isnan(scores_SC[:, 2]).all()  # nobody labelled a car


@pytest.mark.parametrize(
    ("representation", "semantic", "imaging"),
    [("semantics", {0, 1, 2}, set()), ("imaging", set(), {0, 1, 2}), ("both", {2}, {0, 1})],
)
def test_objects_and_scenes_are_told_by_what_the_setting_says(
    representation: str, semantic: set[int], imaging: set[int]
) -> None:
    config = OnePixelConfig(representation=representation)  # type: ignore[arg-type]
    vectors = represent([(halves(), [SKY, ROAD, CAR])], CLASSES, config)
    assert set(vectors.semantic_class_V.tolist()) == semantic
    assert set(vectors.imaging_class_V.tolist()) == imaging
    assert vectors.semantic_VD.shape == (len(vectors.semantic_class_V), 2)
    assert vectors.imaging_VK.shape == (len(vectors.imaging_class_V), 128)


@pytest.mark.parametrize("name", ["camvid", "cityscapes"])
def test_by_their_names_objects_are_what_the_presets_say(name: str) -> None:
    from pipeline.config import load_config
    from pipeline.datasets import DATASETS

    classes, preset = DATASETS[name].classes, load_config(name).one_pixel
    assert preset.objects is not None
    assert OnePixelConfig().is_object(classes) == preset.is_object(classes)


def test_of_several_points_each_has_its_vector() -> None:
    other = Point("a", 5, 3, 0)
    vectors = represent([(halves(), [SKY, ROAD, other])], CLASSES, OnePixelConfig(representation="semantics"))
    assert vectors.semantic_class_V.tolist() == [0, 1, 0]


@pytest.mark.parametrize("representation", ["semantics", "imaging", "both"])
def test_a_point_in_an_image_of_one_superpixel_has_that_superpixels_vector(representation: str) -> None:
    alone = compute_features(np.full((8, 9, 3), 200, np.uint8), 1, brightness)
    config = OnePixelConfig(representation=representation)  # type: ignore[arg-type]
    vectors = represent([(alone, [Point("a", 8, 7, 0), Point("a", 0, 0, 2)])], CLASSES, config)
    scores_SC = vectors.scores(alone, 3, similarity)
    np.testing.assert_allclose(scores_SC[0, [0, 2]], 1, atol=1e-3)
    assert np.isnan(scores_SC[0, 1])


def test_a_neighbourhood_holds_what_looks_alike_without_an_edge_between() -> None:
    features = halves()
    upper = np.unique(features.map_HW[:12]).tolist()
    own = int(features.map_HW[2, 20])
    assert neighbourhood(features, own, 0.5) == upper
    assert neighbourhood(features, own, 1.0) == [own]  # itself in any case
