"""From images to logits: cut and resize the views, batch those of one size, ask CLIP.

Shapes: T texts, C classes, H W pixels, h w patches.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from labelgen.images import read_image, resize_image
from labelgen.maskclip import DenseCLIP
from labelgen.samples import Sample
from labelgen.views import View, ViewConfig, global_views, local_views


@dataclass(frozen=True)
class Prepared:
    """An image whose views (global ones first) have been cut out and resized: everything but CLIP."""

    image_id: str
    size: tuple[int, int]
    views: list[View]
    pixels_HW3: list[NDArray[np.uint8]]


def prepare(sample: Sample, config: ViewConfig, patch_px: int) -> Prepared:
    """Read an image and cut its views. Raises InputError for a file that is no whole image."""
    image_HW3 = read_image(sample["image_path"])
    size = image_HW3.shape[0], image_HW3.shape[1]
    views = [*global_views(config, *size), *local_views(config, sample["image_id"], *size)]
    return Prepared(sample["image_id"], size, views, [view_pixels(image_HW3, view, patch_px) for view in views])


def view_pixels(image_HW3: NDArray[np.uint8], view: View, patch_px: int) -> NDArray[np.uint8]:
    """What CLIP sees of a view: uint8 RGB, (h * patch, w * patch, 3)."""
    y0, x0, y1, x1 = view.box
    h, w = view.grid(patch_px)
    return resize_image(image_HW3[y0:y1, x0:x1], h * patch_px, w * patch_px)


def label(
    images: Sequence[Prepared],
    dense: DenseCLIP,
    text_TD: torch.Tensor,
    batch: int,
    on_share: Callable[[float], object] = lambda share: None,
) -> list[list[NDArray[np.float32]]]:
    """For each image the logits (T, h, w) of its views, in their order.

    Views of one size go through CLIP together, whatever image they show. on_share hears what share of all patches
    is done.
    """
    by_size: dict[tuple[int, ...], list[tuple[int, int]]] = defaultdict(list)
    for i, image in enumerate(images):
        for v, pixels_HW3 in enumerate(image.pixels_HW3):
            by_size[pixels_HW3.shape].append((i, v))
    total, done = sum(pixels.size for image in images for pixels in image.pixels_HW3), 0
    logits: dict[tuple[int, int], NDArray[np.float32]] = {}
    for places in by_size.values():
        for start in range(0, len(places), batch):
            some = places[start : start + batch]
            pixels_BHW3 = np.stack([images[i].pixels_HW3[v] for i, v in some])
            logits_BThw = dense.logits(dense.normalise(torch.from_numpy(pixels_BHW3)), text_TD)
            logits |= dict(zip(some, logits_BThw.cpu().numpy(), strict=True))
            done += pixels_BHW3.size
            on_share(done / total)
    return [[logits[i, v] for v in range(len(image.views))] for i, image in enumerate(images)]


def guess_labels(logits_Chw: NDArray[np.float32], min_area: float) -> list[int]:
    """Image-level labels where nobody gave any: the classes that win at least `min_area` of the patches.

    logits_Chw: of the whole image, all classes allowed.
    """
    winners = np.bincount(logits_Chw.argmax(0).ravel(), minlength=len(logits_Chw))
    return [int(c) for c in np.flatnonzero(winners >= max(min_area * winners.sum(), 1))]
