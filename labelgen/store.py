"""PseudoLabelStore: dense logits of many images in one Zarr folder, written by shards, read at random.

Needs numpy, OpenCV and zarr only: it opens without torch. One shard has one writer, and is written data first,
marker last; what carries no marker is not there. Shapes: N images, V views, C classes, h w CLIP grid, D embedding.
"""

import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import zarr
from numpy.typing import NDArray

from labelgen.images import resize_logits
from labelgen.samples import InputError
from labelgen.views import Box, merge, to_mask

SCHEMA = 1
MaskView = Literal["global", "local", "fused"]


@dataclass(frozen=True)
class LocalView:
    """Logits (C, h, w) float32 of the box (y0, x0, y1, x1), in image pixels, that CLIP saw resized by `zoom`."""

    box: Box
    zoom: float
    logits: NDArray[np.float32]


@dataclass(frozen=True)
class ImageLogits:
    """Everything CLIP said of one image: one global map per zoom, and the local views."""

    image_id: str
    size: tuple[int, int]
    global_logits: list[NDArray[np.float32]]
    local_views: list[LocalView]


@dataclass(frozen=True)
class StoreLayout:
    """What must be known before the first write: who is in the store, and how large the arrays are.

    global_grids: largest (h, w) per global zoom; local_grid: largest over all local views; local_count: most
    local views that one image has.
    """

    image_ids: Sequence[str]
    image_labels_NC: NDArray[np.bool_]
    text_vectors_CD: NDArray[np.float32]
    global_grids: Sequence[tuple[int, int]]
    local_grid: tuple[int, int]
    local_count: int
    images_per_shard: int = 16


class PseudoLabelStore:
    """Pseudo-labels of a data set split. Open one with `PseudoLabelStore.open(path)`."""

    def __init__(self, group: zarr.Group, path: str) -> None:
        self._group, self.path = group, path
        self._arrays: dict[str, Any] = {}  # opened once: opening costs as much as reading an image's logits
        self._tables: dict[str, NDArray[Any]] = {}
        self.provenance: dict[str, Any] = dict(group.attrs["provenance"])  # type: ignore[arg-type]
        self.image_ids: list[str] = list(group.attrs["image_ids"])  # type: ignore[arg-type]
        self.class_names: list[str] = list(self.provenance["classes"]["names"])
        self.images_per_shard = int(group.attrs["images_per_shard"])  # type: ignore[arg-type]

    @classmethod
    def open(cls, path: str | Path, *, writable: bool = False) -> Self:
        """Open a store. Raises InputError when there is none."""
        try:
            group = zarr.open_group(str(path), mode="r+" if writable else "r")
            if group.attrs.get("schema") == SCHEMA:
                return cls(group, str(path))
        except (FileNotFoundError, ValueError):
            pass
        raise InputError(f"{path} is no pseudo-label store of schema {SCHEMA}; write one with 'make pseudolabels'")

    @classmethod
    def create(cls, path: str | Path, layout: StoreLayout, provenance: dict[str, Any]) -> Self:
        """Create the store, or open it again for writing if it has the same provenance and images.

        Raises InputError, naming the first difference, for a store made otherwise, and for a folder that holds
        something else. Library versions are recorded, and may differ.
        """
        if _holds_store(path):
            store = cls.open(path, writable=True)
            store._require_same(layout, provenance)
            return store
        N, C = layout.image_labels_NC.shape
        S = layout.images_per_shard
        # zarr refuses a shard that is longer than its array: round the first axis up.
        rows = -(-N // S) * S
        group = zarr.open_group(str(path), mode="w")

        def add(name: str, shape: tuple[int, ...], dtype: str, names: str, fill: float | bool = 0) -> None:
            group.create_array(
                name,
                shape=(rows, *shape),
                chunks=(1, *shape) if shape else (S,),
                shards=(S, *shape) if shape else None,
                dtype=dtype,
                fill_value=fill,
                dimension_names=names.split(),
            )

        for k, grid in enumerate(layout.global_grids):
            add(f"global_logits_{k}", (C, *grid), "float16", f"image class row_{k} column_{k}")
        V, local = layout.local_count, layout.local_grid
        add("local_logits", (V, C, *local), "float16", "image view class local_row local_column")
        add("local_box", (V, 4), "int32", "image view corner", -1)
        add("local_zoom", (V,), "float32", "image view")
        add("global_grid", (len(layout.global_grids), 2), "int32", "image zoom side")
        add("local_grid", (V, 2), "int32", "image view side")
        add("image_size", (2,), "int32", "image side")
        add("is_written", (), "bool", "image", False)
        group.create_array("image_labels", data=layout.image_labels_NC, dimension_names=["labelled_image", "class"])
        group.create_array("text_vectors", data=layout.text_vectors_CD, dimension_names=["class", "embedding"])
        group.attrs.update(
            {
                "image_ids": list(layout.image_ids),
                "images_per_shard": S,
                "provenance": provenance,
                "schema": SCHEMA,
            }
        )
        return cls(group, str(path))

    def _require_same(self, layout: StoreLayout, provenance: dict[str, Any]) -> None:
        advice = "delete it, or choose another OUT"
        for key, was, now in differences(self.provenance, json.loads(json.dumps(provenance))):
            if not key.startswith("versions."):
                raise InputError(f"{self.path} was made with {key} = {was!r}, not {now!r}; {advice}")
        same_labels = np.array_equal(self.image_labels, layout.image_labels_NC)
        if self.image_ids != list(layout.image_ids) or not same_labels:
            raise InputError(f"{self.path} was made of other images or image-level labels; {advice}")

    def __len__(self) -> int:
        return len(self.image_ids)

    @cached_property
    def image_labels(self) -> NDArray[np.bool_]:
        """(N, C) bool: which classes each image shows, the only supervision."""
        return np.asarray(self._group["image_labels"][:], bool)  # type: ignore[index]

    @cached_property
    def text_vectors(self) -> NDArray[np.float32]:
        """(C, D) unit vectors of the classes."""
        return np.asarray(self._group["text_vectors"][:], np.float32)  # type: ignore[index]

    def is_written(self) -> NDArray[np.bool_]:
        """(N,) bool: which images are there. Read anew at each call."""
        return np.asarray(self._group["is_written"][: len(self)], bool)  # type: ignore[index]

    def require_complete(self) -> None:
        """Raise InputError unless every image has been written."""
        missing = int((~self.is_written()).sum())
        if missing:
            raise InputError(
                f"{missing} of {len(self)} images have no pseudo-labels in {self.path}; "
                "run 'make pseudolabels' again to resume"
            )

    def shards(self) -> list[range]:
        """Rows of each shard."""
        S = self.images_per_shard
        return [range(start, min(start + S, len(self))) for start in range(0, len(self), S)]

    def write_shard(self, rows: range, images: Sequence[ImageLogits]) -> None:
        """Write all images of one shard, data first, marker last."""
        assert [self.image_ids[row] for row in rows] == [image.image_id for image in images]
        blocks: dict[str, NDArray[Any]] = {}
        whole = range(rows.start, rows.start + self.images_per_shard)
        for name in set(self._group.array_keys()) - {"image_labels", "text_vectors", "is_written"}:
            array = self._array(name)
            blocks[name] = np.full((len(whole), *array.shape[1:]), array.fill_value, array.dtype)
        for i, image in enumerate(images):
            blocks["image_size"][i] = image.size
            for k, logits_Chw in enumerate(image.global_logits):
                h, w = blocks["global_grid"][i, k] = logits_Chw.shape[1:]
                blocks[f"global_logits_{k}"][i, :, :h, :w] = logits_Chw
            for v, view in enumerate(image.local_views):
                h, w = blocks["local_grid"][i, v] = view.logits.shape[1:]
                blocks["local_logits"][i, v, :, :h, :w] = view.logits
                blocks["local_box"][i, v], blocks["local_zoom"][i, v] = view.box, view.zoom
        for name, block in blocks.items():
            self._array(name)[whole.start : whole.stop] = block
        marker = np.arange(whole.start, whole.stop) < rows.stop
        self._array("is_written")[whole.start : whole.stop] = marker

    def size(self, image_id: str) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        row = self.row(image_id)  # first: it may find that the tables are stale
        height, width = self._table("image_size")[row]
        return int(height), int(width)

    def global_logits(self, image_id: str) -> NDArray[np.float32]:
        """(C, h, w) float32 cosines of the whole image; several zooms are averaged on the finest grid."""
        row = self.row(image_id)
        grids = self._table("global_grid")[row]
        maps = [
            np.asarray(self._array(f"global_logits_{k}")[row, :, :h, :w], np.float32) for k, (h, w) in enumerate(grids)
        ]
        if len(maps) == 1:
            return maps[0]
        h, w = grids.max(0)
        return np.asarray(np.mean([resize_logits(m, int(h), int(w)) for m in maps], axis=0), np.float32)

    def local_views(self, image_id: str) -> list[LocalView]:
        """The local views of the image, in the order they were drawn."""
        row = self.row(image_id)
        boxes, zooms, grids = (self._table(name)[row] for name in ("local_box", "local_zoom", "local_grid"))
        count = int((boxes[:, 0] >= 0).sum())
        logits = self._array("local_logits")[row, :count].astype(np.float32)
        return [
            LocalView(tuple(boxes[v].tolist()), float(zooms[v]), logits[v, :, : grids[v, 0], : grids[v, 1]])
            for v in range(count)
        ]

    def mask(self, image_id: str, view: MaskView = "global", size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """Pseudo-labels (H, W) uint8 in the image's size, or in `size`; 255 = ignore.

        "global": the whole image in one view; "local": all local views merged; "fused": the mean of both.
        """
        height, width = self.size(image_id)
        if view == "local":
            logits = self._merged_locals(image_id)
        elif view == "global":
            logits = resize_logits(self.global_logits(image_id), height, width)
        elif view == "fused":
            whole = resize_logits(self.global_logits(image_id), height, width)
            logits = np.nanmean([whole, self._merged_locals(image_id)], axis=0)
        else:
            raise InputError(f"view must be global, local or fused, got {view!r}")
        if size is not None:
            logits = resize_logits(logits, *size)
        return to_mask(logits, self.image_labels[self._index[image_id]])

    def missing(self, image_ids: Iterable[str]) -> list[str]:
        """Those of `image_ids` that are not in the store."""
        written = self.is_written()
        return [i for i in image_ids if i not in self._index or not written[self._index[i]]]

    def _merged_locals(self, image_id: str) -> NDArray[np.float32]:
        return merge([(v.box, v.logits) for v in self.local_views(image_id)], *self.size(image_id))

    @cached_property
    def _index(self) -> dict[str, int]:
        return {image_id: row for row, image_id in enumerate(self.image_ids)}

    def row(self, image_id: str) -> int:
        """Row of a written image in all arrays. Raises InputError for one that is not there."""
        if image_id not in self._index:
            raise InputError(f"{image_id!r} is not in {self.path}")
        row = self._index[image_id]
        # A reader may have opened the store before the row was written: a negative answer is asked for again.
        if not self._table("is_written")[row]:
            self._tables.clear()
            if not self._table("is_written")[row]:
                raise InputError(
                    f"{image_id!r} has no pseudo-labels yet in {self.path}; run 'make pseudolabels' again to resume"
                )
        return row

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            self._arrays[name] = self._group[name]
        return self._arrays[name]

    def _table(self, name: str) -> NDArray[Any]:
        """A small array, held in memory: all rows that were written when a row was last found missing."""
        if name not in self._tables:
            self._tables[name] = self._array(name)[:]
        return self._tables[name]

    def __repr__(self) -> str:
        written = int(self.is_written().sum())
        return f"PseudoLabelStore({self.path!r}: {written} of {len(self)} images, {len(self.class_names)} classes)"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{count}</td></tr>"
            for name, count in zip(self.class_names, self.image_labels.sum(0), strict=True)
        )
        return f"<b>{html.escape(repr(self))}</b><table><tr><th>class</th><th>images</th></tr>{rows}</table>"


def _holds_store(path: str | Path) -> bool:
    """Whether a store was begun here; one that was killed before its attributes were written counts as not begun."""
    folder = Path(path)
    if not folder.exists() or not any(folder.iterdir()):
        return False
    if not (folder / "zarr.json").is_file():
        raise InputError(f"{path} exists and is no pseudo-label store; choose another OUT")
    return "schema" in zarr.open_group(str(path), mode="r").attrs


def differences(was: Any, now: Any, key: str = "") -> Iterable[tuple[str, Any, Any]]:
    """Leaves in which two nested dicts differ, as (dotted key, was, now)."""
    if isinstance(was, dict) and isinstance(now, dict):
        for name in [*was, *(n for n in now if n not in was)]:
            yield from differences(was.get(name), now.get(name), f"{key}.{name}" if key else name)
    elif was != now:
        yield key, was, now
