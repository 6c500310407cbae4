"""What is drawn for a sample: one Geometry, which its image and its logits are seen through alike, and its colours.

Drawn with numpy, carried out by `segtrain.batch`. Coordinates are continuous: pixel k covers k..k+1. A source position
is in pixels of the original image.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelgen.images import bilinear_weights, require_size
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
        require_size(self.crop_height, self.crop_width, "augment.crop_height and crop_width are")
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


def view_weights(
    geometry: Geometry, box: Box, grid: tuple[int, int], rows: int, columns: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Matrices (rows, h) and (columns, w) that show the map of a view on a crop divided into rows x columns.

    box: what the map of grid h x w covers, in source pixels. The map is seen as `rows @ map @ columns.T`, bilinear.
    Rows and columns whose centres lie outside the box are 0.
    """
    weights = []
    for positions, start, stop, cells in (
        (geometry.source_rows(rows), box[0], box[2], grid[0]),
        (geometry.source_columns(columns), box[1], box[3], grid[1]),
    ):
        inside = (positions >= start) & (positions < stop)
        weights.append(bilinear_weights((positions - start) * cells / (stop - start), cells) * inside[:, None])
    return weights[0], weights[1]


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


def sample_colours(rng: np.random.Generator, strength: float) -> NDArray[np.float32]:
    """Brightness (to be added, in 0..255), contrast and saturation (factors), hue (degrees), each in half of the calls.

    Strength 0 draws nothing; (0, 1, 1, 0) changes nothing.
    """
    if strength <= 0:
        return np.array([0, 1, 1, 0], np.float32)
    brightness = rng.uniform(-32, 32) * strength * (rng.random() < 0.5)
    contrast = 1 + rng.uniform(-0.5, 0.5) * strength * (rng.random() < 0.5)
    saturation = 1 + rng.uniform(-0.5, 0.5) * strength * (rng.random() < 0.5)
    hue = rng.uniform(-18, 18) * strength * (rng.random() < 0.5)
    return np.array([brightness, contrast, saturation, hue], np.float32)
