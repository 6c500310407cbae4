"""Which image takes which place in which step, from (seed, step) alone: a resumed run needs no sampler state."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Place(NamedTuple):
    """Which image takes which place in which step."""

    step: int
    slot: int
    row: int


@dataclass(frozen=True)
class Order:
    """The order of a run: every image once an epoch, shuffled anew each epoch, from (seed, step) alone."""

    images: int
    batch: int  # over all processes
    seed: int

    def places(self, step: int) -> list[Place]:
        """The images of one step."""
        numbers = range(step * self.batch, (step + 1) * self.batch)
        return [Place(step, slot, self._row(number)) for slot, number in enumerate(numbers)]

    def _row(self, number: int) -> int:
        epoch, place = divmod(number, self.images)
        return int(_shuffled(self.seed, epoch, self.images)[place])


@lru_cache(maxsize=2)  # a step may lie in two epochs
def _shuffled(seed: int, epoch: int, images: int) -> NDArray[np.int64]:
    """The order of one epoch: 8 bytes an image, drawn once an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(images)
