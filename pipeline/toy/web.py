"""Captioned "web" pictures: what the tiny CLIP is pretrained on.

Most show one subject, large and near the middle, on a plain background, with a few things around it; some are cut
out of street scenes (of no data set split). A caption names what can be seen in the picture. Pixel labels are used
for one thing only: to know what can be seen.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from labelgen.images import resize_image
from pipeline.toy import sprites, textures
from pipeline.toy.canvas import Canvas, Image, Mask, Quad, ToyClass, photograph
from pipeline.toy.scenes import driving_scene

SYNONYMS: dict[ToyClass, list[str]] = {
    ToyClass.SKY: ["sky"],
    ToyClass.BUILDING: ["building", "house"],
    ToyClass.POLE: ["pole", "post"],
    ToyClass.ROAD: ["road", "street"],
    ToyClass.SIDEWALK: ["sidewalk", "pavement"],
    ToyClass.TREE: ["tree", "vegetation"],
    ToyClass.SIGN: ["traffic sign", "sign symbol"],
    ToyClass.FENCE: ["fence", "railing"],
    ToyClass.CAR: ["car", "vehicle"],
    ToyClass.PEDESTRIAN: ["pedestrian", "person"],
    ToyClass.BICYCLIST: ["bicyclist", "cyclist"],
}
SURFACES = (ToyClass.SKY, ToyClass.BUILDING, ToyClass.TREE, ToyClass.ROAD, ToyClass.SIDEWALK)
THINGS = (*sprites.SPRITES, ToyClass.FENCE)
# Thin and small things need more examples than large surfaces do.
SUBJECT_SHARE = dict.fromkeys(ToyClass, 1.0) | {
    ToyClass.POLE: 2.0,
    ToyClass.PEDESTRIAN: 2.0,
    ToyClass.BICYCLIST: 1.5,
    ToyClass.FENCE: 1.5,
    ToyClass.SIGN: 1.5,
}
UPPER = (
    [ToyClass.SKY, ToyClass.BUILDING, ToyClass.TREE, ToyClass.SIDEWALK, ToyClass.ROAD],
    [0.36, 0.36, 0.18, 0.05, 0.05],
)
LOWER = ([ToyClass.ROAD, ToyClass.SIDEWALK, ToyClass.TREE, ToyClass.BUILDING], [0.45, 0.38, 0.07, 0.10])
VISIBLE_SHARE = 0.008  # of the picture: smaller things go unmentioned
MENTION_PROBABILITY = 0.9
STREET_SEED = (0, 11)  # no data set split draws from it


@dataclass(frozen=True)
class WebImage:
    """image_HW3 (uint8 RGB) and the classes its caption names, the subject first."""

    image_HW3: Image
    named: tuple[ToyClass, ...]


def web_image(rng: np.random.Generator, size: int = 80) -> WebImage:
    """Draw one square picture of `size` pixels."""
    share = np.array([SUBJECT_SHARE[c] for c in ToyClass])
    subject = ToyClass(rng.choice(len(ToyClass), p=share / share.sum()))
    canvas = Canvas(size, size)
    horizon = _background(rng, canvas, subject)
    for _ in range(rng.choice(4, p=[0.35, 0.35, 0.2, 0.1])):
        _place(rng, canvas, THINGS[rng.integers(len(THINGS))], horizon, (0.12, 0.5), central=False)
    if subject in THINGS and canvas.area(subject) < 0.3:
        alone = rng.random() < 0.7
        for _ in range(1 if alone else rng.integers(2, 4)):
            _place(rng, canvas, subject, horizon, (0.22, 0.95) if alone else (0.18, 0.5), central=True)
        if canvas.area(subject) < 0.01:
            _place(rng, canvas, subject, horizon, (0.4, 0.9), central=True)
    others = [c for c in _mentioned(rng, canvas.label_HW) if c != subject]
    return WebImage(photograph(rng, canvas.image_HW3), (subject, *others))


def street_photos(seed: list[int], count: int, size: int = 80) -> list[WebImage]:
    """Square pictures cut out of one driving scene and resized to `size` pixels."""
    rng = np.random.default_rng(seed)
    image_HW3, label_HW = driving_scene([*STREET_SEED, *seed])
    photos = []
    for _ in range(count):
        side = rng.integers(size, min(label_HW.shape) + 1)
        y, x = (rng.integers(0, length - side + 1) for length in label_HW.shape)
        cut = (slice(y, y + side), slice(x, x + side))
        named = _mentioned(rng, label_HW[cut])
        if named:
            photos.append(WebImage(resize_image(image_HW3[cut], size, size), tuple(named)))
    return photos


def _mentioned(rng: np.random.Generator, label_HW: Mask) -> list[ToyClass]:
    """The classes that a caption names, the largest first."""
    share = np.bincount(label_HW.ravel(), minlength=len(ToyClass)) / label_HW.size
    visible = [ToyClass(c) for c in np.argsort(-share) if share[c] > VISIBLE_SHARE]
    return [c for c in visible if rng.random() < MENTION_PROBABILITY]


def caption(rng: np.random.Generator, named: tuple[ToyClass, ...], templates: list[str]) -> str:
    """A sentence that names the classes: "a photo of a car, a pole and the sky."."""
    names = [SYNONYMS[c][rng.integers(len(SYNONYMS[c]))] for c in named]
    listed = names[0]
    if len(names) > 1:
        listed = ", a ".join(names[:-1]) + " and a " + names[-1]
    return templates[rng.integers(len(templates))].format(listed)


def _texture(rng: np.random.Generator, surface: ToyClass, h: int, w: int) -> Image:
    if surface == ToyClass.SKY:
        return textures.sky(rng, h, w)
    if surface == ToyClass.BUILDING:
        wall = textures.facade(rng, h, w, pixels_per_metre=h / rng.uniform(4, 16))
        return _receding(rng, wall) if rng.random() < 0.5 else wall
    if surface == ToyClass.TREE:
        return textures.foliage(rng, h, w)
    if surface == ToyClass.SIDEWALK:
        return textures.paving(rng, h, w, pixels_per_metre=w / rng.uniform(2.5, 7))
    road = textures.asphalt(rng, h, w)
    marks = rng.uniform(0.1, 0.9, rng.integers(0, 3)) * w
    textures.lane_marks(rng, road, marks.tolist(), max(1, int(w * rng.uniform(0.012, 0.03))))
    return road


def _background(rng: np.random.Generator, canvas: Canvas, subject: ToyClass) -> int:
    """Paint an upper and a lower surface; returns the row where they meet."""
    size = canvas.height
    upper, lower = (ToyClass(rng.choice(kinds, p=p)) for kinds, p in (UPPER, LOWER))
    horizon = int(size * rng.uniform(0.25, 0.75))
    if rng.random() < 0.2:
        horizon = size if rng.random() < 0.5 else 0
    if subject in SURFACES and rng.random() < 0.3:  # nothing but the subject
        upper = lower = subject
    elif subject in (ToyClass.ROAD, ToyClass.SIDEWALK):
        lower, horizon = subject, int(size * rng.uniform(0.1, 0.6))
    elif subject == ToyClass.SKY or (subject in SURFACES and rng.random() < 0.5):
        upper, horizon = subject, int(size * rng.uniform(0.4, 0.95))
    if horizon > 0:
        canvas.fill_rows(_texture(rng, upper, horizon, size), upper, 0, horizon)
    if horizon < size:
        below = size - horizon
        ground = _texture(rng, lower, 2 * size, 2 * size)
        if lower in (ToyClass.ROAD, ToyClass.SIDEWALK) and rng.random() < 0.65:
            ground = _tilted(ground, below, size, spread=rng.uniform(0.3, 1.0))
        canvas.fill_rows(ground, lower, horizon, size)
        if lower in (ToyClass.ROAD, ToyClass.SIDEWALK) and rng.random() < 0.35:
            _second_ground(rng, canvas, lower, horizon)
    return horizon


def _tilted(texture_hw3: Image, rows: int, columns: int, spread: float) -> Image:
    """The texture lying on the ground, seen in perspective."""
    h, w = texture_hw3.shape[:2]
    far, near, middle = columns * spread, columns * spread * 3, columns / 2
    corners = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
    quad = np.array([[middle - far, 0], [middle + far, 0], [middle + near, rows], [middle - near, rows]], np.float32)
    homography = cv2.getPerspectiveTransform(corners, quad)
    return cv2.warpPerspective(texture_hw3, homography, (columns, rows), borderMode=cv2.BORDER_REFLECT).astype(np.uint8)


def _receding(rng: np.random.Generator, texture_hw3: Image) -> Image:
    """The texture as a wall that runs away from the viewer, to the left or to the right."""
    h, w = texture_hw3.shape[:2]
    near, squeeze, horizon = h * rng.uniform(0.3, 1.5), rng.uniform(0.25, 0.8), h * rng.uniform(0.3, 1.0)
    corners = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
    quad = np.array([[0, -near], [w * squeeze, 0], [w * squeeze, horizon], [0, horizon + near]], np.float32)
    homography = cv2.getPerspectiveTransform(corners, quad)
    wall = cv2.warpPerspective(texture_hw3, homography, (w, h), borderMode=cv2.BORDER_REFLECT).astype(np.uint8)
    return wall if rng.random() < 0.5 else np.ascontiguousarray(wall[:, ::-1])


def _second_ground(rng: np.random.Generator, canvas: Canvas, lower: ToyClass, horizon: int) -> None:
    """Road beside sidewalk, divided by a slanted edge."""
    size = canvas.width
    other = ToyClass.SIDEWALK if lower == ToyClass.ROAD else ToyClass.ROAD
    left = rng.random() < 0.5
    top = size * (rng.uniform(-0.1, 0.35) if left else rng.uniform(0.65, 1.1))
    bottom, border = top + size * rng.uniform(-0.5, 0.5), 0 if left else size
    polygon: Quad = [(border, horizon), (top, horizon), (bottom, size), (border, size)]
    canvas.fill_polygon(_texture(rng, other, size, size), other, polygon, below=horizon)


def _place(
    rng: np.random.Generator,
    canvas: Canvas,
    kind: ToyClass,
    horizon: int,
    sizes: tuple[float, float],
    central: bool,
) -> None:
    """Put a thing on the ground, its height drawn log-uniformly between two shares of the picture."""
    size = canvas.height
    height = size * float(np.exp(rng.uniform(*np.log(sizes))))
    x = size * (rng.uniform(0.25, 0.75) if central else rng.uniform(-0.05, 1.05))
    ground = horizon + rng.uniform(0.02, 0.9) * (size - horizon) if horizon < size else rng.uniform(0.7, 1.1) * size
    bottom = float(np.clip(ground, 0.6 * height, size + 0.25 * height)) if central else ground
    shade = rng.uniform(0.8, 1.1)
    if kind == ToyClass.FENCE:
        fence = sprites.fence(rng, max(6, int(0.8 * height)), int(size * rng.uniform(0.5, 1.3)))
        canvas.paste(fence, kind, x, bottom, 0.8 * height, fence.alpha_hw.shape[1], shade)
        return
    if kind == ToyClass.POLE:
        height *= rng.uniform(1.2, 2.2)
    if kind == ToyClass.SIGN:
        height *= 0.7
        bottom = size * (rng.uniform(0.35, 0.95) if central else rng.uniform(0.2, 0.9))
        if rng.random() < 0.6:
            foot, length = bottom + height * rng.uniform(0.8, 2.5), height * rng.uniform(1.8, 3.2)
            canvas.paste(sprites.post(rng), ToyClass.POLE, x, foot, length, None, shade)
    canvas.paste(sprites.SPRITES[kind](rng), kind, x, bottom, height, None, shade)
