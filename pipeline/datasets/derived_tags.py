"""Image-level labels of a split, derived from its pixel labels once, and kept in a file with what decided them."""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.tags import present_classes
from pipeline.progress import progress
from pipeline.runs import write_text

Fingerprint = list[int]  # size in bytes and time of change in ns: another label map has another one


def derive_tags(
    label_paths: Sequence[Path],
    read_truth: Callable[[Path], NDArray[np.uint8]],
    decided_by: Mapping[str, Any],
    kept: Path | None = None,
) -> list[list[int]]:
    """The train ids in each label map; only maps that are not in the file `kept`, or have changed, are read.

    decided_by: min_area, and whatever else would give other train ids. `kept` is written anew where maps were read;
    None keeps nothing. Raises InputError for a broken label map.
    """
    known = _read(kept, decided_by) if kept is not None else {}
    prints = [_fingerprint(path) for path in label_paths]
    seen = [known.get(str(path)) for path in label_paths]
    todo = [place for place, (print_, entry) in enumerate(zip(prints, seen, strict=True)) if not _is_of(entry, print_)]
    found: list[list[int]] = [entry[1] if entry is not None else [] for entry in seen]
    shown = kept is not None and bool(todo)
    with ThreadPoolExecutor() as pool, progress(len(todo), "image-level labels", "label maps", shown=shown) as bar:

        def look(place: int) -> list[int]:
            return present_classes(read_truth(label_paths[place]), decided_by["min_area"])

        for place, present in zip(todo, pool.map(look, todo), strict=True):
            found[place] = present
            bar.update()
    if kept is not None and todo:
        labels = {str(path): [*entry] for path, *entry in zip(label_paths, prints, found, strict=True)}
        write_text(kept, json.dumps({"decided_by": decided_by, "labels": labels}))
    return found


def _fingerprint(path: Path) -> Fingerprint:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _is_of(entry: tuple[Fingerprint, list[int]] | None, fingerprint: Fingerprint) -> bool:
    return entry is not None and entry[0] == fingerprint


def _read(kept: Path, decided_by: Mapping[str, Any]) -> dict[str, Any]:
    """What the file holds; nothing where it is missing, damaged, or was decided by something else."""
    try:
        data = json.loads(kept.read_text(encoding="utf-8"))
        return data["labels"] if data["decided_by"] == json.loads(json.dumps(decided_by)) else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}
