"""A picture and its exact label map, painted together.

Shapes: H W pixels, h w the sprite's own pixels. Colours are RGB uint8 in 0..255 throughout.
"""

from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Mask = NDArray[np.uint8]
Colour = tuple[float, float, float]
Quad = list[tuple[float, float]]

# Painting is many tiny calls: threads inside OpenCV only get in each other's way.
cv2.setNumThreads(1)


class ToyClass(IntEnum):
    """The 11 CamVid classes, in CamVid's order, so that toy labels read like CamVid labels."""

    SKY = 0
    BUILDING = 1
    POLE = 2
    ROAD = 3
    SIDEWALK = 4
    TREE = 5
    SIGN = 6
    FENCE = 7
    CAR = 8
    PEDESTRIAN = 9
    BICYCLIST = 10


@dataclass(frozen=True)
class Sprite:
    """An object cut out of its background.

    rgb_hw3: uint8 RGB. alpha_hw: uint8, how opaque each pixel is when painted.
    hull_hw: uint8, what an annotator would outline (a fence or a wheel includes its gaps).
    """

    rgb_hw3: Image
    alpha_hw: Mask
    hull_hw: Mask

    def mirrored(self) -> "Sprite":
        """The same sprite, left and right swapped."""
        return Sprite(*(np.ascontiguousarray(a[:, ::-1]) for a in (self.rgb_hw3, self.alpha_hw, self.hull_hw)))


class Canvas:
    """image_HW3 (uint8 RGB) and label_HW (uint8 class ids) that are always painted together."""

    def __init__(self, height: int, width: int, class_id: int = ToyClass.SKY) -> None:
        self.image_HW3: Image = np.zeros((height, width, 3), np.uint8)
        self.label_HW: Mask = np.full((height, width), class_id, np.uint8)

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return int(self.label_HW.shape[0])

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return int(self.label_HW.shape[1])

    def area(self, class_id: int) -> float:
        """Share of the picture, 0..1, that shows `class_id`."""
        return float((self.label_HW == class_id).mean())

    def fill_rows(self, texture_hw3: Image, class_id: int, top: int, bottom: int) -> None:
        """Paint rows top..bottom (exclusive) with the upper left part of a texture at least as large."""
        self.image_HW3[top:bottom] = texture_hw3[: bottom - top, : self.width]
        self.label_HW[top:bottom] = class_id

    def fill_polygon(self, texture_HW3: Image, class_id: int, polygon: Quad, below: int) -> None:
        """Paint a texture of the canvas's size inside a polygon, leaving the rows above `below` alone."""
        inside = np.zeros(self.label_HW.shape, np.uint8)
        cv2.fillPoly(inside, [np.array(polygon, np.int32)], 1)
        inside[:below] = 0
        self.image_HW3[inside > 0] = texture_HW3[inside > 0]
        self.label_HW[inside > 0] = class_id

    def paste(
        self,
        sprite: Sprite,
        class_id: int,
        centre_x: float,
        bottom_y: float,
        height: float,
        width: float | None = None,
        shade: float = 1.0,
    ) -> None:
        """Paint a sprite standing at (centre_x, bottom_y), scaled to `height` pixels (and `width`, if given).

        Parts outside the canvas are cut; a sprite under 2 pixels high is left out.
        """
        sprite_height, sprite_width = sprite.alpha_hw.shape
        width = width if width is not None else height * sprite_width / sprite_height
        rows, columns = round(height), max(1, round(width))
        if rows < 2:
            return
        left, top = round(centre_x - width / 2), round(bottom_y - height)
        x0, y0 = max(0, left), max(0, top)
        x1, y1 = min(self.width, left + columns), min(self.height, top + rows)
        if x1 <= x0 or y1 <= y0:
            return
        interpolation = cv2.INTER_AREA if rows < sprite_height else cv2.INTER_LINEAR
        source = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))

        def scaled(array: NDArray[np.uint8]) -> NDArray[np.float32]:
            return cv2.resize(array, (columns, rows), interpolation=interpolation)[source].astype(np.float32)

        target = (slice(y0, y1), slice(x0, x1))
        alpha = scaled(sprite.alpha_hw)[..., None] / 255
        blended = self.image_HW3[target] * (1 - alpha) + scaled(sprite.rgb_hw3) * shade * alpha
        self.image_HW3[target] = np.clip(blended, 0, 255).astype(np.uint8)
        self.label_HW[target][scaled(sprite.hull_hw) > 110] = class_id

    def warp(self, sprite: Sprite, class_id: int, quad: Quad) -> None:
        """Paint a sprite in perspective: its corners (clockwise from the upper left) land on `quad`."""
        h, w = sprite.alpha_hw.shape
        x0, y0 = np.clip(np.floor(np.min(quad, 0)), 0, [self.width, self.height]).astype(int).tolist()
        x1, y1 = np.clip(np.ceil(np.max(quad, 0)) + 1, 0, [self.width, self.height]).astype(int).tolist()
        if x1 <= x0 or y1 <= y0:
            return
        target, size = (slice(y0, y1), slice(x0, x1)), (x1 - x0, y1 - y0)
        corners = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
        homography = cv2.getPerspectiveTransform(corners, np.array(quad, np.float32) - np.array([x0, y0], np.float32))
        rgb = cv2.warpPerspective(sprite.rgb_hw3, homography, size, borderMode=cv2.BORDER_REPLICATE)
        alpha = cv2.warpPerspective(sprite.alpha_hw, homography, size).astype(np.float32)[..., None] / 255
        self.image_HW3[target] = (self.image_HW3[target] * (1 - alpha) + rgb * alpha).astype(np.uint8)
        self.label_HW[target][cv2.warpPerspective(sprite.hull_hw, homography, size) > 127] = class_id

    def shadow(self, x: float, y: float, half_width: float, half_height: float) -> None:
        """Darken an ellipse by half: what an object standing at (x, y) does to the ground."""
        x0, x1 = max(0, int(x - half_width)), min(self.width, int(x + half_width) + 1)
        y0, y1 = max(0, int(y - half_height)), min(self.height, int(y + half_height) + 1)
        if x1 <= x0 or y1 <= y0:
            return
        shade = np.ones((y1 - y0, x1 - x0), np.float32)
        axes = (max(1, int(half_width)), max(1, int(half_height)))
        cv2.ellipse(shade, (int(x) - x0, int(y) - y0), axes, 0, 0, 360, 0.55, -1)
        self.image_HW3[y0:y1, x0:x1] = (self.image_HW3[y0:y1, x0:x1] * shade[..., None]).astype(np.uint8)


def solid(texture_hw3: Image) -> Sprite:
    """A sprite without holes."""
    full = np.full(texture_hw3.shape[:2], 255, np.uint8)
    return Sprite(texture_hw3, full, full)


def photograph(rng: np.random.Generator, image_HW3: Image, strength: float = 1.0) -> Image:
    """What a camera adds: exposure, white balance, haze, sensor noise and sometimes blur."""
    pixels = image_HW3.astype(np.float32)
    pixels = pixels * rng.uniform(1 - 0.3 * strength, 1 + 0.18 * strength) + rng.uniform(-14, 14) * strength
    pixels *= (1 + rng.uniform(-0.07, 0.07, 3) * strength).astype(np.float32)
    if rng.random() < 0.3:
        haze = rng.uniform(0, 0.3) * strength
        pixels = pixels * (1 - haze) + 190 * haze
    pixels += rng.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(1, 8) * strength)
    if rng.random() < 0.4:
        pixels = cv2.GaussianBlur(pixels, (3, 3), rng.uniform(0.3, 0.9)).astype(np.float32)
    return np.clip(pixels, 0, 255).astype(np.uint8)
