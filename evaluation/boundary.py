"""Boundary IoU (Cheng et al., "Boundary IoU", CVPR 2021): IoU of what lies within a few pixels of an outline.

Shapes: C classes, H W pixels.
"""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.confusion import NONE

DISTANCE = 0.02  # of the image's diagonal, as in the paper; at least one pixel
OUTSIDE = 254


def count_boundaries(
    truth_HW: NDArray[np.uint8], prediction_HW: NDArray[np.uint8], num_classes: int, distance: float = DISTANCE
) -> NDArray[np.int64]:
    """Counts (3, C) of one image: hits, truth and prediction, of pixels near the outline of a region of their class.

    A region's outline is where another class, void or the border of the image begins. Void pixels count for nothing.
    """
    width_px = max(1, round(distance * math.hypot(*truth_HW.shape)))
    # Void is void in both, or what a prediction says there would decide where its outlines are.
    prediction_HW = np.where(truth_HW == NONE, np.uint8(NONE), prediction_HW)
    outlines = [
        np.where(near_outline(classes_HW, width_px), classes_HW, NONE) for classes_HW in (truth_HW, prediction_HW)
    ]
    hits_HW = np.where(outlines[0] == outlines[1], outlines[0], NONE)
    counted = [np.bincount(m.ravel(), minlength=NONE + 1)[:num_classes] for m in (hits_HW, *outlines)]
    return np.array(counted, np.int64)


def near_outline(classes_HW: NDArray[np.uint8], width_px: int) -> NDArray[np.bool_]:
    """(H, W) bool: whether another value, or the image's border, lies within a square of `width_px` to each side."""
    padded = cv2.copyMakeBorder(classes_HW, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=[OUTSIDE])
    # A square holds one value only if its least is its greatest: two filters serve all classes at once.
    square = np.ones((2 * width_px + 1, 2 * width_px + 1), np.uint8)
    differs = cv2.dilate(padded, square) != cv2.erode(padded, square)
    return np.asarray(differs[1:-1, 1:-1], np.bool_)
