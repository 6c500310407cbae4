"""How alike feature vectors are (Eq. 1).

Shapes: N M vectors, K dimensions.
"""

import numpy as np
from numpy.typing import NDArray

CHUNK = 2**22  # numbers that are compared at once


def normalise_rows(x_NK: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of non-negative numbers, divided by their sums; a row of zeros stays one."""
    x_NK = np.asarray(x_NK, np.float32)
    return np.asarray(x_NK / np.maximum(x_NK.sum(1, keepdims=True), np.finfo(np.float32).tiny), np.float32)


def similarity(x_NK: NDArray[np.floating], y_MK: NDArray[np.floating]) -> NDArray[np.float32]:
    """(N, M) in 0..1: sums of the smaller of two numbers, rows being normalised to sum to 1 (Eq. 1).

    x_NK, y_MK: numbers that are not negative. A row of zeros is like nothing.
    """
    x_NK, y_MK = normalise_rows(x_NK), normalise_rows(y_MK)
    out_NM = np.empty((len(x_NK), len(y_MK)), np.float32)
    step = max(1, CHUNK // max(1, y_MK.size))
    for start in range(0, len(x_NK), step):
        out_NM[start : start + step] = np.minimum(x_NK[start : start + step, None], y_MK).sum(2)
    return out_NM


def cosine(x_NK: NDArray[np.floating], y_MK: NDArray[np.floating]) -> NDArray[np.float32]:
    """(N, M) in 0..1: cosines of rows of numbers that are not negative. A row of zeros is like nothing."""
    x_NK, y_MK = (np.asarray(rows, np.float32) for rows in (normalise_rows(x_NK), normalise_rows(y_MK)))
    lengths_NM = np.outer(np.linalg.norm(x_NK, axis=1), np.linalg.norm(y_MK, axis=1))
    return np.asarray(x_NK @ y_MK.T / np.maximum(lengths_NM, np.finfo(np.float32).tiny), np.float32)
