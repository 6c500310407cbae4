"""Counting pixels: truth against prediction, over a whole data set."""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from evaluation.scores import Scores


class ConfusionMatrix:
    """counts_CC (int64): rows are truth, columns are prediction. Sums over images, and over processes with +.

    One more column counts predictions that are no class (e.g. 255, where a pseudo-label says nothing): they miss
    the truth, and hit no other class.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.counts = np.zeros((num_classes, num_classes + 1), np.int64)

    def update(self, truth_HW: NDArray[np.integer], prediction_HW: NDArray[np.integer]) -> None:
        """Add one image. Pixels whose truth is the ignore index count for nothing.

        Raises ValueError for maps of different sizes and for truth that is no class.
        """
        if truth_HW.shape != prediction_HW.shape:
            raise ValueError(f"truth is {truth_HW.shape} but prediction is {prediction_HW.shape}; resize one first")
        C = self.num_classes
        valid = truth_HW != self.ignore_index
        truth, prediction = truth_HW[valid].astype(np.int64), prediction_HW[valid].astype(np.int64)
        if truth.size and not 0 <= truth.min() <= truth.max() < C:
            raise ValueError(f"truth holds ids outside 0..{C - 1}; map raw ids to train ids first")
        prediction = np.where((prediction >= 0) & (prediction < C), prediction, C)
        self.counts += np.bincount(truth * (C + 1) + prediction, minlength=C * (C + 1)).reshape(C, C + 1)

    def __add__(self, other: Self) -> Self:
        total = type(self)(self.num_classes, self.ignore_index)
        total.counts = self.counts + other.counts
        return total

    def scores(self) -> Scores:
        """IoU and friends of what has been counted."""
        return Scores.from_counts(self.counts)
