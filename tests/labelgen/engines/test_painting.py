import pytest
import torch

from labelgen.engines.painting import paint

NAN = torch.nan


def masks(*rows: list[float]) -> torch.Tensor:
    """Masks of an image of one row."""
    return torch.tensor(rows)[:, None]


def scores(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows)


def test_the_best_box_wins_each_pixel_by_score_times_probability() -> None:
    parts = [(masks([0.5, 1.0, 0.8, 0.0], [0.0, 0.6, 1.0, 1.0]), scores([0.8, 0.0], [0.0, 0.6]))]
    expected = scores([0.4, 0.8, 0.64, 0.0], [0.0, 0.36, 0.6, 0.6])
    torch.testing.assert_close(paint(parts, 2, (1, 4), 0.5)[:, 0], expected)


def test_two_boxes_of_a_class_leave_the_better_of_both() -> None:
    parts = [(masks([1.0, 0.5], [0.5, 1.0]), scores([0.4], [0.9]))]
    torch.testing.assert_close(paint(parts, 1, (1, 2), 0.5)[0, 0], torch.tensor([0.45, 0.9]))


def test_a_box_may_speak_for_two_classes() -> None:
    parts = [(masks([1.0]), scores([0.5, 0.3]))]
    torch.testing.assert_close(paint(parts, 2, (1, 1), 0.5)[:, 0, 0], torch.tensor([0.5, 0.3]))


def test_nothing_is_said_where_no_mask_is_likely_and_of_classes_without_a_box() -> None:
    parts = [(masks([1.0, 0.49, 0.5, 0.0]), scores([0.3, 0.0]))]
    expected = scores([0.3, NAN, 0.15, NAN], [NAN] * 4)
    torch.testing.assert_close(paint(parts, 2, (1, 4), 0.5)[:, 0], expected, equal_nan=True)
    without_threshold = paint(parts, 2, (1, 4), 0.0)[0, 0]
    assert without_threshold.isnan().tolist() == [False, False, False, True]


def test_without_masks_nothing_is_said() -> None:
    assert paint([], 3, (2, 5), 0.5).isnan().all()
    assert paint([], 3, (2, 5), 0.5).shape == (3, 2, 5)


def test_a_patch_takes_the_mean_of_its_pixels() -> None:
    torch.testing.assert_close(
        paint([(masks([1.0, 0.5, 0.0, 1.0]), scores([0.8]))], 1, (1, 2), 0.5)[0, 0], scores([0.6, 0.4])[0]
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_masks_and_of_parts_changes_nothing(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    probabilities, named = torch.rand(6, 4, 8, generator=generator), torch.rand(6, 3, generator=generator)
    named = named.where(named > 0.5, 0.0)
    expected = paint([(probabilities, named)], 3, (2, 4), 0.5)
    order = torch.randperm(6, generator=generator)
    parts = [(probabilities[some], named[some]) for some in (order[:1], order[1:5], order[5:])]
    assert torch.equal(paint(parts, 3, (2, 4), 0.5).nan_to_num(-1), expected.nan_to_num(-1))
    swapped = paint([(probabilities, named[:, [2, 0, 1]])], 3, (2, 4), 0.5)
    assert torch.equal(swapped[[1, 2, 0]].nan_to_num(-1), expected.nan_to_num(-1))
