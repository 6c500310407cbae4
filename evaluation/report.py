"""The report page: scores, curves and every image with its maps, in one HTML file that opens from disk.

The folder page/ is the page itself; this file puts the data into it. Images pass through one at a time, so that a
report of a thousand of them takes the memory of one. Each image becomes two inert JSON blocks: its facts, which the
page reads at once to sort and filter, and its pixels, which the page decodes only while they are near the screen.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.confusion import NONE
from evaluation.regions import verdict
from evaluation.webpage import BASE_STYLE, ELEMENTS, PAGE, as_json, encode_picture, fill_page

# The last file starts the page.
SCRIPTS = (ELEMENTS, *(PAGE / f"{name}.js" for name in ("data", "figures", "sections", "pixels", "gallery", "detail")))
WIDTH = 480
JPEG_QUALITY = 80
PSEUDO_ROWS, GLOBAL_ROW = "pseudo-labels ", "pseudo-labels global"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What is known of the whole data set. None leaves a section out."""

    metrics: Mapping[str, Any]  # as metrics.json has them: percentages, None where there is no value
    curves: Mapping[str, Sequence[Mapping[str, Any]]]  # row name of a student -> lines of its metrics.jsonl
    about: Mapping[str, Any]  # command, time, versions, settings; students: what each was trained with
    statistics: Mapping[str, Any] | None = None  # of image-level labels
    tags: Mapping[str, Any] | None = None  # what noise in them does
    engines: Mapping[str, Any] | None = None  # what each label engine makes of the data set
    rounds: Mapping[str, Any] | None = None  # what students make of each other's predictions


@dataclass(frozen=True, kw_only=True)
class ReportImage:
    """One image, with the truth and with what each row of the metrics says of it."""

    image_id: str
    image_HW3: NDArray[np.uint8]  # RGB
    maps: Mapping[str, NDArray[np.uint8]]  # "truth", then one per row: train ids, 255 = none, in any size
    iou: Mapping[str, Sequence[float | None]]  # per row: percent of each class in this image, None = absent from both


def write_report(path: Path, report: Report, images: Iterable[ReportImage], width: int = WIDTH) -> None:
    """Write the page. Pictures wider than `width` pixels are shrunk to it.

    The file is whole or not there: an error on the way, from `images` too, leaves what was there before.
    """
    head, tail = _page(report)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.write(head)
            for image in images:
                file.writelines(_blocks(image, width))
            file.write(tail)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _page(report: Report) -> tuple[str, str]:
    """What comes before the images, and what comes after them."""
    # A list, for JavaScript puts names like "12" before all others in an object.
    rows = [{"name": name, **scores} for name, scores in report.metrics["rows"].items()]
    diagnosed = {name: [line for line in lines if line.get("diagnosis")] for name, lines in report.curves.items()}
    verdicts = {name: verdict(lines[-1]) for name, lines in diagnosed.items() if lines}
    data = {**vars(report), "metrics": {**report.metrics, "rows": rows}, "verdicts": verdicts}
    page = fill_page(PAGE / "page.html", (BASE_STYLE, PAGE / "page.css"), SCRIPTS, data)
    head, tail = page.split("<!-- IMAGES -->")
    return head, tail


def _blocks(image: ReportImage, width: int) -> Iterator[str]:
    """The image's facts, then its pixels."""
    height, own_width = image.image_HW3.shape[:2]
    scale = min(1.0, width / own_width)
    size = max(1, round(scale * own_width)), max(1, round(scale * height))
    # The nearest pixel's centre: plain INTER_NEAREST takes its corner, and shifts the map against the photo.
    maps = {name: cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST_EXACT) for name, ids in image.maps.items()}
    photo = cv2.cvtColor(cv2.resize(image.image_HW3, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
    facts = {
        "id": image.image_id,
        "size": size,
        # of the unshrunk map, where a thin pole still is
        "shows": [int(i) for i in np.unique(image.maps["truth"]) if i != NONE],
        "iou": image.iou,
        "agreed": {name: _agreed(image.maps, name) for name in image.iou if not name.startswith(PSEUDO_ROWS)},
    }
    pixels = {
        "photo": encode_picture(".jpg", photo, cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY),
        "maps": {name: encode_picture(".png", ids, cv2.IMWRITE_PNG_COMPRESSION, 9) for name, ids in maps.items()},
    }
    yield f'<script type="application/json" class="facts">{as_json(facts)}</script>\n'
    yield f'<script type="application/json">{as_json(pixels)}</script>\n'


def _agreed(maps: Mapping[str, Any], name: str) -> float | None:
    """Percent of the global pseudo-labels that a prediction agrees with (CARB, Eq. 4)."""
    if GLOBAL_ROW not in maps or not (valid := maps[GLOBAL_ROW] != NONE).any():
        return None
    height, width = maps[GLOBAL_ROW].shape
    predicted = cv2.resize(maps[name], (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return 100 * float((predicted == maps[GLOBAL_ROW])[valid].mean())
