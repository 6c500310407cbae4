"""Pictures for people: colour maps, agreement maps, panels with captions.

Images are (H, W, 3) uint8 RGB; class maps are (H, W) uint8 train ids with 255 = ignore.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

IGNORED = (30, 30, 30)
AGREED, DISAGREED = (60, 160, 90), (230, 90, 40)
GAP = 4
CAPTION_HEIGHT = 22


def colourise(classes_HW: NDArray[np.uint8], palette: Sequence[tuple[int, int, int]]) -> Picture:
    """Each class in its palette colour, everything else dark grey."""
    table = np.full((256, 3), IGNORED, np.uint8)
    table[: len(palette)] = palette
    return table[classes_HW]


def agreement(pseudo_HW: NDArray[np.uint8], predicted_HW: NDArray[np.uint8], ignore_index: int = 255) -> Picture:
    """Green where pseudo-label and prediction agree (CARB, Eq. 4), orange where they differ, dark where ignored."""
    picture = np.where((pseudo_HW == predicted_HW)[..., None], AGREED, DISAGREED).astype(np.uint8)
    picture[pseudo_HW == ignore_index] = IGNORED
    return picture


def panel(rows: Sequence[Sequence[Picture]], captions: Sequence[str]) -> Picture:
    """Pictures in a grid, with a caption over each column; all are shown in the size of the first."""
    height, width = rows[0][0].shape[:2]
    columns = len(captions)
    sheet = np.full((CAPTION_HEIGHT + len(rows) * (height + GAP), columns * (width + GAP) - GAP, 3), 255, np.uint8)
    scale = min(0.5, 0.9 * width / (10 * max(map(len, captions))))
    for k, caption in enumerate(captions):
        where = (k * (width + GAP) + 3, CAPTION_HEIGHT - 7)
        cv2.putText(sheet, caption, where, cv2.FONT_HERSHEY_SIMPLEX, scale, (20, 20, 20), 1, cv2.LINE_AA)
    for r, row in enumerate(rows):
        top = CAPTION_HEIGHT + r * (height + GAP)
        for k, picture in enumerate(row):
            if picture.shape[:2] != (height, width):
                picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.uint8)
            sheet[top : top + height, k * (width + GAP) : k * (width + GAP) + width] = picture
    return sheet
