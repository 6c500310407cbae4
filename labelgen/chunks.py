"""One chunk of a Zarr array, read alone: an image's logits, a shard's rows of a table.

In a folder the file is read here. zarr hands each read over between four threads; for a few kilobytes that is twenty
times the work of reading and decoding them, and loader processes would spend it waiting for one another's locks.
Elsewhere (object storage) the way is long anyway, and zarr goes it.
"""

import os
from typing import Any

import numpy as np
import zarr
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from zarr.storage import LocalStore

EMPTY = 2**64 - 1  # place of a chunk in a shard that holds nothing but fill values
CRC_BYTES = 4  # of a shard's index; a place that is not so holds no zstd frame, and decoding says so


class Chunks:
    """The chunks of an array that is cut along its first axis only, as bytes (little-endian) and zstd.

    Sharding: at the end of a file stand place and size of each of its chunks, uint64, and a checksum.
    """

    def __init__(self, array: "zarr.Array[Any]") -> None:
        self._array, self._zstd = array, Zstd()
        self._dtype = array.dtype.newbyteorder("<")
        self._a_file = array.shards[0] // array.chunks[0] if array.shards else 1
        store = array.store_path.store
        self._folder = f"{store.root}/{array.store_path.path}" if isinstance(store, LocalStore) else None

    def read(self, number: int) -> NDArray[Any]:
        """Chunk `number`: (rows of a chunk, ...), fill values where there is no file; may be read-only.

        Raises what zarr raises for bytes that are not what was written.
        """
        if self._folder is None:
            length = self._array.chunks[0]
            return np.asarray(self._array[number * length : (number + 1) * length])
        data = self._bytes(*divmod(number, self._a_file))
        if data is None:
            return np.full(self._array.chunks, self._array.fill_value, self._dtype)
        return np.frombuffer(self._zstd.decode(data), self._dtype).reshape(self._array.chunks)

    def _bytes(self, shard: int, place: int) -> bytes | None:
        key = self._array.metadata.encode_chunk_key((shard, *[0] * (self._array.ndim - 1)))
        try:
            with open(f"{self._folder}/{key}", "rb", buffering=0) as file:
                if not self._array.shards:
                    return file.read()
                file.seek(-CRC_BYTES - 16 * self._a_file, os.SEEK_END)
                index = np.frombuffer(file.read(16 * self._a_file), "<u8").reshape(-1, 2)
                start, size = index[place].tolist()
                if start == EMPTY:
                    return None
                file.seek(start)
                return file.read(size)
        except FileNotFoundError:
            return None
