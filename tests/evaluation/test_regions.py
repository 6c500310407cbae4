"""Regions held against truth, worked out by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.plots import plot_regions
from evaluation.regions import count_regions, diagnosis, lost_classes, region_shares, verdict
from labelgen.images import read_image

SKY, ROAD, CAR, NONE = 0, 1, 2, 255
NAMES = ["sky", "road", "car"]
#                   agreed, right | agreed, wrong | not, right | not, wrong | no truth | no pseudo-label
PSEUDO = np.array([[SKY, SKY, SKY, CAR, SKY, NONE]], np.uint8)
PREDICTED = np.array([[SKY, SKY, ROAD, SKY, SKY, SKY]], np.uint8)
TRUTH = np.array([[SKY, CAR, SKY, ROAD, NONE, SKY]], np.uint8)


def test_pixels_are_counted_by_pseudo_label_region_and_truth() -> None:
    counts = count_regions(PSEUDO, PREDICTED, TRUTH, 3)
    np.testing.assert_array_equal(counts, [[[1, 1, 1], [1, 0, 0]], [[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 1, 0]]])


def test_without_truth_only_the_regions_are_known() -> None:
    counts = count_regions(PSEUDO, PREDICTED, None, 3)
    np.testing.assert_array_equal(counts[:, :, 2], [[3, 1], [0, 0], [0, 1]])
    assert not counts[:, :, :2].any()
    assert region_shares(counts) == {"consistent": 0.6, "right_consistent": None, "right_inconsistent": None}


def test_shares_are_of_known_pixels_overall_and_by_class() -> None:
    found = diagnosis(count_regions(PSEUDO, PREDICTED, TRUTH, 3), NAMES)
    assert {key: found[key] for key in found if key != "classes"} == {
        "consistent": 0.6,
        "right_consistent": 0.5,
        "right_inconsistent": 0.5,
    }
    assert found["classes"] == {
        "sky": {"area": 0.8, "consistent": 0.75, "right_consistent": 0.5, "right_inconsistent": 1.0},
        "road": {"area": 0.0, "consistent": None, "right_consistent": None, "right_inconsistent": None},
        "car": {"area": 0.2, "consistent": 0.0, "right_consistent": None, "right_inconsistent": 0.0},
    }


def test_an_image_without_pseudo_labels_has_no_shares() -> None:
    counts = count_regions(np.full((2, 2), NONE, np.uint8), np.zeros((2, 2), np.uint8), None, 3)
    found = diagnosis(counts, NAMES)
    assert found["consistent"] is None
    assert found["classes"]["sky"]["area"] is None
    assert lost_classes({"weight": 0.1, "diagnosis": found}) == []


def row(
    *, weight: float | None = 0.1, inside: float | None = 0.9, outside: float | None = 0.2, **consistent: float
) -> dict[str, Any]:
    """A line of metrics.jsonl; classes cover a third each and are named with their consistent shares."""
    classes = {name: {"area": 1 / 3, "consistent": share} for name, share in consistent.items()}
    found = {"consistent": 0.7, "right_consistent": inside, "right_inconsistent": outside, "classes": classes}
    return {"step": 10, "weight": weight, "diagnosis": found}


def test_a_class_is_lost_if_the_student_agrees_with_hardly_any_of_it_and_its_weight_is_low() -> None:
    one = row(sky=0.06, road=0.04, car=0.0)
    assert lost_classes(one) == ["road", "car"]
    assert lost_classes(one | {"weight": 0.2}) == []
    assert lost_classes(one | {"class_weights": {"sky": 0.1, "road": 0.1, "car": 1.0}}) == ["road"]


def test_no_class_is_lost_in_the_warm_up_without_a_look_or_where_there_is_nearly_nothing_of_it() -> None:
    assert lost_classes(row(weight=None, car=0.0)) == []
    assert lost_classes(row(car=0.0) | {"diagnosis": None}) == []
    assert lost_classes({"step": 10, "weight": 0.1}) == []  # a log of before there were such looks
    rare = row(car=0.0)
    rare["diagnosis"]["classes"]["car"]["area"] = 0.0001
    assert lost_classes(rare) == []


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            row(sky=0.9, outside=0.204),
            "Yes: only 20 % of the pseudo-labels that the student disagrees with are right, and 90 % of those that it "
            "agrees with.",
        ),
        (
            row(sky=0.9, road=0.0, car=0.0),
            "Not for every class: 20 % of the pseudo-labels that the student disagrees with are right, and 90 % of "
            "those that it agrees with, but CARB loses road and car.",
        ),
        (
            row(weight=None, car=0.0, inside=None),
            "Not for every class: 20 % of the pseudo-labels that the student disagrees with are right, but CARB would "
            "lose car.",
        ),
        (
            row(outside=0.5, sky=0.9),
            "No: 50 % of the pseudo-labels that the student disagrees with are right, and 90 % of those that it agrees "
            "with, so CARB weighs down what is right.",
        ),
        (
            row(weight=None, outside=0.8, sky=0.9, car=0.0),
            "No: 80 % of the pseudo-labels that the student disagrees with are right, and 90 % of those that it agrees "
            "with, so CARB would weigh down what is right, and would lose car.",
        ),
        (
            row(outside=0.8, sky=0.9, car=0.0) | {"class_weights": {"sky": 0.1, "car": 1.0}},
            "Probably: 80 % of the pseudo-labels that the student disagrees with are right, and 90 % of those that it "
            "agrees with; each class has a weight of its own, and none is lost.",
        ),
        (
            row(outside=0.8, sky=0.9, car=0.0) | {"class_weights": {"sky": 0.1, "car": 0.1}},
            "Not for every class: 80 % of the pseudo-labels that the student disagrees with are right, and 90 % of "
            "those that it agrees with, but CARB loses car.",
        ),
        (row(inside=None, outside=None), "Unknown: no truth is at hand."),
        (row(outside=None), "Unknown: the student agrees with all pseudo-labels."),
    ],
)
def test_the_verdict_follows_from_the_numbers(line: dict[str, Any], sentence: str) -> None:
    assert verdict(line) == sentence


def test_a_plot_has_a_second_line_where_a_run_was_diagnosed(tmp_path: Path) -> None:
    balance = {"agreed": 0.7, "consistent_loss": 0.1, "inconsistent_loss": 1.0}
    classes = {name: region_shares(counts) for name, counts in zip(NAMES, np.ones((3, 2, 3), np.int64), strict=True)}
    looks = region_shares(np.ones((3, 2, 3), np.int64)) | {"classes": classes}
    plain = [balance | {"step": 20, "weight": 0.1, "class_weights": dict.fromkeys(NAMES, 0.2)}]
    heights = {}
    for name, rows in (("plain", plain), ("both", [{"step": 10, "diagnosis": looks}, plain[0] | {"diagnosis": looks}])):
        assert plot_regions(rows, tmp_path / f"{name}.png")
        heights[name] = len(read_image(tmp_path / f"{name}.png"))
    assert heights["both"] == 2 * heights["plain"]
    assert not plot_regions([{"step": 10, "diagnosis": None}], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
