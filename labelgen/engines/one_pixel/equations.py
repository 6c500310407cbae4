"""How alike feature vectors are (Eq. 1), and what the context of superpixels makes of their scores (Eq. 4).

Shapes: N M vectors, K dimensions, S superpixels, C classes.
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


def refine(scores_SC: NDArray[np.floating], context_SS: NDArray[np.floating]) -> NDArray[np.float32]:
    """(S, C): each superpixel's scores as the mean of all, weighted by context; M_r = M Sim_c (Eq. 4).

    context_SS: similarities that are not negative; its columns are normalised. A superpixel whose column is empty keeps
    its scores.
    """
    context_SS = np.array(context_SS, np.float32)
    alone_S = context_SS.sum(0) <= 0
    context_SS[alone_S, alone_S] = 1
    return np.asarray((context_SS / context_SS.sum(0)).T @ np.asarray(scores_SC, np.float32), np.float32)
