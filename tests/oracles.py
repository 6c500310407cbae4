"""A detector and a segmenter that know the truth of toy scenes, and can be made worse: perfect models to try rules on.

Shapes: N boxes, W words, H W pixels.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.confusion import ConfusionMatrix
from evaluation.scores import Scores
from labelgen.engines.detector import Boxes
from labelgen.engines.engine import Engine
from labelgen.images import read_image, resize_logits
from labelgen.label import Prepared, prepare
from labelgen.samples import ClassSet, Sample
from labelgen.views import ViewConfig, to_mask
from pipeline.datasets import DATASETS

TOY = DATASETS["toy"]


class Part(NamedTuple):
    """A connected part of a class: a thing, or a piece of stuff."""

    class_id: int
    mask_HW: NDArray[np.bool_]
    box: tuple[int, int, int, int]  # (x0, y0, x1, y1)


def parts_of(truth_HW: NDArray[np.uint8]) -> list[Part]:
    """All of a scene."""
    parts = []
    for class_id in sorted(set(np.unique(truth_HW).tolist()) - {255}):
        count, ids_HW = cv2.connectedComponents((truth_HW == class_id).astype(np.uint8))
        for number in range(1, count):
            rows, columns = np.nonzero(ids_HW == number)
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            parts.append(Part(class_id, ids_HW == number, tuple(map(int, box))))  # type: ignore[arg-type]
    return parts


class Oracle:
    """Detector and segmenter at once. The mask of a box is what it holds of the part whose own box is most like it.

    jitter: sides of boxes move by up to this share of its size; missed: this share of the parts is not found.
    """

    def __init__(
        self, scenes: Mapping[bytes, list[Part]], classes: ClassSet, jitter: float = 0.0, missed: float = 0.0
    ) -> None:
        self.scenes, self.classes, self.jitter, self.missed = scenes, classes, jitter, missed
        self.rng = np.random.default_rng(0)

    def detect(self, images: Sequence[NDArray[np.uint8]], words: Sequence[Sequence[str]]) -> list[Boxes]:
        return [self._detect(image, asked) for image, asked in zip(images, words, strict=True)]

    def _detect(self, image_HW3: NDArray[np.uint8], words: Sequence[str]) -> Boxes:
        boxes, scores = [np.zeros(4)][:0], [np.zeros(len(words))][:0]
        for part in self.scenes[image_HW3.tobytes()]:
            box_4, size_4 = np.array(part.box, float), np.tile(np.diff(np.reshape(part.box, (2, 2)), axis=0)[0], 2)
            moved_4 = box_4 + self.jitter * size_4 * self.rng.uniform(-1, 1, 4)
            if self.rng.random() >= self.missed:
                boxes.append(moved_4)
                scores.append(np.array([0.9 * (word in self.classes.prompts[part.class_id]) for word in words]))
        return Boxes(as_tensor(boxes, 4), as_tensor(scores, len(words)))

    def masks(self, image_HW3: NDArray[np.uint8], boxes_N4: Tensor) -> Iterator[Tensor]:
        for box in boxes_N4.tolist():
            part = max(self.scenes[image_HW3.tobytes()], key=lambda part: overlap(part.box, box))
            x0, y0, x1, y1 = (round(side) for side in box)
            mask_HW = np.zeros_like(part.mask_HW)
            mask_HW[y0:y1, x0:x1] = part.mask_HW[y0:y1, x0:x1]
            yield torch.from_numpy(mask_HW)[None].float()


def as_tensor(rows: Sequence[NDArray[np.float64]], width: int) -> Tensor:
    return torch.from_numpy(np.reshape(rows, (-1, width))).float()


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """IoU of two boxes."""
    sides = [min(one[k + 2], other[k + 2]) - max(one[k], other[k]) for k in range(2)]
    both = max(sides[0], 0) * max(sides[1], 0)
    return both / sum([(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)], -both)


def scenes_of(samples: Sequence[Sample]) -> dict[bytes, list[Part]]:
    """What an Oracle knows, by the image's bytes; of samples with truth."""
    return {read_image(s["image_path"]).tobytes(): parts_of(TOY.read_truth(s["label_path"] or "")) for s in samples}


def whole_images(samples: Sequence[Sample], patch_px: int) -> list[Prepared]:
    return [prepare(sample, ViewConfig(local=False), patch_px) for sample in samples]


def score(engine: Engine, samples: Sequence[Sample]) -> Scores:
    """Of masks that are made of an engine's maps, as a store makes them."""
    matrix = ConfusionMatrix(len(TOY.classes))
    maps = engine.ask(whole_images(samples, engine.patch_px), torch.zeros(0)).logits()
    for sample, (maps_Chw,) in zip(samples, maps, strict=True):
        truth_HW = TOY.read_truth(sample["label_path"] or "")
        is_present_C = np.isin(np.arange(len(TOY.classes)), sample["image_labels"] or [])
        matrix.update(truth_HW, to_mask(resize_logits(maps_Chw, *truth_HW.shape), is_present_C))
    return matrix.scores()
