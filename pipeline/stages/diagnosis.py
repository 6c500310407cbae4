"""How right the pseudo-labels are where a student agrees with them and where not: a look at truth while it trains.

Only numbers to be logged leave this file; what trains never sees it. Shapes: C classes, H W pixels.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.confusion import resize_classes
from evaluation.regions import count_regions, diagnosis
from labelgen.images import read_image
from labelgen.samples import InputError
from labelgen.store import PseudoLabelStore
from labelgen.views import to_mask
from pipeline.datasets.layouts import TRAIN_SPLIT
from pipeline.stages.run import Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IMAGES = 8


class Look(NamedTuple):
    """An image, and what a student's prediction is held against."""

    image_path: str
    is_present_C: NDArray[np.bool_]
    pseudo_HW: NDArray[np.uint8]
    truth_HW: NDArray[np.uint8] | None


class Diagnosis:
    """Looks at a few training images, evenly spread, each as a whole, with its cached global pseudo-labels.

    filter_labels: as in TrainConfig. Without truth, only the share of consistent pixels is known. Raises InputError.
    """

    def __init__(self, run: Run, *, filter_labels: bool = True) -> None:
        self._names = run.spec.classes.names
        self._run, self._filter_labels = run, filter_labels

    @cached_property
    def _looks(self) -> list[Look]:
        return list(_looks(self._run, self._filter_labels))  # not before it is asked: a short run opens no label map

    def __call__(self, student: "PreTrainedModel") -> dict[str, Any]:
        """See `evaluation.regions.diagnosis`. Draws no random numbers."""
        from segtrain.predict import predict

        counts_C23 = np.zeros((len(self._names), 2, 3), np.int64)
        for path, is_present_C, pseudo_HW, truth_HW in self._looks:
            predicted_HW = predict(student, read_image(path), is_present_C=is_present_C)
            counts_C23 += count_regions(pseudo_HW, predicted_HW, truth_HW, len(self._names))
        return diagnosis(counts_C23, self._names)


def _looks(run: Run, filter_labels: bool) -> Iterator[Look]:
    assert run.data_root is not None  # it has been listed
    store = PseudoLabelStore.open(run.store_path(TRAIN_SPLIT))
    items = run.spec.items(run.data_root, TRAIN_SPLIT, needs_labels=False)
    for place in np.unique(np.linspace(0, len(items) - 1, min(IMAGES, len(items))).astype(int)):
        image_id, image, label = items[place]
        is_present_C = store.labels_of(image_id)
        if not filter_labels and is_present_C.any():
            is_present_C = np.ones_like(is_present_C)
        pseudo_HW = to_mask(store.logits(image_id), is_present_C)
        yield Look(str(image), is_present_C, pseudo_HW, _truth(run, label, pseudo_HW.shape))


def _truth(run: Run, label: Path | None, size: tuple[int, ...]) -> NDArray[np.uint8] | None:
    if label is None:
        return None
    try:
        return resize_classes(run.spec.read_truth(label), (size[0], size[1]))
    except (InputError, ValueError) as error:
        raise InputError(
            f"{label}: {error}; mend it, or leave truth alone with --set train.diagnose_every=0"
        ) from error
