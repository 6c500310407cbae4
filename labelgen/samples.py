"""Sample, ClassSet and InputError: the vocabulary that every stage shares."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypedDict

IGNORE_INDEX = 255  # the train id of pixels that count for nothing
FORMULA_SIGNS = ("=", "+", "-", "@")  # a spreadsheet takes a cell that begins like this for a formula


class InputError(ValueError):
    """What the user gave cannot be used; the message says what to do, in one line."""


class Sample(TypedDict):
    """One image of a split.

    label_path is None where truth must not be seen (training splits, unless pseudo-labels are being scored), or where
    there is none; image_labels holds the train ids that the image shows, the only supervision there is, or None where
    nobody has said what it shows.
    """

    image_id: str
    image_path: str
    label_path: str | None
    image_labels: list[int] | None


def is_whole_number(text: str) -> bool:
    """Whether somebody typed a number from 0 that fits a computer."""
    return text.isdecimal() and len(text) <= 18  # int() refuses thousands of digits


def require_class_names(names: Iterable[str]) -> None:
    """Raise InputError for a name that is not printable, or a formula: names go to terminals and spreadsheets."""
    bad = next((name for name in names if not name.isprintable() or name.startswith(FORMULA_SIGNS)), None)
    if bad is not None:
        signs = " ".join(FORMULA_SIGNS)
        raise InputError(f"a class name holds no control characters and begins with none of {signs}, got {bad!r}")


@dataclass(frozen=True)
class ClassSet:
    """The classes of a data set, by train id.

    prompts: for each class the names that are put into the templates (synonyms). palette: RGB, 0..255.
    categories: for each class the group that it belongs to, or () where there are no groups.
    """

    names: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    palette: tuple[tuple[int, int, int], ...]
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.prompts) == len(self.palette):
            raise InputError(
                f"a class set needs as many prompts and colours as names, got {len(self.names)} names, "
                f"{len(self.prompts)} prompts and {len(self.palette)} colours"
            )
        if self.categories and len(self.categories) != len(self.names):
            raise InputError(f"a class set needs one category a class or none at all, got {len(self.categories)}")
        require_class_names(self.names)

    def __len__(self) -> int:
        return len(self.names)
