"""Superpixels of an image and how they hang together: what a network says of pixels, made one answer a superpixel.

"One pixel per class", section 5: the shares of classes in a superpixel (Eq. 6), spread to superpixels of its context
(Eq. 4), kept to the classes that may be where it is, and silent where no class is likely enough.

Shapes: C classes, S superpixels, H W pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from labelgen.samples import InputError
from labelgen.superpixels import find_superpixels

CELL_PX = 2  # a side of a cell of refined scores; 4 blurs thin things (pseudo-labels of toy lose 1.1 points of mIoU)


class Regions(NamedTuple):
    """What is known of one image before anybody says what it shows."""

    superpixels_HW: NDArray[np.integer]  # of each pixel, 0..S-1
    context_SS: NDArray[np.float32]  # how much one superpixel (row) has to say about another one (column), 0 or more
    is_allowed_SC: NDArray[np.bool_]  # which classes may be where the superpixel is


class Refiner(Protocol):
    """Knows the regions of every image of a split."""

    @property
    def about(self) -> Mapping[str, Any]:
        """Everything that decides what it says, ready for JSON."""

    def regions(self, image_path: str, image_HW3: NDArray[np.uint8]) -> Regions:
        """Those of one image. image_HW3: what the file holds, RGB in 0..255."""


@dataclass(frozen=True, kw_only=True)
class IterateConfig:
    """How a student's predictions become the pseudo-labels of the next round."""

    refine: bool = True  # False: they are the pseudo-labels, pixel by pixel
    threshold: float = 0.5  # superpixels whose best class scores less say nothing
    superpixels: int = 1000  # about so many an image
    colour: float = 5.0  # superpixels that differ by this (CIE Lab) speak for each other by 1/e of what like ones do
    reach: float = 2.0  # the same, of how far they are apart, in sides of a superpixel

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise InputError(f"iterate.threshold must be in [0, 1], got {self.threshold}")
        for name in ("superpixels", "colour", "reach"):
            if not getattr(self, name) > 0:
                raise InputError(f"iterate.{name} must be positive, got {getattr(self, name)}")


def class_shares(
    classes_HW: NDArray[np.integer], superpixels_HW: NDArray[np.integer], classes: int
) -> NDArray[np.float32]:
    """(S, C) float32: of the pixels of each superpixel, the share that is called each class (Eq. 6).

    classes_HW: 0..C-1. A number that no pixel has is a superpixel without shares: zeros.
    """
    pairs = superpixels_HW.astype(np.int64) * classes + classes_HW
    superpixels = int(superpixels_HW.max()) + 1
    counts_SC = np.bincount(pairs.ravel(), minlength=superpixels * classes).reshape(superpixels, classes)
    return np.asarray(counts_SC / np.maximum(counts_SC.sum(1, keepdims=True), 1), np.float32)


def refine(scores_SC: NDArray[np.floating], context_SS: NDArray[np.floating]) -> NDArray[np.float32]:
    """(S, C): scores of each superpixel, averaged over all by its column of the context (Eq. 4).

    A superpixel that nothing speaks for, itself included, keeps its own scores.
    """
    total_S = context_SS.sum(0)
    weights_SS = np.divide(context_SS, total_S, out=np.eye(len(total_S), dtype=np.float32), where=total_S > 0)
    return np.asarray(weights_SS.T @ scores_SC, np.float32)


def silence(scores_SC: NDArray[np.floating], is_allowed_SC: NDArray[np.bool_], threshold: float) -> NDArray[np.float32]:
    """(S, C): NaN for classes that are not allowed, and for superpixels whose best allowed class is below threshold."""
    allowed_SC = np.where(is_allowed_SC, scores_SC, -np.inf)
    is_said_SC = is_allowed_SC & (allowed_SC.max(1, keepdims=True) >= threshold)
    return np.where(is_said_SC, scores_SC, np.nan).astype(np.float32)


@dataclass(frozen=True)
class Refinement:
    """Context and location refinement (CLR) of a network's class maps; superpixels below the threshold are silent."""

    refiner: Refiner
    threshold: float

    @property
    def about(self) -> dict[str, Any]:
        """Everything that decides it, ready for JSON."""
        return {"threshold": self.threshold, **self.refiner.about}

    def scores(
        self, image_path: str, image_HW3: NDArray[np.uint8], classes_HW: NDArray[np.uint8], classes: int
    ) -> NDArray[np.float32]:
        """(C, h, w) in 0..1, NaN where nothing is said: of the superpixels below the centres of cells of CELL_PX.

        classes_HW: what the network calls each pixel, 0..C-1.
        """
        superpixels_HW, context_SS, is_allowed_SC = self.refiner.regions(image_path, image_HW3)
        shares_SC = class_shares(classes_HW, superpixels_HW, classes)
        scores_SC = silence(refine(shares_SC, context_SS), is_allowed_SC, self.threshold)
        height, width = superpixels_HW.shape
        h, w = grid_of(height, width)
        rows, columns = ((np.arange(n) + 0.5) * side / n for n, side in ((h, height), (w, width)))
        superpixels_hw = superpixels_HW[np.ix_(rows.astype(int), columns.astype(int))]
        return np.ascontiguousarray(scores_SC[superpixels_hw].transpose(2, 0, 1))


def grid_of(height: int, width: int) -> tuple[int, int]:
    """(h, w) of the scores of an image."""
    return -(-height // CELL_PX), -(-width // CELL_PX)


class SlicRefiner:
    """For any engine: SLIC superpixels, which speak for those near them of like colour; any class may be anywhere."""

    def __init__(self, config: IterateConfig, classes: int) -> None:
        self._config, self._classes = config, classes

    @property
    def about(self) -> Mapping[str, Any]:
        """Its settings."""
        config = self._config
        return {"slic": {"superpixels": config.superpixels, "colour": config.colour, "reach": config.reach}}

    def regions(self, image_path: str, image_HW3: NDArray[np.uint8]) -> Regions:
        """Of any image, wherever it is."""
        from skimage.color import rgb2lab

        superpixels_HW = find_superpixels(image_HW3, self._config.superpixels)
        height, width = superpixels_HW.shape
        members = superpixels_HW.ravel()
        sizes_S = np.bincount(members)
        side_px = np.sqrt(height * width / len(sizes_S))
        y_HW, x_HW = np.indices((height, width)) / (side_px * self._config.reach)
        lab_HW3 = rgb2lab(image_HW3) / self._config.colour
        features = [y_HW, x_HW, *lab_HW3.transpose(2, 0, 1)]
        means_SF = np.stack([np.bincount(members, feature.ravel()) / sizes_S for feature in features], 1)
        squares_S = (means_SF**2).sum(1)
        distance_SS = squares_S[:, None] + squares_S - 2 * means_SF @ means_SF.T
        context_SS = np.exp(-np.maximum(distance_SS, 0)).astype(np.float32)
        return Regions(superpixels_HW, context_SS, np.ones((len(sizes_S), self._classes), bool))
