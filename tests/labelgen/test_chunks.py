from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import DTypeLike
from zarr.codecs import ZstdCodec

from labelgen.chunks import Chunks

ZSTD = ZstdCodec(level=1, checksum=True)


def an_array(path: Path | str, dtype: DTypeLike, *, in_shards: bool) -> "zarr.Array":
    """Twelve rows in chunks of two, in one file each or in files of three; rows 2, 3 and 6 to 11 are never written."""
    group = zarr.open_group(str(path), mode="w")
    shards = (6, 3, 5) if in_shards else None
    array = group.create_array(
        "a", shape=(12, 3, 5), chunks=(2, 3, 5), shards=shards, dtype=dtype, fill_value=1, compressors=ZSTD
    )
    values = np.random.default_rng(0).integers(0, 2 if array.dtype == bool else 100, (6, 3, 5)).astype(dtype)
    values[2:4] = 1
    array[:6] = values
    return array


@pytest.mark.parametrize("in_shards", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8", "uint64", "bool"])
def test_a_chunk_is_what_zarr_reads(dtype: str, in_shards: bool, tmp_path: Path) -> None:
    for path in (tmp_path / "a.zarr", f"memory://{tmp_path}/a.zarr"):
        array = an_array(path, dtype, in_shards=in_shards)
        chunks = Chunks(array)
        for number in range(6):
            chunk = chunks.read(number)
            np.testing.assert_array_equal(chunk, array[2 * number : 2 * number + 2])
            assert chunk.dtype == array.dtype


@pytest.mark.parametrize("in_shards", [True, False])
def test_damaged_bytes_are_no_chunk(in_shards: bool, tmp_path: Path) -> None:
    array = an_array(tmp_path, "float32", in_shards=in_shards)
    file = tmp_path / "a" / "c" / "0" / "0" / "0"
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:8] + bytes([whole[8] ^ 0xFF]) + whole[9:], b""):
        file.write_bytes(damaged)
        with pytest.raises((RuntimeError, ValueError, OSError)):
            Chunks(array).read(0)
    file.unlink()
    assert np.unique(Chunks(array).read(0)).tolist() == [1]
