"""Training data: an image and its cached logits -> RawBatch, decoded and drawn, not yet augmented (`segtrain.batch`).

Everything random is drawn from (run seed, step, place in the batch), so that any sample can be replayed, a resumed
run sees what an uninterrupted one sees, and N processes see together what one process sees.

Shapes: B batch, C classes, H W pixels of an image, Y X pixels of the crop, R K rows and columns of the crop's
pseudo-labels, h w patches of a view.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from labelgen.images import IMAGENET_MEAN, read_image, silenced
from labelgen.samples import IGNORE_INDEX, InputError, Sample
from labelgen.store import AGAIN, LocalView, PseudoLabelStore
from labelgen.training.order import Order, Place
from labelgen.views import ViewConfig
from segtrain.augment import (
    AugmentConfig,
    Geometry,
    sample_colours,
    sample_geometry,
    view_weights,
    warp_classes,
)

FILL = tuple(round(255 * mean) for mean in IMAGENET_MEAN)  # where there is no image: nearly 0 when normalised
MIN_VISIBLE = 0.25  # share of a local view that must lie in the crop for the view to be used


Views = Literal["base", "local", "dual", "truth"]


class WarpedLogits(NamedTuple):
    """Logits of a view, to be seen on the crop as `rows @ logits @ columns.T`; rows and columns off the view are 0."""

    logits_BChw: Tensor
    rows_BRh: Tensor
    columns_BKw: Tensor


class RawBatch(NamedTuple):
    """What travels to where the student is: images as they were read, cached logits, and what was drawn for them.

    Images and logits of several sizes are padded, with FILL and with 0. A sample is the same without B.
    """

    image_BHW3: Tensor  # uint8
    rows_BY: Tensor  # where the crop's rows and columns lie in the image, in pixels
    columns_BX: Tensor
    colours_B4: Tensor  # see sample_colours
    is_present_BC: Tensor
    global_view: WarpedLogits | None = None
    local_view: WarpedLogits | None = None
    # Instead of the global view: truth on the crop; with dual views 0 where there is an image; 255 elsewhere.
    classes_BRK: Tensor | None = None
    local_image_BHW3: Tensor | None = None  # uint8, the local view as an image of its own, which local_view covers
    local_colours_B4: Tensor | None = None
    local_box_B4: Tensor | None = None  # with dual views: where CLIP looks, in pixels of the pseudo-labels,
    local_zoom_B: Tensor | None = None  # and how much that is resized

    def to(self, device: torch.device) -> "RawBatch":
        """The same on a device."""
        return RawBatch(*(_moved(part, device) for part in self))


def _moved(part: Any, device: torch.device) -> Any:
    if isinstance(part, WarpedLogits):
        return WarpedLogits(*(_moved(tensor, device) for tensor in part))
    return None if part is None else part.to(device, non_blocking=True)


class PseudoLabelledImages(Dataset[RawBatch]):
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
        if views == "local" and "local" not in store.mask_views:
            raise InputError(f"{store_path} holds no local views; train on the whole images with train.views=base")
        self.samples, self.store_path, self.config = list(samples), store_path, config
        self.seed, self.views, self.loss_stride, self.local_crops = seed, views, loss_stride, local_crops
        self.filter_labels = filter_labels
        self.dual, self.read_truth = dual, read_truth
        self.rows, self.columns = (-(-side // loss_stride) for side in (config.crop_height, config.crop_width))

    @cached_property
    def _store(self) -> PseudoLabelStore:
        # Opened where it is used: a loader worker that inherits an open store can hang.
        return PseudoLabelStore.open(self.store_path)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_store"}

    def __getitem__(self, place: Place) -> RawBatch:
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
        views: dict[str, Any] = {}
        if self.views in ("truth", "dual"):
            if self.views == "truth":
                assert self.read_truth is not None
                classes_HW = self.read_truth(sample)
            else:
                classes_HW = np.zeros(size, np.uint8)
                views |= self._look(rng, place)
            classes_RK = warp_classes(classes_HW, geometry, self.rows, self.columns, IGNORE_INDEX)
            views["classes_BRK"] = torch.from_numpy(classes_RK)
        else:
            whole = LocalView((0, 0, *size), 1.0, self._store.global_logits(sample["image_id"]))
            views["global_view"] = self._warped(whole, geometry)
        if self.views == "local":
            views |= self._local_view(rng, image_HW3, self._store.local_views(sample["image_id"]), geometry)
        return RawBatch(
            torch.from_numpy(image_HW3),
            torch.from_numpy(geometry.source_rows(self.config.crop_height).astype(np.float32)),
            torch.from_numpy(geometry.source_columns(self.config.crop_width).astype(np.float32)),
            torch.from_numpy(sample_colours(rng, self.config.photometric)),
            torch.from_numpy(is_present_C),
            **views,
        )

    def _local_view(
        self, rng: np.random.Generator, image_HW3: NDArray[np.uint8], views: list[LocalView], geometry: Geometry
    ) -> dict[str, Any]:
        """One local view: in the crop, or as an image of its own, unscaled."""
        if not self.local_crops:
            return {"local_view": self._warped(_visible_view(rng, views, geometry) or _nowhere(views[0]), geometry)}
        view = views[rng.integers(len(views))]
        y0, x0, y1, x1 = view.box
        cut_HW3 = image_HW3[y0:y1, x0:x1]
        return {
            "local_view": self._warped(view, Geometry(1.0, y0, x0, geometry.flip, y1 - y0, x1 - x0)),
            "local_image_BHW3": torch.from_numpy((cut_HW3[:, ::-1] if geometry.flip else cut_HW3).copy()),
            "local_colours_B4": torch.from_numpy(sample_colours(rng, self.config.photometric)),
        }

    def _warped(self, view: LocalView, geometry: Geometry) -> WarpedLogits:
        rows, columns = (-(-side // self.loss_stride) for side in (geometry.crop_height, geometry.crop_width))
        weights = view_weights(geometry, view.box, view.logits.shape[1:], rows, columns)
        return WarpedLogits(*map(torch.from_numpy, (silenced(view.logits), *weights)))

    def _look(self, rng: np.random.Generator, place: Place) -> dict[str, Tensor]:
        """Where CLIP looks in the crop, at random; all local views of a step have one size and one zoom."""
        assert self.dual is not None
        lows, sizes = [], []
        for side, wanted in (
            (self.config.crop_height, self.dual.local_height),
            (self.config.crop_width, self.dual.local_width),
        ):
            sizes.append(min(wanted, side) // self.loss_stride)
            lows.append(int(rng.integers(0, side // self.loss_stride - sizes[-1] + 1)))
        zoom = np.random.default_rng([self.seed, place.step]).uniform(*self.dual.local_zooms)
        return {
            "local_box_B4": torch.tensor([*lows, lows[0] + sizes[0], lows[1] + sizes[1]]),
            "local_zoom_B": torch.tensor(zoom),
        }


def _visible_view(rng: np.random.Generator, views: list[LocalView], geometry: Geometry) -> LocalView | None:
    """One of the local views that the crop shows enough of, or None."""
    rows, columns = geometry.source_rows(geometry.crop_height), geometry.source_columns(geometry.crop_width)

    def visible(view: LocalView) -> float:
        (y0, x0, y1, x1), scale = view.box, geometry.scale
        inside = ((rows >= y0) & (rows < y1)).sum() * ((columns >= x0) & (columns < x1)).sum()
        return float(inside / ((y1 - y0) * (x1 - x0) * scale**2))

    usable = [view for view in views if visible(view) >= MIN_VISIBLE]
    return usable[rng.integers(len(usable))] if usable else None


def _nowhere(view: LocalView) -> LocalView:
    """A view of the same classes that lies outside the image."""
    return LocalView((-1, -1, 0, 0), 1.0, np.zeros_like(view.logits[:, :1, :1]))


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
) -> DataLoader[RawBatch]:
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


def each(loader: DataLoader[RawBatch]) -> Generator[RawBatch, None, None]:
    """The batches of a loader, the next one loaded by a thread while the caller is busy with this one.

    Raises InputError for what could not be read. To be closed by who leaves early: a loader process that ends with a
    batch in its hands aborts.
    """
    coming = iter(loader)
    try:
        with ThreadPoolExecutor(1) as thread:
            ahead = thread.submit(next, coming, None)
            while (batch := ahead.result()) is not None:
                ahead = thread.submit(next, coming, None)
                yield batch
    except InputError as error:  # of another process: it comes with that one's traceback
        message = str(error).strip().splitlines()[-1]
        raise InputError(message.removeprefix("labelgen.samples.InputError: ")) from error
    finally:
        steps = loader.batch_sampler
        assert isinstance(steps, _Steps)
        steps.is_ended = True
        is_drained = False
        while not is_drained:  # past every batch that cannot be read: a loader process waits for who left one
            with suppress(InputError):
                deque(coming, maxlen=0)
                is_drained = True


def _one_thread(worker: int) -> None:
    """OpenCV's threads would fight with those of the other loader processes."""
    cv2.setNumThreads(0)


def collate(samples: Sequence[RawBatch]) -> RawBatch:
    """Stack samples; maps of several sizes are padded at the bottom and at the right."""
    return RawBatch(*map(_stack, zip(*samples, strict=True)))


def _stack(parts: Sequence[Any]) -> Any:
    """Tensors, groups of them, or None, of several samples."""
    if parts[0] is None:
        return None
    if isinstance(parts[0], WarpedLogits):
        return WarpedLogits(*map(_stack, zip(*parts, strict=True)))
    shape = tuple(max(sides) for sides in zip(*(part.shape for part in parts), strict=True))
    # With numpy: torch would take threads of its own for it, which fight with those that train.
    return torch.from_numpy(np.stack([_padded(part.numpy(), shape) for part in parts]))


def _padded(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if array.shape == shape:
        return array
    whole = np.zeros(shape, array.dtype)
    if array.dtype == np.uint8:  # an image
        whole[:] = FILL
    whole[tuple(slice(side) for side in array.shape)] = array
    return whole
