"""A student's class map of an image, in the image's own size: whole or in windows, at several scales, flipped.

Shapes: C classes, H W pixels.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from labelgen.images import IMAGENET_MEAN, IMAGENET_STD, normalise, resize_image
from labelgen.samples import InputError


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """How an image is looked at; the default is CARB's test setting."""

    scales: tuple[float, ...] = (1.0,)  # the image is resized by each; probabilities are averaged
    flip: bool = False  # mirrored as well
    window: tuple[int, int] | None = None  # height and width of a sliding window; None: the whole image at once
    overlap: float = 0.33  # share of a window that its neighbour covers as well

    def __post_init__(self) -> None:
        if not self.scales or not all(0 < scale < math.inf for scale in self.scales):
            raise InputError(f"scales must be one or more positive factors, got {self.scales}")
        if self.window is not None and min(self.window) < 32:
            raise InputError(f"a window must have at least 32 x 32 pixels, got {self.window[0]} x {self.window[1]}")
        if not 0 <= self.overlap < 1:
            raise InputError(f"overlap must be in [0, 1), got {self.overlap}")


def predict(
    student: PreTrainedModel,
    image_HW3: NDArray[np.uint8],
    config: PredictConfig | None = None,
    is_present_C: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """classes_HW: uint8 train ids. is_present_C: the classes that may be predicted; default all."""
    scores_CHW = probabilities(student, image_HW3, config)
    if is_present_C is not None:
        is_absent_C = ~torch.from_numpy(is_present_C).to(scores_CHW.device)
        scores_CHW = scores_CHW.masked_fill(is_absent_C[:, None, None], -1)
    return scores_CHW.max(0).indices.to(torch.uint8).cpu().numpy()


@torch.inference_mode()
def probabilities(
    student: PreTrainedModel, image_HW3: NDArray[np.uint8], config: PredictConfig | None = None
) -> Tensor:
    """(C, H, W) in 0..1, the mean over scales, flips and windows."""
    config = config or PredictConfig()
    height, width = image_HW3.shape[:2]
    total: Tensor | None = None
    for scale in config.scales:
        resized_HW3 = image_HW3
        if scale != 1.0:  # a student strides by 8: anything smaller than a few cells has no features
            resized_HW3 = resize_image(image_HW3, max(32, round(height * scale)), max(32, round(width * scale)))
        for flip in (False, True)[: 1 + config.flip]:
            logits_CHW = _logits(student, resized_HW3[:, ::-1] if flip else resized_HW3, config)
            if flip:
                logits_CHW = logits_CHW.flip(2)
            logits_CHW = F.interpolate(logits_CHW[None], size=(height, width), mode="bilinear")[0]
            total = logits_CHW.softmax(0) if total is None else total + logits_CHW.softmax(0)
    assert total is not None
    return total / (len(config.scales) * (1 + config.flip))


def _logits(student: PreTrainedModel, image_HW3: NDArray[np.uint8], config: PredictConfig) -> Tensor:
    """(C, H, W) float32 logits of an image in its own size; windows are averaged where they overlap."""
    device = next(student.parameters()).device
    pixels_3HW = torch.from_numpy(normalise(image_HW3, IMAGENET_MEAN, IMAGENET_STD)).to(device)
    height, width = image_HW3.shape[:2]
    total, count = None, torch.zeros(height, width, device=device)
    for rows, columns in _windows(height, width, config):
        window_3HW = pixels_3HW[:, rows, columns]
        logits = student(pixel_values=window_3HW[None]).logits.float()
        logits_CHW = F.interpolate(logits, size=window_3HW.shape[1:], mode="bilinear")[0]
        if total is None:
            total = torch.zeros(logits_CHW.shape[0], height, width, device=device)
        total[:, rows, columns] += logits_CHW
        count[rows, columns] += 1
    assert total is not None
    return total / count


def _windows(height: int, width: int, config: PredictConfig) -> Iterator[tuple[slice, slice]]:
    window_h, window_w = config.window or (height, width)
    for rows in _places(height, window_h, config.overlap):
        for columns in _places(width, window_w, config.overlap):
            yield rows, columns


def _places(length: int, window: int, overlap: float) -> list[slice]:
    """Evenly spread windows that cover a side; a window larger than the side is cut to it."""
    window = min(window, length)
    count = 1 + int(np.ceil((length - window) / (window * (1 - overlap))))
    return [slice(start, start + window) for start in np.linspace(0, length - window, count).astype(int).tolist()]
