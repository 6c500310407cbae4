"""Whether one class map is better than another: differences of IoU, and how sure they are.

Shapes: N images, C classes, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from evaluation.scores import Floats, iou, totals
from evaluation.tally import Tally

RESAMPLES = 2000
FEWEST_IMAGES = 10  # that show a class: the bootstrap of fewer knows nothing of the images that were not seen


@dataclass(frozen=True)
class Difference:
    """B minus A in percentage points, with the bounds of the 95 % interval.

    NaN where A or B has no IoU; the bounds are NaN as well where fewer than ten images show the class.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, resampled_R: Floats, images: int) -> Self:
        """Bounds: the middle 95 % of the resamples that have a value. images: how many show the class."""
        known = resampled_R[~np.isnan(resampled_R)]
        enough = known.size and images >= FEWEST_IMAGES
        low, high = np.percentile(known, [2.5, 97.5]) if enough else (np.nan, np.nan)
        return cls(100 * value, 100 * float(low), 100 * float(high))

    @property
    def is_sure(self) -> bool:
        """Whether 0 is outside the interval."""
        return self.low > 0 or self.high < 0


def compare(a: Tally, b: Tally, seed: int = 0) -> tuple[Difference, list[Difference]]:
    """The difference of mIoU, and of every class's IoU, from `a` to `b`: `compare_pairs` of one pair."""
    return compare_pairs([(a, b)], seed)


def compare_pairs(pairs: Sequence[tuple[Tally, Tally]], seed: int = 0) -> tuple[Difference, list[Difference]]:
    """The mean difference over pairs (a, b), such as one a training seed, by a paired bootstrap over images.

    Images are drawn with replacement, the same for both; their counts are added up before IoUs are taken, as they are
    over a data set (Efron & Tibshirani, "An Introduction to the Bootstrap", percentile interval). It tells how much
    depends on which images were scored; not how much on the seed of the training.
    Raises ValueError for tallies of other images or classes.
    """
    tallies = [tally for pair in pairs for tally in pair]
    if any(t.image_ids != tallies[0].image_ids or t.num_classes != tallies[0].num_classes for t in tallies):
        raise ValueError("only scores of the same images and classes can be compared")
    images = len(tallies[0].image_ids)
    drawn_RN = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), RESAMPLES)
    weights_RN = np.concatenate([np.ones((1, images)), drawn_RN])  # the first row is the data set as it is
    ious = [iou(*(weights_RN @ counts_NC for counts_NC in totals(t.confusion))) for t in tallies]
    pixels_NC = sum((np.add.reduce(totals(t.confusion)) for t in tallies), np.zeros(1))
    shown_C = (pixels_NC > 0).sum(0)
    change_RC = np.mean([b_RC - a_RC for a_RC, b_RC in zip(ious[::2], ious[1::2], strict=True)], axis=0)
    columns = zip(change_RC.T, shown_C.tolist(), strict=True)
    by_class = [Difference.of(float(column[0]), column[1:], shown) for column, shown in columns]
    means = [_mean_of_rows(iou_RC) for iou_RC in ious]
    miou_R = np.mean([b_R - a_R for a_R, b_R in zip(means[::2], means[1::2], strict=True)], axis=0)
    return Difference.of(float(miou_R[0]), miou_R[1:], images), by_class


def _mean_of_rows(iou_RC: Floats) -> Floats:
    """(R,) over the classes that are there; NaN where none is."""
    there = ~np.isnan(iou_RC)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(there, iou_RC, 0).sum(1) / there.sum(1), np.float64)
