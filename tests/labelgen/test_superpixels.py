"""SLIC: as many superpixels as asked for, numbered without gaps, along the colours."""

import numpy as np
import pytest

from labelgen.superpixels import find_superpixels


def test_superpixels_keep_to_the_colours_and_are_numbered_without_gaps() -> None:
    image_HW3 = np.zeros((40, 60, 3), np.uint8)
    image_HW3[:, 33:] = (200, 40, 40)
    map_HW = find_superpixels(image_HW3, 24)
    assert map_HW.shape == (40, 60)
    assert np.unique(map_HW).tolist() == list(range(map_HW.max() + 1))
    assert 12 <= map_HW.max() + 1 <= 36
    assert not set(map_HW[:, :33].ravel()) & set(map_HW[:, 33:].ravel())


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (20, 20)])
def test_an_image_can_be_one_superpixel(size: tuple[int, int]) -> None:
    assert not find_superpixels(np.full((*size, 3), 90, np.uint8), 1).any()
