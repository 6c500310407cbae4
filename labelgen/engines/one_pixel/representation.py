"""The vectors that stand for each class, found from its labelled pixels by E-M (Eq. 2).

Shapes: C classes, N vectors, K dimensions, G groups, V vectors of all classes, S superpixels.
"""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelgen.engines.one_pixel.equations import normalise_rows, similarity
from labelgen.engines.one_pixel.features import Features

Measure = Callable[[NDArray[np.floating], NDArray[np.floating]], NDArray[np.float32]]  # (N, K), (M, K) -> (N, M)

ROUNDS = 20  # of E-M at most; a handful of vectors settles in a few


def best_centre(x_NK: NDArray[np.floating]) -> NDArray[np.float32]:
    """The m (K,) of sum 1 for which the sum of min(x, m) over all vectors is largest (the M step of Eq. 2).

    Each dimension's gain falls by one with each vector that m has passed: m rises in all dimensions alike, from their
    smallest values to their second smallest and so on, until its sum is 1.
    """
    rising_NK = np.sort(normalise_rows(x_NK), axis=0)
    sums_N = rising_NK.sum(1)
    upper = min(int(np.searchsorted(sums_N, 1)), len(sums_N) - 1)
    lower = max(upper - 1, 0)
    step = sums_N[upper] - sums_N[lower]
    share = (1 - sums_N[lower]) / step if step > 0 else 0.0
    centre_K = rising_NK[lower] + share * (rising_NK[upper] - rising_NK[lower])
    return np.asarray(normalise_rows(centre_K[None])[0])


def object_vector(x_NK: NDArray[np.floating], labelled: int, top_share: float) -> NDArray[np.float32]:
    """(1, K): the vector of a class, begun with the labelled superpixel's: the best centre of its most similar ones.

    x_NK: vectors of an image's superpixels. top_share: how many of them count, at least one.
    """
    top = max(1, round(top_share * len(x_NK)))
    centre_K, chosen = normalise_rows(x_NK[labelled][None])[0], np.array([labelled])
    for _ in range(ROUNDS):
        alike_N = similarity(x_NK, centre_K[None])[:, 0]
        before, chosen = chosen, np.sort(np.argsort(-alike_N, kind="stable")[:top])
        centre_K = best_centre(x_NK[chosen])
        if np.array_equal(before, chosen):
            break
    return np.asarray(centre_K[None], np.float32)


def scene_vectors(x_NK: NDArray[np.floating], labelled: int, groups: int) -> NDArray[np.float32]:
    """(G, K): centres of the groups that vectors fall into; fewer than `groups` where there are fewer vectors.

    x_NK: vectors of the labelled superpixel's neighbourhood. Groups begin with the labelled one and, one by one, with
    what is least like all before.
    """
    x_NK = normalise_rows(x_NK)
    first = [labelled]
    while len(first) < min(groups, len(x_NK)):
        nearest_N = similarity(x_NK, x_NK[first]).max(1)
        nearest_N[first] = np.inf
        first.append(int(nearest_N.argmin()))
    centre_GK, group_N = x_NK[first], np.full(len(x_NK), -1)
    for _ in range(ROUNDS):
        before, group_N = group_N, similarity(x_NK, centre_GK).argmax(1)
        if np.array_equal(before, group_N):
            break
        # A group that lost all its vectors keeps its centre.
        own = [x_NK[group_N == g] for g in range(len(centre_GK))]
        centre_GK = np.stack([best_centre(x) if len(x) else c for x, c in zip(own, centre_GK, strict=True)])
    return centre_GK


class ClassVectors(NamedTuple):
    """Vectors that stand for classes: of one kind for each class, of which it may have several; rows sum to 1."""

    semantic_VD: NDArray[np.float32]
    semantic_class_V: NDArray[np.int64]
    imaging_VK: NDArray[np.float32]
    imaging_class_V: NDArray[np.int64]

    @property
    def found(self) -> set[int]:
        """The classes that have a vector."""
        return {*self.semantic_class_V.tolist(), *self.imaging_class_V.tolist()}

    def digest(self) -> str:
        """What tells them from others."""
        digest = hashlib.sha256()
        for array in self:
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def scores(self, features: Features, classes: int, measure: Measure) -> NDArray[np.float32]:
        """(S, C) in 0..1: how alike each superpixel is to each class; NaN for a class without vectors."""
        semantic_SC = class_scores(features.semantic_SD, self.semantic_VD, self.semantic_class_V, classes, measure)
        imaging_SC = class_scores(features.imaging_SK, self.imaging_VK, self.imaging_class_V, classes, measure)
        return np.where(np.isnan(semantic_SC), imaging_SC, semantic_SC)


def class_scores(
    x_SK: NDArray[np.floating],
    vectors_VK: NDArray[np.float32],
    class_V: NDArray[np.int64],
    classes: int,
    measure: Measure = similarity,
) -> NDArray[np.float32]:
    """(S, C): how alike each superpixel is to each class, of whose vectors the best counts; NaN for one without any."""
    best_SC = np.full((len(x_SK), classes), np.nan, np.float32)
    for c in np.unique(class_V):
        best_SC[:, c] = measure(x_SK, vectors_VK[class_V == c]).max(1)
    return best_SC
