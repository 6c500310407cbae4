"""What superpixels look like: colour, texture and saliency, each as histograms of 32 bins.

Shapes: H W pixels, S superpixels.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from labelgen.engines.one_pixel.edges import histograms

BINS = 32
# Two ways to cut an image, so that neighbours which a cut of one parts are together in the other.
CUTS = ((0.0, 0.5, 1.0), (0.0, 0.25, 0.75, 1.0))


class Imaging(NamedTuple):
    """Histograms of each superpixel; those of a kind sum to 1."""

    colour_SK: NDArray[np.float32]  # 96: CIELAB's three channels, 32 bins each
    texture_SK: NDArray[np.float32]  # 32
    saliency_3SK: NDArray[np.float32]  # 32 each: of the whole image, and of it in two ways of cropping


def imaging_features(image_HW3: NDArray[np.uint8], map_HW: NDArray[np.int32]) -> Imaging:
    """Colour, texture and saliency of the superpixels of uint8 RGB."""
    lab_HW3 = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2LAB).astype(np.uint8)
    colours = [histograms(map_HW, lab_HW3[..., channel] / 256, BINS) / 3 for channel in range(3)]
    saliency = [np.zeros(map_HW.shape, np.float32) for _ in (None, *CUTS)]
    for values_HW, cuts in zip(saliency, ((0.0, 1.0), *CUTS), strict=True):
        for place in crops(map_HW.shape[0], map_HW.shape[1], cuts):
            values_HW[place] = colour_contrast(lab_HW3[place])
    return Imaging(
        np.concatenate(colours, axis=1),
        histograms(map_HW, texture(image_HW3), BINS),
        np.stack([histograms(map_HW, values_HW, BINS) for values_HW in saliency]),
    )


def crops(height: int, width: int, cuts: tuple[float, ...]) -> Iterator[tuple[slice, slice]]:
    """The parts of an image whose sides are cut at these shares; parts without a pixel are left out."""
    rows, columns = ([slice(round(a * side), round(b * side)) for a, b in pairwise(cuts)] for side in (height, width))
    return ((row, column) for row in rows for column in columns if row.stop > row.start and column.stop > column.start)


def texture(image_HW3: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(H, W) in 0..1: local binary patterns."""
    from skimage.feature import local_binary_pattern

    grey_HW = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY)
    return np.asarray(local_binary_pattern(grey_HW, 8, 1, "default") / 256)  # type: ignore[no-untyped-call]


def colour_contrast(lab_HW3: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W) saliency in 0..1: how far a pixel's colour is from the mean colour (Achanta et al., CVPR 2009)."""
    smooth_HW3 = cv2.GaussianBlur(lab_HW3, (5, 5), 0).astype(np.float32)
    contrast_HW = np.linalg.norm(smooth_HW3 - lab_HW3.reshape(-1, 3).mean(0), axis=2)
    return np.asarray(contrast_HW / max(float(contrast_HW.max()), 1e-6), np.float32)
