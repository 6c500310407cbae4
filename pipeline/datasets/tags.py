"""Image-level labels ("tags"): which classes an image shows, from pixel labels or from a CSV or JSON file."""

import csv
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from labelgen.samples import IGNORE_INDEX, ClassSet, InputError
from pipeline.names import look_up

FORMATS = (".csv", ".json")


@dataclass(frozen=True, kw_only=True)
class TagConfig:
    """Where image-level labels come from."""

    source: Literal["data", "auto"] = "data"  # data: as the data set has them; auto: unknown, CLIP guesses them
    min_area: float = 0.0  # share of an image's pixels that a class must cover, where tags come from pixel labels
    file: str = ""  # CSV or JSON (see read_tags) instead of what the data set has

    def __post_init__(self) -> None:
        if self.source not in ("data", "auto"):
            raise InputError(f"tags.source must be data or auto, got {self.source!r}")
        if not 0 <= self.min_area < 1:
            raise InputError(f"tags.min_area must be in [0, 1), got {self.min_area}")
        if self.file and Path(self.file).suffix.lower() not in FORMATS:
            raise InputError(f"tags.file must be a .csv or .json file, got {self.file!r}")
        if self.file and self.source == "auto":
            raise InputError(
                "tags.file says what the images show and tags.source=auto that it is unknown: drop one of the two"
            )


def as_setting(tags: str) -> str:
    """The setting (NAME=VALUE) that --tags stands for. Raises InputError for what is neither a file nor auto."""
    if tags != "auto" and not tags.endswith(FORMATS):
        raise InputError(f"--tags takes a .csv or .json file, or auto, got {tags!r}")
    return "tags.source=auto" if tags == "auto" else f"tags.file={json.dumps(tags)}"


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
    try:
        rows = _read_csv(path, classes) if path.suffix.lower() == ".csv" else _read_json(path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; save it as UTF-8") from error
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
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if not {"image", "labels"} <= set(reader.fieldnames or ()):
            raise InputError(f"{path} must begin with the line 'image,labels'")
        rows = list(reader)
    for row in rows:
        if None in row:  # what follows a second comma
            raise InputError(f"{path}: separate the classes of {row['image']} with ';', not with ','")
    return [(row["image"], _split_names(row["labels"] or "", classes)) for row in rows if row["image"]]


def _split_names(text: str, classes: ClassSet) -> list[str]:
    text = text.strip()
    names = text.split(";") if ";" in text else [text] if text in classes.names else text.split()
    return [name.strip() for name in names if name.strip()]


def _read_json(path: Path) -> list[tuple[str, list[str]]]:
    try:
        # Pairs, not a dict: json keeps the last of two equal keys and says nothing.
        pairs = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=list)
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is no valid JSON: {error}") from error
    shape = 'an object such as {"a.jpg": ["road", "car"]}'
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise InputError(f"{path} must hold {shape}")
    for image, names in pairs:
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{path} must hold {shape}, got {names!r} for {image!r}")
    return pairs
