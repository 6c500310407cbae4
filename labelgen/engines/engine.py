"""What a label engine is, what it is begun with, and what its row in the table of engines says.

Shapes: C classes, T texts, D embedding, H W pixels, h w patches.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from labelgen.clr import Refiner
from labelgen.label import Asked, Batch, Prepared
from labelgen.maskclip import DenseCLIP
from labelgen.samples import ClassSet, Sample

OnStep = Callable[[int, int], object]  # hears (steps done, steps in all)


class Engine(Protocol):
    """Views of images in, score maps (T, h, w) out: higher is likelier, NaN where it says nothing."""

    @property
    def patch_px(self) -> int:
        """Pixels of a view, a side, that one score stands for; views are cut to multiples of it."""

    @property
    def needs_labels(self) -> bool:
        """Whether it scores only the classes that `Prepared.image_labels` names, which must be known then."""

    @property
    def weights(self) -> Mapping[str, str]:
        """Hashes, by name, of what it looks with besides CLIP's weights."""

    def ask(self, images: Sequence[Prepared], text_TD: torch.Tensor) -> Asked:
        """The maps of all views, to be read later. text_TD: unit vectors of the classes, or of single sentences."""


@dataclass(frozen=True)
class Inputs:
    """What an engine is begun with.

    dense: the run's CLIP, on the device to be used. classes: with their names for prompting. batch: views at once, 0 =
    what suits. settings: of all engines, each under its name. folder: where fitted engines keep their weights, each
    in NAME/network.
    """

    dense: DenseCLIP
    classes: ClassSet
    batch: int
    settings: Any
    folder: Path


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """A row of the table: what people should know of an engine, and how it is begun and fitted.

    is_dense: it compares any view with any text, as MaskCLIP does: local views, single sentences (labels.per_prompt)
    and 8 bits in the store suit it. Others see whole images and their classes. asks_clip: it compares with what CLIP
    makes of the words for the classes. begin: raises InputError for weights
    that are not at hand. fit: for engines that first learn from the training split; done when it returns, and goes on
    where it was cut. fitted_on: the engine whose fitted network this one's fit starts from. uses_labels: whether, with
    all engines' settings, image-level labels say what may be in an image; else every class may, and none are asked for.
    is_compared: whether, with these settings, a comparison of all engines is to hold it; others have to be named.
    refiner: what an engine knows of the regions of images, for further rounds (`labelgen.clr`).
    """

    about: str
    needs: str
    cost: str  # what is computed for an image, and what is paid before the first
    begin: Callable[[Inputs], Engine]
    settings: type | None = None
    is_dense: bool = False
    asks_clip: bool = True
    fit: Callable[[Inputs, Sequence[Sample], OnStep], object] | None = None
    fitted_on: str = ""
    uses_labels: Callable[[Any], bool] = lambda settings: True
    is_compared: Callable[[Any], bool] = lambda settings: True
    refiner: Callable[[Inputs], Refiner] | None = None


def ask_each(images: Sequence[Prepared], maps_of: Callable[[Prepared, int], NDArray[np.float32]]) -> Asked:
    """For engines that look at one view at a time: maps_of(image, number of its view) -> (C, h, w)."""
    places = [(i, v) for i, image in enumerate(images) for v in range(len(image.views))]
    return Asked(images, (Batch([(i, v)], torch.from_numpy(maps_of(images[i], v))[None], None) for i, v in places))


def absent_is_silent(maps_Khw: NDArray[np.float32], present: Sequence[int], classes: int) -> NDArray[np.float32]:
    """(C, h, w): the maps of the K classes present, NaN for all others."""
    maps_Chw = np.full((classes, *maps_Khw.shape[1:]), np.nan, np.float32)
    maps_Chw[list(present)] = maps_Khw
    return maps_Chw
