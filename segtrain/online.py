"""Pseudo-labels made while training: CLIP looks at the augmented crop and at a local view of it ("dual" views).

Shapes: B batch, C classes, H W pixels of the crop at the loss's stride, h w patches.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from labelgen.maskclip import DenseCLIP
from labelgen.samples import IGNORE_INDEX
from segtrain.data import TrainBatch


class OnlineLabels:
    """Fills in the pseudo-labels of a batch with what a frozen CLIP says of its pixels (CARB, "Dual").

    text_CD: unit text vectors of the classes.
    """

    def __init__(self, dense: DenseCLIP, text_CD: Tensor) -> None:
        self.dense, self.text_CD = dense, text_CD

    @torch.no_grad()
    def relabel(self, batch: TrainBatch) -> TrainBatch:
        """The batch with pseudo-labels made anew; 255 where there is no image, and outside the local view."""
        assert batch.clip_global_BHW3 is not None
        assert batch.clip_local_BHW3 is not None
        assert batch.local_box_B4 is not None
        outside_BHW = batch.global_pseudo_BHW == IGNORE_INDEX
        height, width = outside_BHW.shape[1:]
        global_BHW = self._masks(batch.clip_global_BHW3, batch.is_present_BC, height, width)
        boxes = batch.local_box_B4.tolist()
        y0, x0, y1, x1 = boxes[0]  # the boxes of a step have one size
        views_BHW = self._masks(batch.clip_local_BHW3, batch.is_present_BC, y1 - y0, x1 - x0)
        local_BHW = torch.full_like(global_BHW, IGNORE_INDEX)
        for local_HW, view_HW, (y0, x0, y1, x1) in zip(local_BHW, views_BHW, boxes, strict=True):
            local_HW[y0:y1, x0:x1] = view_HW
        return batch._replace(
            global_pseudo_BHW=global_BHW.masked_fill(outside_BHW, IGNORE_INDEX),
            local_pseudo_BHW=local_BHW.masked_fill(outside_BHW, IGNORE_INDEX),
        )

    def _masks(self, image_BHW3: Tensor, is_present_BC: Tensor, height: int, width: int) -> Tensor:
        """(B, height, width): the best class among those present, 255 where none is."""
        logits_BChw = self.dense.logits(self.dense.normalise(image_BHW3), self.text_CD)
        logits_BCHW = F.interpolate(logits_BChw, size=(height, width), mode="bilinear")
        best_BHW = logits_BCHW.masked_fill(~is_present_BC[:, :, None, None], -torch.inf).argmax(1)
        return best_BHW.masked_fill(~is_present_BC.any(1)[:, None, None], IGNORE_INDEX)
