"""Views of an image: the whole (global) and many small crops (local), each resized before CLIP sees it.

A box is (y0, x0, y1, x1) in pixels of the image, y1 and x1 exclusive. Merging happens in the image's own frame.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelgen.images import require_size, resize_logits
from labelgen.samples import IGNORE_INDEX, InputError

Box = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """Which views of an image CLIP sees (CARB, "Local View Sampling")."""

    global_zooms: tuple[float, ...] = (1.0,)  # the whole image, resized by each of these
    local: bool = True  # False: no local views
    local_height: int = 512  # pixels of the image; upright crops are best (CARB, Fig. 6a)
    local_width: int = 256
    local_zooms: tuple[float, float] = (1.0, 2.0)  # a crop is resized by a random factor in this range
    zoom_levels: int = 5  # the range is cut into so many steps: crops of one size share a batch
    overlap: float = 0.25  # share of a crop's side that its neighbour covers as well
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.global_zooms or min(self.global_zooms) <= 0:
            raise InputError(f"labels.views.global_zooms must be one or more positive factors, got {self.global_zooms}")
        if min(self.local_height, self.local_width) < 1:
            raise InputError(
                "labels.views.local_height and local_width must be positive, "
                f"got {self.local_height} x {self.local_width}"
            )
        if not 0 < self.local_zooms[0] <= self.local_zooms[1]:
            raise InputError(f"labels.views.local_zooms must be a range of positive factors, got {self.local_zooms}")
        if self.zoom_levels < 1:
            raise InputError(f"labels.views.zoom_levels must be at least 1, got {self.zoom_levels}")
        if not 0 <= self.overlap < 1:
            raise InputError(f"labels.views.overlap must be in [0, 1), got {self.overlap}")


@dataclass(frozen=True)
class View:
    """A box of the image and the factor it is resized by."""

    box: Box
    zoom: float

    def grid(self, patch_px: int) -> tuple[int, int]:
        """(h, w) patches that cover the resized box: a side is stretched up to the next multiple of the patch.

        Raises InputError where that are more than MAX_PIXELS.
        """
        y0, x0, y1, x1 = self.box
        # The tolerance keeps 1.1 * 160 / 16 = 11.000000000000002 at 11.
        h, w = (math.ceil(side * self.zoom / patch_px - 1e-6) for side in (y1 - y0, x1 - x0))
        asked = f"{y1 - y0} x {x1 - x0} pixels, zoomed by {self.zoom:g} (labels.views.global_zooms, local_zooms), are"
        require_size(h * patch_px, w * patch_px, asked)
        return h, w


def global_views(config: ViewConfig, height: int, width: int) -> list[View]:
    """The whole image, once per zoom."""
    return [View((0, 0, height, width), zoom) for zoom in config.global_zooms]


def local_views(config: ViewConfig, image_id: str, height: int, width: int) -> list[View]:
    """Crops that together cover the image, at jittered places and random zooms, fixed by (seed, image id).

    A crop larger than the image is cut to it.
    """
    if not config.local:
        return []
    rng = np.random.default_rng([config.seed, zlib.crc32(image_id.encode())])
    crop_h, crop_w = min(config.local_height, height), min(config.local_width, width)
    zooms = _zooms(config)
    boxes = [
        (y, x, y + crop_h, x + crop_w)
        for y in _places(rng, height, crop_h, config.overlap)
        for x in _places(rng, width, crop_w, config.overlap)
    ]
    return [View(box, float(zooms[rng.integers(len(zooms))])) for box in boxes]


def count_local(config: ViewConfig, height: int, width: int) -> int:
    """How many local views an image of that size has, whatever its id."""
    if not config.local:
        return 0
    sides = ((height, config.local_height), (width, config.local_width))
    return math.prod(_count(length, min(crop, length), config.overlap) for length, crop in sides)


def largest_local(config: ViewConfig, height: int, width: int) -> View:
    """A view as large as any local one that an image of up to that size can have."""
    box = (0, 0, min(config.local_height, height), min(config.local_width, width))
    return View(box, float(_zooms(config).max()))


def _zooms(config: ViewConfig) -> NDArray[np.float64]:
    return np.linspace(*config.local_zooms, config.zoom_levels)


def _count(length: int, crop: int, overlap: float) -> int:
    return 1 + math.ceil((length - crop) / (crop * (1 - overlap)))


def _places(rng: np.random.Generator, length: int, crop: int, overlap: float) -> list[int]:
    """Starts of crops along one side: the first at 0, the last at length - crop, the others jittered.

    Neighbours are moved by less than their overlap, so that no pixel is left out.
    """
    count = _count(length, crop, overlap)
    starts = np.linspace(0, length - crop, count)
    slack = crop - (starts[1] - starts[0]) if count > 1 else 0
    jitter = rng.uniform(-slack / 2, slack / 2, count)
    jitter[[0, -1]] = 0
    return [int(np.clip(round(s), 0, length - crop)) for s in starts + jitter]


def merge(views: Sequence[tuple[Box, NDArray[np.float32]]], height: int, width: int) -> NDArray[np.float32]:
    """Logits of views, averaged in the image's frame: (C, height, width), NaN where no view looked.

    views: pairs of a box and its logits (C, h, w); (height, width) is the image's size.
    """
    classes = views[0][1].shape[0]
    total = np.zeros((classes, height, width), np.float32)
    count = np.zeros((height, width), np.float32)
    for (y0, x0, y1, x1), logits_Chw in views:
        total[:, y0:y1, x0:x1] += resize_logits(logits_Chw, y1 - y0, x1 - x0)
        count[y0:y1, x0:x1] += 1
    total[:, count == 0] = np.nan
    return np.asarray(total / np.maximum(count, 1), np.float32)


def to_mask(
    logits_CHW: NDArray[np.float32], is_present_C: NDArray[np.bool_], ignore_index: int = IGNORE_INDEX
) -> NDArray[np.uint8]:
    """Pseudo-labels (H, W): the best class among those present; ignore where none of them has a logit (but NaN).

    Absent classes are out (-inf), not multiplied by 0 as in the authors' code, where they beat negative scores.
    """
    if not is_present_C.any():
        return np.full(logits_CHW.shape[1:], ignore_index, np.uint8)
    filtered = np.where(is_present_C[:, None, None] & ~np.isnan(logits_CHW), logits_CHW, -np.inf)
    mask: NDArray[np.uint8] = filtered.argmax(0).astype(np.uint8)
    mask[np.isneginf(filtered.max(0))] = ignore_index
    return mask


def confidence(
    logits_CHW: NDArray[np.float32], is_present_C: NDArray[np.bool_], temperature: float = 100.0
) -> NDArray[np.float32]:
    """(H, W) in 0..1: how far the best class stands out among those present, by softmax (100 is CLIP's temperature).

    NaN where no view looked; 0 where nothing is present.
    """
    if not is_present_C.any():
        return np.zeros(logits_CHW.shape[1:], np.float32)
    scaled = temperature * logits_CHW[is_present_C]
    powers = np.exp(scaled - scaled.max(0))
    return np.asarray(powers.max(0) / powers.sum(0), np.float32)
