"""Surfaces: sky, facade, asphalt, paving, foliage. Each returns (h, w, 3) uint8 RGB."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.toy.canvas import Colour, Image

SKY_COLOURS = [(70, 130, 215), (120, 160, 205), (165, 175, 190), (215, 160, 120)]
WALL_COLOURS = [
    (165, 90, 70),
    (200, 180, 145),
    (150, 150, 150),
    (222, 214, 200),
    (120, 105, 95),
    (190, 140, 90),
    (110, 125, 140),
]
GLASS_COLOURS = [(40, 50, 65), (70, 90, 110), (25, 28, 30), (110, 140, 165)]
PAVING_COLOURS = [(172, 165, 155), (150, 150, 152), (190, 175, 155), (165, 140, 125)]
LEAF_COLOURS = [(50, 95, 40), (80, 120, 45), (45, 80, 50), (120, 130, 50)]
LINE_COLOURS = [(228, 228, 220), (225, 190, 70)]


def noise(rng: np.random.Generator, h: int, w: int, cell: float, amplitude: float) -> NDArray[np.float32]:
    """Smooth random field (h, w): normal values on a grid of `cell` pixels, times `amplitude`."""
    grid = rng.standard_normal((max(2, int(h / cell) + 2), max(2, int(w / cell) + 2)), np.float32)
    interpolation = cv2.INTER_NEAREST if cell <= 1 else cv2.INTER_CUBIC
    return np.float32(amplitude) * cv2.resize(grid, (w, h), interpolation=interpolation).astype(np.float32)


def as_uint8(array: NDArray[np.floating]) -> Image:
    """Clip to 0..255 and convert."""
    image: Image = np.clip(array, 0, 255).astype(np.uint8)
    return image


def vary(rng: np.random.Generator, colour: Colour, spread: float = 18) -> Colour:
    """`colour` with a random tint and brightness."""
    r, g, b = np.clip(np.array(colour) + rng.uniform(-spread, spread, 3) + rng.uniform(-spread, spread), 0, 255)
    return (float(r), float(g), float(b))


def pick(rng: np.random.Generator, colours: Sequence[Colour], spread: float = 15) -> Colour:
    """One of `colours`, varied."""
    return vary(rng, colours[int(rng.integers(len(colours)))], spread)


def shaded(colour: Colour, factor: float) -> Colour:
    """`colour` made darker (factor < 1) or lighter (factor > 1)."""
    r, g, b = np.clip(np.array(colour) * factor, 0, 255)
    return (float(r), float(g), float(b))


def plain(h: int, w: int, colour: Colour) -> NDArray[np.float32]:
    """A float canvas of one colour."""
    return np.broadcast_to(np.array(colour, np.float32), (h, w, 3)).copy()


def sky(rng: np.random.Generator, h: int, w: int) -> Image:
    """A vertical gradient, usually with clouds."""
    top = np.array(vary(rng, SKY_COLOURS[rng.choice(4, p=[0.4, 0.25, 0.25, 0.1])], 15), np.float32)
    bottom = np.clip(top + rng.uniform(15, 60), 0, 255).astype(np.float32)
    t = np.linspace(0, 1, h, dtype=np.float32)[:, None, None]
    pixels = np.broadcast_to(top * (1 - t) + bottom * t, (h, w, 3)).copy()
    if rng.random() < 0.7:
        clouds = noise(rng, h, w, max(h, w) / 4, 1) + noise(rng, h, w, max(h, w) / 9, 0.5)
        cover = np.clip(clouds * rng.uniform(0.3, 0.9) + rng.uniform(-0.4, 0.3), 0, 1)[..., None]
        pixels = pixels * (1 - cover) + 240 * cover
    return as_uint8(pixels)


def facade(rng: np.random.Generator, h: int, w: int, pixels_per_metre: float) -> Image:
    """A wall with a regular grid of framed windows, some of them lit."""
    ppm = pixels_per_metre
    wall = pick(rng, WALL_COLOURS, 18)
    pixels = plain(h, w, wall)
    pixels += noise(rng, h, w, max(1, ppm * 0.15), 7)[..., None] + noise(rng, h, w, max(2, ppm * 2), 6)[..., None]
    if rng.random() < 0.5:  # courses of brick
        pixels[:: max(2, int(ppm * 0.35))] *= 0.88
    image = as_uint8(pixels)
    window_w, window_h = rng.uniform(0.8, 1.6) * ppm, rng.uniform(1.1, 2.0) * ppm
    step_x, step_y = window_w * rng.uniform(1.4, 2.2), window_h * rng.uniform(1.35, 1.9)
    glass = pick(rng, GLASS_COLOURS, 12)
    frame = shaded(wall, 0.7 if rng.random() < 0.5 else 1.25)
    for y in np.arange(step_y * rng.uniform(0.15, 0.5), h, step_y):
        for x in np.arange(step_x * 0.25, w, step_x):
            corners = (int(x), int(y)), (int(x + window_w), int(y + window_h))
            pane = (230.0, 205.0, 130.0) if rng.random() < 0.08 else shaded(glass, rng.uniform(0.7, 1.3))
            cv2.rectangle(image, *corners, pane, -1)
            cv2.rectangle(image, *corners, frame, max(1, int(ppm * 0.12)))
    return image


def asphalt(rng: np.random.Generator, h: int, w: int) -> Image:
    """Grey, rough at three scales."""
    grey = rng.uniform(62, 118)
    pixels = plain(h, w, (grey, grey, grey + rng.uniform(-4, 8)))
    pixels += (noise(rng, h, w, 1, 6) + noise(rng, h, w, 6, 5) + noise(rng, h, w, max(8, w / 3), 8))[..., None]
    return as_uint8(pixels)


def lane_marks(rng: np.random.Generator, image_hw3: Image, at_x: list[float], width: int) -> None:
    """Paint dashed or solid vertical lines onto a road seen from above."""
    h = image_hw3.shape[0]
    colour = LINE_COLOURS[0] if rng.random() < 0.8 else LINE_COLOURS[1]
    for x in at_x:
        dash = h * rng.uniform(0.03, 0.25)
        gap = dash * rng.uniform(0.8, 1.4) if rng.random() < 0.7 else 0
        for y in np.arange(-rng.uniform(0, dash), h, dash + gap):
            cv2.rectangle(image_hw3, (int(x), int(y)), (int(x) + width - 1, int(y + dash)), colour, -1)


def paving(rng: np.random.Generator, h: int, w: int, pixels_per_metre: float) -> Image:
    """Slabs of slightly different grey with dark joints."""
    base = pick(rng, PAVING_COLOURS, 12)
    slab = max(3, pixels_per_metre * rng.uniform(0.5, 1.0))
    rows, columns = int(h / slab) + 2, int(w / slab) + 2
    tones = rng.normal(0, 9, (rows, columns)).astype(np.float32)
    size = (max(w, int(columns * slab)), max(h, int(rows * slab)))
    tones = cv2.resize(tones, size, interpolation=cv2.INTER_NEAREST)[:h, :w].astype(np.float32)
    image = as_uint8(plain(h, w, base) + (tones + noise(rng, h, w, 1, 4))[..., None])
    joint, thickness = shaded(base, rng.uniform(0.65, 0.82)), max(1, int(slab * 0.09))
    for k in range(columns):
        cv2.line(image, (int(k * slab), 0), (int(k * slab), h), joint, thickness)
    for k in range(rows):
        cv2.line(image, (0, int(k * slab)), (w, int(k * slab)), joint, thickness)
    return image


def foliage(rng: np.random.Generator, h: int, w: int, cell: float | None = None) -> Image:
    """Leaves: green noise at two scales; `cell` is the size of a clump in pixels."""
    base = vary(rng, LEAF_COLOURS[rng.choice(4, p=[0.35, 0.35, 0.2, 0.1])], 14)
    cell = cell or max(2, min(h, w) / rng.uniform(10, 24))
    clumps = noise(rng, h, w, cell, 1) + noise(rng, h, w, max(1, cell / 2.5), 0.8)
    return as_uint8(plain(h, w, base) + clumps[..., None] * np.array([20, 26, 14], np.float32))
