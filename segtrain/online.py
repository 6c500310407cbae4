"""Pseudo-labels made while training: CLIP looks at the augmented crop and at a local view of it ("dual" views).

Shapes: B batch, C classes, H W pixels of the crop, of a view or of their pseudo-labels, h w patches.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from labelgen.maskclip import DenseCLIP
from labelgen.samples import IGNORE_INDEX
from labelgen.views import View
from segtrain.batch import TrainBatch


class OnlineLabels:
    """Fills in the pseudo-labels of a batch with what a frozen CLIP says of its pixels (CARB, "Dual").

    text_CD: unit text vectors of the classes. loss_stride: pixels of the crop for one of its pseudo-labels, a side.
    """

    def __init__(self, dense: DenseCLIP, text_CD: Tensor, loss_stride: int = 1) -> None:
        self.dense, self.text_CD, self.loss_stride = dense, text_CD.to(dense.device), loss_stride

    @torch.no_grad()
    def relabel(self, batch: TrainBatch) -> TrainBatch:
        """The batch with pseudo-labels made anew; 255 where there is no image, and outside the local view."""
        assert batch.crop_BHW3 is not None
        assert batch.local_box_B4 is not None
        assert batch.local_zoom_B is not None
        outside_BHW = batch.global_pseudo_BHW == IGNORE_INDEX
        global_BHW = self._masks(batch.crop_BHW3, 1.0, batch.is_present_BC, outside_BHW.shape[1:])
        boxes, stride = batch.local_box_B4.tolist(), self.loss_stride
        cut_BHW3 = torch.stack(
            [
                crop_HW3[stride * y0 : stride * y1, stride * x0 : stride * x1]
                for crop_HW3, (y0, x0, y1, x1) in zip(batch.crop_BHW3, boxes, strict=True)
            ]
        )
        y0, x0, y1, x1 = boxes[0]  # the boxes of a step have one size and one zoom
        views_BHW = self._masks(cut_BHW3, float(batch.local_zoom_B[0]), batch.is_present_BC, (y1 - y0, x1 - x0))
        local_BHW = torch.full_like(global_BHW, IGNORE_INDEX)
        for local_HW, view_HW, (y0, x0, y1, x1) in zip(local_BHW, views_BHW, boxes, strict=True):
            local_HW[y0:y1, x0:x1] = view_HW
        return batch._replace(
            global_pseudo_BHW=global_BHW.masked_fill(outside_BHW, IGNORE_INDEX),
            local_pseudo_BHW=local_BHW.masked_fill(outside_BHW, IGNORE_INDEX),
        )

    def _masks(self, image_BHW3: Tensor, zoom: float, is_present_BC: Tensor, size: tuple[int, ...]) -> Tensor:
        """(B, *size): the best class among those present, 255 where none is."""
        h, w = View((0, 0, *image_BHW3.shape[1:3]), zoom).grid(self.dense.patch_px)
        seen_BHW3 = resize_images(image_BHW3, h * self.dense.patch_px, w * self.dense.patch_px)
        logits_BChw = self.dense.logits(self.dense.normalise(seen_BHW3), self.text_CD)
        logits_BCHW = F.interpolate(logits_BChw, size=size, mode="bilinear")
        best_BHW = logits_BCHW.masked_fill(~is_present_BC[:, :, None, None], -torch.inf).max(1).indices
        return best_BHW.masked_fill(~is_present_BC.any(1)[:, None, None], IGNORE_INDEX)


def resize_images(image_BHW3: Tensor, height: int, width: int) -> Tensor:
    """uint8 images resized as `labelgen.images.resize_image` does: bilinear, averaged over areas when shrinking."""
    image_B3HW = image_BHW3.permute(0, 3, 1, 2).float()
    H, W = image_B3HW.shape[2:]
    if height < H and width < W:
        rows, columns = _area_weights(height, H, image_BHW3.device), _area_weights(width, W, image_BHW3.device)
        resized_B3HW = rows @ image_B3HW @ columns.T
    else:
        resized_B3HW = F.interpolate(image_B3HW, (height, width), mode="bilinear")
    return resized_B3HW.round().byte().permute(0, 2, 3, 1)


def _area_weights(size: int, pixels: int, device: torch.device) -> Tensor:
    """(size, pixels): the share of each of `size` equal parts of a row that each of its pixels covers."""
    part, pixel = torch.arange(size, device=device)[:, None], torch.arange(pixels, device=device)
    length = pixels / size
    return ((pixel + 1).minimum((part + 1) * length) - pixel.maximum(part * length)).clamp(min=0) / length
