"""Small real files of data sets, for the tests."""

from pathlib import Path

import numpy as np

from labelgen.images import write_png


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
    """Every file below the folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
