"""What moved between two class maps of the same pixels.

Shapes: C classes, H W pixels.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.confusion import count_pixels
from evaluation.scores import Scores, percent

MOST_MOVES = 12


class Moves:
    """Pixels by class before and class after, 255 for none, over any number of images; scores where there is truth."""

    def __init__(self, classes: int) -> None:
        self._pairs = np.zeros((256, 256), np.int64)
        self._before, self._after = np.zeros((2, classes, classes + 1), np.int64)
        self._images = 0

    def add(
        self, before_HW: NDArray[np.uint8], after_HW: NDArray[np.uint8], truth_HW: NDArray[np.uint8] | None
    ) -> None:
        """Count an image. truth_HW: of the same size, None where there is none."""
        pairs = before_HW.astype(np.uint16) << 8 | after_HW
        self._pairs += np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)
        self._images += 1
        if truth_HW is not None:
            self._before += count_pixels(truth_HW, before_HW, len(self._before))
            self._after += count_pixels(truth_HW, after_HW, len(self._after))

    def as_dict(self) -> dict[str, Any]:
        """Shares of all pixels, the largest moves first; mIoU, and IoU by class, in percent, None without truth."""
        changed = self._pairs.copy()
        np.fill_diagonal(changed, 0)
        pixels = max(int(self._pairs.sum()), 1)
        largest = np.argsort(changed, axis=None)[::-1][:MOST_MOVES]
        places = [divmod(int(place), 256) for place in largest]
        return {
            "images": self._images,
            "changed_pixels": int(changed.sum()) / pixels,
            "moves": [
                {"from": was, "to": now, "share": int(changed[was, now]) / pixels}
                for was, now in places
                if changed[was, now]
            ],
            "miou_before": miou(self._before),
            "miou_after": miou(self._after),
            "iou_before": _iou(self._before),
            "iou_after": _iou(self._after),
        }


def miou(counts: NDArray[np.int64]) -> float | None:
    """Percent, of a confusion matrix (C, C + 1); None where nothing was counted."""
    return percent(Scores.from_counts(counts).miou) if counts.any() else None


def _iou(counts: NDArray[np.int64]) -> list[float | None]:
    """Percent, of each class; None for one that is in neither truth nor prediction."""
    return [percent(float(value)) for value in Scores.from_counts(counts).iou]
