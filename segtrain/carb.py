"""Consistency-aware region balancing: the losses of CARB (Eqs. 2-7), in pure torch.

Shapes: B batch, C classes, H W pixels.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from labelgen.samples import IGNORE_INDEX


class RegionLosses(NamedTuple):
    """Mean cross-entropy over the consistent and the inconsistent region (Eqs. 6, 7), 0 where one is empty.

    Areas are shares of the valid pixels, in 0..1. All are scalars.
    """

    consistent: Tensor
    inconsistent: Tensor
    consistent_area: Tensor
    inconsistent_area: Tensor


def warmup_loss(logits_BCHW: Tensor, pseudo_BHW: Tensor, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Mean cross-entropy over the valid pixels (Eqs. 2, 3): a scalar, 0 (not NaN) when there are none."""
    loss_BHW = F.cross_entropy(logits_BCHW, pseudo_BHW, ignore_index=ignore_index, reduction="none")
    valid_BHW = pseudo_BHW != ignore_index
    return _mean(loss_BHW, valid_BHW, valid_BHW)


def split_by_agreement(
    pseudo_BHW: Tensor, predicted_BHW: Tensor, ignore_index: int = IGNORE_INDEX
) -> tuple[Tensor, Tensor]:
    """Consistent and inconsistent pixels (Eqs. 4, 5): two bool maps that share no pixel and leave out ignored ones."""
    valid_BHW = pseudo_BHW != ignore_index
    agrees_BHW = pseudo_BHW == predicted_BHW
    return valid_BHW & agrees_BHW, valid_BHW & ~agrees_BHW


def region_losses(
    logits_BCHW: Tensor,
    pseudo_BHW: Tensor,
    is_present_BC: Tensor,
    ignore_index: int = IGNORE_INDEX,
    *,
    over_all: bool = False,
) -> RegionLosses:
    """Losses of both regions, where the student's prediction S is its best class among those in the image.

    over_all: divide by all valid pixels instead of by each region's own, so that a small region weighs less.
    """
    with torch.no_grad():
        absent_BC11 = ~is_present_BC.bool()[:, :, None, None]
        # max gives the same class as argmax, the first of equals, in a fifth of the time on a CPU
        predicted_BHW = logits_BCHW.masked_fill(absent_BC11, -math.inf).max(1).indices
        consistent_BHW, inconsistent_BHW = split_by_agreement(pseudo_BHW, predicted_BHW, ignore_index)
        valid = (consistent_BHW.sum() + inconsistent_BHW.sum()).clamp(min=1)
    loss_BHW = F.cross_entropy(logits_BCHW, pseudo_BHW, ignore_index=ignore_index, reduction="none")
    counted_c, counted_i = (consistent_BHW | inconsistent_BHW,) * 2 if over_all else (consistent_BHW, inconsistent_BHW)
    return RegionLosses(
        consistent=_mean(loss_BHW, consistent_BHW, counted_c),
        inconsistent=_mean(loss_BHW, inconsistent_BHW, counted_i),
        consistent_area=consistent_BHW.sum() / valid,
        inconsistent_area=inconsistent_BHW.sum() / valid,
    )


class RegionBalancer:
    """The weight w of the inconsistent region: mean of its recent losses against the consistent region's.

    w = coefficient * mean(queue of L_c) / mean(queue of L_i), both queues of `window` steps, the current step
    included. While a queue is empty the ratio has no value and w is the coefficient. Queues and w stay on the device
    of the losses, so that nobody waits for it.
    """

    def __init__(self, window: int = 5, coefficient: float = 1.0) -> None:
        self.coefficient = coefficient
        self._queues_2W = torch.full((2, window), math.nan)  # of L_c and L_i, the newest last; NaN where not yet full

    @torch.no_grad()
    def update(self, losses: RegionLosses) -> Tensor:
        """Add this step's losses, return w, a scalar; an empty region leaves its queue as it is. No gradient passes."""
        newest_2 = torch.stack([losses.consistent, losses.inconsistent])
        area_2 = torch.stack([losses.consistent_area, losses.inconsistent_area])
        queues_2W = self._queues_2W.to(newest_2)
        longer_2W = torch.cat([queues_2W[:, 1:], newest_2[:, None]], 1)
        self._queues_2W = torch.where(area_2[:, None] > 0, longer_2W, queues_2W)
        mean_c, mean_i = self._queues_2W.nanmean(1)
        return self.coefficient * torch.where(~mean_c.isnan() & (mean_i > 0), mean_c / mean_i, 1.0)

    def state_dict(self) -> dict[str, Any]:
        """The queues, to be saved with the model: without them a resumed run is another run."""
        consistent, inconsistent = (queue[~queue.isnan()].tolist() for queue in self._queues_2W)
        return {"consistent": consistent, "inconsistent": inconsistent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the queues back."""
        window = self._queues_2W.shape[1]
        for queue_W, name in zip(self._queues_2W, ("consistent", "inconsistent"), strict=True):
            values = torch.tensor([math.nan] * window + state[name])
            queue_W.copy_(values[-window:])


def _mean(loss_BHW: Tensor, region_BHW: Tensor, counted_BHW: Tensor) -> Tensor:
    return (loss_BHW * region_BHW).sum() / counted_BHW.sum().clamp(min=1)
