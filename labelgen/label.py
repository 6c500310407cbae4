"""From images to logits: cut and resize the views, batch those of one size, ask CLIP.

Shapes: T texts, C classes, H W pixels, h w patches.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from labelgen.images import read_image, resize_image
from labelgen.samples import Sample
from labelgen.views import View, ViewConfig, global_views, local_views

CPU_BATCH, MOST_VIEWS = 8, 64


@dataclass(frozen=True)
class Prepared:
    """An image whose views (global ones first) have been cut out and resized: everything but CLIP."""

    image_id: str
    size: tuple[int, int]
    views: list[View]
    pixels_HW3: list[NDArray[np.uint8]]
    image_labels: Sequence[int] | None = None  # None: nobody has said
    image_path: str = ""  # where it lies, for engines that keep what they find out about its pixels


def prepare(sample: Sample, config: ViewConfig, patch_px: int) -> Prepared:
    """Read an image and cut its views. Raises InputError for a file that is no whole image."""
    image_HW3 = read_image(sample["image_path"])
    size = image_HW3.shape[0], image_HW3.shape[1]
    views = [*global_views(config, *size), *local_views(config, sample["image_id"], *size)]
    pixels = [view_pixels(image_HW3, view, patch_px) for view in views]
    return Prepared(sample["image_id"], size, views, pixels, sample["image_labels"], sample["image_path"])


def view_pixels(image_HW3: NDArray[np.uint8], view: View, patch_px: int) -> NDArray[np.uint8]:
    """What CLIP sees of a view: uint8 RGB, (h * patch, w * patch, 3)."""
    y0, x0, y1, x1 = view.box
    h, w = view.grid(patch_px)
    return resize_image(image_HW3[y0:y1, x0:x1], h * patch_px, w * patch_px)


class Batch(NamedTuple):
    """Logits (B, T, h, w) on their way: of which (image, view) each is, and what tells that a GPU has brought them."""

    places: list[tuple[int, int]]
    logits_BThw: torch.Tensor
    arrived: torch.cuda.Event | None


@dataclass(frozen=True)
class Asked:
    """What CLIP was asked: logits of these images, by batches."""

    images: Sequence[Prepared]
    batches: Iterator[Batch]

    def logits(self, on_share: Callable[[float], object] = lambda share: None) -> list[list[NDArray[np.float32]]]:
        """For each image the logits (T, h, w) of its views, in their order; may be called once.

        on_share hears what share of all pixels is done.
        """
        total, done = sum(pixels.size for image in self.images for pixels in image.pixels_HW3), 0
        logits: dict[tuple[int, int], NDArray[np.float32]] = {}
        for places, logits_BThw, arrived in self.batches:
            if arrived is not None:
                arrived.synchronize()
            logits |= dict(zip(places, logits_BThw.numpy(), strict=True))
            done += sum(self.images[i].pixels_HW3[v].size for i, v in places)
            on_share(done / total)
        return [[logits[i, v] for v in range(len(image.views))] for i, image in enumerate(self.images)]


class Seer(Protocol):
    """What compares patches with texts: a DenseCLIP, or what is built on one."""

    @property
    def patch_px(self) -> int:
        """Pixels to a patch, a side."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""

    @property
    def widths(self) -> tuple[int, int]:
        """Of its tokens, and inside its MLPs."""

    @property
    def compares_patches(self) -> bool:
        """Whether it holds each patch against all others outside of attention."""

    def normalise(self, image_BHW3: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W): what `logits` takes, of uint8 RGB."""

    def logits(self, pixels_B3HW: torch.Tensor, text_CD: torch.Tensor) -> torch.Tensor:
        """Cosine similarities (B, C, h, w)."""


class Labeller:
    """The engine of CLIPs that compare patches with texts.

    batch: views of one size at once; 0 = what suits the device. weights: hashes of those besides CLIP's.
    """

    needs_labels = False

    def __init__(self, dense: Seer, batch: int = 0, weights: Mapping[str, str] | None = None) -> None:
        self.weights = weights or {}
        self.dense, self.batch, self.patch_px = dense, batch, dense.patch_px
        self.on_gpu = dense.device.type == "cuda"
        self.free_bytes = torch.cuda.mem_get_info(dense.device)[0] if self.on_gpu else 0

    def ask(self, images: Sequence[Prepared], text_TD: torch.Tensor) -> Asked:
        """Their logits, to be read later. A GPU is given all of the work now, a CPU does it when it is read.

        Views of one size go through CLIP together, whatever image they show. text_TD: unit text vectors.
        """
        batches = self._batches(images, text_TD)
        return Asked(images, iter(list(batches)) if self.on_gpu else batches)

    def views_at_once(self, height: int, width: int) -> int:
        """The batch of views of so many pixels."""
        if self.batch or not self.on_gpu:
            return self.batch or CPU_BATCH
        tokens_width, mlp_width = self.dense.widths
        return fitting_batch(
            self.free_bytes,
            tokens=height * width // self.patch_px**2 + 1,
            width=tokens_width,
            mlp_width=mlp_width,
            patch_px=self.patch_px,
            value_bytes=self.dense.dtype.itemsize,
            compares_patches=self.dense.compares_patches,
        )

    def _batches(self, images: Sequence[Prepared], text_TD: torch.Tensor) -> Iterator[Batch]:
        by_size: dict[tuple[int, ...], list[tuple[int, int]]] = defaultdict(list)
        for i, image in enumerate(images):
            for v, pixels_HW3 in enumerate(image.pixels_HW3):
                by_size[pixels_HW3.shape].append((i, v))
        for shape, places in by_size.items():
            batch = self.views_at_once(*shape[:2])
            for start in range(0, len(places), batch):
                some = places[start : start + batch]
                # To and from pinned memory a GPU copies on its own.
                pixels_BHW3 = torch.empty(len(some), *shape, dtype=torch.uint8, pin_memory=self.on_gpu)
                np.stack([images[i].pixels_HW3[v] for i, v in some], out=pixels_BHW3.numpy())
                logits_BThw = self.dense.logits(self.dense.normalise(pixels_BHW3), text_TD)
                yield Batch(some, *self._sent_back(logits_BThw))

    def _sent_back(self, logits_BThw: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event | None]:
        """The logits on the CPU, as soon as the event says so."""
        if not self.on_gpu:
            return logits_BThw.cpu(), None
        # Who waits for it leaves its core to those who read images.
        arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        pinned_BThw = torch.empty_like(logits_BThw, device="cpu", pin_memory=True)
        pinned_BThw.copy_(logits_BThw, non_blocking=True)
        arrived.record(torch.cuda.current_stream(self.dense.device))
        return pinned_BThw, arrived


def fitting_batch(
    free_bytes: int,
    tokens: int,
    *,
    width: int,
    mlp_width: int,
    patch_px: int,
    value_bytes: int,
    compares_patches: bool = False,
) -> int:
    """How many views of so many tokens fit into half of a GPU's free memory: 1 to 64, which keep any GPU busy.

    Counted for a token is what is there at once, or more: 8 vectors of the attention's width, 3 of the MLP's, and its
    pixels three times in float32. compares_patches: that has three float32 for each pair of patches.
    """
    token_bytes = value_bytes * (8 * width + 3 * mlp_width) + 3 * 4 * 3 * patch_px**2
    view_bytes = tokens * (token_bytes + (3 * 4 * tokens if compares_patches else 0))
    return max(1, min(MOST_VIEWS, free_bytes // (2 * view_bytes)))


def label(
    images: Sequence[Prepared], dense: Seer, text_TD: torch.Tensor, batch: int = 0
) -> list[list[NDArray[np.float32]]]:
    """For each image the logits (T, h, w) of its views, in their order; see `Labeller`."""
    return Labeller(dense, batch).ask(images, text_TD.to(dense.device)).logits()


def guess_labels(logits_Chw: NDArray[np.float32], min_area: float) -> list[int]:
    """Image-level labels where nobody gave any: the classes that win at least `min_area` of the patches.

    logits_Chw: of the whole image, all classes allowed.
    """
    winners = np.bincount(logits_Chw.argmax(0).ravel(), minlength=len(logits_Chw))
    return [int(c) for c in np.flatnonzero(winners >= max(min_area * winners.sum(), 1))]
