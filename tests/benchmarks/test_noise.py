"""The noise study: each kind of noise does what it says, and a study in small comes to its tables."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks import noise
from benchmarks.noise_kinds import KINDS, Mask, blobs, borders, confused, objects, swallowed
from pipeline.toy.canvas import ToyClass
from pipeline.toy.scenes import driving_scene


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="module", name="truth_HW")
def toy_truth() -> Mask:
    return driving_scene(3, 80, 160)[1]


@pytest.mark.parametrize("kind", KINDS)
def test_noise_grows_with_its_rate_from_none_and_is_of_classes_that_the_image_shows(kind: str, truth_HW: Mask) -> None:
    wrong = [0.0]
    np.testing.assert_array_equal(KINDS[kind](truth_HW, 0.0, rng()), truth_HW)
    for rate in (0.3, 1.0):
        noisy_HW = KINDS[kind](truth_HW, rate, rng())
        assert noisy_HW.dtype == np.uint8
        assert set(np.unique(noisy_HW)) <= set(np.unique(truth_HW))
        wrong.append(float((noisy_HW != truth_HW).mean()))
    assert wrong == sorted(set(wrong))
    np.testing.assert_array_equal(KINDS[kind](truth_HW, 1.0, rng()), noisy_HW)  # the same draw again


def test_blobs_cover_the_rate_at_most(truth_HW: Mask) -> None:
    assert 0.25 < (blobs(truth_HW, 0.4, rng()) != truth_HW).mean() <= 0.4


def test_at_rate_1_every_object_has_another_name(truth_HW: Mask) -> None:
    assert (objects(truth_HW, 1.0, rng()) != truth_HW).all()


def test_a_confused_class_keeps_its_name_where_the_other_is_not_shown() -> None:
    sign, pole, sky = ToyClass.SIGN, ToyClass.POLE, ToyClass.SKY
    np.testing.assert_array_equal(confused(np.array([[sign, pole, sky]], np.uint8), 1.0, rng()), [[pole, pole, sky]])
    np.testing.assert_array_equal(confused(np.array([[sign, sky]], np.uint8), 1.0, rng()), [[sign, sky]])


def test_a_swallowed_object_is_what_is_next_to_it() -> None:
    sky, road, car = ToyClass.SKY, ToyClass.ROAD, ToyClass.CAR
    truth_HW = np.array([[sky] * 5, [sky, car, car, car, road], [road] * 5], np.uint8)
    swallowed_HW = swallowed(truth_HW, 1.0, rng())
    assert not (swallowed_HW == car).any()
    np.testing.assert_array_equal(swallowed_HW[[0, 2]], truth_HW[[0, 2]])
    assert swallowed_HW[1, 0] == sky


def test_borders_move_and_the_inside_stays(truth_HW: Mask) -> None:
    halves_HW = np.zeros((80, 160), np.uint8)
    halves_HW[40:] = 1
    moved_HW = borders(halves_HW, 0.4, rng())
    assert (moved_HW[38:42] != halves_HW[38:42]).any()
    np.testing.assert_array_equal(moved_HW[:15], halves_HW[:15])
    np.testing.assert_array_equal(moved_HW[-15:], halves_HW[-15:])


@pytest.fixture
def in_small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    small = {"SCENES": {"train": 6, "val": 2}, "DIAGNOSED": 3, "STEPS": 4, "WARMUP": 2, "BATCH": 2}
    for name, value in small.items():
        monkeypatch.setattr(noise, name, value)
    noise.scenes.cache_clear()
    yield
    noise.scenes.cache_clear()


def test_a_study_in_small_is_the_same_again_and_comes_to_tables_and_a_plot(in_small: None, tmp_path: Path) -> None:
    cases = [noise.Case(kind, 0.4, 0) for kind in KINDS]
    outcomes = [noise.study(case) for case in cases]
    again = noise.study(cases[0])
    for method in noise.METHODS:
        np.testing.assert_array_equal(again.iou_C[method], outcomes[0].iou_C[method])
        assert again.after[method] == outcomes[0].after[method]
    assert not np.array_equal(again.iou_C["base"], again.iou_C["carb"])
    assert not np.array_equal(again.iou_C["gated"], again.iou_C["carb"])
    lines = [noise.Line.of([outcome]) for outcome in outcomes]
    for table in (noise.scores_table(lines), noise.regions_table(lines)):
        assert [row.split("|")[1].strip() for row in table.splitlines()[2:]] == [f"{kind} 40%" for kind in KINDS]
    assert len(noise.classes_table(lines).splitlines()) == 2 + len(noise.METHODS)
    noise.plot(lines, tmp_path / "noise.png")
    assert (tmp_path / "noise.png").stat().st_size < 200_000
