"""What was counted in every image of a split: scores of all of them, of each, and of any sample of them.

Shapes: N images, C classes.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
from numpy.typing import NDArray

from evaluation.boundary import count_boundaries
from evaluation.confusion import count_pixels
from evaluation.scores import Floats, Scores, by_name, iou, mean, merge_classes, percent, totals


class Tally:
    """Counts by image: confusion matrices (C, C + 1) as in ConfusionMatrix, and boundaries (3, C)."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._images: dict[str, bytes] = {}  # packed: most counts are 0, and there may be a million images

    def update(self, image_id: str, truth_HW: NDArray[np.uint8], prediction_HW: NDArray[np.uint8]) -> None:
        """Count one image. Raises ValueError as ConfusionMatrix does, and for an image that was counted before."""
        if image_id in self._images:
            raise ValueError(f"{image_id!r} was counted before; an image counts once")
        confusion = count_pixels(truth_HW, prediction_HW, self.num_classes)
        self._images[image_id] = _packed(confusion, count_boundaries(truth_HW, prediction_HW, self.num_classes))

    @property
    def image_ids(self) -> list[str]:
        """Sorted, as are the axes N."""
        return sorted(self._images)

    @property
    def confusion(self) -> NDArray[np.int64]:
        """(N, C, C + 1) pixels."""
        C = self.num_classes
        return self._counts()[:, : C * (C + 1)].reshape(-1, C, C + 1)

    @property
    def boundary(self) -> NDArray[np.int64]:
        """(N, 3, C) pixels near outlines: hits, truth, prediction."""
        C = self.num_classes
        return self._counts()[:, C * (C + 1) :].reshape(-1, 3, C)

    def _counts(self) -> NDArray[np.int64]:
        """(N, C (C + 1) + 3 C): the confusion matrix and the boundaries of each image."""
        counts = np.empty((len(self._images), self.num_classes * (self.num_classes + 4)), np.int64)
        for row, image_id in zip(counts, self.image_ids, strict=True):
            row[:] = np.frombuffer(zlib.decompress(self._images[image_id]), np.int64)
        return counts

    @classmethod
    def merged(cls, parts: Iterable["Tally"]) -> "Tally":
        """The tallies of several processes as one. Raises ValueError for an image that two of them counted."""
        first, *others = parts
        whole = cls(first.num_classes)
        whole._images |= first._images
        for part in others:
            twice = whole._images.keys() & part._images.keys()
            if twice:
                raise ValueError(f"{min(twice)!r} was counted twice; an image counts once")
            whole._images |= part._images
        return whole

    def image_iou(self) -> Floats:
        """(N, C) IoU of each class in each image, in 0..1; NaN where it is in neither map."""
        return iou(*totals(self.confusion))

    def as_dict(self, names: Sequence[str], categories: Sequence[str] = ()) -> dict[str, Any]:
        """For JSON: percentages, by class name where there is one for each; None where there is no value.

        categories: the category of each class, e.g. Cityscapes' seven; none: no category IoU.
        """
        counts = self.confusion.sum(0)
        scores = Scores.from_counts(counts)
        boundary_iou = iou(*self.boundary.sum(0).astype(np.float64))
        groups, merged = merge_classes(counts, categories)
        category_iou = Scores.from_counts(merged).iou if groups else np.array([])
        return {
            "miou": percent(scores.miou),
            "pixel_accuracy": percent(scores.pixel_accuracy),
            "boundary_miou": percent(mean(boundary_iou)),
            "category_miou": percent(mean(category_iou)),
            "iou": by_name(names, scores.iou),
            "precision": by_name(names, scores.precision),
            "recall": by_name(names, scores.recall),
            "boundary_iou": by_name(names, boundary_iou),
            "category_iou": by_name(groups, category_iou),
            "confusion": counts.tolist(),
        }


def _packed(confusion: NDArray[np.int64], boundary: NDArray[np.int64]) -> bytes:
    """What was counted in an image."""
    return zlib.compress(np.concatenate([confusion.ravel(), boundary.ravel()]).astype(np.int64).tobytes(), level=1)


def save_tallies(path: Path, tallies: Mapping[str, Tally]) -> None:
    """Write the counts of every row of a table, under a temporary name first."""
    partial = path.with_name(path.name + ".partial")
    with ZipFile(partial, "w", ZIP_DEFLATED) as archive:  # as np.savez_compressed does, which needs all arrays at once
        for name, array in _arrays(tallies):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    partial.replace(path)


def _arrays(tallies: Mapping[str, Tally]) -> Iterator[tuple[str, NDArray[Any]]]:
    yield "rows", np.array(list(tallies))
    for k, tally in enumerate(tallies.values()):
        yield f"image_ids_{k}", np.array(tally.image_ids)
        yield f"confusion_{k}", tally.confusion
        yield f"boundary_{k}", tally.boundary


def load_tallies(path: Path) -> dict[str, Tally]:
    """What `save_tallies` wrote, by row."""
    tallies = {}
    with np.load(path, allow_pickle=False) as arrays:
        for k, row in enumerate(arrays["rows"].tolist()):
            counts = arrays[f"confusion_{k}"], arrays[f"boundary_{k}"]
            tally = Tally(counts[0].shape[1])
            tally._images = dict(zip(arrays[f"image_ids_{k}"].tolist(), map(_packed, *counts), strict=True))
            tallies[row] = tally
    return tallies
