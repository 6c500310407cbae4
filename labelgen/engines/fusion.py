"""Two engines as one: the mean of both, or stuff from the first and things from the second.

Shapes: C classes, h w patches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from labelgen.engines.engine import Engine, EngineSpec, Inputs
from labelgen.engines.regions import for_patch
from labelgen.engines.things import THINGS
from labelgen.images import resize_logits
from labelgen.label import Asked, Batch, Prepared
from labelgen.samples import ClassSet, InputError

Rule = Literal["things", "mean"]


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """How two engines become one (--engine FIRST+SECOND)."""

    rule: Rule = "mean"  # of both, for each class; things: stuff from the first engine, things from the second
    things: tuple[str, ...] = THINGS  # names of classes; all others are stuff

    def __post_init__(self) -> None:
        if self.rule not in ("things", "mean"):
            raise InputError(f"fusion.rule must be things or mean, got {self.rule!r}")


class Fused:
    """Whole images, and the classes that they show; maps come on the finer of both grids, as shares in 0..1."""

    needs_labels = True

    def __init__(
        self,
        engines: tuple[Engine, Engine],
        temperatures: tuple[float | None, float | None],
        classes: ClassSet,
        config: FusionConfig,
    ) -> None:
        """temperatures: of an engine that gives cosines, what CLIP was trained with; None: its scores are in 0..1."""
        self.engines, self.temperatures, self.rule = engines, temperatures, config.rule
        self.is_thing_C = np.isin(classes.names, config.things)
        self.patch_px = min(engine.patch_px for engine in engines)
        self.weights = {
            f"{place}.{name}": digest
            for place, engine in zip(("first", "second"), engines, strict=True)
            for name, digest in engine.weights.items()
        }

    def ask(self, images: Sequence[Prepared], text_TD: torch.Tensor) -> Asked:
        """What both say, put together when it is read."""
        asked = [e.ask([for_patch(image, e.patch_px) for image in images], text_TD) for e in self.engines]
        return Asked(images, self._batches(images, asked))

    def _batches(self, images: Sequence[Prepared], asked: Sequence[Asked]) -> Iterator[Batch]:
        both = [one.logits() for one in asked]
        for i, image in enumerate(images):
            for v, view in enumerate(image.views):
                grid = view.grid(self.patch_px)
                first, second = (
                    calibrated(resize_logits(maps[i][v], *grid), image.image_labels or (), temperature)
                    for maps, temperature in zip(both, self.temperatures, strict=True)
                )
                fused_Chw = fuse(first, second, self.is_thing_C if self.rule == "things" else None)
                yield Batch([(i, v)], torch.from_numpy(fused_Chw)[None], None)


def calibrated(maps_Chw: NDArray[np.float32], present: Sequence[int], temperature: float | None) -> NDArray[np.float32]:
    """Scores in 0..1, NaN for absent classes: cosines by softmax over the classes present, other scores as they are."""
    shares_Chw = np.full_like(maps_Chw, np.nan)
    if len(present):
        present_Khw = maps_Chw[list(present)]
        if temperature is not None:
            scaled_Khw = temperature * present_Khw
            powers_Khw = np.exp(scaled_Khw - scaled_Khw.max(0))
            present_Khw = powers_Khw / powers_Khw.sum(0)
        shares_Chw[list(present)] = present_Khw
    return shares_Chw


def fuse(
    first_Chw: NDArray[np.float32], second_Chw: NDArray[np.float32], is_thing_C: NDArray[np.bool_] | None
) -> NDArray[np.float32]:
    """Things from the second and all else from the first; without is_thing_C the mean of what either says."""
    if is_thing_C is not None:
        return np.where(is_thing_C[:, None, None], second_Chw, first_Chw)
    mean_Chw = (first_Chw + second_Chw) / 2
    alone_Chw = np.where(np.isnan(first_Chw), second_Chw, first_Chw)
    return np.where(np.isnan(mean_Chw), alone_Chw, mean_Chw)


def fused_spec(first: EngineSpec, second: EngineSpec) -> EngineSpec:
    """The row of an engine that is made of two. Raises InputError for those that are fitted first."""
    if first.fit or second.fit:
        raise InputError("an engine that is fitted first cannot be a part of another; take others, such as maskclip")

    def begin(inputs: Inputs) -> Fused:
        temperature = float(inputs.dense.model.logit_scale.exp())
        temperatures = tuple(temperature if spec.is_dense else None for spec in (first, second))
        engines = first.begin(inputs), second.begin(inputs)
        return Fused(engines, temperatures, inputs.classes, inputs.settings.fusion)  # type: ignore[arg-type]

    return EngineSpec(
        about="two engines as one", needs=f"{first.needs}; {second.needs}", cost="that of both", begin=begin
    )
