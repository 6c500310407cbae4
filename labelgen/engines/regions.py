"""Region refinement: the scores of any engine, averaged in each region of the image, so that masks follow its edges.

Regions are superpixels, or the masks of a SAM that is asked everywhere. What goes to the store are the averages, on a
finer grid: nobody who reads a store needs the image, or a model. Shapes: C classes, H W pixels, h w cells.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from labelgen.engines.engine import Engine
from labelgen.engines.sam import Sam
from labelgen.images import resize_image, resize_logits
from labelgen.label import Asked, Batch, Prepared
from labelgen.maskclip import digest_weights
from labelgen.samples import InputError
from labelgen.superpixels import find_superpixels
from labelgen.views import View

SLIC = "slic"
WEIGHTS = "regions"  # what the hash of a SAM's weights is called among an engine's


@dataclass(frozen=True, kw_only=True)
class RegionConfig:
    """Which regions, and how fine a grid tells them apart."""

    source: str = ""  # slic = superpixels; HF folder or hub id of a SAM = its masks over superpixels; "" = no regions
    size_px: int = 12  # side of a superpixel, in pixels of the first view
    compactness: float = 10.0  # of superpixels: high = square, low = along colours
    patch_px: int = 4  # pixels of a view, a side, to a score in the store
    points: int = 16  # a side of the grid at which a SAM is asked
    quality: float = 0.88  # of masks, as SAM itself foretells their IoU; worse ones are left out
    points_at_once: int = 64

    speed_only: ClassVar[tuple[str, ...]] = ("points_at_once",)

    def __post_init__(self) -> None:
        for name in ("size_px", "patch_px", "points", "points_at_once"):
            if getattr(self, name) < 1:
                raise InputError(f"regions.{name} must be at least 1, got {getattr(self, name)}")
        if not self.compactness > 0:
            raise InputError(f"regions.compactness must be positive, got {self.compactness}")
        if not 0 <= self.quality <= 1:
            raise InputError(f"regions.quality must be in [0, 1], got {self.quality}")

    def about(self) -> dict[str, Any]:
        """What decides the scores, for provenance."""
        idle = () if self.source != SLIC else ("points", "quality")
        return {name: value for name, value in asdict(self).items() if name not in (*self.speed_only, *idle)}


class Refined:
    """An engine whose maps are averaged in the regions of each image; they come on the grid of config.patch_px."""

    def __init__(self, engine: Engine, config: RegionConfig, device: torch.device | None = None) -> None:
        """Raises InputError for a SAM that cannot be had."""
        self.engine, self.config = engine, config
        self.patch_px, self.needs_labels = config.patch_px, engine.needs_labels
        self.sam, self.weights = None, dict(engine.weights)
        if config.source != SLIC:
            self.sam = Sam.from_pretrained(config.source, "regions.source", device, config.points_at_once)
            self.weights |= {WEIGHTS: digest_weights(self.sam.model)}

    def ask(self, images: Sequence[Prepared], text_TD: torch.Tensor) -> Asked:
        """What the engine says, refined when it is read. The first view of an image must be a whole one."""
        asked = self.engine.ask([for_patch(image, self.engine.patch_px) for image in images], text_TD)
        return Asked(images, self._batches(images, asked))

    def _batches(self, images: Sequence[Prepared], asked: Asked) -> Iterator[Batch]:
        regions: dict[int, NDArray[np.int64]] = {}
        for places, logits_BThw, arrived in asked.batches:
            if arrived is not None:
                arrived.synchronize()
            for (i, v), logits_Thw in zip(places, logits_BThw.numpy(), strict=True):
                if i not in regions:
                    regions[i] = self._regions(images[i].pixels_HW3[0])
                view, whole = images[i].views[v], images[i].views[0]
                region_hw = cells_of(regions[i], view, whole, view.grid(self.patch_px))
                refined_Thw = average_in(region_hw, resize_logits(logits_Thw, *region_hw.shape))
                yield Batch([(i, v)], torch.from_numpy(refined_Thw)[None], None)

    def _regions(self, image_HW3: NDArray[np.uint8]) -> NDArray[np.int64]:
        region_HW = superpixels(image_HW3, self.config.size_px, self.config.compactness)
        if self.sam is None:
            return region_HW
        return lay_over(region_HW, self.sam.everything(image_HW3, self.config.points, self.config.quality))


def refined(engine: Engine, config: RegionConfig, device: torch.device | None = None) -> Engine:
    """The engine, with its maps averaged in regions where config names some."""
    return Refined(engine, config, device) if config.source else engine


def for_patch(image: Prepared, patch_px: int) -> Prepared:
    """The same views, resized for another patch."""
    pixels = []
    for view, pixels_HW3 in zip(image.views, image.pixels_HW3, strict=True):
        h, w = view.grid(patch_px)
        pixels.append(resize_image(pixels_HW3, h * patch_px, w * patch_px))
    return replace(image, pixels_HW3=pixels)


def superpixels(image_HW3: NDArray[np.uint8], size_px: int, compactness: float) -> NDArray[np.int64]:
    """(H, W) numbers of regions of about size_px a side, by SLIC (Achanta et al., 2012)."""
    count = max(round(image_HW3.shape[0] * image_HW3.shape[1] / size_px**2), 1)
    return find_superpixels(image_HW3, count, compactness).astype(np.int64)


def lay_over(region_HW: NDArray[np.int64], masks_NHW: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The regions with each mask as one region more; where masks overlap, the smallest is on top."""
    laid_HW = region_HW.copy()
    for number, n in enumerate(np.argsort(-masks_NHW.sum((1, 2)), kind="stable"), start=int(region_HW.max()) + 1):
        laid_HW[masks_NHW[n]] = number
    return laid_HW


def cells_of(region_HW: NDArray[np.int64], view: View, whole: View, grid: tuple[int, int]) -> NDArray[np.int64]:
    """(h, w) numbers of the regions at the centres of a view's cells. region_HW: of the whole image, in any size."""
    (height, width), (H, W) = whole.box[2:], region_HW.shape
    y0, x0, y1, x1 = view.box
    rows = (y0 + (np.arange(grid[0]) + 0.5) * (y1 - y0) / grid[0]) * H / height
    columns = (x0 + (np.arange(grid[1]) + 0.5) * (x1 - x0) / grid[1]) * W / width
    return region_HW[np.ix_(rows.astype(int).clip(0, H - 1), columns.astype(int).clip(0, W - 1))]


def average_in(region_hw: NDArray[np.int64], maps_Chw: NDArray[np.float32]) -> NDArray[np.float32]:
    """(C, h, w): each map's mean in each region, over the cells where it says something; NaN where most say nothing."""
    _, region_P = np.unique(region_hw, return_inverse=True)
    cells_R = np.bincount(region_P.ravel())
    refined = np.empty_like(maps_Chw)
    for map_hw, refined_hw in zip(maps_Chw, refined, strict=True):
        is_said_P = ~np.isnan(map_hw.ravel())
        said_R = np.bincount(region_P.ravel(), is_said_P, len(cells_R))
        sum_R = np.bincount(region_P.ravel(), np.where(is_said_P, map_hw.ravel(), 0), len(cells_R))
        mean_R = np.where(2 * said_R >= cells_R, sum_R / np.maximum(said_R, 1), np.nan)
        refined_hw[:] = mean_R[region_P.reshape(region_hw.shape)]
    return refined
