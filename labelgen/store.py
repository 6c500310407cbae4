"""PseudoLabelStore: dense logits of many images in one Zarr group, written by shards, read at random.

Needs numpy, OpenCV and zarr only: it opens without torch. One shard has one writer, and is written data first,
marker last; what carries no marker is not there. Shapes: N images, V views, C classes, T texts (the classes, or every
sentence about them), h w CLIP grid, D embedding.
"""

import copy
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.sync import sync

from labelgen.codec import checksum, decode, encode
from labelgen.images import resize_logits
from labelgen.layout import (
    CHECKSUM,
    MARKER,
    SCHEMA,
    TEXT_ARRAYS,
    StoreLayout,
    begin,
    differences,
    location,
    store_exists,
)
from labelgen.prompts import Sentence, choose, class_weights
from labelgen.samples import InputError
from labelgen.views import Box, merge, to_mask

VERIFY = "'carbseg labels verify' says what to make again"
AGAIN = "give the 'carbseg labels' command that began it (or 'make pseudolabels') again to resume"
MaskView = Literal["global", "local", "fused"]
# What zarr, numcodecs and fsspec raise for bytes that are not what was written.
DAMAGE = (RuntimeError, ValueError, OSError, LookupError, TypeError)


@dataclass(frozen=True)
class LocalView:
    """Logits (C, h, w) float32 of the box (y0, x0, y1, x1), in image pixels, that CLIP saw resized by `zoom`."""

    box: Box
    zoom: float
    logits: NDArray[np.float32]


@dataclass(frozen=True)
class ImageLogits:
    """Everything CLIP said of one image: one global map per zoom, and the local views. Maps are (T, h, w)."""

    image_id: str
    size: tuple[int, int]
    image_labels: Sequence[int]
    global_logits: list[NDArray[np.float32]]
    local_views: list[LocalView]


class PseudoLabelStore:
    """Pseudo-labels of a data set split. Open one with `PseudoLabelStore.open(path)`."""

    def __init__(self, group: zarr.Group, path: str) -> None:
        self._group, self.path = group, path
        self._arrays: dict[str, Any] = {}  # opened once: opening costs as much as reading an image's logits
        self._tables: dict[str, NDArray[Any]] = {}
        attributes: dict[str, Any] = dict(group.attrs)
        self.provenance: dict[str, Any] = attributes["provenance"]
        self.image_ids: list[str] = attributes["image_ids"]
        self.class_names: list[str] = list(self.provenance["classes"]["names"])
        self.images_per_shard = int(attributes["images_per_shard"])
        self.sentences = [Sentence(**fields) for fields in attributes["sentences"]]
        self._chosen = list(range(len(self.sentences)))

    @classmethod
    def open(cls, path: str | Path, *, writable: bool = False) -> Self:
        """Open a store in a folder or at an fsspec URL (s3://..., memory://...). Raises InputError if there is none."""
        if not store_exists(path):
            raise InputError(f"{path} is no pseudo-label store; write one with 'carbseg labels' or 'make pseudolabels'")
        group = zarr.open_group(location(path), mode="r+" if writable else "r")
        schema = group.attrs.get("schema", "none")
        if schema != SCHEMA:
            raise InputError(f"{path} is no pseudo-label store of schema {SCHEMA} (but {schema}); delete it")
        return cls(group, str(path))

    @classmethod
    def create(cls, path: str | Path, layout: StoreLayout, provenance: dict[str, Any]) -> Self:
        """Create the store, or open it again for writing if it has the same provenance and images.

        Several processes may do so at once: the first one's store is everybody's. Raises InputError, naming the first
        difference, for a store made otherwise, and for a folder that holds something else. Library versions are
        recorded, and may differ.
        """
        begin(path, layout, provenance)
        store = cls.open(path, writable=True)
        store._require_same(layout, provenance)
        return store

    def _require_same(self, layout: StoreLayout, provenance: dict[str, Any]) -> None:
        advice = "delete it, or choose another OUT"
        for key, was, now in differences(self.provenance, json.loads(json.dumps(provenance))):
            if not key.startswith("versions."):
                raise InputError(f"{self.path} was made with {key} = {was!r}, not {now!r}; {advice}")
        if self.image_ids != list(layout.image_ids):
            raise InputError(f"{self.path} was made of other images; {advice}")

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def image_labels(self) -> NDArray[np.bool_]:
        """(N, C) bool: which classes each image shows, the only supervision. False for images not yet written."""
        return self._table("image_labels")[: len(self)].astype(bool)

    @cached_property
    def text_vectors(self) -> NDArray[np.float32]:
        """(C, D) unit vectors of the classes."""
        if not self.sentences:
            return np.asarray(self.read("text_vectors"), np.float32)
        return np.asarray(self._class_weights @ self.read("sentence_vectors"), np.float32)

    def reworded(
        self, names: Mapping[str, Sequence[str]] | None = None, templates: Sequence[str] | None = None
    ) -> Self:
        """The same store speaking of its classes in other words, without CLIP.

        names: for some classes, which of the cached synonyms to use; templates: which of the cached ones. Raises
        InputError for words that are not cached, and for a store without logits of each sentence.
        """
        if not self.sentences:
            raise InputError(f"{self.path} holds no logits of single sentences; make one with labels.per_prompt=true")
        other = copy.copy(self)
        for cached in ("text_vectors", "_class_weights"):
            other.__dict__.pop(cached, None)
        other._chosen = choose(self.sentences, self.class_names, names, templates)
        _ = other._class_weights  # raises now for a class that is left without a sentence
        return other

    @cached_property
    def _class_weights(self) -> NDArray[np.float32]:
        """(C, T): logits of classes = weights @ logits of texts."""
        vectors_PD = self.read("sentence_vectors")
        weights_CT = np.zeros((len(self.class_names), len(self.sentences)), np.float32)
        chosen = [self.sentences[place] for place in self._chosen]
        weights_CT[:, self._chosen] = class_weights(chosen, vectors_PD[self._chosen], len(self.class_names))
        return weights_CT

    def of_classes(self, logits_Thw: NDArray[np.float32]) -> NDArray[np.float32]:
        """(C, h, w) logits of the classes from those of the texts."""
        return np.tensordot(self._class_weights, logits_Thw, 1) if self.sentences else logits_Thw

    def is_written(self) -> NDArray[np.bool_]:
        """(N,) bool: which images are there. Read anew at each call."""
        return np.asarray(self.read(MARKER, slice(len(self))), bool)

    def require_complete(self) -> None:
        """Raise InputError unless every image has been written."""
        missing = int((~self.is_written()).sum())
        if missing:
            raise InputError(f"{missing} of {len(self)} images have no pseudo-labels in {self.path}; {AGAIN}")

    def shards(self) -> list[range]:
        """Rows of each shard."""
        S = self.images_per_shard
        return [range(start, min(start + S, len(self))) for start in range(0, len(self), S)]

    def write_shard(self, rows: range, images: Sequence[ImageLogits]) -> None:
        """Write all images of one shard, data first, marker last."""
        assert [self.image_ids[row] for row in rows] == [image.image_id for image in images]
        blocks: dict[str, NDArray[Any]] = {}
        whole = range(rows.start, rows.start + self.images_per_shard)
        for name in self.data_arrays():
            array = self._array(name)
            blocks[name] = np.full((len(whole), *array.shape[1:]), array.fill_value, array.dtype)
        for i, image in enumerate(images):
            blocks["image_size"][i] = image.size
            blocks["image_labels"][i, list(image.image_labels)] = True
            for k, logits_Thw in enumerate(image.global_logits):
                h, w = blocks["global_grid"][i, k] = logits_Thw.shape[1:]
                block = blocks[f"global_logits_{k}"]
                block[i, :, :h, :w], blocks["global_range"][i, k] = encode(logits_Thw, block.dtype)
            for v, view in enumerate(image.local_views):
                h, w = blocks["local_grid"][i, v] = view.logits.shape[1:]
                block = blocks["local_logits"]
                block[i, v, :, :h, :w], blocks["local_range"][i, v] = encode(view.logits, block.dtype)
                blocks["local_box"][i, v], blocks["local_zoom"][i, v] = view.box, view.zoom
        self.forget(rows)
        for name, block in blocks.items():
            self._array(name)[whole.start : whole.stop] = block
        sums = [checksum(blocks[name][i] for name in sorted(blocks)) for i in range(len(images))]
        padding = len(whole) - len(images)
        self._array(CHECKSUM)[whole.start : whole.stop] = np.array(sums + [0] * padding, np.uint32)
        self._array(MARKER)[whole.start : whole.stop] = np.arange(len(whole)) < len(images)

    def forget(self, rows: range) -> None:
        """Empty one shard, marker first: its images count as not written, and are made again."""
        self._array(MARKER)[rows.start : rows.start + self.images_per_shard] = np.zeros(self.images_per_shard, bool)
        for name in self.data_arrays():
            array = self._array(name)
            # zarr reads a shard before it writes one, and cannot read a damaged one.
            key = array.metadata.encode_chunk_key((rows.start // self.images_per_shard, *[0] * (array.ndim - 1)))
            sync((array.store_path / key).delete())

    def data_arrays(self) -> list[str]:
        """Names of the arrays that are written by shards, sorted; the checksum and the marker are not among them."""
        return sorted(set(self._group.array_keys()) - {MARKER, CHECKSUM, *TEXT_ARRAYS})

    def arrays(self) -> list[tuple[str, tuple[int, ...], str, tuple[str, ...]]]:
        """(name, shape, dtype, names of the axes) of every array, sorted."""
        members = ((name, self._array(name)) for name in sorted(self._group.array_keys()))
        return [(name, array.shape, str(array.dtype), array.metadata.dimension_names) for name, array in members]

    def _decoded(self, stored_Thw: NDArray[Any], value_range: NDArray[np.float32]) -> NDArray[np.float32]:
        """(C, h, w) float32 logits of the classes. Raises InputError for a map that is gone."""
        # Where a file is gone, zarr gives zeros and says nothing.
        if not stored_Thw.any() and value_range[1] > value_range[0]:
            raise InputError(f"logits in {self.path} are gone; {VERIFY}")
        return self.of_classes(decode(stored_Thw, value_range))

    def labels_of(self, image_id: str) -> NDArray[np.bool_]:
        """(C,) bool: which classes the image shows."""
        row = self.row(image_id)  # first: it may find that the tables are stale
        return np.asarray(self.image_labels[row])

    def size(self, image_id: str) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        row = self.row(image_id)
        height, width = self._table("image_size")[row]
        if not height:
            raise InputError(f"image_size in {self.path} is gone; {VERIFY}")
        return int(height), int(width)

    def global_logits(self, image_id: str) -> NDArray[np.float32]:
        """(C, h, w) float32 cosines of the whole image; several zooms are averaged on the finest grid."""
        row = self.row(image_id)
        grids, ranges = self._table("global_grid")[row], self._table("global_range")[row]
        maps = [
            self._decoded(self.read(f"global_logits_{k}", row)[:, :h, :w], ranges[k]) for k, (h, w) in enumerate(grids)
        ]
        if len(maps) == 1:
            return maps[0]
        h, w = grids.max(0)
        return np.asarray(np.mean([resize_logits(m, int(h), int(w)) for m in maps], axis=0), np.float32)

    def local_views(self, image_id: str) -> list[LocalView]:
        """The local views of the image, in the order they were drawn."""
        row = self.row(image_id)
        boxes, zooms, grids, ranges = (
            self._table(name)[row] for name in ("local_box", "local_zoom", "local_grid", "local_range")
        )
        count = int((boxes[:, 0] >= 0).sum())
        if not count:
            raise InputError(f"local_box in {self.path} is gone; {VERIFY}")
        stored_VThw = self.read("local_logits", row)
        return [
            LocalView(
                tuple(boxes[v].tolist()),
                float(zooms[v]),
                self._decoded(stored_VThw[v, :, : grids[v, 0], : grids[v, 1]], ranges[v]),
            )
            for v in range(count)
        ]

    def logits(
        self, image_id: str, view: MaskView = "global", size: tuple[int, int] | None = None
    ) -> NDArray[np.float32]:
        """(C, H, W) float32 cosines in the image's size, or in `size`; NaN where no view looked.

        "global": the whole image in one view; "local": all local views merged; "fused": the mean of both.
        """
        height, width = self.size(image_id)
        if view == "local":
            logits_CHW = self._merged_locals(image_id)
        elif view == "global":
            logits_CHW = resize_logits(self.global_logits(image_id), height, width)
        elif view == "fused":
            whole_CHW = resize_logits(self.global_logits(image_id), height, width)
            logits_CHW = np.nanmean([whole_CHW, self._merged_locals(image_id)], axis=0)
        else:
            raise InputError(f"view must be global, local or fused, got {view!r}")
        return logits_CHW if size is None else resize_logits(logits_CHW, *size)

    def mask(self, image_id: str, view: MaskView = "global", size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """Pseudo-labels (H, W) uint8: the best class of `logits` among those the image shows; 255 = ignore."""
        return to_mask(self.logits(image_id, view, size), self.labels_of(image_id))

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
                raise InputError(f"{image_id!r} has no pseudo-labels yet in {self.path}; {AGAIN}")
        return row

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            self._arrays[name] = self._group[name]
        return self._arrays[name]

    def read(self, name: str, selection: Any = slice(None)) -> NDArray[Any]:
        """Part of an array as it is stored. Raises InputError for damaged bytes."""
        try:
            return np.asarray(self._array(name)[selection])
        except DAMAGE as error:
            raise InputError(f"{name} in {self.path} is damaged ({error}); {VERIFY}") from error

    def _table(self, name: str) -> NDArray[Any]:
        """A small array, held in memory: all rows that were written when a row was last found missing."""
        if name not in self._tables:
            if name != MARKER:
                self._table(MARKER)  # the oldest of all: what it says is written is in the others, too
            self._tables[name] = self.read(name)
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
