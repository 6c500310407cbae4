"""One HTML file that opens from disk: a template with its style, its script and its data, and pictures in base64.

A template has the marks {{STYLE}}, {{SCRIPT}}, {{DATA}}, and {{SCRIPT-HASH}} for a policy that allows no other script.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
from numpy.typing import NDArray

PAGE = Path(__file__).parent / "page"
BASE_STYLE, ELEMENTS = PAGE / "base.css", PAGE / "elements.js"  # what every page begins with
ZOOM = PAGE / "zoom.js"  # for pages with an image to look into


def fill_page(template: Path, styles: Sequence[Path], scripts: Sequence[Path], data: Any) -> str:
    """The page. The scripts become one, in their order; data: as for `as_json`."""
    style, script = ("\n".join(path.read_text(encoding="utf-8") for path in paths) for paths in (styles, scripts))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    filled = {"STYLE": style, "SCRIPT": script, "SCRIPT-HASH": f"sha256-{digest}", "DATA": as_json(data)}
    # In one go: what is filled in may hold such marks, too.
    return re.sub(r"{{([A-Z-]+)}}", lambda mark: filled[mark[1]], template.read_text(encoding="utf-8"))


def encode_picture(suffix: str, pixels: NDArray[Any], option: int, value: int) -> str:
    """(H, W) or BGR (H, W, 3) uint8 as a file of that kind, in base64. option, value: one of OpenCV's for writing."""
    done, data = cv2.imencode(suffix, pixels, [option, value])
    assert done
    return base64.b64encode(data.tobytes()).decode()


def as_json(data: Any) -> str:
    """In ASCII, and without the sign that could end the block that it stands in."""
    return json.dumps(_plain(data), default=str, separators=(",", ":")).replace("<", "\\u003c")


def _plain(data: Any) -> Any:
    """As JSON knows it: a NaN, of a loss that diverged, would make the page unreadable."""
    if isinstance(data, Mapping):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, Sequence) and not isinstance(data, str):
        return [_plain(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return data
