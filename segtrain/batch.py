"""Augmentation where the student is: RawBatch -> TrainBatch, a whole batch at once, in float32, waiting for nothing.

Shapes: B batch, C classes, H W pixels of an image or crop, Y X pixels of a crop, R K rows and columns of its
pseudo-labels, h w patches of a view.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from labelgen.images import IMAGENET_MEAN, IMAGENET_STD, SILENT
from labelgen.maskclip import colour
from labelgen.samples import IGNORE_INDEX
from segtrain.data import FILL, RawBatch, WarpedLogits


class TrainBatch(NamedTuple):
    """Tensors of one step. Pseudo-labels may be coarser than the image (see TrainConfig.loss_stride).

    With dual views the loader's pseudo-labels only say where there is an image (0) and where not (255).
    """

    image_B3HW: Tensor  # normalised as ImageNet backbones want it
    global_pseudo_BHW: Tensor
    local_pseudo_BHW: Tensor  # 255 outside the one local view
    is_present_BC: Tensor
    local_image_B3HW: Tensor | None = None  # the local view itself; local_pseudo_BHW is then of its size
    crop_BHW3: Tensor | None = None  # uint8, before its colours changed: for CLIP to look at
    local_box_B4: Tensor | None = None  # where it looks closer, in pixels of the pseudo-labels, and how much that is
    local_zoom_B: Tensor | None = None  # resized; both on the CPU

    def split(self, parts: int) -> list["TrainBatch"]:
        """The same in equal parts."""
        chunks = ([None] * parts if tensor is None else tensor.chunk(parts) for tensor in self)
        return [TrainBatch(*part) for part in zip(*chunks, strict=True)]


@torch.no_grad()
def augment(raw: RawBatch, device: torch.device) -> TrainBatch:
    """Warp images and logits, make pseudo-labels, change colours. raw: on the CPU, in pinned memory for a GPU."""
    there = raw.to(device)
    crop_B3HW = warp_images(there.image_BHW3, there.rows_BY, there.columns_BX)
    if there.global_view is not None:
        global_BRK = pseudo_labels(there.global_view, there.is_present_BC)
    else:
        assert there.classes_BRK is not None
        global_BRK = there.classes_BRK.long()
    local_BRK = (
        torch.full_like(global_BRK, IGNORE_INDEX)
        if there.local_view is None
        else pseudo_labels(there.local_view, there.is_present_BC)
    )
    local_B3HW = None
    if there.local_image_BHW3 is not None:
        assert there.local_colours_B4 is not None
        local_B3HW = there.local_image_BHW3.permute(0, 3, 1, 2).float()
        local_B3HW = normalise(change_colours(local_B3HW, there.local_colours_B4))
    return TrainBatch(
        normalise(change_colours(crop_B3HW, there.colours_B4)),
        global_BRK,
        local_BRK,
        there.is_present_BC,
        local_B3HW,
        crop_B3HW.round().byte().permute(0, 2, 3, 1) if raw.local_box_B4 is not None else None,
        raw.local_box_B4,
        raw.local_zoom_B,
    )


def warp_images(image_BHW3: Tensor, rows_BY: Tensor, columns_BX: Tensor) -> Tensor:
    """Crops (B, 3, Y, X) in 0..255, bilinear; FILL where there is no image.

    rows_BY, columns_BX: where the centres of the crop's rows and columns lie in the image, in pixels.
    """
    _, height, width, _ = image_BHW3.shape
    fill = colour(FILL, image_BHW3.device)
    # Where grid_sample finds no image it takes 0.
    image_B3HW = image_BHW3.permute(0, 3, 1, 2) - fill
    x_B1X, y_BY1 = 2 * columns_BX[:, None, :] / width - 1, 2 * rows_BY[:, :, None] / height - 1
    grid_BYX2 = torch.stack([x_B1X.expand(-1, y_BY1.shape[1], -1), y_BY1.expand(-1, -1, x_B1X.shape[2])], -1)
    return F.grid_sample(image_B3HW, grid_BYX2, align_corners=False) + fill


def pseudo_labels(view: WarpedLogits, is_present_BC: Tensor) -> Tensor:
    """Pseudo-labels (B, R, K) int64 of a view on the crop: the best class among those present; 255 outside the view
    and where none of them has a logit (SILENT).

    Logits are warped first: warping class ids would invent classes at borders.
    """
    B, C, h, w = view.logits_BChw.shape
    rows, columns = view.rows_BRh.shape[1], view.columns_BKw.shape[1]
    warped_BRCw = view.rows_BRh @ view.logits_BChw.transpose(1, 2).reshape(B, h, C * w)
    warped_BRCK = warped_BRCw.view(B, rows * C, w) @ view.columns_BKw.mT
    absent_BC = ~is_present_BC
    filtered_BRCK = warped_BRCK.view(B, rows, C, columns).masked_fill_(absent_BC[:, None, :, None], -torch.inf)
    outside_BRK = ~(view.rows_BRh.any(2)[:, :, None] & view.columns_BKw.any(2)[:, None, :])
    best_BRK, class_BRK = filtered_BRCK.max(2)  # -inf where nothing is present
    return class_BRK.masked_fill_(outside_BRK | (best_BRK < SILENT / 2), IGNORE_INDEX)


def change_colours(image_B3HW: Tensor, colours_B4: Tensor) -> Tensor:
    """RGB in 0..255 with other brightness, contrast, saturation and hue (see sample_colours); not rounded."""
    brightness, contrast, saturation, hue = colours_B4.T[:, :, None, None]
    image_B3HW = (image_B3HW * contrast[:, None] + brightness[:, None]).clamp_(0, 255)
    red, green, blue = image_B3HW.unbind(1)
    value_BHW = image_B3HW.amax(1)
    chroma_BHW = value_BHW - image_B3HW.amin(1)
    # Hue in sixths of the colour circle from red; grey has none.
    span_BHW = chroma_BHW.clamp(min=1e-3)
    hue_BHW = torch.where(
        value_BHW == red,
        (green - blue) / span_BHW,
        torch.where(value_BHW == green, 2 + (blue - red) / span_BHW, 4 + (red - green) / span_BHW),
    )
    hue_BHW = (hue_BHW + hue / 60).remainder_(6)
    chroma_BHW = torch.minimum(chroma_BHW * saturation, value_BHW)
    # Which share of the chroma each of red, green and blue lacks.
    lack_B3HW = torch.stack([2 - (hue_BHW - 3).abs_(), (hue_BHW - 2).abs_() - 1, (hue_BHW - 4).abs_() - 1], 1)
    return value_BHW[:, None] - lack_B3HW.clamp_(0, 1).mul_(chroma_BHW[:, None])


def normalise(image_B3HW: Tensor) -> Tensor:
    """RGB in 0..255 as ImageNet backbones want it."""
    mean, std = (colour(tuple(255 * v for v in values), image_B3HW.device) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (image_B3HW - mean) / std
