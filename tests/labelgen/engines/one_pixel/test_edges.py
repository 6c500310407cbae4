import numpy as np
import pytest

from labelgen.engines.one_pixel.edges import edge_similarity, edge_strength, histograms, with_edges


def halves(height: int = 20, width: int = 30) -> np.ndarray:
    """Black on the left, white on the right."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :] = 255
    return image


def test_superpixels_keep_to_edges_and_are_numbered_without_gaps() -> None:
    found = with_edges(halves(), 6)
    assert found.map_HW.shape == (20, 30)
    assert sorted(np.unique(found.map_HW)) == list(range(found.number))
    assert found.number > 2
    assert not set(np.unique(found.map_HW[:, :15])) & set(np.unique(found.map_HW[:, 15:]))


def test_neighbours_are_told_with_the_strength_of_the_edge_between_them() -> None:
    found = with_edges(halves(), 6)
    is_left = {number: number in found.map_HW[:, :15] for number in range(found.number)}
    for (one, other), strength in zip(found.pairs_M2, found.edge_M, strict=True):
        assert one < other
        if is_left[one] == is_left[other]:
            assert strength < 0.5
        else:
            assert strength == pytest.approx(1)
    beside = {frozenset(map(int, pair)) for pair in np.stack([found.map_HW[:, 14], found.map_HW[:, 15]], axis=1)}
    assert beside <= {frozenset(map(int, pair)) for pair in found.pairs_M2}


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (16, 16)])
def test_an_image_that_is_one_superpixel_has_no_neighbours(size: tuple[int, int]) -> None:
    found = with_edges(np.full((*size, 3), 90, np.uint8), 1)
    assert found.number == 1
    assert found.pairs_M2.shape == (0, 2)
    assert found.edge_M.shape == (0,)
    np.testing.assert_array_equal(edge_similarity(found.pairs_M2, found.edge_M, 1), [[1]])


def test_an_image_of_one_colour_has_no_edges() -> None:
    assert edge_strength(np.full((8, 9, 3), 77, np.uint8)).max() == 0


def test_between_superpixels_counts_the_strongest_edge_of_the_best_way() -> None:
    """0 - 1 - 2 in a row with edges 0.2 and 0.3, and a direct border 0 - 2 of 0.9; 3 behind one of 0.6."""
    pairs = np.array([[0, 1], [1, 2], [0, 2], [2, 3]], np.int32)
    similar = edge_similarity(pairs, np.array([0.2, 0.3, 0.9, 0.6], np.float32), 4)
    expected = [[1, 0.8, 0.7, 0.4], [0.8, 1, 0.7, 0.4], [0.7, 0.7, 1, 0.4], [0.4, 0.4, 0.4, 1]]
    np.testing.assert_allclose(similar, expected, atol=1e-6)


def test_histograms_are_shares_of_each_superpixels_pixels() -> None:
    map_HW = np.array([[0, 0, 0], [1, 1, 0]], np.int32)
    values = np.array([[0.0, 0.1, 0.3], [0.5, 1.0, 0.76]])
    np.testing.assert_allclose(histograms(map_HW, values, 4), [[0.5, 0.25, 0, 0.25], [0, 0, 0.5, 0.5]])
