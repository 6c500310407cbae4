"""Small real files of data sets, for the tests."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from labelgen.images import read_label_map, write_png
from labelgen.samples import Sample


def image(path: Path, height: int = 2, width: int = 3, grey: int = 0) -> Path:
    """A picture of one grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, np.full((height, width, 3), grey, np.uint8))
    return path


def label(path: Path, rows: list[list[int]] | list[list[tuple[int, int, int]]]) -> Path:
    """A label file of ids, or of colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, np.array(rows, np.uint8))
    return path


def own_folder(root: Path, *names: str, classes: str = '["sky", "road", "traffic light"]') -> Path:
    """A user's folder of training images, without labels."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.toml").write_text(f"classes = {classes}\n", encoding="utf-8")
    for number, name in enumerate(names):
        image(root / "images" / name, grey=number)
    return root


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below the folder, but what zarr leaves beside a chunk when it is killed while it writes."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.match("c.*.partial")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def points_file(path: Path, samples: Sequence[Sample], names: Sequence[str]) -> Path:
    """One labelled pixel of each class that there is, the deepest in any of the samples; class ids are train ids."""
    deepest: dict[int, tuple[float, str, int, int]] = {}
    for sample in samples:
        truth_HW = read_label_map(str(sample["label_path"]))
        for train_id in range(len(names)):
            depth_HW = cv2.distanceTransform(np.pad((truth_HW == train_id).astype(np.uint8), 1), cv2.DIST_L2, 3)
            y, x = np.unravel_index(int(depth_HW.argmax()), depth_HW.shape)
            if depth_HW[y, x] > deepest.get(train_id, (0,))[0]:
                deepest[train_id] = (float(depth_HW[y, x]), sample["image_id"], int(x) - 1, int(y) - 1)
    lines = [f"{image},{x},{y},{names[train_id]}" for train_id, (_, image, x, y) in deepest.items()]
    path.write_text("\n".join(["image,x,y,class", *lines]) + "\n", encoding="utf-8")
    return path
