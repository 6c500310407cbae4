"""What a store is made of on disk: its arrays, and how an empty one comes to be.

Shapes: N images, V views, C classes, T texts (the classes, or every sentence about them), K global zooms, S images a
shard, D embedding.
"""

import os
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec
from zarr.errors import ContainsArrayError, ContainsGroupError

from labelgen.codec import DTYPES, Precision
from labelgen.prompts import Sentence
from labelgen.samples import InputError

SCHEMA = 2
MARKER, CHECKSUM = "is_written", "checksum"
SETTLE_S = 1.0
TEXT_ARRAYS = ("text_vectors", "sentence_vectors")  # written at creation; all others by shards


@dataclass(frozen=True)
class StoreLayout:
    """What must be known before the first write: who is in the store, and how large the arrays are.

    global_grids: largest (h, w) per global zoom; local_grid: largest over all local views; local_count: most
    local views that one image has. sentences and their vectors: given when each has logits of its own.
    """

    image_ids: Sequence[str]
    text_vectors_CD: NDArray[np.float32]
    global_grids: Sequence[tuple[int, int]]
    local_grid: tuple[int, int]
    local_count: int
    images_per_shard: int = 16
    precision: Precision = "float16"
    sentences: Sequence[Sentence] = ()
    sentence_vectors_PD: NDArray[np.float32] | None = None

    @property
    def texts(self) -> int:
        """T: how many texts have logits."""
        return len(self.sentences) or len(self.text_vectors_CD)


def location(path: str | Path) -> str:
    """A folder or an fsspec URL as zarr wants it: file:// and local:// are folders."""
    return re.sub(r"^(file|local)://", "", str(path))


def store_exists(path: str | Path) -> bool:
    """Whether a Zarr group is there."""
    try:
        zarr.open_group(location(path), mode="r")
    except FileNotFoundError:
        return False
    except (ValueError, ImportError) as error:
        raise InputError(f"{path} cannot be opened as a pseudo-label store: {error}") from error
    return True


def begin(path: str | Path, layout: StoreLayout, provenance: dict[str, Any]) -> None:
    """An empty store in a folder or at an fsspec URL, unless one is there already.

    Several processes may call this at once: the first one's store is everybody's. Raises InputError for a folder that
    holds something else.
    """
    if "://" in location(path):
        _begin_at_url(str(path), layout, provenance)
    else:
        _begin_in_folder(Path(location(path)), layout, provenance)


def _begin_in_folder(path: Path, layout: StoreLayout, provenance: dict[str, Any]) -> None:
    """An empty store under a name of our own, renamed into place unless somebody else's is there."""
    if path.exists() and any(path.iterdir()):
        if not (path / "zarr.json").is_file():
            raise InputError(f"{path} exists and is no pseudo-label store; choose another OUT")
        return
    ours = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        _write_layout(zarr.open_group(str(ours), mode="w"), layout, provenance)
        try:
            ours.rename(path)
        except OSError:
            if not (path / "zarr.json").is_file():
                raise
    finally:
        shutil.rmtree(ours, ignore_errors=True)


def _begin_at_url(path: str, layout: StoreLayout, provenance: dict[str, Any]) -> None:
    """An empty store in place: object stores cannot rename, but what several processes write here is the same."""
    try:
        while True:
            with suppress(ContainsArrayError, ContainsGroupError):  # another process was quicker with one of them
                group = zarr.open_group(path, mode="a")
                if "schema" in group.attrs:
                    return
                _write_layout(group, layout, provenance)
            # Whoever found no group a moment ago now writes an empty one over our attributes: look again.
            time.sleep(SETTLE_S)
    except TypeError as error:
        raise InputError(f"{path} was begun with other arrays ({error}); delete it, or choose another OUT") from error
    except (ValueError, ImportError) as error:
        raise InputError(f"{path} cannot be written to: {error}") from error


def _write_layout(group: zarr.Group, layout: StoreLayout, provenance: dict[str, Any]) -> None:
    """All arrays, unwritten; the attributes last."""
    S, K, V, T = layout.images_per_shard, len(layout.global_grids), layout.local_count, layout.texts
    # zarr refuses a shard that is longer than its array: round the first axis up.
    rows = -(-len(layout.image_ids) // S) * S

    def add(name: str, shape: tuple[int, ...], dtype: Any, names: str, fill: float | bool = 0) -> None:
        group.require_array(
            name,
            shape=(rows, *shape),
            chunks=(1, *shape) if shape else (S,),
            shards=(S, *shape) if shape else None,
            dtype=dtype,
            fill_value=fill,
            compressors=ZstdCodec(level=1, checksum=True),
            dimension_names=names.split(),
        )

    logits = DTYPES[layout.precision]
    for k, grid in enumerate(layout.global_grids):
        add(f"global_logits_{k}", (T, *grid), logits, f"image text row_{k} column_{k}")
    add("global_grid", (K, 2), "int32", "image zoom side")
    add("global_range", (K, 2), "float32", "image zoom end")
    add("local_logits", (V, T, *layout.local_grid), logits, "image view text local_row local_column")
    add("local_box", (V, 4), "int32", "image view corner", -1)
    add("local_zoom", (V,), "float32", "image view")
    add("local_grid", (V, 2), "int32", "image view side")
    add("local_range", (V, 2), "float32", "image view end")
    add("image_size", (2,), "int32", "image side")
    add("image_labels", (len(layout.text_vectors_CD),), "bool", "image class", False)
    add(CHECKSUM, (), "uint32", "image")
    add(MARKER, (), "bool", "image", False)
    vectors = {"text_vectors": layout.text_vectors_CD, "sentence_vectors": layout.sentence_vectors_PD}
    for (name, values), axis in zip(vectors.items(), ("class", "text"), strict=True):
        if values is not None:
            names = [axis, "embedding"]
            group.require_array(name, shape=values.shape, dtype=values.dtype, dimension_names=names)[:] = values
    group.attrs.update(
        {
            "image_ids": list(layout.image_ids),
            "images_per_shard": S,
            "sentences": [asdict(sentence) for sentence in layout.sentences],
            "provenance": provenance,
            "schema": SCHEMA,
        }
    )


def differences(was: Any, now: Any, key: str = "") -> Iterable[tuple[str, Any, Any]]:
    """Leaves in which two nested dicts differ, as (dotted key, was, now)."""
    if isinstance(was, dict) and isinstance(now, dict):
        for name in [*was, *(n for n in now if n not in was)]:
            yield from differences(was.get(name), now.get(name), f"{key}.{name}" if key else name)
    elif was != now:
        yield key, was, now
