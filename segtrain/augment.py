"""Random augmentation: one Geometry per sample warps the image and its logits alike; colours change in the image only.

Coordinates are continuous: pixel k covers k..k+1. A source position is in pixels of the original image.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from labelgen.images import bilinear_weights
from labelgen.samples import InputError
from labelgen.views import Box


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What happens to a training image."""

    crop_height: int = 512  # pixels of a training crop
    crop_width: int = 1024
    scales: tuple[float, float] = (0.5, 2.0)  # the image is resized by a random factor in this range
    flip: float = 0.5  # probability of a left-right flip
    photometric: float = 1.0  # strength of brightness, contrast, saturation and hue changes; 0 is off

    def __post_init__(self) -> None:
        if min(self.crop_height, self.crop_width) < 1:
            raise InputError(
                f"augment.crop_height and crop_width must be positive, got {self.crop_height} x {self.crop_width}"
            )
        if not 0 < self.scales[0] <= self.scales[1]:
            raise InputError(f"augment.scales must be a range of positive factors, got {self.scales}")
        if not 0 <= self.flip <= 1:
            raise InputError(f"augment.flip must be a probability in [0, 1], got {self.flip}")


@dataclass(frozen=True)
class Geometry:
    """Resize by `scale`, cut a crop at (top, left) of the resized image, flip it if `flip`."""

    scale: float
    top: int
    left: int
    flip: bool
    crop_height: int
    crop_width: int

    def source_rows(self, count: int) -> NDArray[np.float64]:
        """Source position of the centre of each of `count` equal rows of the crop."""
        return (self.top + (np.arange(count) + 0.5) * self.crop_height / count) / self.scale

    def source_columns(self, count: int) -> NDArray[np.float64]:
        """Source position of the centre of each of `count` equal columns of the crop."""
        columns = (self.left + (np.arange(count) + 0.5) * self.crop_width / count) / self.scale
        return columns[::-1] if self.flip else columns


def sample_geometry(rng: np.random.Generator, config: AugmentConfig, height: int, width: int) -> Geometry:
    """Draw scale, place and flip for an image of that size. Every place is reachable, the last one too.

    Where the resized image is smaller than the crop, it lies at the crop's upper left.
    """
    scale = float(rng.uniform(*config.scales))
    top, left = (
        int(rng.integers(0, max(0, round(side * scale) - crop) + 1))
        for side, crop in ((height, config.crop_height), (width, config.crop_width))
    )
    return Geometry(scale, top, left, bool(rng.random() < config.flip), config.crop_height, config.crop_width)


def warp_image(image_HW3: NDArray[np.uint8], geometry: Geometry, fill: tuple[float, ...]) -> NDArray[np.uint8]:
    """The crop (crop_height, crop_width, 3), uint8; `fill` (RGB, 0..255) where there is no image."""
    g = geometry
    # Pixel centres: x_crop + 0.5 = (x + 0.5) * scale - left, mirrored for a flip.
    sign, offset = (-1, g.crop_width + g.left - 0.5 * g.scale - 0.5) if g.flip else (1, 0.5 * g.scale - 0.5 - g.left)
    forward = np.array([[sign * g.scale, 0, offset], [0, g.scale, 0.5 * g.scale - 0.5 - g.top]])
    return cv2.warpAffine(
        image_HW3,
        forward,
        (g.crop_width, g.crop_height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=fill,
    ).astype(np.uint8)


def warp_logits(
    logits_Chw: NDArray[np.float32], box: Box, geometry: Geometry, rows: int, columns: int
) -> tuple[NDArray[np.float32], slice, slice]:
    """Logits of a view, seen through the geometry on a crop divided into rows x columns.

    box: what the logits cover, in source pixels. Returns (C, n, m) and the slices of rows and columns they fill:
    those whose centres lie in the box.
    """
    slices, weights = [], []
    for positions, start, stop, cells in (
        (geometry.source_rows(rows), box[0], box[2], logits_Chw.shape[1]),
        (geometry.source_columns(columns), box[1], box[3], logits_Chw.shape[2]),
    ):
        inside = np.flatnonzero((positions >= start) & (positions < stop))
        slices.append(slice(inside[0], inside[-1] + 1) if len(inside) else slice(0, 0))
        weights.append(bilinear_weights((positions[inside] - start) * cells / (stop - start), cells))
    return np.asarray(weights[0] @ logits_Chw @ weights[1].T, np.float32), slices[0], slices[1]


def warp_classes(
    classes_HW: NDArray[np.uint8], geometry: Geometry, rows: int, columns: int, fill: int
) -> NDArray[np.uint8]:
    """A class map seen through the geometry on a crop of rows x columns: the nearest pixel, `fill` outside."""
    places, inside = [], []
    for positions, side in zip(
        (geometry.source_rows(rows), geometry.source_columns(columns)), classes_HW.shape, strict=True
    ):
        inside.append((positions >= 0) & (positions < side))
        places.append(np.clip(positions.astype(np.int64), 0, side - 1))
    return np.where(np.outer(*inside), classes_HW[np.ix_(*places)], np.uint8(fill))


def change_colours(rng: np.random.Generator, image_HW3: NDArray[np.uint8], strength: float) -> NDArray[np.uint8]:
    """Random brightness, contrast, saturation and hue, each in half of the calls; uint8 RGB in and out."""
    if strength <= 0:
        return image_HW3
    brightness = rng.uniform(-32, 32) * strength * (rng.random() < 0.5)
    contrast = 1 + rng.uniform(-0.5, 0.5) * strength * (rng.random() < 0.5)
    saturation = 1 + rng.uniform(-0.5, 0.5) * strength * (rng.random() < 0.5)
    hue = rng.uniform(-9, 9) * strength * (rng.random() < 0.5)  # of OpenCV's 180 steps
    image_HW3 = cv2.convertScaleAbs(np.maximum(image_HW3 * contrast + brightness, 0))
    if saturation == 1 and hue == 0:
        return image_HW3.astype(np.uint8)
    hsv = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(np.int16) + round(hue)) % 180
    hsv[..., 1] = cv2.convertScaleAbs(hsv[..., 1], alpha=saturation)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(np.uint8)
