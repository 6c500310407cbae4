"""Superpixels of an image, the strength of the edges between them, and numbers gathered in each.

Shapes: H W pixels, S superpixels, M pairs of neighbours, B bins.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import cophenet, linkage  # type: ignore[import-untyped]
from scipy.spatial.distance import squareform  # type: ignore[import-untyped]

from labelgen.superpixels import find_superpixels

SMOOTHING_PX = 1.0  # of the picture that edges are looked for in


class Superpixels(NamedTuple):
    """What an image falls into."""

    map_HW: NDArray[np.int32]  # number of each pixel's superpixel, from 0
    pairs_M2: NDArray[np.int32]  # those that touch, the lower number first
    edge_M: NDArray[np.float32]  # mean strength of the edge along the border of each pair, 0..1

    @property
    def number(self) -> int:
        """S."""
        return int(self.map_HW.max()) + 1


def with_edges(image_HW3: NDArray[np.uint8], count: int) -> Superpixels:
    """About `count` superpixels of uint8 RGB; an image can be one."""
    map_HW = find_superpixels(image_HW3, count)
    return Superpixels(map_HW, *_borders(map_HW, edge_strength(image_HW3)))


def edge_strength(image_HW3: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W) in 0..1: the steepest channel of CIELAB, by Sobel, where 1 is the steepest percent of the image.

    Stands in for structured edges, of which there is no kept package.
    """
    lab_HW3 = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2LAB).astype(np.float32)
    smooth_HW3 = cv2.GaussianBlur(lab_HW3, (0, 0), SMOOTHING_PX)
    steep_HW = np.hypot(cv2.Sobel(smooth_HW3, -1, 1, 0), cv2.Sobel(smooth_HW3, -1, 0, 1)).max(2)
    return np.asarray(np.minimum(steep_HW / max(float(np.quantile(steep_HW, 0.99)), 1e-6), 1), np.float32)


def _borders(
    map_HW: NDArray[np.int32], strength_HW: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Pairs (M, 2) of superpixels that touch, and the mean strength (M,) of the pixels on both sides."""
    count = int(map_HW.max()) + 1
    sides = [(map_HW[:, :-1], map_HW[:, 1:]), (map_HW[:-1], map_HW[1:])]
    edges = [(strength_HW[:, :-1], strength_HW[:, 1:]), (strength_HW[:-1], strength_HW[1:])]
    one, other = (np.concatenate([pair[side].ravel() for pair in sides]) for side in (0, 1))
    strength = np.concatenate([np.maximum(*pair).ravel() for pair in edges])
    differs = one != other
    lower, upper = np.minimum(one, other)[differs], np.maximum(one, other)[differs]
    keys, place = np.unique(lower.astype(np.int64) * count + upper, return_inverse=True)
    mean = np.bincount(place, strength[differs], len(keys)) / np.maximum(np.bincount(place, minlength=len(keys)), 1)
    return np.stack([keys // count, keys % count], axis=1).astype(np.int32), mean.astype(np.float32)


def edge_similarity(pairs_M2: NDArray[np.integer], edge_M: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """E (S, S) in 0..1: 1 minus the strongest edge that has to be crossed between two superpixels, on the best way.

    That way is the one in the minimum spanning tree, whose heights single linkage tells. 1 on the diagonal.
    """
    if count == 1:
        return np.ones((1, 1), np.float32)
    strength_SS = np.ones((count, count))
    strength_SS[pairs_M2[:, 0], pairs_M2[:, 1]] = strength_SS[pairs_M2[:, 1], pairs_M2[:, 0]] = edge_M
    np.fill_diagonal(strength_SS, 0)
    crossed = cophenet(linkage(squareform(strength_SS, checks=False), "single"))
    return np.asarray(1 - squareform(crossed), np.float32)


def histograms(map_HW: NDArray[np.int32], values_HW: NDArray[np.floating], bins: int) -> NDArray[np.float32]:
    """(S, B): how the values in 0..1 of each superpixel's pixels are distributed; rows sum to 1."""
    count = int(map_HW.max()) + 1
    bin_HW = np.minimum((values_HW * bins).astype(np.int64), bins - 1)
    pixels_SB = np.bincount((map_HW * bins + bin_HW).ravel(), minlength=count * bins).reshape(count, bins)
    return np.asarray(pixels_SB / pixels_SB.sum(1, keepdims=True), np.float32)
