"""What image-level labels alone say about a data set: how many classes, which together, which always (CARB, Fig. 1).

Shapes: N images, C classes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEARLY_ALWAYS = 0.95  # share of the images from which on a class leaves too few negatives to learn from


@dataclass(frozen=True)
class LabelStatistics:
    """Statistics of is_present_NC, (N, C) bool: which of the named classes each image shows. N may be 0."""

    names: tuple[str, ...]
    is_present_NC: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.is_present_NC.ndim != 2 or self.is_present_NC.shape[1] != len(self.names):
            raise ValueError(f"is_present_NC is {self.is_present_NC.shape}, but there are {len(self.names)} names")

    @property
    def images(self) -> int:
        """N."""
        return len(self.is_present_NC)

    @cached_property
    def positives(self) -> NDArray[np.int64]:
        """(C,) how many images show each class."""
        return np.asarray(self.is_present_NC.sum(0), np.int64)

    @property
    def negatives(self) -> NDArray[np.int64]:
        """(C,) how many images do not show each class."""
        return self.images - self.positives

    @property
    def share(self) -> NDArray[np.float64]:
        """(C,) share of the images that show each class, 0..1; 0 where there are no images."""
        return self.positives / max(self.images, 1)

    @cached_property
    def classes_per_image(self) -> NDArray[np.int64]:
        """(N,) how many classes each image shows."""
        return np.asarray(self.is_present_NC.sum(1), np.int64)

    @cached_property
    def co_occurrence(self) -> NDArray[np.float64]:
        """(C, C): row i, column j is the share, 0..1, of the images that show class i which show class j, too.

        Not symmetric; 1 on the diagonal. NaN in the row of a class that no image shows.
        """
        shown_NC = self.is_present_NC.astype(np.float64)
        both_CC = shown_NC.T @ shown_NC
        with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, as it should be
            return np.asarray(both_CC / self.positives[:, None])

    @property
    def ratios(self) -> NDArray[np.float64]:
        """Co-occurrence of all ordered pairs of different classes that are both shown somewhere, for a histogram."""
        shown = np.flatnonzero(self.positives)
        return np.asarray(self.co_occurrence[np.ix_(shown, shown)][~np.eye(len(shown), dtype=bool)])

    @property
    def always(self) -> list[str]:
        """Classes that every image shows: nothing to tell them from each other by. None where there are no images."""
        return self._names(self.share == 1)

    @property
    def nearly_always(self) -> list[str]:
        """Classes that at least 95 % of the images show, but not all."""
        return self._names((self.share >= NEARLY_ALWAYS) & (self.share < 1))

    @property
    def never(self) -> list[str]:
        """Classes that no image shows."""
        return self._names(self.positives == 0)

    @property
    def ruled_out(self) -> float:
        """Share of the classes, 0..1, that the image-level labels exclude in an image, on average; NaN for no images.

        How much they help: a pseudo-label is the best of the classes that are left.
        """
        return 1 - float(self.is_present_NC.mean()) if self.is_present_NC.size else float("nan")

    def as_dict(self) -> dict[str, Any]:
        """For JSON: counts, names, shares in 0..1; None where there is no value."""
        counts, images = np.unique(self.classes_per_image, return_counts=True)
        return {
            "images": self.images,
            "classes": list(self.names),
            "classes_per_image": [[int(k), int(n)] for k, n in zip(counts, images, strict=True)],
            "mean_classes_per_image": round(float(self.classes_per_image.mean()), 3) if self.images else None,
            "positives": dict(zip(self.names, self.positives.tolist(), strict=True)),
            "negatives": dict(zip(self.names, self.negatives.tolist(), strict=True)),
            "always": self.always,
            "nearly_always": self.nearly_always,
            "never": self.never,
            "co_occurrence": [[_rounded(value) for value in row] for row in self.co_occurrence],
            "ruled_out": _rounded(self.ruled_out),
        }

    def __str__(self) -> str:
        width = max(map(len, ("class", *self.names)))
        columns = zip(self.names, self.positives, self.negatives, self.share, strict=True)
        lines = [f"{'class':{width}} {'with':>7} {'without':>7} {'share':>8}"]
        for name, positive, negative, share in columns:
            lines.append(f"{name:{width}} {positive:>7} {negative:>7} {share:>8.2%}")
        lines += [
            "",
            f"always there: {_listed(self.always)}",
            f"nearly always (95 % or more): {_listed(self.nearly_always)}",
            f"never: {_listed(self.never)}",
        ]
        if self.images:
            per_image = self.classes_per_image
            lines += [
                f"classes per image: {per_image.min()} to {per_image.max()}, mean {per_image.mean():.2f}",
                f"image-level labels rule out {self.ruled_out:.1%} of the {len(self.names)} classes, on average",
            ]
        return "\n".join(lines)

    def _names(self, chosen_C: NDArray[np.bool_]) -> list[str]:
        return [self.names[c] for c in np.flatnonzero(chosen_C)]


def _listed(names: list[str]) -> str:
    return ", ".join(names) if names else "none"


def _rounded(share: float) -> float | None:
    return None if np.isnan(share) else round(float(share), 4)
