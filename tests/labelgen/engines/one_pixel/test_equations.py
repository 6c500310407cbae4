import numpy as np
import pytest

from labelgen.engines.one_pixel import equations, refine
from labelgen.engines.one_pixel.equations import cosine, similarity


def test_similarity_is_the_sum_of_the_smaller_of_two_normalised_numbers() -> None:
    x = np.array([[2.0, 2.0, 0.0], [0.0, 0.0, 5.0]])  # 1/2 1/2 0 and 0 0 1
    y = np.array([[1.0, 2.0, 1.0], [3.0, 0.0, 0.0], [0.0, 0.5, 1.5]])  # 1/4 1/2 1/4, 1 0 0, 0 1/4 3/4
    expected = [[0.75, 0.5, 0.25], [0.25, 0.0, 0.75]]
    np.testing.assert_allclose(similarity(x, y), expected, atol=1e-6)
    np.testing.assert_allclose(similarity(x, x), np.eye(2), atol=1e-6)


def test_a_row_of_zeros_is_like_nothing() -> None:
    np.testing.assert_array_equal(similarity(np.zeros((1, 3)), np.eye(3)), np.zeros((1, 3)))


def test_cosines_are_of_rows_whatever_their_length() -> None:
    x = np.array([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]])
    np.testing.assert_allclose(cosine(x, np.array([[10.0, 0.0], [0.0, 1.0]])), [[0.6, 0.8], [0, 1], [0, 0]], atol=1e-6)


@pytest.mark.parametrize(("rows", "others"), [(0, 2), (2, 0)])
def test_no_rows_give_no_similarities(rows: int, others: int) -> None:
    assert similarity(np.ones((rows, 3)), np.ones((others, 3))).shape == (rows, others)


def test_similarities_do_not_depend_on_how_many_are_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((7, 5)), rng.random((4, 5))
    whole = similarity(x, y)
    monkeypatch.setattr(equations, "CHUNK", 2 * y.size)
    np.testing.assert_array_equal(similarity(x, y), whole)
    assert whole.dtype == np.float32


def test_refined_scores_are_means_over_the_image_weighted_by_columns_of_the_context() -> None:
    scores = np.array([[0.8, 0.0], [0.2, 0.6], [0.0, 1.0]])
    context = np.array([[1.0, 0.5, 0.0], [1.0, 1.5, 0.0], [0.0, 2.0, 3.0]])  # columns sum to 2, 4 and 3
    expected = [
        [0.5 * 0.8 + 0.5 * 0.2, 0.5 * 0.6],
        [0.125 * 0.8 + 0.375 * 0.2, 0.375 * 0.6 + 0.5 * 1.0],
        [0.0, 1.0],
    ]
    np.testing.assert_allclose(refine(scores, context), expected, atol=1e-6)


def test_without_context_scores_stay_as_they_are() -> None:
    scores = np.array([[0.8, 0.1], [0.2, 0.6]], np.float32)
    np.testing.assert_array_equal(refine(scores, np.eye(2)), scores)
    np.testing.assert_array_equal(refine(scores, np.zeros((2, 2))), scores)


def test_a_class_without_scores_stays_without_and_spoils_no_other() -> None:
    refined = refine(np.array([[0.5, np.nan], [0.1, np.nan]]), np.full((2, 2), 0.5))
    assert np.isnan(refined[:, 1]).all()
    np.testing.assert_allclose(refined[:, 0], [0.3, 0.3], atol=1e-6)


def test_what_is_given_is_left_as_it_is() -> None:
    context = np.array([[0.0, 1.0], [0.0, 1.0]])
    refine(np.ones((2, 1)), context)
    np.testing.assert_array_equal(context, [[0.0, 1.0], [0.0, 1.0]])
