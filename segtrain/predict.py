"""A student's class map of a whole image, in the image's own size."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from labelgen.images import IMAGENET_MEAN, IMAGENET_STD, normalise
from segtrain.model import Student


@torch.inference_mode()
def predict(student: Student, image_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """classes_HW: uint8 train ids. One scale, no flip, no label filter (CARB's test setting)."""
    device = next(student.parameters()).device
    pixels = torch.from_numpy(normalise(image_HW3, IMAGENET_MEAN, IMAGENET_STD))[None].to(device)
    logits = F.interpolate(student(pixels).float(), size=image_HW3.shape[:2], mode="bilinear")
    return logits.argmax(1)[0].to(torch.uint8).cpu().numpy()
