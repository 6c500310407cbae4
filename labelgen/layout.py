"""What a store is made of on disk: its arrays, and how an empty one comes to be.

Shapes: N images, V local views, C classes, T texts (the classes, or every sentence about them), K global zooms, S
images a shard, D embedding.
"""

import hashlib
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

SCHEMA = 3
READABLE = (2, SCHEMA)
MARKER, CHECKSUM = "is_written", "checksum"
VIEWS, LABELS, LOCAL_LOGITS = "views", "image_labels", "local_logits"
# What is known of a view besides its logits: its box in pixels, how it was resized (-1 for the whole image: provenance
# names the global zooms), the valid extent of its padded map, and the lowest and highest of its logits.
VIEW_FIELDS = ("y0", "x0", "y1", "x1", "zoom", "rows", "columns", "lowest", "highest")
IDS, ID_INDEX = "image_id", "id_index"
IDS_A_CHUNK = 2**14
# Written at creation; all others by shards.
BEGUN_WITH = ("text_vectors", "sentence_vectors", "field", IDS, ID_INDEX)
# A chunk is one file, without folders of its own: those would be most of what lies on the disk.
KEYS = {"name": "default", "separator": "."}
SETTLE_S = 1.0


@dataclass(frozen=True)
class StoreLayout:
    """What must be known before the first write: who is in the store, and how large the arrays are.

    global_grids: largest (h, w) per global zoom; local_grid: largest over all local views; local_count: most
    local views that one image has, or 0. sentences and their vectors: given when each has logits of its own.
    labels_digest: tells the image-level labels that were given from others.
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
    labels_digest: str = ""

    @property
    def texts(self) -> int:
        """T: how many texts have logits."""
        return len(self.sentences) or len(self.text_vectors_CD)


def location(path: str | Path) -> str:
    """A folder or an fsspec URL as zarr wants it: file:// and local:// are folders."""
    return re.sub(r"^(file|local)://", "", str(path))


def id_hash(image_id: str) -> int:
    """64 bits, evenly spread: where an image stands in the index of ids."""
    return int.from_bytes(hashlib.blake2b(image_id.encode(), digest_size=8).digest(), "big")


def index_ids(image_ids: Sequence[str]) -> NDArray[np.uint64]:
    """(N, 2) hash and row of every id, sorted by hash. Raises InputError for an id that stands there twice."""
    hashes = np.fromiter(map(id_hash, image_ids), np.uint64, len(image_ids))
    order = np.argsort(hashes, kind="stable")
    (same,) = np.nonzero(hashes[order[1:]] == hashes[order[:-1]])
    if len(same):
        one, other = (image_ids[order[same[0] + k]] for k in range(2))
        if one != other:
            raise InputError(f"image ids {one!r} and {other!r} have one hash; rename one of the two images")
        raise InputError(f"image id {one!r} stands twice in the split; ids must be unique")
    return np.stack([hashes[order], order.astype(np.uint64)], axis=1)


def open_group(path: str | Path, *, writable: bool = False) -> zarr.Group | None:
    """The Zarr group in a folder or at an fsspec URL, None if there is none. Raises InputError for an unusable URL."""
    try:
        return zarr.open_group(location(path), mode="r+" if writable else "r", zarr_format=3, use_consolidated=False)
    except FileNotFoundError:
        return None
    except (ValueError, ImportError) as error:
        raise InputError(f"{path} cannot be opened as a pseudo-label store: {error}") from error


def is_begun(path: str | Path) -> bool:
    """Whether a store is there, and not just being begun by another process, or by one that was cut."""
    group = open_group(path)
    return group is not None and "schema" in group.attrs


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
    zstd = ZstdCodec(level=1, checksum=True)

    def add(name: str, shape: tuple[int, ...], dtype: Any, names: str, fill: float | bool = 0) -> None:
        """An array that is written by shards: a file is a shard, and of logits one image can be read alone."""
        shard = (S, *shape)
        group.require_array(
            name,
            shape=(rows, *shape),
            chunks=(1, *shape) if len(shape) > 2 and name != VIEWS else shard,
            shards=shard if len(shape) > 2 and name != VIEWS else None,
            dtype=dtype,
            fill_value=fill,
            compressors=zstd,
            chunk_key_encoding=KEYS,
            dimension_names=names.split(),
        )

    def put(name: str, values: NDArray[Any], names: str, chunk: int | None = None) -> None:
        """An array that is there from the beginning."""
        group.require_array(
            name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=(chunk or len(values), *values.shape[1:]),
            compressors=zstd,
            chunk_key_encoding=KEYS,
            dimension_names=names.split(),
        )[:] = values

    logits = DTYPES[layout.precision]
    for k, grid in enumerate(layout.global_grids):
        add(f"global_logits_{k}", (T, *grid), logits, f"image text row_{k} column_{k}")
    if V:
        add(LOCAL_LOGITS, (V, T, *layout.local_grid), logits, "image local_view text local_row local_column")
    add(VIEWS, (K + V, len(VIEW_FIELDS)), "float32", "image view field", -1)
    add(LABELS, (len(layout.text_vectors_CD),), "bool", "image class", False)
    add(CHECKSUM, (), "uint32", "image")
    add(MARKER, (), "bool", "image", False)
    put("field", np.array(VIEW_FIELDS, np.dtypes.StringDType()), "field")
    put("text_vectors", layout.text_vectors_CD, "class embedding")
    if layout.sentence_vectors_PD is not None:
        put("sentence_vectors", layout.sentence_vectors_PD, "text embedding")
    ids = np.full(rows, "", np.dtypes.StringDType())
    ids[: len(layout.image_ids)] = layout.image_ids
    put(IDS, ids, "image", IDS_A_CHUNK)
    put(ID_INDEX, index_ids(layout.image_ids), "place hash_and_row", IDS_A_CHUNK)
    group.attrs.update(
        {
            "images": len(layout.image_ids),
            "images_per_shard": S,
            "labels_digest": layout.labels_digest,
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
