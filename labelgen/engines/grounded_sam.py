"""Words -> boxes -> masks: a zero-shot detector says where a class is, a SAM which pixels of the box are it.

Text-input SAM of the survey of foundation models among the papers. Shapes: N boxes, C classes, W words, H W pixels, h w
patches.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelgen.engines.detector import Boxes, Detector
from labelgen.engines.engine import EngineSpec, Inputs
from labelgen.engines.painting import paint
from labelgen.engines.sam import Sam
from labelgen.label import Asked, Batch, Prepared
from labelgen.maskclip import digest_weights
from labelgen.samples import ClassSet, InputError

GPU_BATCH = 4


@dataclass(frozen=True, kw_only=True)
class GroundedSAMConfig:
    """Which models look, and what of their answers counts."""

    detector: str = "IDEA-Research/grounding-dino-tiny"  # HF folder or hub id: (MM) Grounding DINO, OWLv2, OWL-ViT
    sam: str = "facebook/sam-vit-base"  # HF folder or hub id: SAM, SAM-HQ, SAM 2
    box_threshold: float = 0.3  # boxes whose best score is lower do not count
    text_threshold: float = 0.25  # nor does a box for a class whose score in it is lower
    mask_threshold: float = 0.5  # nothing is said of patches that no mask covers with this probability
    patch_px: int = 4  # pixels of the image, a side, to a score
    batch: int = 0  # images that the detector sees at once; 0 = 4 on a GPU, 1 on a CPU
    boxes_at_once: int = 32  # that SAM's mask decoder answers together

    speed_only: ClassVar[tuple[str, ...]] = ("batch", "boxes_at_once")

    def __post_init__(self) -> None:
        for name in ("detector", "sam"):
            if not getattr(self, name):
                raise InputError(f"grounded_sam.{name} must be a model folder or a hub id, got ''")
        for name in ("box_threshold", "text_threshold", "mask_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"grounded_sam.{name} must be in [0, 1], got {getattr(self, name)}")
        for name, least in (("patch_px", 1), ("batch", 0), ("boxes_at_once", 1)):
            if getattr(self, name) < least:
                raise InputError(f"grounded_sam.{name} must be at least {least}, got {getattr(self, name)}")


class FindsBoxes(Protocol):
    """A `Detector`."""

    def detect(self, images: Sequence[NDArray[np.uint8]], words: Sequence[Sequence[str]]) -> list[Boxes]:
        """Boxes (x0, y0, x1, y1) of each image, and how much each is of its words."""


class MasksBoxes(Protocol):
    """A `Sam`."""

    def masks(self, image_HW3: NDArray[np.uint8], boxes_N4: Tensor) -> Iterable[Tensor]:
        """Probabilities (n, H, W), for some boxes at a time."""


class GroundedSAM:
    """A detector and a segmenter as a label engine: whole images, and the classes that they show, stuff like things."""

    needs_labels = True

    def __init__(
        self,
        detector: FindsBoxes,
        sam: MasksBoxes,
        classes: ClassSet,
        config: GroundedSAMConfig,
        weights: Mapping[str, str] | None = None,
    ) -> None:
        """classes: their prompts are the words. config.batch: as it is, not 0."""
        self.detector, self.sam, self.classes, self.config = detector, sam, classes, config
        self.patch_px, self.weights = config.patch_px, weights or {}

    def ask(self, images: Sequence[Prepared], text_TD: Tensor) -> Asked:
        """Score maps of the classes present; its words are its own."""
        return Asked(images, self._batches(images))

    def _batches(self, images: Sequence[Prepared]) -> Iterator[Batch]:
        places = [(i, v) for i, image in enumerate(images) for v in range(len(image.views))]
        for start in range(0, len(places), self.config.batch):
            some = places[start : start + self.config.batch]
            present = [sorted(images[i].image_labels or ()) for i, _ in some]
            pixels = [images[i].pixels_HW3[v] for i, v in some]
            for place, image_HW3, (boxes_N4, scores_NC) in zip(some, pixels, self._boxes(pixels, present), strict=True):
                h, w = (side // self.patch_px for side in image_HW3.shape[:2])
                parts = self._parts(image_HW3, boxes_N4, scores_NC)
                maps_Chw = paint(parts, len(self.classes), (h, w), self.config.mask_threshold)
                yield Batch([place], maps_Chw[None], None)

    def _parts(
        self, image_HW3: NDArray[np.uint8], boxes_N4: Tensor, scores_NC: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """What `paint` takes."""
        place = 0
        for masks_nHW in self.sam.masks(image_HW3, boxes_N4) if len(boxes_N4) else ():
            yield masks_nHW, scores_NC[place : place + len(masks_nHW)]
            place += len(masks_nHW)

    def _boxes(
        self, pixels: Sequence[NDArray[np.uint8]], present: Sequence[Sequence[int]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Of each image what `boxes_of_classes` gives; nothing where no class is present."""
        asked = [place for place, classes in enumerate(present) if classes]
        words = [[(c, word) for c in present[place] for word in self.classes.prompts[c]] for place in asked]
        spoken = [[word for _, word in some] for some in words]
        answers = iter(self.detector.detect([pixels[place] for place in asked], spoken) if asked else ())
        meant = iter(words)
        for image_HW3, classes in zip(pixels, present, strict=True):
            if not classes:
                yield torch.zeros(0, 4), torch.zeros(0, len(self.classes))
                continue
            class_W = [c for c, _ in next(meant)]
            size = image_HW3.shape[0], image_HW3.shape[1]
            yield boxes_of_classes(next(answers), class_W, len(self.classes), size, self.config)


def boxes_of_classes(
    found: Boxes, class_W: Sequence[int], classes: int, size: tuple[int, int], config: GroundedSAMConfig
) -> tuple[Tensor, Tensor]:
    """The boxes (N, 4) that count, cut to an image of `size` = (H, W), and their scores (N, C), 0 = nothing said.

    class_W: which class each word is one of. A box counts if it holds some of the image and its best score exceeds
    config.box_threshold; it speaks for every class whose best word exceeds config.text_threshold in it.
    """
    scores_NC = torch.zeros(len(found.boxes_N4), classes)
    for w, c in enumerate(class_W):
        scores_NC[:, c] = torch.maximum(scores_NC[:, c], found.scores_NW[:, w])
    height, width = size
    boxes_N4 = torch.minimum(found.boxes_N4.clamp(min=0), torch.tensor([width, height, width, height]))
    has_pixels_N = (boxes_N4[:, 2:] > boxes_N4[:, :2]).all(1)
    counts_N = has_pixels_N & (scores_NC > config.box_threshold).any(1)
    return boxes_N4[counts_N], scores_NC[counts_N].where(scores_NC[counts_N] > config.text_threshold, 0.0)


def _begin(inputs: Inputs) -> GroundedSAM:
    config: GroundedSAMConfig = inputs.settings.grounded_sam
    device = inputs.dense.device
    detector = Detector.from_pretrained(config.detector, "grounded_sam.detector", device)
    sam = Sam.from_pretrained(config.sam, "grounded_sam.sam", device, config.boxes_at_once)
    config = replace(config, batch=config.batch or (GPU_BATCH if device.type == "cuda" else 1))
    weights = {"detector": digest_weights(detector.model), "sam": digest_weights(sam.model)}
    return GroundedSAM(detector, sam, inputs.classes, config, weights)


ENGINE = EngineSpec(
    about="a detector draws boxes around what words name, a SAM finds what of each box it is (text-input SAM)",
    needs="CLIP for the student's words; grounded_sam.detector and grounded_sam.sam: folders or hub ids",
    cost="one pass of the detector for each image, one of SAM's encoder, and of its decoder for each box",
    settings=GroundedSAMConfig,
    asks_clip=False,
    is_compared=lambda settings: False,
    begin=_begin,
)
