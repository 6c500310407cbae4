"""Training data: an image and its cached logits -> one augmented TrainSample -> TrainBatch.

Everything random is drawn from (run seed, step, place in the batch), so that any sample can be replayed, a resumed
run sees what an uninterrupted one sees, and N processes see together what one process sees.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from labelgen.images import IMAGENET_MEAN, IMAGENET_STD, normalise, read_image
from labelgen.samples import IGNORE_INDEX, InputError, Sample
from labelgen.store import LocalView, PseudoLabelStore
from labelgen.views import to_mask
from segtrain.augment import AugmentConfig, Geometry, change_colours, sample_geometry, warp_image, warp_logits

FILL = tuple(255 * m for m in IMAGENET_MEAN)  # becomes 0 when normalised
MIN_VISIBLE = 0.25  # share of a local view that must lie in the crop for the view to be used


class TrainBatch(NamedTuple):
    """Tensors of one step. Pseudo-labels may be coarser than the image (see TrainConfig.loss_stride)."""

    image_B3HW: Tensor
    global_pseudo_BHW: Tensor
    local_pseudo_BHW: Tensor  # 255 outside the one local view
    is_present_BC: Tensor


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
    """Samples of a training split with their logits from a store. Indexed by Place."""

    def __init__(
        self,
        samples: Sequence[Sample],
        store_path: str | Path,
        config: AugmentConfig,
        *,
        seed: int,
        use_local: bool,
        loss_stride: int = 1,
    ) -> None:
        store = PseudoLabelStore.open(store_path)
        absent = store.missing(sample["image_id"] for sample in samples)
        if absent:
            raise InputError(
                f"{len(absent)} of {len(samples)} images have no pseudo-labels in {store_path}; "
                "run 'make pseudolabels' again to resume"
            )
        self.samples, self.store_path, self.config = list(samples), store_path, config
        self.seed, self.use_local, self.loss_stride = seed, use_local, loss_stride

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
        image_id, size = sample["image_id"], (image_HW3.shape[0], image_HW3.shape[1])
        if size != self._store.size(image_id):
            raise InputError(f"{sample['image_path']} has changed since its pseudo-labels were made; make them again")
        geometry = sample_geometry(rng, self.config, *size)
        is_present_C = self._store.labels_of(image_id)
        rows, columns = (-(-side // self.loss_stride) for side in (self.config.crop_height, self.config.crop_width))
        whole = LocalView((0, 0, *size), 1.0, self._store.global_logits(image_id))
        global_pseudo = _pseudo_labels(whole, geometry, is_present_C, rows, columns)
        local_pseudo = np.full_like(global_pseudo, IGNORE_INDEX)
        if self.use_local:
            view = _visible_view(rng, self._store.local_views(image_id), geometry)
            if view is not None:
                local_pseudo = _pseudo_labels(view, geometry, is_present_C, rows, columns)
        coloured = change_colours(rng, warp_image(image_HW3, geometry, FILL), self.config.photometric)
        return TrainBatch(
            torch.from_numpy(normalise(coloured, IMAGENET_MEAN, IMAGENET_STD)),
            torch.from_numpy(global_pseudo.astype(np.int64)),
            torch.from_numpy(local_pseudo.astype(np.int64)),
            torch.from_numpy(is_present_C),
        )


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

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[Place]]:
        share = self.order.batch // self.ranks
        for step in range(self.start, self.stop):
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
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
    )


def collate(samples: Sequence[TrainBatch]) -> TrainBatch:
    """Stack samples."""
    return TrainBatch(*(torch.stack(tensors) for tensors in zip(*samples, strict=True)))
