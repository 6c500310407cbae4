"""`points`: one labelled pixel per class, proposed from truth, or clicked by a person on a page that opens from disk.

Shapes: H W pixels.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.webpage import BASE_STYLE, ELEMENTS, ZOOM, encode_picture, fill_page
from labelgen.images import read_image, resize_image
from labelgen.points import Point, as_csv, locate, read_points
from labelgen.samples import InputError, Sample
from pipeline.datasets import DatasetSpec
from pipeline.datasets.layouts import Item
from pipeline.datasets.tags import TagConfig, present_classes
from pipeline.runs import write_text

PAGE = Path(__file__).parent.parent / "points_page"
# The last file starts the page.
SCRIPTS = (ELEMENTS, ZOOM, *(PAGE / f"{name}.js" for name in ("points", "view", "page")))
LONG_SIDE_PX = 1600  # of a picture on the page; coordinates stay those of the file
JPEG_QUALITY = 88
LOOKED_AT = 100  # images among which those for the page are chosen by what they show


# ---- Proposals -----------------------------------------------------------------------------------------------------


class Deep(NamedTuple):
    """A pixel deep inside a region. depth: its distance in pixels to what is not of the region, or not of the image."""

    x: int
    y: int
    depth: float


def deepest(is_class_HW: NDArray[np.bool_]) -> Deep:
    """The pixel that is farthest from whatever is not of the class and from the image's border.

    Of several the first, line by line. Only for a map that holds the class.
    """
    padded = np.pad(is_class_HW, 1).astype(np.uint8)
    depth_HW = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    y, x = np.unravel_index(np.argmax(depth_HW), depth_HW.shape)
    return Deep(int(x), int(y), float(depth_HW[y, x]))


def drawn_images(spec: DatasetSpec, root: str | Path, split: str, images: int, seed: int) -> list[Item]:
    """Up to `images` images that have truth; a larger number adds to them. Raises InputError where there are none."""
    labelled = [item for item in spec.items(root, split, needs_labels=False) if item.label is not None]
    if not labelled:
        raise InputError(
            f"{spec.name} {split} has no pixel labels to propose pixels from; click them: 'carbseg points page'"
        )
    return [labelled[place] for place in np.random.default_rng(seed).permutation(len(labelled))[:images]]


def propose(
    spec: DatasetSpec, items: Sequence[Item], seed: int, on_image: Callable[[], object] = lambda: None
) -> list[Point]:
    """One pixel for each class that truth shows in the images, by class.

    Each image gives the deepest pixel of each of its classes; of those of a class one is drawn, with a probability that
    grows as the square of its depth, as a region's area does.
    """

    def look(item: Item) -> dict[int, Deep]:
        truth_HW = spec.read_truth(str(item.label))
        found = {train_id: deepest(truth_HW == train_id) for train_id in present_classes(truth_HW)}
        on_image()
        return found

    with ThreadPoolExecutor() as pool:
        looks = list(zip(items, pool.map(look, items), strict=True))
    points = []
    for train_id in range(len(spec.classes)):
        candidates = [(item.image.name, found[train_id]) for item, found in looks if train_id in found]
        if candidates:
            areas = np.array([deep.depth**2 for _, deep in candidates])
            # Each class has a generator of its own: what is seen of one does not move the others' pixels.
            place = np.random.default_rng((seed, train_id)).choice(len(candidates), p=areas / areas.sum())
            name, deep = candidates[place]
            points.append(Point(name, deep.x, deep.y, train_id))
    return points


def write_points(path: Path, points: Sequence[Point], spec: DatasetSpec) -> None:
    """Write a points file. Raises InputError for one that is there: a person may have clicked it."""
    if path.exists():
        raise InputError(f"{path} exists already; choose another file (--to), or delete it")
    write_text(path, as_csv(points, spec.classes))


# ---- The page ------------------------------------------------------------------------------------------------------


def write_page(
    path: Path,
    spec: DatasetSpec,
    root: str | Path,
    split: str,
    count: int,
    names: Sequence[str] = (),
    points_file: Path | None = None,
    tags: TagConfig | None = None,
) -> int:
    """Write the page on which pixels are clicked; returns how many images are on it.

    names: the images, by id or file name; by default `count` that `choose` chooses. points_file: what is clicked
    already; its images come first. tags: where it is said what images show. Raises InputError.
    """
    spec = spec.at(root)
    samples = {sample["image_id"]: sample for sample in spec.list_samples(root, split, with_tags=False)}
    points = locate(read_points(points_file, spec.classes) if points_file else [], list(samples.values()))
    chosen = _named(names, samples, f"{spec.name} {split}") if names else choose(spec, root, split, count, tags)
    image_ids = list(dict.fromkeys([*points, *chosen]))
    if not names:
        image_ids = image_ids[: max(count, len(points))]
    places = {image_id: place for place, image_id in enumerate(image_ids)}
    data = {
        "title": f"{spec.name} {split}",
        "names": spec.classes.names,
        "palette": spec.classes.palette,
        "images": [_picture(samples[image_id]) for image_id in image_ids],
        "points": [
            {"image": places[image_id], "x": point.x, "y": point.y, "trainId": point.train_id}
            for image_id, located in points.items()
            for point in located
        ],
    }
    write_text(path, fill_page(PAGE / "page.html", (BASE_STYLE, PAGE / "page.css"), SCRIPTS, data))
    return len(image_ids)


def choose(spec: DatasetSpec, root: str | Path, split: str, count: int, tags: TagConfig | None = None) -> list[str]:
    """Image ids of up to `count` images: those that show many classes first, and what the others do not show.

    They are chosen among LOOKED_AT images, evenly spread over the split. Where nothing says what images show, they are
    evenly spread themselves.
    """
    items = spec.items(root, split, needs_labels=False)
    looked_at = _spread(items, max(LOOKED_AT, count))
    shown = spec.image_labels(root, looked_at, tags or TagConfig())
    if not any(shown):
        return [item.image_id for item in _spread(items, count)]
    seen = Counter[int]()
    left = dict(zip((item.image_id for item in looked_at), shown, strict=True))
    chosen: list[str] = []
    while left and len(chosen) < count:
        # A class that was seen counts half as much each time.
        best = max(left, key=lambda image_id: sum(0.5 ** seen[train_id] for train_id in left[image_id] or ()))
        chosen.append(best)
        seen.update(left.pop(best) or ())
    return chosen


def _spread(items: Sequence[Item], count: int) -> list[Item]:
    return [items[place] for place in np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).astype(int))]


def _named(names: Sequence[str], samples: dict[str, Sample], where: str) -> list[str]:
    """Their image ids."""
    ids = {Path(sample["image_path"]).name: image_id for image_id, sample in samples.items()}
    unknown = next((name for name in names if name not in samples and name not in ids), None)
    if unknown is not None:
        raise InputError(f"{where} has no image {unknown!r}; name images by id or file name, such as {next(iter(ids))}")
    return [name if name in samples else ids[name] for name in names]


def _picture(sample: Sample) -> dict[str, str | int]:
    image_HW3 = read_image(sample["image_path"])
    height, width = image_HW3.shape[:2]
    scale = min(1.0, LONG_SIDE_PX / max(height, width))
    small = resize_image(image_HW3, max(1, round(scale * height)), max(1, round(scale * width)))
    jpeg = encode_picture(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
    return {"name": Path(sample["image_path"]).name, "width": width, "height": height, "jpeg": jpeg}
