"""IoU and friends, from a confusion matrix."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

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
        classes = counts.shape[0]
        hits = np.diag(counts[:, :classes]).astype(np.float64)
        truth, prediction = counts.sum(1), counts[:, :classes].sum(0)
        with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, as it should be
            return cls(
                iou=hits / (truth + prediction - hits),
                precision=hits / prediction,
                recall=hits / truth,
                pixel_accuracy=float(np.float64(hits.sum()) / counts.sum()),
            )

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that have one: an absent class is left out, not counted as 0."""
        return float(np.nanmean(self.iou)) if not np.isnan(self.iou).all() else float("nan")

    def as_dict(self, names: list[str]) -> dict[str, Any]:
        """For JSON: percentages by class name, None where there is no value."""

        def by_name(values: Floats) -> dict[str, float | None]:
            return {name: percent(value) for name, value in zip(names, values, strict=True)}

        return {
            "miou": percent(self.miou),
            "pixel_accuracy": percent(self.pixel_accuracy),
            "iou": by_name(self.iou),
            "precision": by_name(self.precision),
            "recall": by_name(self.recall),
        }


def percent(value: float) -> float | None:
    """A share in percent with two digits, for JSON; None for NaN."""
    return None if np.isnan(value) else round(100 * float(value), 2)


def markdown_table(rows: dict[str, dict[str, Any]], names: list[str]) -> str:
    """Per-class IoU and mIoU in percent, one line per entry of `rows` (each from `Scores.as_dict`)."""
    lines = {title: [scores["miou"], *(scores["iou"][name] for name in names)] for title, scores in rows.items()}
    return markdown(["mIoU", *names], lines)


def markdown_by_class(rows: dict[str, dict[str, Any]], names: list[str]) -> str:
    """IoU, precision and recall in percent, one line per class, three columns per entry of `rows`."""
    header = [column for title in rows for column in (f"{title} IoU", "precision", "recall")]
    kinds = ("iou", "precision", "recall")
    lines = {name: [scores[kind][name] for scores in rows.values() for kind in kinds] for name in names}
    lines["mean"] = [_mean(scores[kind].values()) for scores in rows.values() for kind in kinds]
    return markdown(header, lines)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def markdown(header: list[str], rows: dict[str, list[float | None]]) -> str:
    """A Markdown table of titled rows of numbers with one digit, "-" for None; aligned for the terminal, too."""

    def cell(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}"

    width = max(map(len, rows), default=0)
    lines = ["| " + " | ".join([" " * width, *header]) + " |"]
    lines.append("|" + "|".join("-" * (len(h) + 2) for h in [" " * width, *header]) + "|")
    for title, values in rows.items():
        cells = [cell(v).rjust(len(h)) for v, h in zip(values, header, strict=True)]
        lines.append("| " + " | ".join([title.ljust(width), *cells]) + " |")
    return "\n".join(lines)
