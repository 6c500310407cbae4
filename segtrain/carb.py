"""Consistency-aware region balancing: the losses of CARB (Eqs. 2-7) and other weights for them, in pure torch.

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


class ClassLosses(NamedTuple):
    """Sums of cross-entropy and numbers of pixels in both regions, by pseudo-label class: (C,) each."""

    consistent_loss_C: Tensor
    consistent_pixels_C: Tensor
    inconsistent_loss_C: Tensor
    inconsistent_pixels_C: Tensor


class Regions(NamedTuple):
    """The pixels of a view: cross-entropy, pseudo-label, and the region that each is in; (B, H, W) each."""

    loss_BHW: Tensor
    pseudo_BHW: Tensor
    consistent_BHW: Tensor
    inconsistent_BHW: Tensor

    def means(self, *, over_all: bool = False) -> RegionLosses:
        """Losses and areas of both regions. over_all: divide by all valid pixels instead of by each region's own."""
        counted_c, counted_i = self._counted(over_all)
        valid = (self.consistent_BHW.sum() + self.inconsistent_BHW.sum()).clamp(min=1)
        return RegionLosses(
            consistent=_mean(self.loss_BHW, self.consistent_BHW, counted_c),
            inconsistent=_mean(self.loss_BHW, self.inconsistent_BHW, counted_i),
            consistent_area=self.consistent_BHW.sum() / valid,
            inconsistent_area=self.inconsistent_BHW.sum() / valid,
        )

    @torch.no_grad()
    def by_class(self, classes: int) -> ClassLosses:
        """Both regions, taken apart by pseudo-label class."""
        class_N = self.pseudo_BHW.clamp(max=classes).flatten()  # ignored pixels, in no region, fall behind the last

        def sums(values_BHW: Tensor) -> Tensor:
            empty = values_BHW.new_zeros(classes + 1, dtype=self.loss_BHW.dtype)
            return empty.index_add(0, class_N, values_BHW.flatten().to(empty.dtype))[:classes]

        maps = (self.consistent_BHW, self.inconsistent_BHW)
        return ClassLosses(*(sums(values) for region in maps for values in (self.loss_BHW * region, region)))

    def loss(self, weight: Tensor | float, *, over_all: bool = False) -> Tensor:
        """L_c + w L_i, a scalar. weight: one w, or (C,) one for each pseudo-label class: the mean of w_k x CE then."""
        counted_c, counted_i = self._counted(over_all)
        balanced_BHW = self.loss_BHW
        if isinstance(weight, Tensor) and weight.ndim:
            balanced_BHW = self.loss_BHW * weight[self.pseudo_BHW.clamp(max=len(weight) - 1)]
            weight = 1.0
        consistent = _mean(self.loss_BHW, self.consistent_BHW, counted_c)
        return consistent + weight * _mean(balanced_BHW, self.inconsistent_BHW, counted_i)

    def correction_loss(
        self,
        logits_BCHW: Tensor,
        is_present_BC: Tensor,
        is_learned_C: Tensor,
        confidence: float,
        *,
        judge_BCHW: Tensor | None = None,
        over_all: bool = False,
    ) -> Tensor:
        """Cross-entropy towards the prediction S itself where it is to be believed, a scalar to be added to `loss`.

        S is believed on inconsistent pixels where its softmax over the classes in the image exceeds `confidence` and
        both it and the pseudo-label are of learned classes: the student knows the one, sees the other, and is sure. The
        mean is over the inconsistent region. Targets of one's own date from Reed et al. (2015); that each class begins
        once it has been learned, from ADELE (Liu et al., CVPR 2022), which replaces labels. Not in CARB.

        is_learned_C: bool. judge_BCHW: as in `find_regions`.
        """
        with torch.no_grad():
            absent_BC11 = ~is_present_BC.bool()[:, :, None, None]
            judge_BCHW = logits_BCHW if judge_BCHW is None else judge_BCHW
            sure_BHW, predicted_BHW = judge_BCHW.masked_fill(absent_BC11, -math.inf).softmax(1).max(1)
            doubted_BHW = self.inconsistent_BHW & is_learned_C[self.pseudo_BHW.clamp(max=len(is_learned_C) - 1)]
            believed_BHW = doubted_BHW & is_learned_C[predicted_BHW] & (sure_BHW > confidence)
        loss_BHW = F.cross_entropy(logits_BCHW, predicted_BHW, reduction="none")
        return _mean(loss_BHW, believed_BHW, self._counted(over_all)[1])

    def _counted(self, over_all: bool) -> tuple[Tensor, Tensor]:
        both_BHW = self.consistent_BHW | self.inconsistent_BHW
        return (both_BHW, both_BHW) if over_all else (self.consistent_BHW, self.inconsistent_BHW)


def find_regions(
    logits_BCHW: Tensor,
    pseudo_BHW: Tensor,
    is_present_BC: Tensor,
    ignore_index: int = IGNORE_INDEX,
    *,
    judge_BCHW: Tensor | None = None,
) -> Regions:
    """Both regions, where the prediction S is the best class of the logits among those in the image (Eqs. 4, 5).

    judge_BCHW: whose prediction S is, if not the student's own: a mean teacher's.
    """
    with torch.no_grad():
        absent_BC11 = ~is_present_BC.bool()[:, :, None, None]
        judge_BCHW = logits_BCHW if judge_BCHW is None else judge_BCHW
        # max gives the same class as argmax, the first of equals, in a fifth of the time on a CPU
        predicted_BHW = judge_BCHW.masked_fill(absent_BC11, -math.inf).max(1).indices
        consistent_BHW, inconsistent_BHW = split_by_agreement(pseudo_BHW, predicted_BHW, ignore_index)
    loss_BHW = F.cross_entropy(logits_BCHW, pseudo_BHW, ignore_index=ignore_index, reduction="none")
    return Regions(loss_BHW, pseudo_BHW, consistent_BHW, inconsistent_BHW)


def region_losses(
    logits_BCHW: Tensor,
    pseudo_BHW: Tensor,
    is_present_BC: Tensor,
    ignore_index: int = IGNORE_INDEX,
    *,
    over_all: bool = False,
) -> RegionLosses:
    """Losses of both regions (Eqs. 6, 7): `find_regions`, and their means."""
    return find_regions(logits_BCHW, pseudo_BHW, is_present_BC, ignore_index).means(over_all=over_all)


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


class ClassBalancer:
    """A weight of the inconsistent region for each pseudo-label class k, from the same ratio within the class.

    r_k = min(1, mean L of its consistent pixels / mean L of its inconsistent pixels) over a queue of `window` steps,
    and 1 while it has no consistent pixel: a class that the student has not learned learns from all its pixels.
    Class-wise (gate None): w_k = r_k. Gated: share_k = consistent share of the pixels of k in the queue,
    t_k = clip((share_k - low) / (high - low), 0, 1), w_k = t_k w + (1 - t_k) r_k, with CARB's w of all classes: the
    paper's strength where the student has learned the class, the class's own where it has not. Under one w for all
    classes, what falls behind has nothing to learn from (not in the paper).
    """

    def __init__(self, window: int = 5, gate: tuple[float, float] | None = None) -> None:
        self.window, self.gate = window, gate
        self._queue_W4C = torch.zeros(0)  # of ClassLosses, the newest last; grows to the window
        self.learned_C = torch.zeros(0)  # t_k of the last update, where there is a gate

    @torch.no_grad()
    def update(self, losses: ClassLosses, weight: Tensor | float) -> Tensor:
        """Add this step's losses, return (C,) weights. weight: w of all classes. No gradient passes."""
        newest_14C = torch.stack(losses)[None]
        before = self._queue_W4C.to(newest_14C)
        self._queue_W4C = torch.cat([before, newest_14C])[-self.window :] if len(before) else newest_14C
        loss_c, pixels_c, loss_i, pixels_i = self._queue_W4C.sum(0)
        mean_c, mean_i = loss_c / pixels_c.clamp(min=1), loss_i / pixels_i.clamp(min=1)
        is_known = (pixels_c > 0) & (mean_i > 0)
        ratio_C: Tensor = torch.where(is_known, mean_c / mean_i, 1.0).clamp(max=1.0)
        if self.gate is None:
            return ratio_C
        low, high = self.gate
        share_C = pixels_c / (pixels_c + pixels_i).clamp(min=1)
        self.learned_C = ((share_C - low) / (high - low)).clamp(0, 1)
        weights_C: Tensor = self.learned_C * weight + (1 - self.learned_C) * ratio_C
        return weights_C

    def state_dict(self) -> dict[str, Any]:
        """The queue, as RegionBalancer's."""
        return {"queue": self._queue_W4C.cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the queue back."""
        self._queue_W4C = state["queue"].clone()


def _mean(loss_BHW: Tensor, region_BHW: Tensor, counted_BHW: Tensor) -> Tensor:
    return (loss_BHW * region_BHW).sum() / counted_BHW.sum().clamp(min=1)
