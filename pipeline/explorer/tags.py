"""Changes of image-level labels, which can be taken back."""

import csv
import io
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from labelgen.samples import InputError, Sample


class Tags:
    """The classes that each image is said to show. saved: those of a row that nobody has changed."""

    def __init__(self, saved: Callable[[int], list[int]]) -> None:
        self.saved = saved
        self.changed: dict[int, list[int]] = {}  # rows that differ from what the store has
        self._in_file: dict[int, list[int]] = {}  # the same, when it was written to a file
        self._history: list[tuple[int, list[int]]] = []
        self._lock = threading.Lock()

    def of(self, row: int) -> list[int]:
        """Train ids, sorted. Raises InputError for an image that has not been made."""
        return self.changed[row] if row in self.changed else self.saved(row)

    def go_on_with(self, tags: Mapping[int, Sequence[int]]) -> None:
        """Tags that were written to a file."""
        self.changed = {row: [*now] for row, now in tags.items() if [*now] != self.saved(row)}
        self.mark_saved()

    def mark_saved(self) -> None:
        """They are in a file, as they are now."""
        self._in_file = dict(self.changed)

    @property
    def are_saved(self) -> bool:
        """Whether a file says the same."""
        return self.changed == self._in_file

    def change(self, row: int, train_id: int, *, is_present: bool) -> list[int]:
        """Add or remove one. Raises InputError where none would be left, which in a file means: unknown."""
        with self._lock:
            was = self.of(row)
            now = sorted({*was, train_id} if is_present else {*was} - {train_id})
            if not now:
                raise InputError("an image needs at least one class; add another one before you remove the last")
            if now != was:
                self._history.append((row, was))
                self._keep(row, now)
            return now

    def undo(self) -> int:
        """Take the last change back; returns its row. Raises InputError where there is none."""
        with self._lock:
            if not self._history:
                raise InputError("there is no change of a tag to take back")
            row, was = self._history.pop()
            self._keep(row, was)
            return row

    @property
    def can_undo(self) -> bool:
        """Whether anything was changed."""
        return bool(self._history)

    def _keep(self, row: int, train_ids: list[int]) -> None:
        if train_ids == self.saved(row):
            self.changed.pop(row, None)
        else:
            self.changed[row] = train_ids


def as_csv(samples: Sequence[Sample], tags: Mapping[str, Sequence[int]], names: Sequence[str]) -> str:
    """What `read_tags` reads, of the images (by id) whose tags are known, each by folder and file name."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "labels"])
    for sample in samples:
        if sample["image_id"] in tags:
            path = Path(sample["image_path"])
            present = ";".join(names[train_id] for train_id in tags[sample["image_id"]])
            writer.writerow([f"{path.parent.name}/{path.name}", present])
    return text.getvalue()
