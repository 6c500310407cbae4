"""What the page is sent of an image: a JPEG of it, and grey PNGs as large as that JPEG.

Shapes: C classes, H W pixels of the image, h w of the picture.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.confusion import resize_classes
from labelgen.images import read_image, resize_image

LONG_SIDE_PX = 1600
JPEG_QUALITY = 88
TEMPERATURE = 100.0  # CLIP's


def picture_size(height: int, width: int) -> tuple[int, int]:
    """(h, w) of the picture of an image."""
    scale = min(1.0, LONG_SIDE_PX / max(height, width))
    return max(1, round(scale * height)), max(1, round(scale * width))


def photo(path: str) -> bytes:
    """The image as a JPEG. Raises FileNotFoundError, and InputError for a broken file."""
    image_HW3 = read_image(path)
    small_hw3 = resize_image(image_HW3, *picture_size(*image_HW3.shape[:2]))
    return _encoded(".jpg", small_hw3[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


def mask_png(classes_HW: NDArray[np.uint8]) -> bytes:
    """Class numbers, 255 = ignored; each pixel of the picture has the class at its centre."""
    return _encoded(".png", resize_classes(classes_HW, picture_size(*classes_HW.shape)))


def share_png(share_HW: NDArray[np.float32]) -> bytes:
    """Shares in 0..1 as 0..255; NaN, where nothing is said, as 0."""
    grey_HW = np.rint(255 * np.nan_to_num(share_HW)).astype(np.uint8)
    small_hw = cv2.resize(grey_HW, picture_size(*grey_HW.shape)[::-1], interpolation=cv2.INTER_AREA)
    return _encoded(".png", small_hw)


def probabilities(logits_CHW: NDArray[np.float32]) -> NDArray[np.float32]:
    """(C, H, W) in 0..1, softmax over the classes; 0 for a class of which nothing is said (NaN)."""
    scaled = np.where(np.isnan(logits_CHW), -np.inf, TEMPERATURE * logits_CHW)
    best_HW = scaled.max(0)
    powers = np.exp(scaled - np.where(np.isneginf(best_HW), 0, best_HW))
    return np.asarray(powers / np.maximum(powers.sum(0), np.finfo(np.float32).tiny), np.float32)


def _encoded(suffix: str, pixels: NDArray[Any], options: list[int] | None = None) -> bytes:
    done, data = cv2.imencode(suffix, pixels, options or [])
    assert done
    return data.tobytes()
