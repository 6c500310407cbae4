"""Boxes of what words name, by a Hugging Face zero-shot object detector.

Shapes: N boxes, W words, H W pixels, B pairs of an image and words, T tokens of a text.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelgen.engines.hub import load_processor
from labelgen.maskclip import load_weights
from labelgen.samples import InputError

EXAMPLE = "IDEA-Research/grounding-dino-tiny"
KNOWN = ("grounding-dino", "mm-grounding-dino", "owlv2", "owlvit")


class Boxes(NamedTuple):
    """What a detector found in one image: (x0, y0, x1, y1) in its pixels, and how much each box is each word, 0..1."""

    boxes_N4: Tensor
    scores_NW: Tensor


class Detector:
    """Grounding DINO, MM Grounding DINO, OWLv2 or OWL-ViT: asked for words, it answers with boxes.

    The first two read all words about an image as one text, "sky. traffic sign. car.", and score its tokens: a word's
    score is that of its best token. The others score each word by itself.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model: Any = model.eval().requires_grad_(False)
        self.processor = processor
        self.reads_a_text = model.config.model_type in ("grounding-dino", "mm-grounding-dino")

    @classmethod
    def from_pretrained(cls, path_or_hub_id: str, kind: str, device: str | torch.device | None = None) -> Self:
        """Load a folder or hub id. kind: the setting that names it. Raises InputError that says how to get one."""
        from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

        model = load_weights(AutoModelForZeroShotObjectDetection, path_or_hub_id, kind, EXAMPLE)
        if model.config.model_type not in KNOWN:
            raise InputError(f"{kind} must be one of {', '.join(KNOWN)}, got a {model.config.model_type}")
        processor = load_processor(AutoProcessor, path_or_hub_id, kind, "image_processor", "tokenizer")
        return cls(model.to(device), processor)

    @torch.inference_mode()
    def detect(self, images: Sequence[NDArray[np.uint8]], words: Sequence[Sequence[str]]) -> list[Boxes]:
        """All boxes, without a threshold, of uint8 RGB images (H, W, 3), each asked for words of its own, at least one.

        The processor's rules say how large an image goes in. Words that do not fit into one text go in as several.
        """
        pairs = [(i, some) for i, asked in enumerate(words) for some in self._texts(asked)]
        found = self._detect([images[i] for i, _ in pairs], [some for _, some in pairs])
        by_image = [
            [boxes for (i, _), boxes in zip(pairs, found, strict=True) if i == image] for image in range(len(images))
        ]
        return [_side_by_side(parts) for parts in by_image]

    def _detect(self, images: list[NDArray[np.uint8]], words: list[list[str]]) -> list[Boxes]:
        texts = [as_text(some) for some in words] if self.reads_a_text else words
        options = {"padding": True} if self.reads_a_text else {}
        inputs = self.processor(images=images, text=texts, return_tensors="pt", **options).to(self.model.device)
        answer = self.model(**inputs)
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        # A threshold that every box passes: they stay in the order of their scores.
        scaled = self.processor.image_processor.post_process_object_detection(
            answer, threshold=-1.0, target_sizes=sizes
        )
        scores_BNT = answer.logits.float().sigmoid()
        return [
            Boxes(
                one["boxes"].float().cpu(),
                torch.stack([scores_NT[:, place].amax(1) for place in self._places(some)], dim=1).cpu(),
            )
            for one, scores_NT, some in zip(scaled, scores_BNT, words, strict=True)
        ]

    def _texts(self, words: Sequence[str]) -> list[list[str]]:
        """The words, in as many texts as they need."""
        if not self.reads_a_text:
            return [list(words)]
        texts: list[list[str]] = [[]]
        for word in words:
            longer = self.processor.tokenizer(as_text([*texts[-1], word]))["input_ids"]
            if texts[-1] and len(longer) > self.model.config.max_text_len:
                texts.append([])
            texts[-1].append(word)
        return texts

    def _places(self, words: Sequence[str]) -> list[list[int]]:
        """For each word, which of the answer's last axis speak for it."""
        if not self.reads_a_text:
            return [[place] for place in range(len(words))]
        offsets = self.processor.tokenizer(as_text(words), return_offsets_mapping=True)["offset_mapping"]
        ends = np.cumsum([len(word) + len(". ") for word in words])
        starts = ends - [len(word) + len(". ") for word in words]
        return [
            [t for t, (first, last) in enumerate(offsets) if start <= first < last <= start + len(word)]
            for word, start in zip(words, starts, strict=True)
        ]


def as_text(words: Sequence[str]) -> str:
    """The words as Grounding DINO was trained to read them: "sky. traffic sign. car."."""
    return " ".join(f"{word.lower().replace('.', ' ')}." for word in words)


def _side_by_side(parts: Sequence[Boxes]) -> Boxes:
    """Boxes of several texts about one image; a box of one says nothing of another's words."""
    if len(parts) == 1:
        return parts[0]
    blocks: Tensor = torch.block_diag(*(part.scores_NW for part in parts))  # type: ignore[no-untyped-call]
    return Boxes(torch.cat([part.boxes_N4 for part in parts]), blocks)
