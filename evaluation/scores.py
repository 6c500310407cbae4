"""IoU and friends, from a confusion matrix.

Shapes: C classes, G groups of classes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Shares in 0..1. NaN where a score has no value: a class in neither truth nor prediction has no IoU."""

    iou: Floats  # (C,) hits / (truth or prediction)
    precision: Floats  # (C,) hits / prediction
    recall: Floats  # (C,) hits / truth
    pixel_accuracy: float  # hits / all valid pixels

    @classmethod
    def from_counts(cls, counts: NDArray[np.int64]) -> Self:
        """counts: (C, C) or (C, C + 1), rows truth, columns prediction; a last column C is "no class"."""
        hits, truth, prediction = totals(counts)
        with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, as it should be
            return cls(
                iou=iou(hits, truth, prediction),
                precision=hits / prediction,
                recall=hits / truth,
                pixel_accuracy=float(np.float64(hits.sum()) / counts.sum()),
            )

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that have one: an absent class is left out, not counted as 0."""
        return mean(self.iou)


def totals(counts: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """(hits, truth, prediction) in pixels per class, (..., C) each, of confusion matrices (..., C, C or C + 1)."""
    classes = counts.shape[-2]
    hits = np.diagonal(counts[..., :classes], axis1=-2, axis2=-1)
    return hits.astype(np.float64), counts.sum(-1).astype(np.float64), counts[..., :classes].sum(-2).astype(np.float64)


def iou(hits: Floats, truth: Floats, prediction: Floats) -> Floats:
    """Hits / (truth or prediction), in 0..1; NaN where there is neither."""
    with np.errstate(invalid="ignore"):
        return np.asarray(hits / (truth + prediction - hits), np.float64)


def mean(values: Floats) -> float:
    """Over what is not NaN; NaN if nothing is."""
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def merge_classes(counts: NDArray[np.int64], groups: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """The names of the groups, and the confusion matrix (G, G + 1) of groups of classes.

    counts: (C, C + 1). groups: the group of each class, such as Cityscapes' categories, or () for none. Taking one
    class for another of its group is a hit.
    """
    names = list(dict.fromkeys(groups))
    belongs_GC = np.array([[group == name for group in groups] for name in names], np.int64)
    belongs_GC = belongs_GC.reshape(len(names), len(counts))  # no groups: no rows
    none = (belongs_GC @ counts[:, -1])[:, None]
    return names, np.concatenate([belongs_GC @ counts[:, :-1] @ belongs_GC.T, none], 1)


def percent(value: float) -> float | None:
    """Of a share in 0..1, with two decimals; None for NaN, which JSON has not."""
    return None if np.isnan(value) else round(100 * float(value), 2)


def by_name(names: Iterable[str], values: Floats) -> dict[str, float | None]:
    """Percentages by class name."""
    return {name: percent(value) for name, value in zip(names, values, strict=True)}
