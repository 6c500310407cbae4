"""From scored masks to score maps: the rules of engines that answer with masks.

Shapes: n masks at a time, C classes, H W pixels, h w patches.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor


def paint(parts: Iterable[tuple[Tensor, Tensor]], classes: int, grid: tuple[int, int], mask_threshold: float) -> Tensor:
    """(C, h, w) scores in 0..1: for each class the best of its masks, score x mask probability, mean over a patch.

    parts: probabilities (n, H, W) of some masks, and how much each mask is of each class, (n, C), 0 = not at all. The
    order of masks and parts changes nothing. NaN for classes without a mask, and for every class where no mask reaches
    mask_threshold.
    """
    best_Chw = torch.zeros(classes, *grid)
    covered_hw, is_named_C = torch.zeros(grid), torch.zeros(classes, dtype=torch.bool)
    for probability_nHW, score_nC in parts:
        probability_nhw = F.adaptive_avg_pool2d(probability_nHW.float()[None], grid)[0].cpu()
        covered_hw = torch.maximum(covered_hw, probability_nhw.amax(0))
        is_named_C |= (score_nC > 0).any(0)
        for probability_hw, score_C in zip(probability_nhw, score_nC, strict=True):
            for c in score_C.nonzero()[:, 0]:
                best_Chw[c] = torch.maximum(best_Chw[c], score_C[c] * probability_hw)
    is_covered_hw = (covered_hw >= mask_threshold) & (covered_hw > 0)
    return best_Chw.where(is_named_C[:, None, None] & is_covered_hw, torch.nan)
