"""Consistency-aware region balancing: the losses of CARB (Eqs. 2-7), in pure torch.

Shapes: B batch, C classes, H W pixels.
"""

import math
from collections import deque
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
        predicted_BHW = logits_BCHW.masked_fill(absent_BC11, -math.inf).argmax(1)
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
    included. While a queue is empty the ratio has no value and w is the coefficient.
    """

    def __init__(self, window: int = 5, coefficient: float = 1.0) -> None:
        self.coefficient = coefficient
        self._consistent: deque[float] = deque(maxlen=window)
        self._inconsistent: deque[float] = deque(maxlen=window)

    def update(self, losses: RegionLosses) -> float:
        """Add this step's losses and return w; an empty region leaves its queue as it is. No gradient passes."""
        if losses.consistent_area > 0:
            self._consistent.append(losses.consistent.item())
        if losses.inconsistent_area > 0:
            self._inconsistent.append(losses.inconsistent.item())
        if not self._consistent or not self._inconsistent:
            return self.coefficient
        mean_c = sum(self._consistent) / len(self._consistent)
        mean_i = sum(self._inconsistent) / len(self._inconsistent)
        return self.coefficient * mean_c / mean_i if mean_i > 0 else self.coefficient

    def state_dict(self) -> dict[str, Any]:
        """The queues, to be saved with the model: without them a resumed run is another run."""
        return {"consistent": list(self._consistent), "inconsistent": list(self._inconsistent)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the queues back."""
        for queue, values in ((self._consistent, state["consistent"]), (self._inconsistent, state["inconsistent"])):
            queue.clear()
            queue.extend(values)


def _mean(loss_BHW: Tensor, region_BHW: Tensor, counted_BHW: Tensor) -> Tensor:
    return (loss_BHW * region_BHW).sum() / counted_BHW.sum().clamp(min=1)
