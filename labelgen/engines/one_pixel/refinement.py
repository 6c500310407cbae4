"""From scores to labels: where each class may be, and whether an object or a scene wins (CLR's location, Eq. 5).

Shapes: S superpixels, C classes, H W pixels.
"""

import numpy as np
from numpy.typing import NDArray

UNLABELLED = -1


def bands_of(map_HW: NDArray[np.integer], bands: int) -> NDArray[np.int64]:
    """(S,): in which of so many equal bands, from the top, the middle of each superpixel lies."""
    H, W = map_HW.shape
    rows = np.repeat(np.arange(H) + 0.5, W)
    middle_S = np.bincount(map_HW.ravel(), rows) / np.bincount(map_HW.ravel())
    return np.asarray(np.minimum(middle_S / H * bands, bands - 1), np.int64)


def choose(
    scores_SC: NDArray[np.float32],
    is_allowed_SC: NDArray[np.bool_],
    is_object_C: NDArray[np.bool_],
    threshold: float,
    object_margin: float = 0.0,
) -> NDArray[np.int64]:
    """(S,): the label of each superpixel, UNLABELLED where no class that is allowed there reaches the threshold.

    The best object wins where it reaches the threshold, and `object_margin` times the best scene's score; else the best
    scene. A margin of 0 is Eq. 5. scores_SC: NaN for classes without any.
    """
    usable_SC = np.where(is_allowed_SC & (scores_SC >= threshold), scores_SC, -np.inf)
    objects_SC, scenes_SC = (np.where(kind_C, usable_SC, -np.inf) for kind_C in (is_object_C, ~is_object_C))
    object_S, scene_S = objects_SC.max(1), scenes_SC.max(1)
    needed_S = object_margin * np.where(np.isfinite(scene_S), scene_S, 0)
    is_object_S = np.isfinite(object_S) & (object_S >= needed_S)
    label_S = np.where(is_object_S, objects_SC.argmax(1), scenes_SC.argmax(1))
    return np.where(np.isfinite(object_S) | np.isfinite(scene_S), label_S, UNLABELLED)
