"""What a step minimises: plain cross-entropy during the warm-up, then CARB.

Shapes: B batch, C classes, H W pixels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segtrain.batch import TrainBatch
from segtrain.carb import ClassBalancer, ClassLosses, RegionBalancer, RegionLosses, Regions, find_regions, warmup_loss
from segtrain.config import TrainConfig


class StepLoss(NamedTuple):
    """The loss of a step; in the CARB stage also the global view's regions, w, and the weights of single classes."""

    loss: Tensor
    regions: RegionLosses | None = None
    weight: Tensor | None = None
    class_weights_C: Tensor | None = None


class Objective:
    """The losses that the settings ask for, and the queues of losses that their weights look back on.

    over_processes: the mean of a tensor over all processes, so that the queues are the same on each. Logits are
    (B, C, H, W), of the size of the pseudo-labels; local ones may be those of the global view.
    """

    def __init__(self, config: TrainConfig, over_processes: Callable[[Tensor], Tensor]) -> None:
        self.config, self._over_processes = config, over_processes
        self.uses_local = config.views in ("local", "dual")
        self.balancer = RegionBalancer(config.queue, config.coefficient)
        self.class_balancer: ClassBalancer | None = None
        if config.balance in ("class-wise", "gated"):
            self.class_balancer = ClassBalancer(config.queue, config.gate if config.balance == "gated" else None)

    def warmup(self, batch: TrainBatch, logits_BCHW: Tensor, local_BCHW: Tensor) -> StepLoss:
        """Plain cross-entropy."""
        loss = warmup_loss(logits_BCHW, batch.global_pseudo_BHW)
        if self.uses_local:
            loss = loss + warmup_loss(local_BCHW, batch.local_pseudo_BHW)
        return StepLoss(loss)

    def carb(
        self, batch: TrainBatch, logits_BCHW: Tensor, local_BCHW: Tensor, judge_BCHW: Tensor | None = None
    ) -> StepLoss:
        """CARB's. judge_BCHW: logits that predict S in the student's place (a mean teacher's)."""
        over_all = self.config.region_mean == "all"
        g = find_regions(logits_BCHW, batch.global_pseudo_BHW, batch.is_present_BC, judge_BCHW=judge_BCHW)
        means = g.means(over_all=over_all)
        # measured on the global view, used for both (CARB, "Adaptive Region Balancing")
        weight, class_weights_C = self._weights(g, means, logits_BCHW.shape[1])
        applied = weight if class_weights_C is None else class_weights_C

        def balanced(regions: Regions, logits_BCHW: Tensor, judge_BCHW: Tensor | None) -> Tensor:
            loss = regions.loss(applied, over_all=over_all)
            if not self.config.correction or self.class_balancer is None or self.class_balancer.gate is None:
                return loss
            return loss + regions.correction_loss(
                logits_BCHW,
                batch.is_present_BC,
                self.class_balancer.learned_C == 1,
                self.config.correction,
                judge_BCHW=judge_BCHW,
                over_all=over_all,
            )

        loss = balanced(g, logits_BCHW, judge_BCHW)
        if self.uses_local:
            judge_BCHW = judge_BCHW if batch.local_image_B3HW is None else None
            l = find_regions(local_BCHW, batch.local_pseudo_BHW, batch.is_present_BC, judge_BCHW=judge_BCHW)  # noqa: E741
            loss = loss + balanced(l, local_BCHW, judge_BCHW)
        return StepLoss(loss, RegionLosses(*(value.detach() for value in means)), weight, class_weights_C)

    def state_dict(self) -> dict[str, Any]:
        """The queues."""
        of_classes = None if self.class_balancer is None else self.class_balancer.state_dict()
        return {"balancer": self.balancer.state_dict(), "class_balancer": of_classes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with these queues."""
        self.balancer.load_state_dict(state["balancer"])
        if self.class_balancer is not None:
            self.class_balancer.load_state_dict(state["class_balancer"])

    def _weights(self, regions: Regions, means: RegionLosses, classes: int) -> tuple[Tensor, Tensor | None]:
        """The weight w of the inconsistent region, and those of its classes where each has its own."""
        w = self.balancer.update(RegionLosses(*self._over_processes(torch.stack(means).detach())))
        if self.config.fixed_weight is not None:
            w = torch.full_like(w, self.config.fixed_weight)
        w = w.clamp(min=self.config.weight_floor)
        if self.class_balancer is None:
            return w, None
        sums_4C = torch.stack(regions.by_class(classes))
        weights_C = self.class_balancer.update(ClassLosses(*self._over_processes(sums_4C)), w)
        return w, weights_C.clamp(min=self.config.weight_floor)
