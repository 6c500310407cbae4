"""PseudoLabelStore: dense logits of many images in one Zarr group, written by shards, read at random.

Needs numpy, OpenCV and zarr only: it opens without torch. One shard has one writer, and is written data first,
marker last; what carries no marker is not there. Nothing that is done for one image or one shard reads more for a
million images than for ten. Shapes: N images, S images a shard, V local views, K global zooms, C classes, T texts (the
classes, or every sentence about them), h w CLIP grid, D embedding.
"""

import contextlib
import copy
import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.sync import sync

from labelgen.chunks import Chunks
from labelgen.codec import checksum, decode, encode
from labelgen.images import MAX_PIXELS, resize_logits
from labelgen.layout import (
    BEGUN_WITH,
    CHECKSUM,
    ID_INDEX,
    IDS,
    IDS_A_CHUNK,
    LABELS,
    LOCAL_LOGITS,
    MARKER,
    READABLE,
    SCHEMA,
    VIEW_FIELDS,
    VIEWS,
    StoreLayout,
    begin,
    differences,
    id_hash,
    location,
    open_group,
)
from labelgen.prompts import Sentence, choose, class_weights
from labelgen.samples import InputError, require_class_names
from labelgen.views import Box, merge, to_mask

VERIFY = "'carbseg labels verify' says what to make again"
AGAIN = "give the 'carbseg labels' command that began it (or 'make pseudolabels') again to resume"
MaskView = Literal["global", "local", "fused"]
# What zarr, numcodecs and fsspec raise for bytes that are not what was written.
UNREADABLE = (RuntimeError, ValueError)
DAMAGE = (*UNREADABLE, OSError, LookupError, TypeError)
# What a reader remembers: tables of so many images (a few hundred bytes each), and so many entries of the index of ids.
TABLES_OF = 2**16
INDEXED = 2**22
BOX, ZOOM, GRID, RANGE = slice(0, 4), VIEW_FIELDS.index("zoom"), slice(5, 7), slice(7, 9)


class _UnwrittenError(LookupError):
    """A shard has no marker yet."""


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
        self._chunks: dict[str, Chunks] = {}
        self._attributes: dict[str, Any] = dict(group.attrs)
        self._is_old = self._attributes["schema"] != SCHEMA
        try:
            self.provenance: dict[str, Any] = self._attributes["provenance"]
            self.class_names: list[str] = list(self.provenance["classes"]["names"])
            self.images_per_shard = int(self._attributes["images_per_shard"])
            self.labels_digest: str = self._attributes.get("labels_digest", "")
            self.sentences = [Sentence(**fields) for fields in self._attributes["sentences"]]
            self._require_consistent()
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise InputError(f"{path} says of itself what cannot be ({error}); delete it, or get it again") from error
        self._chosen = list(range(len(self.sentences)))
        self._tables = lru_cache(-(-TABLES_OF // self.images_per_shard))(self._read_tables)
        self._index = lru_cache(INDEXED // IDS_A_CHUNK)(self._read_index)

    def _require_consistent(self) -> None:
        """Raise an error of some kind for attributes that do not fit one another or the arrays."""
        marker, classes = self._array(MARKER), self._array("text_vectors").shape[0]
        (rows,), (in_file,) = marker.shape, marker.shards or marker.chunks
        if not (self.images_per_shard == in_file and 0 < len(self) <= rows):
            said = f"{len(self)} images, {self.images_per_shard} a shard"
            raise ValueError(f"{said}, in {rows} rows, {in_file} a file")
        require_class_names(self.class_names)
        colours = self.provenance["classes"].get("palette", [(0, 0, 0)] * classes)
        if len(self.class_names) != classes or np.array(colours, np.uint8).shape != (classes, 3):
            raise ValueError(f"{len(self.class_names)} names and {len(colours)} colours of {classes} classes")
        if not all(isinstance(self.provenance.get(part, {}), dict) for part in ("labels", "engine", "image_labels")):
            raise ValueError("labels, engine and image_labels must be tables")
        if not {sentence.class_id for sentence in self.sentences} <= set(range(classes)):
            raise ValueError("sentences of other classes")

    @classmethod
    def open(cls, path: str | Path, *, writable: bool = False) -> Self:
        """Open a store in a folder or at an fsspec URL (s3://..., memory://...). Raises InputError if there is none.

        Stores of schema 2 can be read, but not written to.
        """
        group = open_group(path, writable=writable)
        if group is None:
            raise InputError(f"{path} is no pseudo-label store; write one with 'carbseg labels' or 'make pseudolabels'")
        schema = group.attrs.get("schema", "none")
        if schema not in READABLE:
            raise InputError(f"{path} is no pseudo-label store of schema {SCHEMA} (but {schema}); delete it")
        if writable and schema != SCHEMA:
            raise InputError(
                f"{path} is of schema {schema}, which this version reads, but does not write; "
                "delete it, or choose another OUT"
            )
        return cls(group, str(path))

    @classmethod
    def create(cls, path: str | Path, layout: StoreLayout, provenance: dict[str, Any]) -> Self:
        """Create the store, or open it again for writing if it has the same provenance and images.

        Several processes may do so at once: the first one's store is everybody's. Raises InputError, naming the first
        difference, for a store made otherwise, and for a folder that holds something else. Library versions are
        recorded, and may differ.
        """
        begin(path, layout, provenance)
        return cls.resume(path, layout.image_ids, provenance)

    @classmethod
    def resume(cls, path: str | Path, image_ids: Sequence[str], provenance: dict[str, Any]) -> Self:
        """Open for writing a store that was begun with this provenance and these images. Raises InputError."""
        store = cls.open(path, writable=True)
        store._require_same(image_ids, provenance)
        return store

    def _require_same(self, image_ids: Sequence[str], provenance: dict[str, Any]) -> None:
        advice = "delete it, or choose another OUT"
        for key, was, now in differences(self.provenance, json.loads(json.dumps(provenance))):
            if not key.startswith("versions."):
                if key == "labels.dtype":
                    advice = "set it to that or to auto, and run again"
                raise InputError(f"{self.path} was made with {key} = {was!r}, not {now!r}; {advice}")
        if len(self) != len(image_ids) or self.image_ids != list(image_ids):
            raise InputError(f"{self.path} was made of other images; {advice}")

    def __len__(self) -> int:
        return len(self.image_ids) if self._is_old else int(self._attributes["images"])

    @cached_property
    def image_ids(self) -> list[str]:
        """All N of them, in the order of the arrays' first axis. Read when they are first asked for."""
        if self._is_old:
            return list(self._attributes["image_ids"])
        image_ids: list[str] = self.read(IDS, slice(len(self))).tolist()
        if "" in image_ids:
            raise InputError(f"{IDS} in {self.path} is gone; delete the store, or get the file back")
        return image_ids

    @property
    def image_labels(self) -> NDArray[np.bool_]:
        """(N, C) bool: which classes each image shows, the only supervision. False for images not yet written.

        Reads a file a shard: for one image ask `labels_of`.
        """
        return np.asarray(self.read(LABELS, slice(len(self))), bool)

    @cached_property
    def text_vectors(self) -> NDArray[np.float32]:
        """(C, D) unit vectors of the classes."""
        if not self.sentences:
            return np.asarray(self.read("text_vectors"), np.float32)
        return np.asarray(self._class_weights @ self.read("sentence_vectors")[self._chosen], np.float32)

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
        """(C, P): logits of classes = weights @ logits of the chosen sentences."""
        chosen = [self.sentences[place] for place in self._chosen]
        return class_weights(chosen, self.read("sentence_vectors")[self._chosen], len(self.class_names))

    def of_classes(self, logits_Thw: NDArray[np.float32]) -> NDArray[np.float32]:
        """(C, h, w) logits of the classes from those of the texts."""
        if not self.sentences:
            return logits_Thw
        # Only what was chosen is added up: then a store that was made of these words alone gives the same, to the bit.
        chosen = logits_Thw if len(self._chosen) == len(self.sentences) else logits_Thw[self._chosen]
        return np.tensordot(self._class_weights, chosen, 1)

    def is_written(self) -> NDArray[np.bool_]:
        """(N,) bool: which images are there. Asked anew at each call, by one listing of the markers."""
        written = np.zeros(len(self.shards()), bool)
        written[self._written_shards()] = True
        return np.repeat(written, self.images_per_shard)[: len(self)]

    def _written_shards(self) -> list[int]:
        """Numbers of the shards that have a marker: forgetting one deletes it, so that being there says it all."""
        marker = self._array(MARKER)
        storage, first = marker.store_path.store, marker.metadata.encode_chunk_key((0,))
        folder, _, start = f"{marker.store_path.path}/{first[:-1]}".rpartition("/")
        if hasattr(storage, "fs"):
            storage.fs.invalidate_cache()  # object stores remember listings

        async def names() -> list[str]:
            return [name async for name in storage.list_dir(folder)]

        numbers = (name.removeprefix(start) for name in sync(names()) if name.startswith(start))
        return [int(number) for number in numbers if number.isdecimal()]  # others: half-written, by who was killed

    def _is_there(self, shard: int) -> bool:
        return bool(self._chunk(MARKER, shard)[0])

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
        """Write all images of one shard, data first, marker last.

        What another job has written meanwhile stays: several may write one shard at once, and any of them may be cut,
        for they write the same and take nothing away. Who wants a shard anew says `forget` first.
        """
        if self._is_there(rows.start // self.images_per_shard):
            return
        assert [self._find(image.image_id) for image in images] == list(rows)
        blocks: dict[str, NDArray[Any]] = {}
        whole = range(rows.start, rows.start + self.images_per_shard)
        for name in self.data_arrays:
            array = self._array(name)
            blocks[name] = np.full((len(whole), *array.shape[1:]), array.fill_value, array.dtype)
        for i, image in enumerate(images):
            blocks[LABELS][i, list(image.image_labels)] = True
            views, K = blocks[VIEWS][i], len(image.global_logits)
            for k, logits_Thw in enumerate(image.global_logits):
                h, w = logits_Thw.shape[1:]
                block = blocks[f"global_logits_{k}"]
                block[i, :, :h, :w], value_range = encode(logits_Thw, block.dtype)
                views[k] = (0, 0, *image.size, -1, h, w, *value_range)
            for v, view in enumerate(image.local_views):
                h, w = view.logits.shape[1:]
                block = blocks[LOCAL_LOGITS]
                block[i, v, :, :h, :w], value_range = encode(view.logits, block.dtype)
                views[K + v] = (*view.box, view.zoom, h, w, *value_range)
        for name, block in blocks.items():
            try:
                self._array(name)[whole.start : whole.stop] = block
            except UNREADABLE:  # zarr reads a shard before it writes one, and cannot read a damaged one
                self._remove(name, rows)
                self._array(name)[whole.start : whole.stop] = block
        sums = [checksum(blocks[name][i] for name in sorted(blocks)) for i in range(len(images))]
        padding = len(whole) - len(images)
        self._array(CHECKSUM)[whole.start : whole.stop] = np.array(sums + [0] * padding, np.uint32)
        self._array(MARKER)[whole.start : whole.stop] = np.arange(len(whole)) < len(images)

    def forget(self, rows: range) -> None:
        """Empty one shard, marker first: its images count as not written, and are made again."""
        for name in (MARKER, *self.data_arrays):
            self._remove(name, rows)
        self._tables.cache_clear()

    def _remove(self, name: str, rows: range) -> None:
        """Delete the file that holds a shard's part of an array."""
        array = self._array(name)
        key = array.metadata.encode_chunk_key((rows.start // self.images_per_shard, *[0] * (array.ndim - 1)))
        sync((array.store_path / key).delete())

    @cached_property
    def data_arrays(self) -> list[str]:
        """Names of the arrays that are written by shards, sorted; the checksum and the marker are not among them."""
        return sorted(set(self._group.array_keys()) - {MARKER, CHECKSUM, *BEGUN_WITH})

    def arrays(self) -> list[tuple[str, tuple[int, ...], str, tuple[str, ...]]]:
        """(name, shape, dtype, names of the axes) of every array, sorted."""
        rows = []
        for name in sorted(self._group.array_keys()):
            array = self._array(name)
            dtype = "string" if array.dtype.kind == "T" else str(array.dtype)
            rows.append((name, array.shape, dtype, array.metadata.dimension_names))
        return rows

    def _decoded(self, stored_Thw: NDArray[Any], value_range: NDArray[np.float32]) -> NDArray[np.float32]:
        """(C, h, w) float32 logits of the classes. Raises InputError for a map that is gone."""
        if np.isinf(stored_Thw).any():
            raise InputError(f"logits in {self.path} are infinite; delete it, or get it again")
        # Where a file is gone, zarr gives zeros and says nothing.
        if not stored_Thw.any() and value_range[1] > value_range[0]:
            raise InputError(f"logits in {self.path} are gone; {VERIFY}")
        return self.of_classes(decode(stored_Thw, value_range))

    def labels_of(self, image_id: str) -> NDArray[np.bool_]:
        """(C,) bool: which classes the image shows."""
        return self._about(image_id)[2].copy()

    def size(self, image_id: str) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        _, views, _ = self._about(image_id)
        height, width = views[0, BOX][2:]  # the first view is the whole image
        if height <= 0:
            raise InputError(f"{VIEWS} in {self.path} is gone; {VERIFY}")
        return int(height), int(width)

    def global_logits(self, image_id: str) -> NDArray[np.float32]:
        """(C, h, w) float32 cosines of the whole image; several zooms are averaged on the finest grid."""
        row, views, _ = self._about(image_id)
        wholes = views[: self._global_zooms]
        grids = wholes[:, GRID].astype(int)
        maps = [
            self._decoded(self._chunk(f"global_logits_{k}", row)[0, :, :h, :w], wholes[k, RANGE])
            for k, (h, w) in enumerate(grids)
        ]
        return average_zooms(maps)

    def local_views(self, image_id: str) -> list[LocalView]:
        """The local views of the image, in the order they were drawn. Raises InputError for a store without any."""
        row, views, _ = self._about(image_id)
        if "local" not in self.mask_views:
            raise InputError(f"{self.path} holds no local views")
        seen = [view for view in views[self._global_zooms :] if view[0] >= 0]
        if not seen:
            raise InputError(f"{VIEWS} in {self.path} is gone; {VERIFY}")
        stored_VThw = self._chunk(LOCAL_LOGITS, row)[0]
        maps = []
        for view, stored_Thw in zip(seen, stored_VThw, strict=False):
            h, w = view[GRID].astype(int)
            y0, x0, y1, x1 = view[BOX].astype(int).tolist()
            logits_Chw = self._decoded(stored_Thw[:, :h, :w], view[RANGE])
            maps.append(LocalView((y0, x0, y1, x1), float(view[ZOOM]), logits_Chw))
        return maps

    @cached_property
    def mask_views(self) -> tuple[MaskView, ...]:
        """Which masks there are: of the whole image, and where there are local views, of these and of both."""
        return ("global", "local", "fused") if LOCAL_LOGITS in self._group else ("global",)

    def logits(
        self, image_id: str, view: MaskView = "global", size: tuple[int, int] | None = None
    ) -> NDArray[np.float32]:
        """(C, H, W) float32 cosines in the image's size, or in `size`; NaN where no view looked.

        "global": the whole image in one view; "local": all local views merged; "fused": the mean of both, which is
        the first where there are no local views.
        """
        if view not in get_args(MaskView):
            raise InputError(f"view must be global, local or fused, got {view!r}")
        whole_Chw = None if view == "local" else self.global_logits(image_id)
        has_local = view == "local" or (view == "fused" and view in self.mask_views)
        logits_CHW = in_image(self.size(image_id), whole_Chw, self.local_views(image_id) if has_local else [])
        return logits_CHW if size is None else resize_logits(logits_CHW, *size)

    def mask(self, image_id: str, view: MaskView = "global", size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """Pseudo-labels (H, W) uint8: the best class of `logits` among those the image shows; 255 = ignore."""
        return to_mask(self.logits(image_id, view, size), self.labels_of(image_id))

    def missing(self, image_ids: Iterable[str]) -> list[str]:
        """Those of `image_ids` that are not in the store."""
        asked = [(image_id, self._find(image_id)) for image_id in image_ids]
        shards = {row // self.images_per_shard for _, row in asked if row is not None}
        # One listing tells of all shards; a marker is read in less time, but not thousands of them.
        written = set(self._written_shards()) if len(shards) > 1 else {s for s in shards if self._is_there(s)}
        return [i for i, row in asked if row is None or row // self.images_per_shard not in written]

    def row(self, image_id: str) -> int:
        """Row of a written image in all arrays. Raises InputError for one that is not there."""
        return self._about(image_id)[0]

    def _about(self, image_id: str) -> tuple[int, NDArray[np.float32], NDArray[np.bool_]]:
        """Row of a written image, its views (K + V, fields), the global ones first, and its labels (C,)."""
        row = self._find(image_id)
        if row is None:
            raise InputError(f"{image_id!r} is not in {self.path}")
        shard, place = divmod(row, self.images_per_shard)
        try:
            views, labels = self._tables(shard)
        except _UnwrittenError:
            raise InputError(f"{image_id!r} has no pseudo-labels yet in {self.path}; {AGAIN}") from None
        return row, views[place], labels[place]

    def _read_tables(self, shard: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Views (S, K + V, fields) and labels (S, C) of a shard. To be remembered: only what is written is returned."""
        if not self._is_there(shard):  # asked first: what has a marker has all the rest
            raise _UnwrittenError
        rows = slice(shard * self.images_per_shard, (shard + 1) * self.images_per_shard)
        if self._is_old:
            return self._views_of_schema_2(rows), self.read(LABELS, rows)
        views = self._chunk(VIEWS, shard)
        self._require_inside(views)
        return views, self._chunk(LABELS, shard)

    def _require_inside(self, views_SVF: NDArray[np.float32]) -> None:
        """Raise InputError for views that reach out of their images, or grids out of their arrays."""
        is_view = ~(views_SVF[..., 2] <= 0)  # else none, or gone
        y0, x0, y1, x1 = np.moveaxis(views_SVF[..., BOX], -1, 0)
        height, width = y1[:, :1], x1[:, :1]  # the first view is the whole image
        largest_V2 = np.array([self._array(f"global_logits_{k}").shape[2:] for k in range(self._global_zooms)])
        if "local" in self.mask_views:
            local = self._array(LOCAL_LOGITS).shape
            largest_V2 = np.concatenate([largest_V2, [local[3:]] * local[1]])
        fits = np.isfinite(views_SVF).all(-1) & (y0 >= 0) & (x0 >= 0) & (y0 < y1) & (x0 < x1)
        fits &= (y1 <= height) & (x1 <= width) & (height * width <= MAX_PIXELS)
        fits &= ((views_SVF[..., GRID] >= 1) & (views_SVF[..., GRID] <= largest_V2)).all(-1)
        if not fits[is_view].all():
            raise InputError(f"{VIEWS} in {self.path} reach out of their images or arrays; {VERIFY}")

    def _views_of_schema_2(self, rows: slice) -> NDArray[np.float32]:
        """What schema 2 kept in an array for each field or two."""
        grids = self.read("global_grid", rows)
        boxes, zooms = np.zeros((*grids.shape[:2], 4)), np.full((*grids.shape[:2], 1), -1)
        boxes[:, :, 2:] = self.read("image_size", rows)[:, None]
        wholes = np.concatenate([boxes, zooms, grids, self.read("global_range", rows)], axis=-1)
        zooms = self.read("local_zoom", rows)[..., None]
        fields = [self.read("local_box", rows), zooms, self.read("local_grid", rows), self.read("local_range", rows)]
        return np.concatenate([wholes, np.concatenate(fields, axis=-1)], axis=1).astype(np.float32)

    @cached_property
    def _global_zooms(self) -> int:
        if self._is_old:
            return int(self._array("global_grid").shape[1])
        local = self._array(LOCAL_LOGITS).shape[1] if "local" in self.mask_views else 0
        return int(self._array(VIEWS).shape[1] - local)

    def _find(self, image_id: str) -> int | None:
        """Row of an image that is in the store or will be; None for a stranger (of 2**64 / N, one is mistaken)."""
        if self._is_old:
            return self._rows_of_schema_2.get(image_id)
        wanted, last = np.uint64(id_hash(image_id)), (len(self) - 1) // IDS_A_CHUNK
        # Hashes are spread evenly: their place is known within a few sqrt(N), so that one chunk is read, seldom two.
        chunk = int(wanted) * len(self) // 2**64 // IDS_A_CHUNK
        while chunk > 0 and wanted < self._index(chunk)[0][0]:
            chunk -= 1
        while chunk < last and wanted > self._index(chunk)[0][-1]:
            chunk += 1
        hashes, rows = self._index(chunk)
        place = int(hashes.searchsorted(wanted))
        return int(rows[place]) if place < len(rows) and hashes[place] == wanted else None

    def _read_index(self, chunk: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Hashes, sorted, and the rows of the images that have them."""
        index = self._chunk(ID_INDEX, chunk)[: len(self) - chunk * IDS_A_CHUNK]
        if not index.any():
            raise InputError(f"{ID_INDEX} in {self.path} is gone; delete the store, or get the file back")
        return np.ascontiguousarray(index[:, 0]), np.ascontiguousarray(index[:, 1])

    @cached_property
    def _rows_of_schema_2(self) -> dict[str, int]:
        return {image_id: row for row, image_id in enumerate(self.image_ids)}

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            self._arrays[name] = self._group[name]
        return self._arrays[name]

    def read(self, name: str, selection: Any = slice(None)) -> NDArray[Any]:
        """Part of an array as it is stored. Raises InputError for damaged bytes."""
        with self._telling_of_damage(name):
            return np.asarray(self._array(name)[selection])

    def _chunk(self, name: str, number: int) -> NDArray[Any]:
        """One chunk of an array: an image of the logits, a shard of a table. Raises InputError for damaged bytes."""
        if name not in self._chunks:
            self._chunks[name] = Chunks(self._array(name))
        with self._telling_of_damage(name):
            return self._chunks[name].read(number)

    @contextlib.contextmanager
    def _telling_of_damage(self, name: str) -> Iterator[None]:
        try:
            yield
        except DAMAGE as error:
            if isinstance(error, OSError) and "://" in location(self.path):  # storage fails, the bytes may be well
                raise
            raise InputError(f"{name} in {self.path} is damaged ({error}); {VERIFY}") from error

    def __repr__(self) -> str:
        written = int(self.is_written().sum())
        return f"PseudoLabelStore({self.path!r}: {written} of {len(self)} images, {len(self.class_names)} classes)"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{count}</td></tr>"
            for name, count in zip(self.class_names, self.image_labels.sum(0), strict=True)
        )
        return f"<b>{html.escape(repr(self))}</b><table><tr><th>class</th><th>images</th></tr>{rows}</table>"


def average_zooms(maps: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """(C, h, w) logits of a whole image from those at each zoom, averaged on the finest grid."""
    if len(maps) == 1:
        return maps[0]
    h, w = (max(m.shape[side] for m in maps) for side in (1, 2))
    return np.asarray(np.mean([resize_logits(m, h, w) for m in maps], axis=0), np.float32)


def in_image(
    size: tuple[int, int], whole_Chw: NDArray[np.float32] | None, local_views: Sequence[LocalView]
) -> NDArray[np.float32]:
    """(C, H, W) logits in an image's frame: of the whole, of the local views, or the mean of both where there are both.

    NaN where no view looked.
    """
    whole_CHW = None if whole_Chw is None else resize_logits(whole_Chw, *size)
    if not local_views:
        assert whole_CHW is not None
        return whole_CHW
    local_CHW = merge([(view.box, view.logits) for view in local_views], *size)
    if whole_CHW is None:
        return local_CHW
    # Not np.nanmean, which warns of what neither speaks of.
    mean_CHW = np.where(np.isnan(local_CHW), whole_CHW, (whole_CHW + local_CHW) / 2)
    return np.where(np.isnan(whole_CHW), local_CHW, mean_CHW)
