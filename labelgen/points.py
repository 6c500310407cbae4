"""One labelled pixel per class: the file that holds them, and where they are in a split."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from labelgen.files import read_csv
from labelgen.images import image_size
from labelgen.samples import FORMULA_SIGNS, ClassSet, InputError, Sample, is_whole_number

COLUMNS = ("image", "x", "y", "class")
HERE = "./"


class Point(NamedTuple):
    """A pixel whose class is known: of the image as it lies on the disk, x to the right and y down, from 0."""

    image: str  # its id, or its file's name
    x: int
    y: int
    train_id: int


def read_points(path: str | Path, classes: ClassSet) -> list[Point]:
    """The labelled pixels of a CSV file that begins with the line `image,x,y,class`; a class may have several.

    Raises InputError for a broken file, an unknown class, and a pixel that stands there twice.
    """
    points = []
    for line in parse_points(path, classes):
        if isinstance(line, InputError):
            raise line
        points.append(line)
    pixels = [point[:3] for point in points]
    twice = next((point for point in points if pixels.count(point[:3]) > 1), None)
    if twice is not None:
        raise InputError(f"{path} names pixel ({twice.x}, {twice.y}) of {twice.image} twice; keep one of the two lines")
    return points


def parse_points(path: str | Path, classes: ClassSet) -> list[Point | InputError]:
    """Line by line: the labelled pixel, or what is wrong with the line.

    Raises InputError where no line can be read: no such file, another first line, no line after it.
    """
    try:
        lines = [_point(f"{path}, line {number}", row, classes) for number, row in read_csv(path, COLUMNS)]
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"no points file {path}; 'carbseg points page' helps to make one") from error
    if not lines:
        raise InputError(f"{path} holds no point; give one line a class, such as a.jpg,120,80,{classes.names[0]}")
    return lines


def _point(where: str, row: dict[str, str | None], classes: ClassSet) -> Point | InputError:
    image, x, y, name = ((row[column] or "").strip() for column in COLUMNS)
    image = image.removeprefix(HERE)
    if not (image and is_whole_number(x) and is_whole_number(y)):
        return InputError(f"{where}: an image and its pixel's x and y, from 0, are needed, got {image!r}, {x!r}, {y!r}")
    if name not in classes.names:
        return InputError(f"{where}: unknown class {name!r}; known: {', '.join(classes.names)}")
    return Point(image, int(x), int(y), classes.names.index(name))


def as_csv(points: Sequence[Point], classes: ClassSet) -> str:
    """The text of a file that `read_points` reads."""
    text = io.StringIO()
    # csv quotes no carriage return of its own accord, and cannot read one that is not quoted.
    has_returns = any("\r" in point.image for point in points)
    quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if has_returns else csv.QUOTE_MINIMAL
    writer = csv.writer(text, lineterminator="\n", quoting=quoting)
    writer.writerow(COLUMNS)
    writer.writerows((_no_formula(point.image), point.x, point.y, classes.names[point.train_id]) for point in points)
    return text.getvalue()


def _no_formula(image: str) -> str:
    """The file's name in another form where a spreadsheet would take it for a formula; no class is called like one."""
    return HERE + image if image.startswith((*FORMULA_SIGNS, HERE)) else image


def locate(points: Sequence[Point], samples: Sequence[Sample]) -> dict[str, list[Point]]:
    """The points of each image, by image id. Raises InputError for an unknown image and a pixel outside of it."""
    by_name = {name: sample for sample in samples for name in (sample["image_id"], Path(sample["image_path"]).name)}
    found: dict[str, list[Point]] = {}
    for point in points:
        sample = by_name.get(point.image)
        if sample is None:
            raise InputError(f"a point is in {point.image!r}, but the split has no such image; correct the name")
        height, width = image_size(sample["image_path"])
        if not (point.x < width and point.y < height):
            raise InputError(
                f"point ({point.x}, {point.y}) is outside of {point.image}, which has {width} x {height} pixels"
            )
        found.setdefault(sample["image_id"], []).append(point)
    return found
