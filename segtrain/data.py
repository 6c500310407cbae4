"""Training data: an image and its cached logits -> one augmented TrainSample -> TrainBatch.

Everything random is drawn from (run seed, step, place in the batch), so that any sample can be replayed, a resumed
run sees what an uninterrupted one sees, and N processes see together what one process sees.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from labelgen.images import IMAGENET_MEAN, IMAGENET_STD, normalise, read_image
from labelgen.label import view_pixels
from labelgen.samples import IGNORE_INDEX, InputError, Sample
from labelgen.store import AGAIN, LocalView, PseudoLabelStore
from labelgen.views import View, ViewConfig, to_mask
from segtrain.augment import (
    AugmentConfig,
    Geometry,
    change_colours,
    sample_geometry,
    warp_classes,
    warp_image,
    warp_logits,
)

FILL = tuple(255 * m for m in IMAGENET_MEAN)  # becomes 0 when normalised
MIN_VISIBLE = 0.25  # share of a local view that must lie in the crop for the view to be used


Views = Literal["base", "local", "dual", "truth"]


class TrainBatch(NamedTuple):
    """Tensors of one step. Pseudo-labels may be coarser than the image (see TrainConfig.loss_stride).

    With dual views the loader's pseudo-labels only say where there is an image (0) and where not (255).
    """

    image_B3HW: Tensor
    global_pseudo_BHW: Tensor
    local_pseudo_BHW: Tensor  # 255 outside the one local view
    is_present_BC: Tensor
    local_image_B3HW: Tensor | None = None  # the local view itself; local_pseudo_BHW is then of its size
    clip_global_BHW3: Tensor | None = None  # uint8, for CLIP to look at: the crop, and a local view of it
    clip_local_BHW3: Tensor | None = None
    local_box_B4: Tensor | None = None  # where that view is, in pixels of the pseudo-labels

    def to(self, device: torch.device) -> "TrainBatch":
        """The same on a device."""
        moved = (None if tensor is None else tensor.to(device, non_blocking=True) for tensor in self)
        return TrainBatch(*moved)  # type: ignore[arg-type]

    def split(self, parts: int) -> list["TrainBatch"]:
        """The same in equal parts."""
        chunks = ([None] * parts if tensor is None else tensor.chunk(parts) for tensor in self)
        return [TrainBatch(*part) for part in zip(*chunks, strict=True)]


class Place(NamedTuple):
    """Which image takes which place in which step."""

    step: int
    slot: int
    row: int


@dataclass(frozen=True)
class Order:
    """The order of a run: every image once an epoch, shuffled anew each epoch, from (seed, step) alone."""

    images: int
    batch: int  # over all processes
    seed: int

    def places(self, step: int) -> list[Place]:
        """The images of one step."""
        numbers = range(step * self.batch, (step + 1) * self.batch)
        return [Place(step, slot, self._row(number)) for slot, number in enumerate(numbers)]

    def _row(self, number: int) -> int:
        epoch, place = divmod(number, self.images)
        return int(np.random.default_rng([self.seed, epoch]).permutation(self.images)[place])


class PseudoLabelledImages(Dataset[TrainBatch]):
    """Samples of a training split with their logits from a store. Indexed by Place.

    views: which pseudo-labels (see TrainConfig). local_crops: local views as images of their own. filter_labels: False
    lets classes win that the image does not show. dual: where local
    views of a crop are drawn from, for CLIP to look at in the training process. read_truth: pixel labels of a sample,
    for the upper bound that trains on them.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        store_path: str | Path,
        config: AugmentConfig,
        *,
        seed: int,
        views: Views,
        loss_stride: int = 1,
        local_crops: bool = False,
        filter_labels: bool = True,
        dual: ViewConfig | None = None,
        read_truth: Callable[[Sample], NDArray[np.uint8]] | None = None,
    ) -> None:
        store = PseudoLabelStore.open(store_path)
        absent = store.missing(sample["image_id"] for sample in samples)
        if absent:
            raise InputError(f"{len(absent)} of {len(samples)} images have no pseudo-labels in {store_path}; {AGAIN}")
        self.samples, self.store_path, self.config = list(samples), store_path, config
        self.seed, self.views, self.loss_stride, self.local_crops = seed, views, loss_stride, local_crops
        self.filter_labels = filter_labels
        self.dual, self.read_truth = dual, read_truth
        self.patch_px = int(store.provenance["clip"]["patch_px"])
        self.rows, self.columns = (-(-side // loss_stride) for side in (config.crop_height, config.crop_width))

    @cached_property
    def _store(self) -> PseudoLabelStore:
        # Opened where it is used: a loader worker that inherits an open store can hang.
        return PseudoLabelStore.open(self.store_path)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_store"}

    def __getitem__(self, place: Place) -> TrainBatch:
        sample = self.samples[place.row]
        rng = np.random.default_rng([self.seed, place.step, place.slot])
        image_HW3 = read_image(sample["image_path"])
        size = image_HW3.shape[0], image_HW3.shape[1]
        if size != self._store.size(sample["image_id"]):
            raise InputError(f"{sample['image_path']} has changed since its pseudo-labels were made; make them again")
        geometry = sample_geometry(rng, self.config, *size)
        is_present_C = self._store.labels_of(sample["image_id"])
        if not self.filter_labels and is_present_C.any():
            is_present_C = np.ones_like(is_present_C)
        crop_HW3 = warp_image(image_HW3, geometry, FILL)
        if self.views == "truth":
            assert self.read_truth is not None
            truth_HW = self.read_truth(sample)
            global_HW = warp_classes(truth_HW, geometry, self.rows, self.columns, IGNORE_INDEX)
        elif self.views == "dual":
            everywhere = np.zeros(size, np.uint8)
            global_HW = warp_classes(everywhere, geometry, self.rows, self.columns, IGNORE_INDEX)
        else:
            whole = LocalView((0, 0, *size), 1.0, self._store.global_logits(sample["image_id"]))
            global_HW = _pseudo_labels(whole, geometry, is_present_C, self.rows, self.columns)
        others: dict[str, NDArray[Any]] = {}
        local_HW = np.full_like(global_HW, IGNORE_INDEX)
        if self.views == "local":
            views = self._store.local_views(sample["image_id"])
            if self.local_crops:
                local_HW, others["local_image_B3HW"] = self._local_crop(rng, image_HW3, views, geometry, is_present_C)
            elif (view := _visible_view(rng, views, geometry)) is not None:
                local_HW = _pseudo_labels(view, geometry, is_present_C, self.rows, self.columns)
        elif self.views == "dual":
            others = self._for_clip(rng, place, crop_HW3)
        return TrainBatch(
            torch.from_numpy(_student_pixels(rng, crop_HW3, self.config)),
            torch.from_numpy(global_HW.astype(np.int64)),
            torch.from_numpy(local_HW.astype(np.int64)),
            torch.from_numpy(is_present_C),
            **{name: torch.from_numpy(array) for name, array in others.items()},
        )

    def _local_crop(
        self,
        rng: np.random.Generator,
        image_HW3: NDArray[np.uint8],
        views: list[LocalView],
        geometry: Geometry,
        is_present_C: NDArray[np.bool_],
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """One local view as an image of its own, unscaled, with its pseudo-labels."""
        view = views[rng.integers(len(views))]
        y0, x0, y1, x1 = view.box
        alone = Geometry(1.0, y0, x0, geometry.flip, y1 - y0, x1 - x0)
        rows, columns = (-(-side // self.loss_stride) for side in (y1 - y0, x1 - x0))
        pixels_3HW = _student_pixels(rng, warp_image(image_HW3, alone, FILL), self.config)
        return _pseudo_labels(view, alone, is_present_C, rows, columns), pixels_3HW

    def _for_clip(self, rng: np.random.Generator, place: Place, crop_HW3: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """The crop and a random local view of it, resized for CLIP; all local views of a step have one size."""
        assert self.dual is not None
        stride, (height, width) = self.loss_stride, crop_HW3.shape[:2]
        lows, sizes = [], []
        for side, wanted in ((height, self.dual.local_height), (width, self.dual.local_width)):
            sizes.append(min(wanted, side) // stride)
            lows.append(int(rng.integers(0, side // stride - sizes[-1] + 1)))
        box = np.array([*lows, lows[0] + sizes[0], lows[1] + sizes[1]])
        zoom = float(np.random.default_rng([self.seed, place.step]).uniform(*self.dual.local_zooms))
        y0, x0, y1, x1 = (int(v) for v in stride * box)
        return {
            "clip_global_BHW3": view_pixels(crop_HW3, View((0, 0, height, width), 1.0), self.patch_px),
            "clip_local_BHW3": view_pixels(crop_HW3, View((y0, x0, y1, x1), zoom), self.patch_px),
            "local_box_B4": box,
        }


def _student_pixels(
    rng: np.random.Generator, image_HW3: NDArray[np.uint8], config: AugmentConfig
) -> NDArray[np.float32]:
    """(3, H, W): colours changed, then normalised as ImageNet backbones want it."""
    return normalise(change_colours(rng, image_HW3, config.photometric), IMAGENET_MEAN, IMAGENET_STD)


def _pseudo_labels(
    view: LocalView, geometry: Geometry, is_present_C: NDArray[np.bool_], rows: int, columns: int
) -> NDArray[np.uint8]:
    """Pseudo-labels of a view on the crop, 255 outside it."""
    logits, in_rows, in_columns = warp_logits(view.logits, view.box, geometry, rows, columns)
    pseudo = np.full((rows, columns), IGNORE_INDEX, np.uint8)
    # argmax after warping: warping class ids would invent classes at borders
    pseudo[in_rows, in_columns] = to_mask(logits, is_present_C)
    return pseudo


def _visible_view(rng: np.random.Generator, views: list[LocalView], geometry: Geometry) -> LocalView | None:
    """One of the local views that the crop shows enough of, or None."""
    rows, columns = geometry.source_rows(geometry.crop_height), geometry.source_columns(geometry.crop_width)

    def visible(view: LocalView) -> float:
        (y0, x0, y1, x1), scale = view.box, geometry.scale
        inside = ((rows >= y0) & (rows < y1)).sum() * ((columns >= x0) & (columns < x1)).sum()
        return float(inside / ((y1 - y0) * (x1 - x0) * scale**2))

    usable = [view for view in views if visible(view) >= MIN_VISIBLE]
    return usable[rng.integers(len(usable))] if usable else None


class _Steps(Sequence[list[Place]]):
    """The share of one process in steps start..stop, as a batch sampler."""

    def __init__(self, order: Order, start: int, stop: int, rank: int, ranks: int) -> None:
        self.order, self.start, self.stop, self.rank, self.ranks = order, start, stop, rank, ranks
        self.is_ended = False

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[Place]]:
        share = self.order.batch // self.ranks
        for step in range(self.start, self.stop):
            if self.is_ended:
                return
            yield self.order.places(step)[self.rank * share : (self.rank + 1) * share]

    def __getitem__(self, index: int) -> list[Place]:  # type: ignore[override]
        raise NotImplementedError("steps are only iterated over")


def batches(
    images: PseudoLabelledImages, order: Order, start: int, stop: int, *, workers: int, rank: int, ranks: int
) -> DataLoader[TrainBatch]:
    """A loader of steps start..stop for one process."""
    return DataLoader(
        images,
        batch_sampler=_Steps(order, start, stop, rank, ranks),
        num_workers=workers,
        # A forked worker can hang on locks that zarr's threads hold in the parent.
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_one_thread,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
    )


def each(loader: DataLoader[TrainBatch]) -> Generator[TrainBatch, None, None]:
    """The batches of a loader. Raises InputError for what a loader process could not read.

    To be closed by who leaves early: a loader process that ends with a batch in its hands aborts.
    """
    coming = iter(loader)
    try:
        yield from coming
    except InputError as error:  # of another process: it comes with that one's traceback
        message = str(error).strip().splitlines()[-1]
        raise InputError(message.removeprefix("labelgen.samples.InputError: ")) from error
    finally:
        steps = loader.batch_sampler
        assert isinstance(steps, _Steps)
        steps.is_ended = True
        with suppress(InputError, StopIteration):
            deque(coming, maxlen=0)


def _one_thread(worker: int) -> None:
    """OpenCV's threads would fight with those of the other loader processes."""
    cv2.setNumThreads(0)


def collate(samples: Sequence[TrainBatch]) -> TrainBatch:
    """Stack samples."""
    stacked = (None if tensors[0] is None else torch.stack(tensors) for tensors in zip(*samples, strict=True))
    return TrainBatch(*stacked)  # type: ignore[arg-type]
