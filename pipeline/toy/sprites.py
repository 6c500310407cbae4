"""Objects cut out of their background: car, pedestrian, bicyclist, sign, pole, tree, house, fence.

Sprites are drawn on a square-ish sheet in unit coordinates (0..1 of the height) and scaled when painted.
"""

from collections.abc import Callable

import cv2
import numpy as np

from pipeline.toy.canvas import Colour, Image, Mask, Sprite, ToyClass
from pipeline.toy.textures import as_uint8, facade, foliage, noise, pick, plain, shaded, vary

SHEET = 112  # pixels, the height of most sprites

BODY_COLOURS: list[Colour] = [
    (190, 30, 35),
    (35, 60, 140),
    (225, 225, 225),
    (40, 42, 46),
    (150, 155, 160),
    (60, 110, 75),
    (220, 170, 40),
    (110, 50, 40),
    (120, 160, 200),
]
CLOTH_COLOURS: list[Colour] = [
    (200, 40, 40),
    (40, 70, 160),
    (40, 40, 45),
    (235, 235, 230),
    (230, 180, 50),
    (60, 130, 80),
    (130, 60, 130),
    (120, 120, 125),
    (220, 120, 50),
    (90, 140, 190),
]
TROUSER_COLOURS: list[Colour] = [(40, 45, 70), (35, 35, 38), (110, 95, 75), (90, 95, 105), (60, 70, 110)]
SKIN_COLOURS: list[Colour] = [(235, 200, 175), (200, 150, 115), (140, 95, 65), (95, 65, 45)]
HAIR_COLOURS: list[Colour] = [(40, 28, 20), (90, 60, 30), (25, 25, 25), (190, 160, 100)]
FRAME_COLOURS: list[Colour] = [(200, 30, 30), (30, 30, 32), (40, 90, 180), (230, 230, 225)]
POLE_COLOURS: list[Colour] = [(95, 95, 98), (140, 142, 145), (60, 72, 62), (120, 95, 70), (185, 185, 180)]
FENCE_COLOURS: list[Colour] = [(225, 225, 220), (105, 75, 50), (60, 65, 65), (150, 115, 75), (60, 95, 70)]
ROOF_COLOURS: list[Colour] = [(130, 60, 45), (80, 80, 85), (100, 75, 60)]
TYRE: Colour = (23, 23, 25)

Points = list[tuple[float, float]]


class Sheet:
    """Paper to draw a sprite on; coordinates are (x in 0..aspect, y in 0..1), both times the height."""

    def __init__(self, aspect: float, height: int = SHEET) -> None:
        self.h, self.w = height, max(2, int(height * aspect))
        self.rgb: Image = np.zeros((self.h, self.w, 3), np.uint8)
        self.alpha: Mask = np.zeros((self.h, self.w), np.uint8)

    def _xy(self, point: tuple[float, float]) -> tuple[int, int]:
        return int(point[0] * self.h), int(point[1] * self.h)

    def polygon(self, colour: Colour, points: Points, cut: bool = True) -> None:
        """Fill a polygon; `cut` adds it to the outline (False paints on what is already cut out)."""
        corners = [np.array([self._xy(p) for p in points], np.int32)]
        cv2.fillPoly(self.rgb, corners, colour)
        if cut:
            cv2.fillPoly(self.alpha, corners, 255)

    def box(self, colour: Colour, x0: float, y0: float, x1: float, y1: float, cut: bool = False) -> None:
        """Fill a rectangle."""
        self.polygon(colour, [(x0, y0), (x1, y0), (x1, y1), (x0, y1)], cut)

    def limb(self, colour: Colour, start: tuple[float, float], end: tuple[float, float], thickness: float) -> None:
        """A thick line, cut out."""
        pixels = max(2, int(thickness * self.h))
        cv2.line(self.rgb, self._xy(start), self._xy(end), colour, pixels)
        cv2.line(self.alpha, self._xy(start), self._xy(end), 255, pixels)

    def disc(self, colour: Colour, centre: tuple[float, float], rx: float, ry: float | None = None) -> None:
        """A filled ellipse, cut out."""
        axes = (max(1, int(rx * self.h)), max(1, int((rx if ry is None else ry) * self.h)))
        cv2.ellipse(self.rgb, self._xy(centre), axes, 0, 0, 360, colour, -1)
        cv2.ellipse(self.alpha, self._xy(centre), axes, 0, 0, 360, 255, -1)

    def ring(self, colour: Colour, centre: tuple[float, float], radius: float, thickness: float) -> None:
        """A circle's line, cut out."""
        r, pixels = int(radius * self.h), max(1, int(thickness * self.h))
        cv2.circle(self.rgb, self._xy(centre), r, colour, pixels)
        cv2.circle(self.alpha, self._xy(centre), r, 255, pixels)

    def sprite(self, hull: Mask | None = None) -> Sprite:
        """What was drawn; the hull is the outline unless given."""
        return Sprite(self.rgb, self.alpha, self.alpha if hull is None else np.maximum(hull, self.alpha))


def car(rng: np.random.Generator) -> Sprite:
    """From the side, or from the front or back."""
    return _car_side(rng) if rng.random() < 0.45 else _car_end(rng)


def _car_side(rng: np.random.Generator) -> Sprite:
    length = rng.uniform(2.2, 2.8)
    sheet, body, glass = Sheet(length), pick(rng, BODY_COLOURS), vary(rng, (45, 55, 68), 12)
    outline = [
        (0.01, 0.55),
        (0.06, 0.42),
        (0.24, 0.36),
        (0.36, 0.05),
        (0.72, 0.04),
        (0.88, 0.36),
        (0.98, 0.42),
        (0.99, 0.82),
        (0.01, 0.82),
    ]
    sheet.polygon(body, [(x * length, y) for x, y in outline])
    for window in (
        [(0.29, 0.37), (0.385, 0.11), (0.53, 0.11), (0.53, 0.37)],
        [(0.56, 0.11), (0.70, 0.11), (0.82, 0.37), (0.56, 0.37)],
    ):
        sheet.polygon(glass, [(x * length, y) for x, y in window], cut=False)
    sheet.box(shaded(body, 0.62), 0.01 * length, 0.66, 0.99 * length, 0.82)
    sheet.box((190, 30, 25), 0.95 * length, 0.45, 0.99 * length, 0.55)
    sheet.box((240, 235, 200), 0.01 * length, 0.45, 0.05 * length, 0.55)
    for x in (0.22, 0.79):
        sheet.disc(TYRE, (x * length, 0.8), 0.2)
        sheet.disc((165, 165, 168), (x * length, 0.8), 0.1)
    sprite = sheet.sprite()
    return sprite.mirrored() if rng.random() < 0.5 else sprite


def _car_end(rng: np.random.Generator) -> Sprite:
    width = rng.uniform(1.1, 1.35)
    sheet, body, glass = Sheet(width), pick(rng, BODY_COLOURS), vary(rng, (45, 55, 68), 12)
    outline = [(0.02, 0.45), (0.1, 0.38), (0.22, 0.03), (0.78, 0.03), (0.9, 0.38), (0.98, 0.45), (0.98, 0.88)]
    sheet.polygon(body, [(x * width, y) for x, y in [*outline, (0.02, 0.88)]])
    window = [(0.18, 0.38), (0.27, 0.1), (0.73, 0.1), (0.82, 0.38)]
    sheet.polygon(glass, [(x * width, y) for x, y in window], cut=False)
    sheet.box(shaded(body, 0.62), 0.02 * width, 0.72, 0.98 * width, 0.88)
    lamp = (200, 25, 22) if rng.random() < 0.6 else (245, 240, 205)
    for x0, x1 in ((0.05, 0.22), (0.78, 0.95)):
        sheet.box(lamp, x0 * width, 0.47, x1 * width, 0.6)
        sheet.box(TYRE, x0 * width, 0.86, x1 * width, 1.0, cut=True)
    sheet.box((235, 235, 225), 0.38 * width, 0.6, 0.62 * width, 0.7)
    return sheet.sprite()


def _head(sheet: Sheet, rng: np.random.Generator, centre: tuple[float, float], cap: Colour) -> None:
    x, y = centre
    sheet.disc(cap, (x, y - 0.015), 0.083)
    sheet.disc(pick(rng, SKIN_COLOURS, 8), (x, y + 0.015), 0.07)


def pedestrian(rng: np.random.Generator) -> Sprite:
    """A standing or walking person, seen from the front."""
    sheet, x = Sheet(0.46), 0.23
    top, trousers, skin = pick(rng, CLOTH_COLOURS), pick(rng, TROUSER_COLOURS, 12), pick(rng, SKIN_COLOURS, 8)
    stride, swing = rng.uniform(0.02, 0.1), rng.uniform(-0.06, 0.1)
    for side in (-1, 1):
        sheet.limb(trousers, (x + side * 0.03, 0.52), (x + side * (stride + 0.01), 0.96), 0.08)
    if rng.random() < 0.3:  # skirt
        sheet.polygon(top, [(x - 0.09, 0.5), (x + 0.09, 0.5), (x + 0.13, 0.72), (x - 0.13, 0.72)])
    sheet.polygon(top, [(x - 0.11, 0.18), (x + 0.11, 0.18), (x + 0.09, 0.55), (x - 0.09, 0.55)])
    for side in (-1, 1):
        elbow = (x + side * (0.14 + swing / 2), 0.38)
        sheet.limb(top, (x + side * 0.11, 0.21), elbow, 0.055)
        sheet.limb(skin, elbow, (x + side * (0.12 + swing), 0.52), 0.04)
    _head(sheet, rng, (x, 0.09), pick(rng, HAIR_COLOURS, 8))
    return sheet.sprite()


def bicyclist(rng: np.random.Generator) -> Sprite:
    """A rider and the bicycle, from the side or from the front."""
    return _bicyclist_side(rng) if rng.random() < 0.65 else _bicyclist_end(rng)


def _bicyclist_side(rng: np.random.Generator) -> Sprite:
    sheet = Sheet(1.0)
    top, trousers, frame = pick(rng, CLOTH_COLOURS), pick(rng, TROUSER_COLOURS, 12), pick(rng, FRAME_COLOURS, 10)
    hull = np.zeros_like(sheet.alpha)
    rear, front = (0.24, 0.79), (0.76, 0.79)
    for hub in (rear, front):
        sheet.ring(TYRE, hub, 0.19, 0.05)
        cv2.circle(hull, (int(hub[0] * sheet.h), int(hub[1] * sheet.h)), int(0.21 * sheet.h), 255, -1)
    saddle, pedals, bar = (0.42, 0.55), (0.47, 0.78), (0.68, 0.5)
    for start, end in (
        (rear, saddle),
        (saddle, pedals),
        (pedals, rear),
        (saddle, bar),
        (pedals, bar),
        (bar, front),
    ):
        sheet.limb(frame, start, end, 0.035)
    sheet.limb(trousers, (0.42, 0.47), (0.56, 0.64), 0.075)
    sheet.limb(trousers, (0.56, 0.64), (0.49, 0.83), 0.06)
    sheet.polygon(top, [(0.36, 0.5), (0.47, 0.52), (0.6, 0.26), (0.48, 0.2)])
    sheet.limb(top, (0.54, 0.26), (0.66, 0.47), 0.05)
    _head(sheet, rng, (0.58, 0.11), pick(rng, CLOTH_COLOURS))
    sprite = sheet.sprite(hull)
    return sprite.mirrored() if rng.random() < 0.5 else sprite


def _bicyclist_end(rng: np.random.Generator) -> Sprite:
    sheet, x = Sheet(0.5), 0.25
    top, trousers, frame = pick(rng, CLOTH_COLOURS), pick(rng, TROUSER_COLOURS, 12), pick(rng, FRAME_COLOURS, 10)
    sheet.disc(TYRE, (x, 0.78), 0.05, 0.2)
    sheet.limb(frame, (x - 0.17, 0.5), (x + 0.17, 0.5), 0.035)
    for side in (-1, 1):
        sheet.limb(trousers, (x + side * 0.06, 0.52), (x + side * 0.1, 0.68), 0.065)
        sheet.limb(trousers, (x + side * 0.1, 0.68), (x + side * 0.07, 0.86), 0.055)
        sheet.limb(top, (x + side * 0.1, 0.22), (x + side * 0.16, 0.48), 0.055)
    sheet.polygon(top, [(x - 0.12, 0.19), (x + 0.12, 0.19), (x + 0.09, 0.55), (x - 0.09, 0.55)])
    _head(sheet, rng, (x, 0.1), pick(rng, CLOTH_COLOURS))
    return sheet.sprite()


def sign(rng: np.random.Generator) -> Sprite:
    """A traffic sign: disc, triangle, square, diamond or octagon, with a symbol."""
    sheet = Sheet(1.0)
    red, blue, yellow = vary(rng, (205, 30, 35), 14), vary(rng, (25, 80, 185), 14), vary(rng, (245, 200, 40), 12)
    white, black = vary(rng, (240, 240, 238), 8), (25.0, 25.0, 25.0)
    kind = rng.integers(6)
    symbol = white
    if kind == 0:
        sheet.disc(red, (0.5, 0.5), 0.48)
        sheet.disc(white, (0.5, 0.5), 0.35)
        symbol = black
    elif kind == 1:
        sheet.polygon(red, [(0.5, 0.03), (0.98, 0.93), (0.02, 0.93)])
        sheet.polygon(white, [(0.5, 0.23), (0.81, 0.83), (0.19, 0.83)])
        symbol = black
    elif kind == 2:
        sheet.box(blue, 0.05, 0.05, 0.95, 0.95, cut=True)
    elif kind == 3:
        sheet.polygon(yellow, [(0.5, 0.02), (0.98, 0.5), (0.5, 0.98), (0.02, 0.5)])
        symbol = black
    elif kind == 4:
        angles = np.arange(8) * np.pi / 4 + np.pi / 8
        sheet.polygon(red, [(0.5 + 0.48 * float(np.cos(a)), 0.5 + 0.48 * float(np.sin(a))) for a in angles])
        sheet.box(white, 0.2, 0.42, 0.8, 0.58)
        return sheet.sprite()
    else:
        sheet.disc(blue, (0.5, 0.5), 0.48)
    mark = rng.integers(4)
    if mark == 0:  # arrow
        sheet.limb(symbol, (0.5, 0.67), (0.5, 0.33), 0.08)
        sheet.limb(symbol, (0.5, 0.33), (0.41, 0.45), 0.07)
        sheet.limb(symbol, (0.5, 0.33), (0.59, 0.45), 0.07)
    elif mark == 1:
        where = (int(0.25 * SHEET), int(0.64 * SHEET))
        cv2.putText(sheet.rgb, str(rng.integers(10, 99)), where, cv2.FONT_HERSHEY_SIMPLEX, 1.5, symbol, 7)
    elif mark == 2:
        sheet.limb(symbol, (0.33, 0.5), (0.67, 0.5), 0.1)
    else:
        sheet.disc(symbol, (0.5, 0.5), 0.085)
    return sheet.sprite()


def post(rng: np.random.Generator) -> Sprite:
    """A bare upright post, the kind that carries a sign."""
    return _pole(rng, lamp=False)


def pole(rng: np.random.Generator) -> Sprite:
    """A tall pole, sometimes with a lamp."""
    return _pole(rng, lamp=bool(rng.random() < 0.4))


def _pole(rng: np.random.Generator, lamp: bool) -> Sprite:
    sheet = Sheet(0.36 if lamp else 0.12, height=2 * SHEET)
    x, thickness = sheet.w / sheet.h / 2, rng.uniform(0.03, 0.055)
    colour = pick(rng, POLE_COLOURS, 12)
    sheet.box(colour, x - thickness / 2, 0.01, x + thickness / 2, 1.0, cut=True)
    sheet.box(shaded(colour, 0.75), x - thickness / 2, 0.01, x - thickness / 4, 1.0)
    if lamp:
        side = 1 if rng.random() < 0.5 else -1
        sheet.limb(colour, (x, 0.04), (x + side * 0.14, 0.03), thickness / 2)
        sheet.disc((235, 230, 200), (x + side * 0.13, 0.04), 0.04, 0.016)
    sheet.rgb = as_uint8(sheet.rgb + noise(rng, sheet.h, sheet.w, 5, 5)[..., None])
    return sheet.sprite()


def tree(rng: np.random.Generator) -> Sprite:
    """A crown of overlapping discs on a trunk."""
    width, crown = rng.uniform(0.6, 1.0), rng.uniform(0.5, 0.78)
    sheet, leaves = (Sheet(width, height=int(1.4 * SHEET)) for _ in range(2))
    for _ in range(rng.integers(14, 26)):
        r, angle, distance = rng.uniform(0.1, 0.2) * width, rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform())
        x = width / 2 + np.cos(angle) * distance * (0.48 * width - r)
        y = crown / 2 + np.sin(angle) * distance * (crown / 2 - 0.9 * r)
        leaves.disc((0, 0, 0), (float(x), float(y)), r)
    sheet.limb(vary(rng, (85, 62, 45), 12), (width / 2, 0.4), (width / 2, 1.0), width * rng.uniform(0.05, 0.1))
    in_crown = leaves.alpha > 0
    sheet.rgb[in_crown] = foliage(rng, sheet.h, sheet.w, rng.uniform(4, 9))[in_crown]
    sheet.alpha[in_crown] = 255
    # Crowns are lit from above.
    sheet.rgb = as_uint8(sheet.rgb * np.linspace(1.12, 0.8, sheet.h, dtype=np.float32)[:, None, None])
    return sheet.sprite()


def house(rng: np.random.Generator) -> Sprite:
    """A facade seen from the front, sometimes under a roof."""
    height, aspect = int(SHEET * rng.uniform(0.8, 1.5)), rng.uniform(0.6, 1.5)
    sheet = Sheet(aspect, height)
    sheet.rgb = facade(rng, sheet.h, sheet.w, rng.uniform(8, 16))
    sheet.alpha[:] = 255
    if rng.random() < 0.35:
        sheet.alpha[: int(0.25 * height)] = 0
        colour = pick(rng, ROOF_COLOURS, 12)
        sheet.polygon(colour, [(0, 0.25), (0.12 * aspect, 0), (0.88 * aspect, 0), (aspect, 0.25)])
    return sheet.sprite()


def fence(rng: np.random.Generator, h: int, w: int) -> Sprite:
    """Pickets, rails or wire mesh of h x w pixels; the hull includes the gaps one sees through."""
    rgb = as_uint8(plain(h, w, pick(rng, FENCE_COLOURS, 14)) + noise(rng, h, w, 2, 6)[..., None])
    alpha = np.zeros((h, w), np.uint8)
    kind, step = rng.integers(3), max(3.0, h * rng.uniform(0.13, 0.3))
    if kind == 2:
        thickness = max(1, int(h * 0.035))
        for x in np.arange(-h, w + h, step):
            cv2.line(alpha, (int(x), 0), (int(x + h), h), 255, thickness)
            cv2.line(alpha, (int(x + h), 0), (int(x), h), 255, thickness)
        uprights, rails, top = np.arange(0, w + 1, 1.3 * h), [0.03, 0.97], 0.0
        thickness = max(1, int(h * 0.06))
    else:
        uprights, rails, top = np.arange(0, w + step, step), [[0.2, 0.75], [0.05, 0.5, 0.9]][kind], 0.06 * kind
        thickness = max(1, int(step * rng.uniform(0.25, 0.5)))
    for x in uprights:
        cv2.line(alpha, (int(x), int(h * top)), (int(x), h), 255, thickness)
    for y in rails:
        cv2.line(alpha, (0, int(y * h)), (w, int(y * h)), 255, max(1, int(h * 0.07)))
    return Sprite(rgb, alpha, np.full((h, w), 255, np.uint8))


# A fence is stretched to its place, so it is drawn by size and not listed here.
SPRITES: dict[ToyClass, Callable[[np.random.Generator], Sprite]] = {
    ToyClass.CAR: car,
    ToyClass.PEDESTRIAN: pedestrian,
    ToyClass.BICYCLIST: bicyclist,
    ToyClass.SIGN: sign,
    ToyClass.POLE: pole,
    ToyClass.TREE: tree,
    ToyClass.BUILDING: house,
}
