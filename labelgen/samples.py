"""Sample, ClassSet and InputError: the vocabulary that every stage shares."""

from dataclasses import dataclass
from typing import TypedDict

IGNORE_INDEX = 255  # the train id of pixels that count for nothing


class InputError(ValueError):
    """What the user gave cannot be used; the message says what to do, in one line."""


class Sample(TypedDict):
    """One image of a split.

    label_path is None where truth must not be seen (training splits, unless pseudo-labels are being scored);
    image_labels holds the train ids that the image shows, the only supervision there is; None where nobody said.
    """

    image_id: str
    image_path: str
    label_path: str | None
    image_labels: list[int] | None


@dataclass(frozen=True)
class ClassSet:
    """The classes of a data set, by train id.

    prompts: for each class the names that are put into the templates (synonyms). palette: RGB, 0..255.
    """

    names: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    palette: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.prompts) == len(self.palette):
            raise InputError(
                f"a class set needs as many prompts and colours as names, got {len(self.names)} names, "
                f"{len(self.prompts)} prompts and {len(self.palette)} colours"
            )

    def __len__(self) -> int:
        return len(self.names)
