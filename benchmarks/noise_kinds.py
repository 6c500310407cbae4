"""Known kinds of noise in pseudo-labels, made from truth.

Each takes truth_HW (uint8 train ids of toy scenes), a rate in 0..1 and a generator, and gives pseudo-labels of classes
that the image shows. Shapes: H W pixels.
"""

from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.toy.canvas import ToyClass

Mask = NDArray[np.uint8]

THINGS = (ToyClass.POLE, ToyClass.SIGN, ToyClass.FENCE, ToyClass.CAR, ToyClass.PEDESTRIAN, ToyClass.BICYCLIST)
CALLED = {
    ToyClass.SIDEWALK: ToyClass.ROAD,
    ToyClass.TREE: ToyClass.BUILDING,
    ToyClass.FENCE: ToyClass.BUILDING,
    ToyClass.SIGN: ToyClass.POLE,
    ToyClass.BICYCLIST: ToyClass.PEDESTRIAN,
    ToyClass.CAR: ToyClass.ROAD,
}


def blobs(truth_HW: Mask, rate: float, rng: np.random.Generator) -> Mask:
    """Blobs anywhere, of any class, that cover a share of the pixels."""
    shown = np.unique(truth_HW)
    class_HW = shown[np.argmax([_field(rng, truth_HW.shape, 5) for _ in shown], 0)]
    where_HW = _field(rng, truth_HW.shape, 5)
    return np.where(where_HW < np.quantile(where_HW, rate), class_HW, truth_HW)


def objects(truth_HW: Mask, rate: float, rng: np.random.Generator) -> Mask:
    """A share of the objects (connected regions of a class) are called by any other class: no rule in it."""
    noisy_HW = truth_HW.copy()
    for class_id, region_HW in _regions(truth_HW, ToyClass):
        others = np.setdiff1d(truth_HW, [class_id])
        if rng.random() < rate and len(others):
            noisy_HW[region_HW] = rng.choice(others)
    return noisy_HW


def confused(truth_HW: Mask, rate: float, rng: np.random.Generator) -> Mask:
    """Six classes are each called by a certain other one in a share of the images: a rule that can be learned."""
    noisy_HW = truth_HW.copy()
    for class_id, called in CALLED.items():
        if rng.random() < rate and (truth_HW == called).any():
            noisy_HW[truth_HW == class_id] = called
    return noisy_HW


def swallowed(truth_HW: Mask, rate: float, rng: np.random.Generator) -> Mask:
    """A share of poles, signs, fences, cars and people is what surrounds them."""
    noisy_HW = truth_HW.copy()
    for _, region_HW in _regions(truth_HW, THINGS):
        if rng.random() < rate:
            _, nearest_HW = cv2.distanceTransformWithLabels(
                region_HW.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
            )
            class_of = np.zeros(nearest_HW.max() + 1, np.uint8)  # the class of each pixel outside, by its number
            class_of[nearest_HW[~region_HW]] = truth_HW[~region_HW]
            noisy_HW[region_HW] = class_of[nearest_HW[region_HW]]
    return noisy_HW


def borders(truth_HW: Mask, rate: float, rng: np.random.Generator) -> Mask:
    """The map is warped: borders are shifted by rate x 12 pixels (root mean square), smoothly along the border."""
    y_HW, x_HW = np.mgrid[: truth_HW.shape[0], : truth_HW.shape[1]].astype(np.float32)
    shifts = [12 * rate * _field(rng, truth_HW.shape, 6).astype(np.float32) for _ in "yx"]
    warped_HW = cv2.remap(
        truth_HW, x_HW + shifts[1], y_HW + shifts[0], cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE
    )
    return warped_HW.astype(np.uint8)


KINDS: dict[str, Callable[[Mask, float, np.random.Generator], Mask]] = {
    "blobs": blobs,
    "objects": objects,
    "confused": confused,
    "swallowed": swallowed,
    "borders": borders,
}


def _field(rng: np.random.Generator, size: tuple[int, ...], sigma_px: float) -> NDArray[np.float64]:
    """A smooth random map of deviation 1."""
    field_HW = cv2.GaussianBlur(rng.standard_normal(size), (0, 0), sigma_px)
    return np.asarray(field_HW / field_HW.std(), np.float64)


def _regions(truth_HW: Mask, classes: Iterable[int]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """The connected regions of some classes."""
    for class_id in classes:
        count, number_HW = cv2.connectedComponents((truth_HW == class_id).astype(np.uint8))
        for number in range(1, count):
            yield class_id, number_HW == number
