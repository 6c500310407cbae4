"""Counting pixels: truth against prediction, over a whole data set.

Shapes: C classes, H W pixels.
"""

from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.scores import Scores

NONE = 255


class ConfusionMatrix:
    """counts_CC (int64): rows are truth, columns are prediction. Sums over images, and over processes with +.

    One more column counts predictions that are no class (e.g. 255, where a pseudo-label says nothing): they miss
    the truth, and hit no other class.
    """

    def __init__(self, num_classes: int, ignore_index: int = NONE) -> None:
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.counts = np.zeros((num_classes, num_classes + 1), np.int64)

    def update(self, truth_HW: NDArray[np.integer], prediction_HW: NDArray[np.integer]) -> None:
        """Add one image. Pixels whose truth is the ignore index count for nothing.

        Raises ValueError for maps of different sizes and for truth that is no class.
        """
        self.counts += count_pixels(truth_HW, prediction_HW, self.num_classes, self.ignore_index)

    def __add__(self, other: Self) -> Self:
        total = type(self)(self.num_classes, self.ignore_index)
        total.counts = self.counts + other.counts
        return total

    def scores(self) -> Scores:
        """IoU and friends of what has been counted."""
        return Scores.from_counts(self.counts)


def count_pixels(
    truth_HW: NDArray[np.integer], prediction_HW: NDArray[np.integer], num_classes: int, ignore_index: int = NONE
) -> NDArray[np.int64]:
    """Counts (C, C + 1) of one image, as in ConfusionMatrix, which says what is raised."""
    if truth_HW.shape != prediction_HW.shape:
        raise ValueError(f"truth is {truth_HW.shape} but prediction is {prediction_HW.shape}; resize one first")
    if not 0 < num_classes < NONE:
        raise ValueError(f"the number of classes must be in 1..{NONE - 1}, got {num_classes}")
    # A pair of bytes is an index of 16 bits: counting all pairs takes less time than masking the ignored pixels.
    truth, prediction = _as_bytes(truth_HW, ignore_index), _as_bytes(prediction_HW, ignore_index)
    pairs = np.bincount((truth.astype(np.uint16) << 8 | prediction).ravel(), minlength=1 << 16).reshape(256, 256)
    if pairs[num_classes:NONE].any():
        raise ValueError(f"truth holds ids outside 0..{num_classes - 1}; map raw ids to train ids first")
    known = pairs[:num_classes]
    return np.concatenate([known[:, :num_classes], known[:, num_classes:].sum(1, keepdims=True)], 1).astype(np.int64)


def _as_bytes(classes_HW: NDArray[np.integer], ignore_index: int) -> NDArray[np.uint8]:
    """The ignore index as 255, and ids that no byte holds as 254, which is no class either."""
    if classes_HW.dtype == np.uint8 and ignore_index == NONE:
        return classes_HW.astype(np.uint8, copy=False)
    fits = (classes_HW >= 0) & (classes_HW < NONE)
    return np.where(classes_HW == ignore_index, NONE, np.where(fits, classes_HW, NONE - 1)).astype(np.uint8)


def resize_classes(classes_HW: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A class map in the size of its truth: each pixel takes the class at its centre (nearest neighbour).

    Raises ValueError where the shapes differ by more than 1 %, or a pixel: such a map is of something else.
    """
    (height, width), (h, w) = size, classes_HW.shape
    if (h, w) == (height, width):
        return classes_HW
    if abs(w * height - h * width) > max(0.01 * h * width, height, width):
        raise ValueError(f"a class map of {h} x {w} does not fit {height} x {width} pixels: another shape")
    return cv2.resize(classes_HW, (width, height), interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8)
