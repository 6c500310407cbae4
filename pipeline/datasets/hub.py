"""Hugging Face data sets: whatever `datasets` opens, unpacked once into files that look like a user's own folder."""

import json
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labelgen.files import read_bytes
from labelgen.images import MAX_BYTES, open_image, write_png
from labelgen.samples import ClassSet, InputError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

IMAGE_COLUMN, LABEL_COLUMN, TAGS_COLUMN = "image", "label_map", "tags"
SPLIT_NAMES = {"val": ("val", "validation", "valid", "dev")}  # carbseg's name -> names that are met
ORIGIN = "unpacked-from.txt"
SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg"}


def open_source(source: str) -> "DatasetDict":
    """A folder that `save_to_disk` wrote, a folder of Parquet files or images, or a hub name. Raises InputError."""
    from datasets import Dataset, DatasetDict, load_dataset, load_from_disk

    is_saved = any((Path(source) / name).is_file() for name in ("dataset_dict.json", "state.json"))
    try:
        opened = load_from_disk(source) if is_saved else load_dataset(source)
    except Exception as error:  # of many kinds: files, network, formats
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"Hugging Face datasets cannot open {source!r}: {reason}") from error
    return DatasetDict(train=opened) if isinstance(opened, Dataset) else opened


def write_classes(source: str, path: Path) -> None:
    """A classes.toml of the names that the tags column knows. Raises InputError if it knows none."""
    rows = next(iter(open_source(source).values()))
    names = _class_names(rows, find_columns(rows, source)[TAGS_COLUMN])
    if names is None:
        raise InputError(
            f"{source} does not say what its classes are called; list them in {path}, "
            'such as classes = ["sky", "road", "car"]'
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"classes = {json.dumps(names, ensure_ascii=False)}\n", encoding="utf-8")


def unpack(source: str, root: Path, split: str, classes: ClassSet) -> None:
    """Write a split as images/SPLIT, truth/SPLIT and labels.json, unless images/SPLIT is there.

    images/SPLIT gets its name last, so that a cut run is seen and gone on with. Raises InputError.
    """
    done, origin = root / "images" / split, root / ORIGIN
    if origin.is_file() and (before := origin.read_text(encoding="utf-8").strip()) != source:
        raise InputError(f"{root} was unpacked from {before}, not from {source}; give another DATA_ROOT")
    if done.is_dir():
        return
    from datasets import Image as ImageFeature

    splits = open_source(source)
    name = next((name for name in SPLIT_NAMES.get(split, (split,)) if name in splits), None)
    if name is None:
        raise InputError(f"{source} has no split {split!r}; it has {', '.join(splits)}")
    rows = splits[name]
    columns = find_columns(rows, source)
    image, label, tags = columns[IMAGE_COLUMN], columns[LABEL_COLUMN], columns[TAGS_COLUMN]
    names = _class_names(rows, tags) or list(classes.names)
    for column in (image, label):
        if column is not None:
            rows = rows.cast_column(column, ImageFeature(decode=False))
    partial, truth = done.with_name(done.name + ".partial"), root / "truth" / split
    partial.mkdir(parents=True, exist_ok=True)
    origin.write_text(source + "\n", encoding="utf-8")
    shown: dict[str, list[str]] = {}
    for number, row in enumerate(rows):
        image_id = f"{split}_{number:06d}"
        if row[image] is None:
            raise InputError(f"row {number} of {source} {name} has no image; filter such rows out")
        file = _write_image(_bytes(row[image]), partial / image_id)
        if label is not None and row[label] is not None:
            truth.mkdir(parents=True, exist_ok=True)
            write_png(truth / f"{image_id}.png", _label_map(_bytes(row[label]), f"{source} {name} row {number}"))
        if tags is not None:
            shown[f"{split}/{file}"] = _names_of(row[tags] or (), names)
    if shown:
        _add_labels(root / "labels.json", shown)
    partial.rename(done)


def find_columns(rows: "Dataset", source: str) -> dict[str, str | None]:
    """Which columns hold images, label maps and tags: by name, else the only ones of their type. Raises InputError."""
    from datasets import Image as ImageFeature

    pictures = [name for name, feature in rows.features.items() if isinstance(feature, ImageFeature)]
    lists = [name for name, feature in rows.features.items() if _is_tags(feature)]
    image = IMAGE_COLUMN if IMAGE_COLUMN in pictures else pictures[0] if len(pictures) == 1 else None
    others = [name for name in pictures if name != image]
    if TAGS_COLUMN in rows.column_names and TAGS_COLUMN not in lists:
        raise InputError(f"the column {TAGS_COLUMN!r} of {source} must hold lists of classes, not single values")
    found = {IMAGE_COLUMN: image, LABEL_COLUMN: _only(others, LABEL_COLUMN), TAGS_COLUMN: _only(lists, TAGS_COLUMN)}
    if image is None or (others and not found[LABEL_COLUMN]) or (lists and not found[TAGS_COLUMN]):
        raise InputError(
            f"{source} has the columns {', '.join(rows.column_names)}: call the pictures {IMAGE_COLUMN!r}, label maps "
            f"{LABEL_COLUMN!r} and lists of classes {TAGS_COLUMN!r} (rename_column), and drop others of these types"
        )
    return found


def _only(names: list[str], wanted: str) -> str | None:
    return wanted if wanted in names else names[0] if len(names) == 1 else None


def _is_tags(feature: Any) -> bool:
    """A list of strings or of ClassLabel numbers."""
    from datasets import ClassLabel, Value

    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    return isinstance(inner, ClassLabel) or (isinstance(inner, Value) and inner.dtype in ("string", "large_string"))


def _class_names(rows: "Dataset", tags: str | None) -> list[str] | None:
    from datasets import ClassLabel

    feature = rows.features[tags] if tags is not None else None
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    return list(inner.names) if isinstance(inner, ClassLabel) else None


def _names_of(tags: Iterable[str | int], names: Sequence[str]) -> list[str]:
    """Of strings or of ClassLabel numbers, of which -1 means nothing."""
    return [tag if isinstance(tag, str) else names[tag] for tag in tags if tag != -1]


def _bytes(stored: dict[str, Any]) -> bytes:
    return stored["bytes"] if stored["bytes"] is not None else read_bytes(stored["path"], MAX_BYTES)


def _write_image(data: bytes, stem: Path) -> str:
    """PNG and JPEG as they are, other formats as PNG; returns the file's name."""
    suffix = next((suffix for start, suffix in SUFFIXES.items() if data.startswith(start)), None)
    path = stem.with_suffix(suffix or ".png")
    if suffix is None:
        with open_image(f"an image for {path.name}", BytesIO(data)) as image:
            write_png(path, np.asarray(image.convert("RGB")))
        return path.name
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.replace(path)
    return path.name


def _label_map(data: bytes, where: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with open_image(f"the label map of {where}", BytesIO(data)) as image:
        if image.mode not in ("L", "P"):
            raise InputError(f"the label map of {where} must hold one 8-bit id a pixel (mode L or P), got {image.mode}")
        return np.asarray(image, np.uint8)


def _add_labels(path: Path, shown: dict[str, list[str]]) -> None:
    """Beside those of the splits that were unpacked before."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(known | shown, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
