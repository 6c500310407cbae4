"""How logits lie in the store: as float16, or as 8 bits between the lowest and the highest value of their map."""

import zlib
from collections.abc import Iterable
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Precision = Literal["float16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
DTYPES: dict[Precision, np.dtype[Any]] = {"float16": np.dtype(np.float16), "int8": np.dtype(np.uint8)}
LEVELS = 255


def encode(logits: NDArray[np.float32], dtype: np.dtype[Any]) -> tuple[NDArray[Any], tuple[float, float]]:
    """One map of logits in the store's dtype, and its lowest and highest value. Inverse: `decode`.

    NaN, where nothing is said, has no place among 8 bits.
    """
    said = logits[~np.isnan(logits)]
    low, high = (float(said.min()), float(said.max())) if said.size else (0.0, 0.0)
    if dtype == np.uint8:
        step = (high - low) / LEVELS or 1.0  # a flat map is all level 0
        return np.rint((logits - low) / step).astype(np.uint8), (low, high)
    return logits.astype(dtype), (low, high)


def decode(stored: NDArray[Any], value_range: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 logits of a stored map, as near as the dtype allows (float16: 1e-4 on cosines near 0.2)."""
    if stored.dtype == np.uint8:
        low, high = value_range
        return stored * np.float32((high - low) / LEVELS) + np.float32(low)
    return stored.astype(np.float32)


def checksum(parts: Iterable[NDArray[Any]]) -> int:
    """CRC-32 of the values of some arrays, in their order."""
    total = 0
    for part in parts:
        total = zlib.crc32(part.tobytes(), total)
    return total
