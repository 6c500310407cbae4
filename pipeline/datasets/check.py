"""Looking through the real files of a split before CLIP and training do: what is in them, and what is wrong."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from labelgen.files import read_bytes
from labelgen.images import MAX_BYTES, read_image
from labelgen.points import Point, locate, parse_points
from labelgen.samples import IGNORE_INDEX, InputError, Sample
from pipeline.datasets.layouts import IMAGE_SUFFIXES, TRAIN_SPLIT, Item
from pipeline.datasets.registry import DatasetSpec
from pipeline.datasets.tags import TagConfig

Size = tuple[int, int]


@dataclass(frozen=True)
class Finding:
    """Something that the user should know; an error makes the split unusable."""

    level: Literal["error", "warning"]
    what: str
    hint: str


@dataclass(frozen=True)
class RawRow:
    """How often one value stands in the label files."""

    value: str  # an id, or a colour as #rrggbb
    meaning: str  # a class, "void" or "unknown"
    share: float  # of all labelled pixels
    images: int


@dataclass(frozen=True)
class Report:
    """What `check` saw. histogram: by value; shown: class -> number of images that show it."""

    images: int
    labelled: int
    sizes: Counter[Size]
    histogram: list[RawRow]
    shown: dict[str, int]
    findings: list[Finding]

    @property
    def has_errors(self) -> bool:
        """Whether labelling or training would stop, or go wrong in silence."""
        return any(finding.level == "error" for finding in self.findings)


@dataclass
class _Look:
    """What one image and its label file hold; `trouble` says why it could not be read."""

    size: Size | None = None
    digest: str = ""
    pixels: dict[str, int] = field(default_factory=dict)  # value -> pixels
    meanings: dict[str, int | None] = field(default_factory=dict)  # value -> train id, None = unknown
    trouble: list[Finding] = field(default_factory=list)


def check(
    spec: DatasetSpec,
    root: str | Path,
    split: str,
    tags: TagConfig,
    on_images: Callable[[list[Item]], Callable[[], object]] = lambda items: lambda: None,
    points: str | Path | None = None,
) -> Report:
    """Read every file of a split. `on_images(items)` gives what to call after each image (a progress bar).

    points: a file of labelled pixels in these images, to be looked through, too.
    Raises InputError only where there is nothing to look at: an unknown split, no folder, no images, equal image ids.
    """
    spec, files = spec.at(root), spec.files(root, split)
    items = [item if item.label is None or item.label.is_file() else item._replace(label=None) for item in files]
    on_image = on_images(items)

    def look(item: Item) -> _Look:
        seen = _look(spec, item)
        on_image()
        return seen

    with ThreadPoolExecutor() as pool:
        looks = list(pool.map(look, items))
    labelled = sum(item.label is not None for item in items)
    histogram = _histogram(spec, looks)
    findings = [] if spec.is_users else _missing(files)
    findings += [finding for seen in looks for finding in seen.trouble]
    findings += _passed_over(items) + _unknown_values(histogram) + _copies(items, looks)
    if spec.is_users and 0 < labelled < len(items):
        what = f"{len(items) - labelled} of {len(items)} images have no pixel labels"
        findings.append(Finding("warning", what, "they are fine to train on, but the split cannot be scored"))
    shown, about_tags = _shown(spec, root, split, items, looks, tags)
    about_points = _about_points(spec, spec.list_samples(root, split, with_tags=False), points) if points else []
    return Report(
        images=len(items),
        labelled=labelled,
        sizes=Counter(seen.size for seen in looks if seen.size is not None),
        histogram=histogram,
        shown=shown,
        findings=findings + about_tags + about_points,
    )


def _missing(files: Sequence[Item]) -> list[Finding]:
    """Of a data set whose images all have label files."""
    missing = [item for item in files if item.label is not None and not item.label.is_file()]
    what = f"{len(missing)} of {len(files)} images have no label file"
    hint = "image-level labels are derived from them: copy them again, or take these images out of the split"
    return [Finding("error", f"{what}, such as {missing[0].image}: {missing[0].label}", hint)] if missing else []


def _passed_over(items: Sequence[Item]) -> list[Finding]:
    """Files beside the images that are not taken for images."""
    findings = []
    for folder in sorted({item.image.parent for item in items}):
        others = sorted(
            path.name
            for path in folder.iterdir()
            if path.suffix.lower() not in IMAGE_SUFFIXES and path.is_file() and not path.name.startswith(".")
        )
        if others:
            listed = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
            what = f"{len(others)} files in {folder} are no {' or '.join(IMAGE_SUFFIXES)}: {listed}"
            findings.append(Finding("warning", what, "they are left out: convert those that are images"))
    return findings


def _look(spec: DatasetSpec, item: Item) -> _Look:
    seen = _Look()
    broken = "replace the file, or take the image out of the split"
    try:
        seen.digest = hashlib.sha1(read_bytes(item.image, MAX_BYTES), usedforsecurity=False).hexdigest()
        height, width, _ = read_image(item.image).shape
        seen.size = height, width
    except (InputError, OSError) as error:
        seen.trouble.append(Finding("error", str(error), broken))
    if item.label is None:
        return seen
    try:
        raw = spec.code.read_raw(item.label)
    except (InputError, OSError) as error:
        seen.trouble.append(Finding("error", str(error), broken))
        return seen
    if seen.size is not None and raw.values_HW.shape != seen.size:
        what = f"{item.label} is {raw.values_HW.shape}, but its image is {seen.size}"
        seen.trouble.append(Finding("error", what, "give labels of the image's size (resized without mixing ids)"))
    for value, pixels in zip(*np.unique(raw.values_HW, return_counts=True), strict=True):
        name = f"#{value:06x}" if raw.is_colour else str(value)
        seen.pixels[name] = int(pixels)
        seen.meanings[name] = raw.known.get(int(value))
    return seen


def _histogram(spec: DatasetSpec, looks: Sequence[_Look]) -> list[RawRow]:
    pixels, images, meanings = Counter[str](), Counter[str](), dict[str, int | None]()
    for seen in looks:
        pixels.update(seen.pixels)
        images.update(seen.pixels.keys())
        meanings |= seen.meanings

    def name(train_id: int | None) -> str:
        if train_id is None:
            return "unknown"
        return "void" if train_id == IGNORE_INDEX else spec.classes.names[train_id]

    order = sorted(pixels, key=lambda value: (value.startswith("#"), value.zfill(9)))
    return [RawRow(v, name(meanings[v]), pixels[v] / pixels.total(), images[v]) for v in order]


def _unknown_values(histogram: Sequence[RawRow]) -> list[Finding]:
    unknown = [row for row in histogram if row.meaning == "unknown"]
    if not unknown:
        return []
    kind = "colours" if unknown[0].value.startswith("#") else "ids"
    listed = ", ".join(row.value for row in unknown[:8]) + (", ..." if len(unknown) > 8 else "")
    share = sum(row.share for row in unknown)
    what = f"{len(unknown)} unknown {kind} on {share:.2%} of the pixels: {listed}"
    return [Finding("error", what, "they count as void: check that these are label files of this data set, unresized")]


def _copies(items: Sequence[Item], looks: Sequence[_Look]) -> list[Finding]:
    same: dict[str, list[str]] = defaultdict(list)
    for item, seen in zip(items, looks, strict=True):
        if seen.digest:
            same[seen.digest].append(item.image.name)
    groups = [names for names in same.values() if len(names) > 1]
    what = f"{len(groups)} images are there more than once"
    hint = "each copy weighs as much as another image: remove those that you do not want"
    return [Finding("warning", f"{what}, such as {' = '.join(groups[0])}", hint)] if groups else []


def _shown(
    spec: DatasetSpec,
    root: str | Path,
    split: str,
    items: Sequence[Item],
    looks: Sequence[_Look],
    tags: TagConfig,
) -> tuple[dict[str, int], list[Finding]]:
    """How many images show each class: by the file of image-level labels if there is one, else by the pixel labels."""
    if tags.is_guessed:
        return {}, []
    if tags.file or spec.labels_file(root) is not None:
        try:
            labels = spec.image_labels(root, list(items), tags)
        except InputError as error:
            return {}, [Finding("error", str(error), "correct the file")]
    else:
        labels = [
            None if item.label is None else sorted({i for i in seen.meanings.values() if i not in (None, IGNORE_INDEX)})
            for item, seen in zip(items, looks, strict=True)
        ]
    counts = Counter(train_id for present in labels for train_id in present or ())
    shown = {name: counts[i] for i, name in enumerate(spec.classes.names)}
    findings = []
    unknown = sum(present is None for present in labels)
    if unknown and split == TRAIN_SPLIT and spec.is_users:
        what = f"{unknown} of {len(items)} images have no image-level labels"
        findings.append(Finding("error", what, "list them in labels.csv, or let CLIP guess them: --tags auto"))
    empty = [name for name, count in shown.items() if not count]
    if empty and unknown < len(items):
        hint = "its score will be empty, and nothing can be learned about it here"
        findings.append(Finding("warning", f"no image shows {', '.join(empty)}", hint))
    return shown, findings


def _about_points(spec: DatasetSpec, samples: Sequence[Sample], file: str | Path) -> list[Finding]:
    """All that is wrong with a points file, and the classes that it forgets."""
    try:
        lines = parse_points(file, spec.classes)
    except InputError as error:
        return [Finding("error", str(error), "give a points file, or leave --points out")]
    wrong = [str(line) for line in lines if isinstance(line, InputError)]
    pixels = Counter[tuple[str, int, int]]()
    forgotten = dict.fromkeys(spec.classes.names)
    for point in (line for line in lines if isinstance(line, Point)):
        try:
            (image_id,) = locate([point], samples)
        except InputError as error:
            wrong.append(f"{file}: {error}")
        else:
            pixels[image_id, point.x, point.y] += 1
            forgotten.pop(spec.classes.names[point.train_id], None)
    wrong += [f"{file} names pixel ({x}, {y}) of {i} {n} times" for (i, x, y), n in pixels.items() if n > 1]
    findings = [Finding("error", what, "correct the line, or remove it") for what in wrong]
    if forgotten:
        hint = "no pixel will be labelled so: give each class a line; 'carbseg points page' helps"
        findings.append(Finding("warning", f"{file} has no point for {', '.join(forgotten)}", hint))
    return findings
