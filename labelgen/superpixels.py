"""Superpixels: small regions of like pixels.

Shapes: H W pixels.
"""

import numpy as np
from numpy.typing import NDArray

COMPACTNESS = 10.0  # high = square, low = along colours


def find_superpixels(image_HW3: NDArray[np.uint8], count: int, compactness: float = COMPACTNESS) -> NDArray[np.int32]:
    """(H, W) int32: of each pixel of uint8 RGB the number of its superpixel, 0..S-1, about `count` of them, or fewer.

    SLIC (Achanta et al., 2012), by scikit-image.
    """
    from skimage.segmentation import slic

    found_HW = slic(image_HW3, n_segments=count, compactness=compactness, start_label=0)
    _, number_P = np.unique(found_HW, return_inverse=True)  # without gaps
    return number_P.reshape(found_HW.shape).astype(np.int32)
