"""What the engine writes into a store, by hand; as a user meets it: tests/pipeline/stages/test_one_pixel.py."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelgen.engines.one_pixel.config import OnePixelConfig
from labelgen.engines.one_pixel.engine import OnePixelEngine, OnePixelRefiner
from labelgen.engines.one_pixel.features import FeatureFolder, Features
from labelgen.engines.one_pixel.representation import ClassVectors
from labelgen.images import write_png
from labelgen.label import prepare
from labelgen.samples import ClassSet
from labelgen.views import ViewConfig

CLASSES = ClassSet(("sky", "road", "car"), (("sky",), ("road",), ("car",)), ((0, 0, 0),) * 3)
# Three superpixels: the upper half, and both halves of the lower one.
MAP = np.zeros((16, 24), np.uint16)
MAP[8:, :12], MAP[8:, 12:] = 1, 2
ALL = np.ones(3, bool)


def features(semantic: list[list[float]]) -> Features:
    """Superpixels that see these, apart from each other in context."""
    apart = np.tile(np.eye(3, 32), (3, 1, 1)).astype(np.float16)
    pairs, edges = np.array([[0, 1], [0, 2], [1, 2]], np.uint16), np.ones(3, np.float16)
    return Features(MAP, pairs, edges, np.zeros((3, 128), np.float16), apart, np.array(semantic, np.float16))


def engine(folder: Path, semantic: list[list[float]], **settings: object) -> OnePixelEngine:
    """Its classes are the unit vectors; sky may be above, the others below."""
    vectors = ClassVectors(np.eye(3, dtype=np.float32), np.arange(3), np.zeros((0, 128)), np.zeros(0, int))  # type: ignore[arg-type]
    config = OnePixelConfig(bands=(("sky", "car"), ("road", "car")), measure="intersection", **settings)  # type: ignore[arg-type]
    return OnePixelEngine(vectors, CLASSES, config, FeatureFolder(folder, {}, lambda image: features(semantic)))


SEEN = [[0.8, 0.2, 0.0], [0.1, 0.6, 0.3], [0.0, 0.35, 0.65]]


def test_the_label_of_a_superpixel_has_its_best_score(tmp_path: Path) -> None:
    """By Eq. 5 a car wins with 0.3 against the road's 0.6, as 0.3 is above the threshold."""
    nan = np.nan
    by_margin = engine(tmp_path, SEEN, object_margin=1.0).scores(features(SEEN), ALL)
    np.testing.assert_allclose(by_margin, [[1.8, nan, 0], [nan, 1.6, 0.3], [nan, 0.35, 1.65]], atol=2e-3)
    paper = engine(tmp_path, SEEN, object_margin=0.0).scores(features(SEEN), ALL)
    np.testing.assert_allclose(paper, [[1.8, nan, 0], [nan, 0.6, 1.3], [nan, 0.35, 1.65]], atol=2e-3)


def test_where_no_class_is_sure_enough_or_present_nothing_is_said(tmp_path: Path) -> None:
    unsure = engine(tmp_path, SEEN, threshold=0.7).scores(features(SEEN), ALL)
    assert np.isnan(unsure[1:]).all()
    assert unsure[0, 0] == pytest.approx(1.8, abs=2e-3)
    without_car = engine(tmp_path, SEEN).scores(features(SEEN), np.array([True, True, False]))
    assert np.isnan(without_car[:, 2]).all()
    assert np.nanargmax(without_car, axis=1).tolist() == [0, 1, 1]
    assert np.isnan(engine(tmp_path, SEEN).scores(features(SEEN), ~ALL)).all()


def test_without_location_classes_may_be_anywhere(tmp_path: Path) -> None:
    assert not np.isnan(engine(tmp_path, SEEN, location=False).scores(features(SEEN), ALL)).any()


@pytest.mark.parametrize(("zoom", "grid"), [(1.0, (4, 6)), (2.0, (8, 12)), (0.9, (4, 6))])
def test_maps_are_on_the_grid_of_the_view_however_it_was_resized(
    zoom: float, grid: tuple[int, int], tmp_path: Path
) -> None:
    write_png(tmp_path / "a.png", np.zeros((16, 24, 3), np.uint8))
    sample = {"image_id": "a", "image_path": str(tmp_path / "a.png"), "label_path": None, "image_labels": None}
    view = ViewConfig(global_zooms=(zoom,), local=False)
    own = engine(tmp_path, SEEN, object_margin=1.0)
    ((map_Chw,),) = own.ask([prepare(sample, view, own.patch_px)], None).logits()  # type: ignore[arg-type]
    assert map_Chw.shape == (3, *grid)
    h, w = grid
    best_hw = np.nan_to_num(map_Chw, nan=-1).argmax(0)
    assert (best_hw[: h // 2] == 0).all()
    assert (best_hw[h // 2 :, : w // 2] == 1).all()
    assert (best_hw[h // 2 :, w // 2 :] == 2).all()


def test_further_rounds_are_told_superpixels_context_and_what_may_be_in_their_band(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.zeros((16, 24, 3), np.uint8))
    own = engine(tmp_path, SEEN, context_power=2.0)
    for location, allowed in ((True, [[1, 0, 1], [0, 1, 1], [0, 1, 1]]), (False, [[1, 1, 1]] * 3)):
        refiner = OnePixelRefiner(replace(own.config, location=location), CLASSES, own.features)
        map_HW, context_SS, is_allowed_SC = refiner.regions(str(tmp_path / "a.png"), np.zeros((16, 24, 3), np.uint8))
        np.testing.assert_array_equal(map_HW, MAP)
        np.testing.assert_array_equal(is_allowed_SC, np.array(allowed, bool))
        np.testing.assert_allclose(context_SS, features(SEEN).context() ** 2)
    alone = OnePixelRefiner(replace(own.config, context=False), CLASSES, own.features)
    np.testing.assert_array_equal(alone.regions(str(tmp_path / "a.png"), np.zeros((16, 24, 3), np.uint8))[1], np.eye(3))
