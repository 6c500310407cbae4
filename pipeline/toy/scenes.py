"""Toy driving scenes with exact labels, written to disk in CamVid's layout.

A pinhole camera 1.5 m above a straight road: x to the right, y up, z ahead, all in metres. Everything is drawn
from far to near, so that near objects hide far ones in the image and in the label alike.
"""

import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from labelgen.images import write_png
from pipeline.toy import sprites, textures
from pipeline.toy.canvas import Canvas, Image, Mask, Quad, Sprite, ToyClass, photograph, solid

FAR_M, NEAR_M = 90.0, 2.0


@dataclass(frozen=True)
class Camera:
    """Projects metres to pixels."""

    horizon_y: float
    vanishing_x: float
    focal_px: float
    x_m: float
    height_m: float = 1.5

    def project(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Pixel (column, row) of the point (x, y, z)."""
        scale = self.focal_px / z
        return self.vanishing_x + scale * (x - self.x_m), self.horizon_y + scale * (self.height_m - y)

    def wall(self, x: float, height: float, far_z: float, near_z: float) -> Quad:
        """Corners of an upright rectangle that runs along the road."""
        return [self.project(x, y, z) for y, z in ((height, far_z), (height, near_z), (0, near_z), (0, far_z))]

    def ground(self, left_x: float, right_x: float) -> Quad:
        """Corners of a strip of ground between two distances from the road's middle."""
        return [
            self.project(x, 0, z) for x, z in ((left_x, FAR_M), (right_x, FAR_M), (right_x, NEAR_M), (left_x, NEAR_M))
        ]


@dataclass(frozen=True)
class Thing:
    """An object that stands at (x, z) and is `height_m` high."""

    z: float
    kind: ToyClass
    x: float
    height_m: float


def driving_scene(seed: int | list[int], height: int = 160, width: int = 320) -> tuple[Image, Mask]:
    """One scene: image_HW3 (uint8 RGB) and label_HW (uint8, ToyClass ids). The same seed gives the same scene."""
    rng = np.random.default_rng(seed)
    canvas = Canvas(height, width, ToyClass.SKY)
    camera = Camera(
        horizon_y=height * rng.uniform(0.40, 0.50),
        vanishing_x=width * rng.uniform(0.38, 0.62),
        focal_px=height * rng.uniform(1.5, 1.9),
        x_m=rng.uniform(-1.5, 1.5),
    )
    road_m, walk_m = rng.uniform(3.2, 5.0), rng.uniform(2.0, 4.0)  # half width of the road, width of the sidewalk
    canvas.image_HW3[:] = textures.sky(rng, height, width)
    _ground(rng, canvas, camera, road_m, walk_m)
    _skyline(rng, canvas, camera)
    for side in (-1, 1):
        _street_side(rng, canvas, camera, side, road_m + walk_m)
    for thing in sorted(_things(rng, road_m, walk_m), key=lambda thing: -thing.z):
        _stand(rng, canvas, camera, thing)
    if rng.random() < 0.5:  # light that changes from left to right
        left, right = rng.uniform(0.75, 1.05, 2)
        light = np.linspace(left, right, width, dtype=np.float32)[None, :, None]
        canvas.image_HW3[:] = textures.as_uint8(canvas.image_HW3 * light)
    return photograph(rng, canvas.image_HW3, 0.9), canvas.label_HW


def _ground(rng: np.random.Generator, canvas: Canvas, camera: Camera, road_m: float, walk_m: float) -> None:
    horizon = int(camera.horizon_y) + 1
    canvas.image_HW3[horizon:] = 110
    canvas.label_HW[horizon:] = ToyClass.SIDEWALK
    outer = road_m + walk_m + 6
    for left, right in ((-outer, -road_m), (road_m, outer)):
        slabs = textures.paving(rng, 512, 64, pixels_per_metre=8)
        canvas.warp(solid(slabs), ToyClass.SIDEWALK, camera.ground(left, right))
    asphalt = textures.asphalt(rng, 512, 256)
    lanes = rng.integers(2, 5)
    textures.lane_marks(rng, asphalt, [256 * k / lanes for k in range(1, lanes)], width=5)
    if rng.random() < 0.6:  # edge lines
        asphalt[:, 6:10] = asphalt[:, 246:250] = (226, 226, 218)
    canvas.warp(solid(asphalt), ToyClass.ROAD, camera.ground(-road_m, road_m))
    # A texture squeezed towards the horizon goes smooth: real asphalt stays rough in the picture.
    road = canvas.label_HW == ToyClass.ROAD
    h, w = canvas.height, canvas.width
    grain = textures.noise(rng, h, w, 2, 5) + textures.noise(rng, h, w, 12, 4)
    canvas.image_HW3[road] = textures.as_uint8(canvas.image_HW3[road] + grain[road][:, None])
    for x in (-road_m, road_m):
        far, near = (tuple(int(v) for v in camera.project(x, 0, z)) for z in (FAR_M, NEAR_M))
        cv2.line(canvas.image_HW3, far, near, (185, 183, 178), 1)


def _skyline(rng: np.random.Generator, canvas: Canvas, camera: Camera) -> None:
    x = 0.0
    while x < canvas.width:
        w, h = rng.uniform(0.05, 0.14) * canvas.width, rng.uniform(0.06, 0.22) * canvas.height
        centre, ground = x + w / 2, camera.horizon_y + 2
        if rng.random() < 0.6:
            canvas.paste(sprites.house(rng), ToyClass.BUILDING, centre, ground, h, w, rng.uniform(0.85, 1.05))
        else:
            canvas.paste(sprites.tree(rng), ToyClass.TREE, centre, ground, 0.9 * h, 1.2 * w)
        x += w * rng.uniform(0.8, 1.3)


def _street_side(rng: np.random.Generator, canvas: Canvas, camera: Camera, side: int, distance_m: float) -> None:
    """Houses, or trees behind a fence, along one side of the street."""
    x, z = side * distance_m, 80.0
    while z > 3:
        near_z = max(2.2, z - (rng.uniform(7, 16) if z > 25 else rng.uniform(5, 12)))
        kind = rng.choice(["houses", "trees", "fence"], p=[0.6, 0.22, 0.18])
        if kind == "houses":
            height_m = rng.uniform(5, 13)
            wall = textures.facade(rng, int(height_m * 10), max(20, int((z - near_z) * 10)), pixels_per_metre=10)
            canvas.warp(solid(wall), ToyClass.BUILDING, camera.wall(x, height_m, z, near_z))
        else:
            for _ in range(rng.integers(1, 4)):
                tree = Thing(rng.uniform(near_z, z), ToyClass.TREE, x + side * rng.uniform(1, 4), rng.uniform(4, 8))
                _stand(rng, canvas, camera, tree)
            if kind == "fence" or rng.random() < 0.4:
                fence = sprites.fence(rng, 40, int(max(30, (z - near_z) * 24)))
                canvas.warp(fence, ToyClass.FENCE, camera.wall(x, rng.uniform(1.1, 1.9), z, near_z))
        z = near_z


def _things(rng: np.random.Generator, road_m: float, walk_m: float) -> list[Thing]:
    def distance(near: float, far: float) -> float:
        return float(1 / rng.uniform(1 / far, 1 / near))  # uniform in size on the picture

    things: list[Thing] = []
    for side in (-1, 1):
        kerb = side * road_m
        if rng.random() < 0.85:  # a row of street lamps
            x = kerb + side * rng.uniform(0.3, 0.9)
            for z in np.arange(rng.uniform(7, 14), 50, rng.uniform(12, 24)):
                things.append(Thing(float(z), ToyClass.POLE, x, rng.uniform(4.5, 7.5)))
        for _ in range(rng.integers(0, 3)):
            things.append(
                Thing(distance(7, 40), ToyClass.SIGN, kerb + side * rng.uniform(0.2, 1.2), rng.uniform(0.75, 1.1))
            )
        for _ in range(rng.integers(0, 2)):
            things.append(
                Thing(distance(9, 45), ToyClass.TREE, kerb + side * rng.uniform(0.8, walk_m - 0.3), rng.uniform(3.5, 7))
            )
        for _ in range(rng.poisson(1.4)):
            things.append(
                Thing(
                    distance(6, 30),
                    ToyClass.PEDESTRIAN,
                    kerb + side * rng.uniform(0.5, walk_m - 0.2),
                    rng.uniform(1.5, 1.85),
                )
            )
        if rng.random() < 0.3:  # parked cars
            for k in range(rng.integers(1, 5)):
                z = 9 + rng.uniform(0, 5) + 6.5 * k
                things.append(Thing(z, ToyClass.CAR, side * (road_m - 1.0), rng.uniform(1.4, 1.8)))
    for _ in range(rng.integers(0, 5)):
        things.append(
            Thing(distance(8, 55), ToyClass.CAR, rng.uniform(-road_m + 1.1, road_m - 1.1), rng.uniform(1.35, 1.9))
        )
    if rng.random() < 0.12:  # somebody crosses the road
        things.append(Thing(distance(9, 25), ToyClass.PEDESTRIAN, rng.uniform(-road_m, road_m), 1.7))
    for _ in range(rng.poisson(0.8)):
        x = (road_m - 0.6) * rng.choice([-1, 1]) + rng.uniform(-0.5, 0.5)
        things.append(Thing(distance(6, 28), ToyClass.BICYCLIST, x, rng.uniform(1.65, 1.9)))
    return things


def _stand(rng: np.random.Generator, canvas: Canvas, camera: Camera, thing: Thing) -> None:
    """Paint a thing where it stands, with its shadow (or a sign on its post)."""
    x, y = camera.project(thing.x, 0, thing.z)
    metre = camera.focal_px / thing.z
    height, shade = thing.height_m * metre, rng.uniform(0.85, 1.1)
    if thing.kind == ToyClass.SIGN:
        post_m = rng.uniform(2.1, 2.8)
        canvas.paste(sprites.post(rng), ToyClass.POLE, x, y, post_m * metre)
        y = camera.project(thing.x, post_m - 0.3, thing.z)[1]
    elif thing.kind in (ToyClass.CAR, ToyClass.PEDESTRIAN, ToyClass.BICYCLIST):
        canvas.shadow(x, y, height * (0.7 if thing.kind == ToyClass.CAR else 0.25), 0.12 * metre)
    sprite: Sprite = sprites.SPRITES[thing.kind](rng)
    canvas.paste(sprite, thing.kind, x, y, height, shade=shade)


SCENES = {"train": 300, "val": 80, "test": 80}
SPLIT_SEEDS = {"train": 1, "val": 2, "test": 3}


def write_scenes(
    root: Path, scenes: dict[str, int], seed: int = 0, on_scene: Callable[[], object] = lambda: None
) -> None:
    """Draw `scenes[split]` scenes of each split into SPLIT/ and SPLITannot/ below `root` (CamVid's layout).

    The folder appears whole or not at all. Two processes draw; the files depend on the seed alone.
    """
    partial = root.with_name(root.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    jobs = []
    for split, count in scenes.items():
        (partial / split).mkdir(parents=True)
        (partial / f"{split}annot").mkdir()
        jobs += [(partial, split, number, seed) for number in range(count)]
    with ProcessPoolExecutor(2) as pool:
        for _ in pool.map(_write_scene, jobs, chunksize=8):
            on_scene()
    partial.rename(root)


def _write_scene(job: tuple[Path, str, int, int]) -> None:
    root, split, number, seed = job
    image_HW3, label_HW = driving_scene([seed, SPLIT_SEEDS[split], number])
    write_png(root / split / f"toy_{number:04d}.png", image_HW3)
    write_png(root / f"{split}annot" / f"toy_{number:04d}.png", label_HW)
