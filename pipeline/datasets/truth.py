"""From label files to train ids: what stands for the classes in them, ids or colours.

Shapes: H W pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelgen.images import open_image, read_image, read_label_map
from labelgen.samples import IGNORE_INDEX, InputError
from pipeline.datasets.classes import RGB


class RawLabel(NamedTuple):
    """A label file as stored. values_HW: uint8 ids, or int32 colours as 0xRRGGBB; known: value -> train id."""

    values_HW: NDArray[np.uint8] | NDArray[np.int32]
    known: Mapping[int, int]
    is_colour: bool


@dataclass(frozen=True, kw_only=True)
class LabelCode:
    """How the label files of a data set are to be read.

    ids: raw id -> train id (255 = void). colours: the same for label files that hold RGB colours; empty where none do.
    train_id_files: label files whose names end like this hold train ids already.
    """

    ids: Mapping[int, int]
    colours: Mapping[RGB, int] = field(default_factory=dict)
    train_id_files: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: all that decides what a label file means."""
        colours = {str(_packed(colour)): i for colour, i in self.colours.items()}
        ids = {str(raw): i for raw, i in self.ids.items()}
        return {"ids": ids, "colours": colours, "train_id_files": self.train_id_files}

    def read_raw(self, path: str | Path) -> RawLabel:
        """The label file as stored. Raises FileNotFoundError, and InputError for a broken file or colours for ids."""
        if self.colours and _is_colour(path):
            values_HW3 = read_image(path).astype(np.int32)
            values_HW = values_HW3 @ np.array([1 << 16, 1 << 8, 1], np.int32)
            return RawLabel(values_HW, {_packed(colour): i for colour, i in self.colours.items()}, True)
        known = self.ids
        if self.train_id_files and str(path).endswith(self.train_id_files):
            known = {i: i for i in self.ids.values()}
        return RawLabel(read_label_map(path), known, False)

    def read(self, path: str | Path) -> NDArray[np.uint8]:
        """truth_HW: uint8 train ids; 255 for void and for values that are not known (`datasets check` counts them)."""
        raw = self.read_raw(path)
        if not raw.is_colour:
            table = np.full(256, IGNORE_INDEX, np.uint8)
            table[list(raw.known)] = list(raw.known.values())
            return table[raw.values_HW]
        values = np.array(sorted(raw.known), np.int32)
        train_ids = np.array([raw.known[int(value)] for value in values], np.uint8)
        place_HW = np.searchsorted(values, raw.values_HW).clip(max=len(values) - 1)
        return np.where(values[place_HW] == raw.values_HW, train_ids[place_HW], np.uint8(IGNORE_INDEX))


def _packed(colour: RGB) -> int:
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def _is_colour(path: str | Path) -> bool:
    """From the file's header; a broken file is left for the reader to complain about."""
    try:
        with Path(path).open("rb") as file, open_image(path, file) as image:
            return image.mode in ("RGB", "RGBA", "P")
    except InputError:
        return False
