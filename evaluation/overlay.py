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


def blend(image_HW3: Picture, colours_HW3: Picture, opacity: float) -> Picture:
    """Colours over an image; opacity 0 shows the image alone, 1 the colours alone."""
    return np.asarray((1 - opacity) * image_HW3 + opacity * colours_HW3, np.uint8)


def legend(names: Sequence[str], palette: Sequence[tuple[int, int, int]], width: int) -> Picture:
    """A strip of that width that names the colours, in as many lines as it takes."""
    x, line = 4, 0
    places = []
    for name in names:
        (text_width, _), _ = cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)
        needed = 18 + text_width + 10
        if x + needed > width and x > 4:
            x, line = 4, line + 1
        places.append((x, line * CAPTION_HEIGHT))
        x += needed
    strip = np.full(((line + 1) * CAPTION_HEIGHT, width, 3), 255, np.uint8)
    for name, colour, (left, top) in zip(names, palette, places, strict=True):
        strip[top + 5 : top + 17, left : left + 12] = colour
        where = (left + 18, top + 15)
        cv2.putText(strip, name, where, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (20, 20, 20), 1, cv2.LINE_AA)
    return strip


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
