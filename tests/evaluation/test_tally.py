"""Counts by image: every score worked out by hand or by brute force, merging, files, comparisons."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from evaluation.boundary import count_boundaries, near_outline
from evaluation.comparison import compare, compare_pairs
from evaluation.confusion import ConfusionMatrix, count_pixels, resize_classes
from evaluation.scores import merge_classes
from evaluation.tables import csv_table
from evaluation.tally import Tally, load_tallies, save_tallies
from pipeline.datasets import DATASETS

Maps = NDArray[np.uint8]


def random_maps(classes: int, seed: int, shape: tuple[int, int] = (9, 13)) -> tuple[Maps, Maps]:
    """Truth with void and one absent class, a prediction that is right here and there, and none in places."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes - 1, shape).astype(np.uint8)
    prediction = np.where(rng.random(shape) < 0.5, truth, rng.integers(0, classes, shape)).astype(np.uint8)
    truth[rng.random(shape) < 0.2] = 255
    prediction[rng.random(shape) < 0.1] = 255
    return truth, prediction


def tally_of(classes: int, seeds: range, shape: tuple[int, int] = (9, 13)) -> Tally:
    tally = Tally(classes)
    for seed in seeds:
        tally.update(f"i{seed}", *random_maps(classes, seed, shape))
    return tally


def test_what_is_remembered_of_an_image_is_small() -> None:
    scene_HW = np.repeat(np.arange(20, dtype=np.uint8), 16).reshape(20, 16)  # of 25 classes, as WildDash2 has
    tally = Tally(25)
    tracemalloc.start()
    for number in range(1000):
        tally.update(f"image_{number:06d}", scene_HW, scene_HW)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tally.confusion.sum() == 1000 * scene_HW.size
    assert taken / 1000 < 600  # bytes, its id included; as arrays the counts are 5,800


def test_counts_are_those_of_scikit_learn() -> None:
    for seed in range(5):
        truth, prediction = random_maps(6, seed)
        valid = truth != 255
        theirs = confusion_matrix(truth[valid], prediction[valid], labels=[*range(6), 255])
        np.testing.assert_array_equal(count_pixels(truth, prediction, 6), theirs[:6])


def test_wide_ids_and_another_ignore_index_count_alike() -> None:
    truth, prediction = random_maps(6, 0)
    wide = np.where(truth == 255, -1, truth.astype(np.int64))
    far = np.where(prediction == 255, 70000, prediction.astype(np.int64))
    np.testing.assert_array_equal(count_pixels(wide, far, 6, ignore_index=-1), count_pixels(truth, prediction, 6))


def test_scores_are_those_of_brute_force_with_ignored_pixels_and_absent_classes() -> None:
    tally = tally_of(6, range(4))
    maps = [random_maps(6, seed) for seed in range(4)]
    truth = np.concatenate([t[t != 255] for t, _ in maps])
    prediction = np.concatenate([p[t != 255] for t, p in maps])
    scores = tally.as_dict(list("abcdef"))
    ious = []
    for c, name in enumerate("abcdef"):
        hits = sum(int(t == c and p == c) for t, p in zip(truth, prediction, strict=True))
        either = sum(int(t == c or p == c) for t, p in zip(truth, prediction, strict=True))
        ious.append(hits / either)
        assert scores["iou"][name] == pytest.approx(100 * hits / either, abs=0.01)
        assert scores["precision"][name] == pytest.approx(100 * hits / (prediction == c).sum(), abs=0.01)
        there = (truth == c).sum()
        assert scores["recall"][name] == (pytest.approx(100 * hits / there, abs=0.01) if there else None)
    assert scores["miou"] == pytest.approx(100 * np.mean(ious), abs=0.01)
    assert scores["pixel_accuracy"] == pytest.approx(100 * (truth == prediction).mean(), abs=0.01)


def test_every_image_has_its_own_scores_and_all_together_those_of_the_matrix() -> None:
    tally, matrix = tally_of(5, range(3)), ConfusionMatrix(5)
    for seed in range(3):
        matrix.update(*random_maps(5, seed))
        alone = ConfusionMatrix(5)
        alone.update(*random_maps(5, seed))
        np.testing.assert_array_equal(tally.image_iou()[seed], alone.scores().iou)
    np.testing.assert_array_equal(tally.confusion.sum(0), matrix.counts)


def test_an_image_counts_once() -> None:
    tally = tally_of(3, range(2))
    with pytest.raises(ValueError, match="'i1' was counted before"):
        tally.update("i1", *random_maps(3, 1))
    with pytest.raises(ValueError, match="'i1' was counted twice"):
        Tally.merged([tally, tally_of(3, range(1, 3))])


def test_tallies_of_processes_add_up_in_any_order_and_one_may_be_empty() -> None:
    whole, parts = tally_of(4, range(5)), [tally_of(4, range(3, 5)), Tally(4), tally_of(4, range(3))]
    merged = Tally.merged(parts)
    assert merged.image_ids == whole.image_ids
    np.testing.assert_array_equal(merged.confusion, whole.confusion)
    np.testing.assert_array_equal(merged.boundary, whole.boundary)


def test_files_hold_what_was_counted(tmp_path: Path) -> None:
    tallies = {"pseudo-labels global": tally_of(4, range(3)), "student ü <b>": tally_of(4, range(3, 4))}
    save_tallies(tmp_path / "counts.npz", tallies)
    loaded = load_tallies(tmp_path / "counts.npz")
    assert list(loaded) == list(tallies)
    for row, tally in tallies.items():
        assert loaded[row].image_ids == tally.image_ids
        assert loaded[row].as_dict(list("abcd")) == tally.as_dict(list("abcd"))


def test_categories_forgive_mistakes_among_their_own() -> None:
    # Truth: 4 car, 2 bus, 4 road. Two cars are taken for a bus, one road for a car, one road for nothing.
    counts = np.array([[2, 2, 0, 0], [0, 2, 0, 0], [1, 0, 2, 1]])
    names, merged = merge_classes(counts, ["vehicle", "vehicle", "flat"])
    assert names == ["vehicle", "flat"]
    assert merged.tolist() == [[6, 0, 0], [1, 2, 1]]
    assert merge_classes(counts, [])[0] == []


def test_cityscapes_has_seven_categories() -> None:
    classes = DATASETS["cityscapes"].classes
    bus, truck = classes.names.index("bus"), classes.names.index("truck")
    tally = Tally(len(classes))
    tally.update("a", np.full((4, 4), bus, np.uint8), np.full((4, 4), truck, np.uint8))
    scores = tally.as_dict(classes.names, classes.categories)
    assert (scores["miou"], scores["category_miou"], scores["category_iou"]["vehicle"]) == (0, 100, 100)
    assert len(scores["category_iou"]) == 7


def test_boundary_of_a_seven_by_seven_map_by_hand() -> None:
    # One pixel of class 1 in the middle of class 0: all that is not within one pixel of it or of the border is far.
    classes = np.zeros((7, 7), np.uint8)
    classes[3, 3] = 1
    expected = np.ones((7, 7), bool)
    expected[[1, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 5, 5, 5], [1, 2, 3, 4, 5, 1, 5, 1, 5, 1, 5, 1, 2, 3, 4, 5]] = False
    np.testing.assert_array_equal(near_outline(classes, 1), expected)
    assert near_outline(np.zeros((7, 7), np.uint8), 1).sum() == 24  # the border alone


def test_boundary_iou_is_that_of_eroded_masks() -> None:
    """The definition: a mask's boundary is what erosion by that distance takes away."""
    truth, prediction = random_maps(4, 0, (30, 40))
    truth, prediction = (np.kron(m[:10, :10], np.ones((4, 4), np.uint8)) for m in (truth, prediction))
    prediction[truth == 255] = 255
    distance = 2 / np.hypot(*truth.shape)
    counted = count_boundaries(truth, prediction, 4, distance)
    valid = truth != 255

    def boundary(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        padded = np.pad(mask, 2)
        inside = np.ones_like(mask)
        for dy in range(5):
            for dx in range(5):
                inside &= padded[dy : dy + mask.shape[0], dx : dx + mask.shape[1]]
        return mask & ~inside

    for c in range(4):
        near_truth, near_prediction = boundary(truth == c) & valid, boundary(prediction == c) & valid
        expected = [(near_truth & near_prediction).sum(), near_truth.sum(), near_prediction.sum()]
        assert counted[:, c].tolist() == expected


def test_what_is_predicted_for_void_does_not_move_outlines() -> None:
    truth = np.zeros((20, 30), np.uint8)
    truth[:, 15:] = 1
    truth[:, 12:17] = 255
    filled = np.where(truth == 255, np.uint8(1), truth)
    tally = Tally(2)
    tally.update("a", truth, filled)
    assert tally.as_dict(["sky", "car"])["boundary_miou"] == 100


def test_resizing_takes_the_class_at_the_centre_and_refuses_another_shape() -> None:
    small = np.array([[0, 1], [2, 255]], np.uint8)
    assert resize_classes(small, (4, 4)).tolist() == np.kron(small, np.ones((2, 2), np.uint8)).tolist()
    assert resize_classes(small, (2, 2)) is small
    assert resize_classes(np.zeros((360, 480), np.uint8), (719, 960)).shape == (719, 960)
    with pytest.raises(ValueError, match="a class map of 360 x 480 does not fit 360 x 640 pixels"):
        resize_classes(np.zeros((360, 480), np.uint8), (360, 640))


def test_comparison_of_a_row_with_itself_is_zero_and_sure_of_nothing() -> None:
    tally = tally_of(4, range(12))
    mean, by_class = compare(tally, tally)
    assert (mean.value, mean.low, mean.high) == (0, 0, 0)
    assert not any(difference.is_sure for difference in (mean, *by_class))


def test_comparison_finds_a_gain_that_every_image_shows_and_doubts_one_of_a_single_image() -> None:
    truth = np.zeros((10, 10), np.uint8)
    truth[5:] = 1
    worse, better, once = Tally(3), Tally(3), Tally(3)
    for i in range(20):
        bad, good = truth.copy(), truth.copy()
        bad[5 : 7 + i % 2] = 0
        good[5] = 0
        worse.update(str(i), truth, bad)
        better.update(str(i), truth, good)
        once.update(str(i), truth, good if i == 0 else bad)
    mean, by_class = compare(worse, better)
    assert mean.low > 0
    assert by_class[1].value == pytest.approx(100 * (0.8 - 0.5))
    assert np.isnan(by_class[2].value)  # a class that is nowhere
    assert not by_class[2].is_sure
    assert compare(worse, once)[0].low == pytest.approx(0)  # an image that may not be drawn
    assert compare(worse, better)[0] == compare(worse, better)[0]


def test_comparison_is_sure_of_nothing_that_few_images_show() -> None:
    few, rare = [Tally(2), Tally(2)], [Tally(2), Tally(2)]
    for i in range(20):
        truth = np.zeros((4, 4), np.uint8)
        truth[0] = i == 0  # class 1 is in one image
        for k in range(2):
            better = np.where(truth == 1, np.uint8(k), truth)
            rare[k].update(str(i), truth, better)
            if i < 2:
                few[k].update(str(i), truth, better)
    for mean, by_class in (compare(*few), compare(*rare)):
        assert by_class[1].value == 100
        assert np.isnan(by_class[1].low)
        assert not by_class[1].is_sure
        assert not mean.is_sure


def test_differences_of_several_seeds_are_averaged_on_the_same_images() -> None:
    (a, b), (c, d) = (
        (tally_of(4, range(12)), tally_of(4, range(12, 24))),
        (tally_of(4, range(24, 36)), tally_of(4, range(36, 48))),
    )
    for tally in (b, c, d):
        tally._images = dict(zip(a.image_ids, tally._images.values(), strict=True))
    both, classes = compare_pairs([(a, b), (c, d)])
    one, two = compare(a, b), compare(c, d)
    assert both.value == pytest.approx((one[0].value + two[0].value) / 2)
    assert classes[1].value == pytest.approx((one[1][1].value + two[1][1].value) / 2)
    assert both.low < both.value < both.high
    assert both.high - both.low < max(single.high - single.low for single in (one[0], two[0]))


def test_comparison_needs_the_same_images() -> None:
    with pytest.raises(ValueError, match="the same images and classes"):
        compare(tally_of(3, range(3)), tally_of(3, range(4)))


def test_csv_has_a_line_for_every_row_and_class() -> None:
    lines = csv_table({"student, a": tally_of(3, range(1)).as_dict(["sky", "car", "no"])}, ["sky", "car", "no"])
    rows = lines.splitlines()
    assert rows[0] == "row,class,iou,precision,recall,boundary_iou"
    assert [row.rsplit(",", 5)[:2] for row in rows[1:]] == [['"student, a"', c] for c in ("sky", "car", "no", "mean")]
