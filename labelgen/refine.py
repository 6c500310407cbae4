"""MaskCLIP's two optional refinements of dense logits (Zhou et al., ECCV 2022, "key smoothing" and "prompt denoising").

Shapes: B batch, C classes, h w patches, P = h * w, K width of the keys.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

DROPPED = -1.0  # the lowest cosine there is


def unlikely_classes(logits_BChw: Tensor, temperature: float, threshold: float) -> Tensor:
    """Classes (B, C) whose best confidence in the whole view is below `threshold` (prompt denoising).

    Confidence: softmax over the classes of temperature * cosine, as CLIP was trained.
    """
    return (temperature * logits_BChw).softmax(1).amax((2, 3)) < threshold


def drop_classes(logits_BChw: Tensor, is_dropped_BC: Tensor) -> Tensor:
    """Logits whose dropped classes lose everywhere."""
    return logits_BChw.masked_fill(is_dropped_BC[:, :, None, None], DROPPED)


def smooth_by_keys(logits_BChw: Tensor, keys_BPK: Tensor, temperature: float, threshold: float) -> Tensor:
    """Patches whose best confidence is below `threshold` take the mean of all patches, weighted by key similarity.

    Weights are the cosines of the last block's keys, negative ones cut to 0, and sum to 1: logits stay cosines.
    """
    confidence_BP = (temperature * logits_BChw).softmax(1).amax(1).flatten(1)
    keys_BPK = F.normalize(keys_BPK.float(), dim=-1)
    weights_BPP = (keys_BPK @ keys_BPK.transpose(1, 2)).clamp(min=0)
    weights_BPP = weights_BPP / weights_BPP.sum(-1, keepdim=True)
    smoothed_BCP = logits_BChw.flatten(2) @ weights_BPP.transpose(1, 2)
    is_unsure_B1hw = (confidence_BP < threshold).view(-1, 1, *logits_BChw.shape[2:])
    return torch.where(is_unsure_B1hw, smoothed_BCP.view_as(logits_BChw), logits_BChw)
