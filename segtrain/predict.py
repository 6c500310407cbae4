"""A student's class map of a whole image, in the image's own size."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from transformers import PreTrainedModel

from labelgen.images import IMAGENET_MEAN, IMAGENET_STD, normalise


@torch.inference_mode()
def predict(student: PreTrainedModel, image_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """classes_HW: uint8 train ids. One scale, no flip, no label filter (CARB's test setting)."""
    device = next(student.parameters()).device
    pixels = torch.from_numpy(normalise(image_HW3, IMAGENET_MEAN, IMAGENET_STD))[None].to(device)
    logits = F.interpolate(student(pixel_values=pixels).logits.float(), size=image_HW3.shape[:2], mode="bilinear")
    return logits.argmax(1)[0].to(torch.uint8).cpu().numpy()
