"""SAM 3: a word straight to masks, of all of it (the semantic map) and of each thing that it names (instances).

Shapes: n words at a time, Q queries, C classes, H W pixels, h w patches.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from labelgen.engines.engine import EngineSpec, Inputs, ask_each
from labelgen.engines.hub import load_square_processor, load_tokenizer
from labelgen.engines.painting import paint
from labelgen.label import Asked, Prepared
from labelgen.maskclip import digest_weights, load_weights
from labelgen.samples import ClassSet, InputError

SETTING, EXAMPLE = "sam3.model", "facebook/sam3"


@dataclass(frozen=True, kw_only=True)
class SAM3Config:
    """Which model looks, and what of its answers counts."""

    model: str = EXAMPLE  # HF folder or hub id; the hub asks for consent to its licence first
    box_threshold: float = 0.3  # instances whose score is lower do not count; 1 = the semantic map alone
    mask_threshold: float = 0.5  # nothing is said of patches that no mask covers with this probability
    patch_px: int = 4  # pixels of the image, a side, to a score
    words_at_once: int = 1  # that go through the model together

    speed_only: ClassVar[tuple[str, ...]] = ("words_at_once",)

    def __post_init__(self) -> None:
        if not self.model:
            raise InputError("sam3.model must be a model folder or a hub id, got ''")
        for name in ("box_threshold", "mask_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"sam3.{name} must be in [0, 1], got {getattr(self, name)}")
        for name in ("patch_px", "words_at_once"):
            if getattr(self, name) < 1:
                raise InputError(f"sam3.{name} must be at least 1, got {getattr(self, name)}")


class SAM3:
    """SAM 3 as a label engine: whole images, and the classes that they show, stuff like things."""

    needs_labels = True

    def __init__(
        self,
        model: Any,
        processor: Any,
        tokenizer: Any,
        classes: ClassSet,
        config: SAM3Config | None = None,
        weights: Mapping[str, str] | None = None,
    ) -> None:
        """classes: their prompts are the words."""
        self.model: Any = model.eval().requires_grad_(False)
        self.processor, self.tokenizer, self.classes = processor, tokenizer, classes
        self.config = config or SAM3Config()
        self.patch_px, self.weights = self.config.patch_px, weights or {}

    @classmethod
    def from_pretrained(cls, classes: ClassSet, config: SAM3Config, device: str | torch.device | None = None) -> Self:
        """Load the model that config names. Raises InputError that says how to get it."""
        from transformers import Sam3Model

        model = load_weights(Sam3Model, config.model, SETTING, EXAMPLE)
        processor = load_square_processor(config.model, SETTING, model.config.image_size)
        tokenizer = load_tokenizer(config.model, SETTING)
        return cls(model.to(device), processor, tokenizer, classes, config, {"model": digest_weights(model)})

    def ask(self, images: Sequence[Prepared], text_TD: Tensor) -> Asked:
        """Score maps of the classes present; its words are its own."""
        return ask_each(images, self._maps)

    def _maps(self, image: Prepared, view: int) -> NDArray[np.float32]:
        image_HW3 = image.pixels_HW3[view]
        h, w = (side // self.patch_px for side in image_HW3.shape[:2])
        parts = self.masks(image_HW3, sorted(image.image_labels or ()))
        return paint(parts, len(self.classes), (h, w), self.config.mask_threshold).numpy()

    @torch.inference_mode()
    def masks(self, image_HW3: NDArray[np.uint8], present: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Masks of a uint8 RGB image for each word of the classes present, as `paint` takes them.

        The semantic map counts with the probability that the image shows the word at all, an instance with its own
        score times that.
        """
        words = [(c, word) for c in present for word in self.classes.prompts[c]]
        if not words:
            return
        pixels_13HW = self.processor(images=[image_HW3], return_tensors="pt")["pixel_values"].to(self.model.device)
        seen = self.model.get_vision_features(pixels_13HW)
        for start in range(0, len(words), self.config.words_at_once):
            some = words[start : start + self.config.words_at_once]
            answer = self.model(vision_embeds=_repeated(seen, len(some)), **self._tokens([word for _, word in some]))
            is_shown_n1 = answer.presence_logits.float().sigmoid()
            scores_nQ = answer.pred_logits.float().sigmoid() * is_shown_n1
            for place, (c, _) in enumerate(some):
                counts_Q = scores_nQ[place] > self.config.box_threshold
                logits_Nhw = torch.cat([answer.semantic_seg[place], answer.pred_masks[place, counts_Q]]).float()
                masks_1NHW = F.interpolate(logits_Nhw[None], size=image_HW3.shape[:2], mode="bilinear").sigmoid()
                scores_NC = torch.zeros(len(logits_Nhw), len(self.classes))
                scores_NC[:, c] = torch.cat([is_shown_n1[place], scores_nQ[place, counts_Q]]).cpu()
                yield masks_1NHW[0], scores_NC

    def _tokens(self, words: list[str]) -> dict[str, Tensor]:
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(words, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return {name: tokens[name].to(self.model.device) for name in ("input_ids", "attention_mask")}


def _repeated(seen: Any, times: int) -> Any:
    """What the model saw in one image, once for each word."""
    repeated = copy.copy(seen)
    for name in ("fpn_hidden_states", "fpn_position_encoding"):
        repeated[name] = tuple(level.expand(times, -1, -1, -1) for level in seen[name])
    return repeated


def _begin(inputs: Inputs) -> SAM3:
    return SAM3.from_pretrained(inputs.classes, inputs.settings.sam3, inputs.dense.device)


ENGINE = EngineSpec(
    about="words straight to masks, by SAM 3 (Meta, 2025)",
    needs="CLIP for the student's words; sam3.model: a folder or hub id",
    cost="one pass of its encoder for each image, and of its decoders for each word",
    settings=SAM3Config,
    asks_clip=False,
    is_compared=lambda settings: False,
    begin=_begin,
)
