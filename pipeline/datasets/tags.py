"""Image-level labels ("tags"): which classes an image shows, from pixel labels or from a CSV or JSON file."""

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from labelgen.files import read_csv, read_json
from labelgen.samples import IGNORE_INDEX, ClassSet, InputError
from pipeline.names import look_up

FORMATS = (".csv", ".json")
Source = Literal["data", "auto", "model"]
GUESSED: tuple[Source, ...] = ("auto", "model")


@dataclass(frozen=True, kw_only=True)
class TagConfig:
    """Where image-level labels come from."""

    # data: as the data set has them; else unknown, and guessed: auto by CLIP's patches, model by a tagger (tagger....)
    source: Source = "data"
    min_area: float = 0.0  # share of an image's pixels that a class must cover, where tags come from pixel labels
    file: str = ""  # CSV or JSON (see read_tags) instead of what the data set has

    def __post_init__(self) -> None:
        if self.source not in ("data", *GUESSED):
            raise InputError(f"tags.source must be data, auto or model, got {self.source!r}")
        if not 0 <= self.min_area < 1:
            raise InputError(f"tags.min_area must be in [0, 1), got {self.min_area}")
        if self.file and Path(self.file).suffix.lower() not in FORMATS:
            raise InputError(f"tags.file must be a .csv or .json file, got {self.file!r}")
        if self.file and self.is_guessed:
            raise InputError(
                f"tags.file says what the images show and tags.source={self.source} that it is unknown: "
                "drop one of the two"
            )

    @property
    def is_guessed(self) -> bool:
        """Whether nobody has said what images show."""
        return self.source in GUESSED


def as_setting(tags: str) -> str:
    """The setting (NAME=VALUE) that --tags stands for. Raises InputError for what is neither a file nor a guess."""
    if tags not in GUESSED and not tags.endswith(FORMATS):
        raise InputError(f"--tags takes a .csv or .json file, auto or model, got {tags!r}")
    return f"tags.source={tags}" if tags in GUESSED else f"tags.file={json.dumps(tags)}"


def present_classes(truth_HW: NDArray[np.uint8], min_area: float = 0.0) -> list[int]:
    """Train ids that cover at least `min_area` of a label map, and at least one pixel; void is left out.

    The image-level labels, as the paper derives them (min_area 0).
    """
    pixels_C = np.bincount(truth_HW.ravel(), minlength=IGNORE_INDEX)[:IGNORE_INDEX]
    return [int(c) for c in np.flatnonzero(pixels_C >= max(1.0, min_area * truth_HW.size))]


def presence(labels: Sequence[Sequence[int]], classes: int) -> NDArray[np.bool_]:
    """(N, C) bool: lists of train ids, one an image, as a table; also for no images."""
    is_present_NC = np.zeros((len(labels), classes), bool)
    for row, train_ids in enumerate(labels):
        is_present_NC[row, list(train_ids)] = True
    return is_present_NC


def read_tags(path: Path, classes: ClassSet) -> dict[str, list[int]]:
    """Image name -> train ids, from a file of image-level labels. Images that show nothing are left out: unknown.

    CSV: a first line `image,labels`, then lines such as `a.jpg,road;traffic light` (or `a.jpg,road car`, where no
    name holds a space). JSON: {"a.jpg": ["road", "traffic light"]}.
    Raises InputError for a broken file, an image that stands there twice, and a class that there is not.
    """
    if not path.is_file():
        raise InputError(f"no labels file {path}")
    rows = _read_csv(path, classes) if path.suffix.lower() == ".csv" else _read_json(path)
    tags: dict[str, list[int]] = {}
    train_ids = {name: i for i, name in enumerate(classes.names)}
    for name_as_written, names in rows:
        image = as_typed(name_as_written)
        if image in tags:
            raise InputError(f"{path} names {image!r} twice; keep one of the two lines")
        tags[image] = sorted({look_up(train_ids, name, f"class in {path}, {image}:") for name in names})
    return {image: present for image, present in tags.items() if present}


def as_typed(name: str) -> str:
    """A file name in the form that keyboards give; some file systems store "e" and its accent apart."""
    return unicodedata.normalize("NFC", name)


def _read_csv(path: Path, classes: ClassSet) -> list[tuple[str, list[str]]]:
    rows = []
    for _, row in read_csv(path, ("image", "labels")):
        if None in row:  # what follows a second comma
            raise InputError(f"{path}: separate the classes of {row['image']} with ';', not with ','")
        if row["image"]:
            rows.append((row["image"], _split_names(row["labels"] or "", classes)))
    return rows


def _split_names(text: str, classes: ClassSet) -> list[str]:
    text = text.strip()
    names = text.split(";") if ";" in text else [text] if text in classes.names else text.split()
    return [name.strip() for name in names if name.strip()]


def _read_json(path: Path) -> list[tuple[str, list[str]]]:
    # Pairs, not a dict: json keeps the last of two equal keys and says nothing.
    pairs = read_json(path, object_pairs_hook=list)
    shape = 'an object such as {"a.jpg": ["road", "car"]}'
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise InputError(f"{path} must hold {shape}")
    for image, names in pairs:
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{path} must hold {shape}, got {names!r} for {image!r}")
    return pairs
