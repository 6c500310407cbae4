"""The images of a store: where they are, and their truth. Nothing is asked before it is shown."""

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluation.confusion import resize_classes
from labelgen.samples import InputError, Sample
from labelgen.store import PseudoLabelStore
from pipeline.datasets import DatasetSpec


class Images:
    """The images of a split, by their rows in its store."""

    def __init__(self, spec: DatasetSpec, root: Path, split: str, store: PseudoLabelStore) -> None:
        self.spec, self.root, self.split, self._store = spec, root, split, store

    @cached_property
    def _listed(self) -> dict[str, Sample] | InputError:
        try:
            try:
                rows = self.spec.list_samples(self.root, self.split, with_truth=True, with_tags=False)
            except InputError:  # not all have truth: it is shown where there is some, but not on the training split
                rows = self.spec.list_samples(self.root, self.split, with_tags=False)
        except InputError as error:
            return error
        return {row["image_id"]: row for row in rows}

    @property
    def all(self) -> dict[str, Sample]:
        """By id, sorted. Raises InputError where nobody knows."""
        if isinstance(self._listed, InputError):
            raise self._listed
        return self._listed

    @property
    def problem(self) -> str:
        """Why there are none; "" where there are."""
        return str(self._listed) if isinstance(self._listed, InputError) else ""

    @property
    def have_truth(self) -> bool:
        """Whether any of them has."""
        return not self.problem and any(sample["label_path"] for sample in self.all.values())

    @cached_property
    def missing(self) -> int:
        """How many images of the store the data set has not."""
        return 0 if self.problem else sum(image_id not in self.all for image_id in self._store.image_ids)

    def require_all(self) -> None:
        """Raise InputError where the data set lacks images of the store."""
        if self.missing:
            raise InputError(
                f"{self.root} lacks {self.missing} of the {len(self._store)} images of {self._store.path}: "
                "is it the right --data-root?"
            )

    def sample(self, row: int) -> Sample:
        """Where an image is. Raises InputError for one that the data set has not."""
        image_id = self._store.image_ids[row]
        if image_id not in self.all:
            raise InputError(f"{self.root} has no image {image_id!r} in {self.split}; is it the right --data-root?")
        return self.all[image_id]

    def truth(self, row: int, size: tuple[int, int] | None = None) -> NDArray[np.uint8] | None:
        """(H, W) train ids, 255 = void, as large as the label map or of `size`; None where there is none."""
        if self.problem or (path := self.sample(row)["label_path"]) is None:
            return None
        truth_HW = self.spec.read_truth(path)
        try:
            return truth_HW if size is None else resize_classes(truth_HW, size)
        except ValueError as error:
            raise InputError(f"{path}: {error}") from error
