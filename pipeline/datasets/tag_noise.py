"""Kinds of image-level labels ("tags"), from exact to none at all: what noise makes of the classes that truth shows.

Shapes: C classes, H W pixels.
"""

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from labelgen.samples import InputError
from pipeline.datasets.tags import present_classes

Kind = Literal["exact", "min_area", "dropped", "added", "auto", "none"]


@dataclass(frozen=True)
class Tagging:
    """A way of saying which classes an image shows.

    exact: those that truth shows. min_area: those of them that cover a share of `rate` of its pixels. dropped: each of
    them is forgotten with the probability `rate`. added: each class that it does not show is claimed with the
    probability `rate`. auto: what CLIP guesses. none: nobody says anything, so every class is allowed.
    """

    kind: Kind
    rate: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise InputError(f"the rate of a kind of tags must be in [0, 1], got {self.rate}")

    @property
    def name(self) -> str:
        """For people, such as "10 % dropped"."""
        rate = f"{100 * self.rate:g} %"
        names = {"min_area": f"{rate} of the image or more", "dropped": f"{rate} dropped", "added": f"{rate} added"}
        return (names | {"auto": "automatic", "none": "none: all classes"}).get(self.kind, self.kind)


RATES = (0.1, 0.3, 0.5)
TAGGINGS = (
    Tagging("exact"),
    *(Tagging("min_area", area) for area in (0.001, 0.01)),
    *(Tagging("dropped", rate) for rate in RATES),
    *(Tagging("added", rate) for rate in RATES),
    Tagging("auto"),
    Tagging("none"),
)


def draw(seed: int, image_id: str, classes: int) -> NDArray[np.float64]:
    """(C,) numbers in [0, 1), fixed by (seed, image id): the order of the images does not matter."""
    return np.random.default_rng([seed, zlib.crc32(image_id.encode())]).random(classes)


def noisy_tags(
    tagging: Tagging, truth_HW: NDArray[np.uint8], guessed_C: NDArray[np.bool_], draw_C: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """(C,) bool: the classes that `tagging` says an image shows.

    truth_HW: train ids, 255 = ignore. guessed_C: what CLIP guesses. draw_C: from `draw`; with one draw a higher rate
    drops (or adds) what a lower one does and more, so that rates differ by their rate, not by luck.
    """
    C = len(draw_C)
    exact_C = np.isin(np.arange(C), present_classes(truth_HW))
    match tagging.kind:
        case "exact":
            return exact_C
        case "min_area":
            return np.isin(np.arange(C), present_classes(truth_HW, tagging.rate))
        case "dropped":
            return exact_C & (draw_C >= tagging.rate)
        case "added":
            return exact_C | (draw_C < tagging.rate)
        case "auto":
            return guessed_C
        case "none":
            return np.ones(C, bool)
