import numpy as np
import pytest

from evaluation.confusion import ConfusionMatrix
from evaluation.overlay import agreement, colourise, panel
from evaluation.tables import markdown, markdown_table
from evaluation.tally import Tally


def test_two_by_three_example_by_hand() -> None:
    truth = np.array([[0, 0, 1], [1, 255, 1]])
    prediction = np.array([[0, 1, 1], [1, 0, 0]])
    matrix = ConfusionMatrix(2)
    matrix.update(truth, prediction)
    scores = matrix.scores()
    np.testing.assert_allclose(scores.iou, [1 / 3, 2 / 4])
    np.testing.assert_allclose(scores.precision, [1 / 2, 2 / 3])
    np.testing.assert_allclose(scores.recall, [1 / 2, 2 / 3])
    assert scores.miou == pytest.approx(5 / 12)
    assert scores.pixel_accuracy == pytest.approx(3 / 5)


def test_class_absent_from_truth_and_prediction_is_left_out_of_the_mean() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([[0, 1]]), np.array([[0, 0]]))
    assert np.isnan(matrix.scores().iou[2])
    assert matrix.scores().miou == pytest.approx((1 / 2 + 0) / 2)


def test_nothing_counted_gives_nan_and_no_warning() -> None:
    assert np.isnan(ConfusionMatrix(2).scores().miou)
    assert Tally(2).as_dict(["a", "b"])["miou"] is None


def test_ignored_prediction_misses_the_truth_and_hits_no_other_class() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([[0, 0]]), np.array([[0, 255]]))
    np.testing.assert_allclose(matrix.scores().iou, [1 / 2, np.nan])


def test_iou_is_accumulated_over_the_data_set_and_matrices_add_up() -> None:
    rng = np.random.default_rng(0)
    whole, parts = ConfusionMatrix(4), [ConfusionMatrix(4), ConfusionMatrix(4)]
    truths, predictions = rng.integers(0, 4, (2, 6, 5, 7))
    truths[:, 0] = 255
    for i, (truth, prediction) in enumerate(zip(truths, predictions, strict=True)):
        whole.update(truth, prediction)
        parts[i % 2].update(truth, prediction)
    valid = truths != 255
    for c in range(4):
        both = ((truths == c) & (predictions == c) & valid).sum()
        either = (((truths == c) | (predictions == c)) & valid).sum()
        assert whole.scores().iou[c] == pytest.approx(both / either)
    np.testing.assert_array_equal((parts[0] + parts[1]).counts, whole.counts)


def test_maps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="resize one first"):
        ConfusionMatrix(2).update(np.zeros((2, 2), int), np.zeros((2, 3), int))
    with pytest.raises(ValueError, match=r"outside 0..1; map raw ids"):
        ConfusionMatrix(2).update(np.array([[2]]), np.array([[0]]))


def test_table_shows_absent_classes_as_a_dash() -> None:
    tally = Tally(2)
    tally.update("a", np.zeros((1, 4), np.uint8), np.zeros((1, 4), np.uint8))
    table = markdown_table({"student": tally.as_dict(["sky", "car"])}, ["sky", "car"])
    assert table.splitlines()[2] == "| student | 100.0 | 100.0 |   - |"


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert markdown(["sky", "a fence"], {"base": [100.0, None], "local+carb": [7.25, 30.0]}) == "\n".join(
        [
            "|            |   sky | a fence |",
            "|------------|-------|---------|",
            "| base       | 100.0 |       - |",
            "| local+carb |   7.2 |    30.0 |",
        ]
    )
    assert markdown(["sky"], {}) == "|  | sky |\n|--|-----|"


def test_pictures_have_the_colours_they_promise() -> None:
    classes = np.array([[0, 1, 255]], np.uint8)
    coloured = colourise(classes, [(1, 2, 3), (4, 5, 6)])
    assert coloured.tolist() == [[[1, 2, 3], [4, 5, 6], [30, 30, 30]]]
    agreed = agreement(classes, np.array([[0, 0, 0]], np.uint8))
    assert agreed.tolist() == [[[60, 160, 90], [230, 90, 40], [30, 30, 30]]]
    sheet = panel([[coloured, agreed]], ["truth", "agreement"])
    assert sheet.shape == (22 + 1 + 4, 3 + 4 + 3, 3)
