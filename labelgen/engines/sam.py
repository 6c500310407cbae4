"""Masks of boxes and points, by a Hugging Face SAM, SAM-HQ or SAM 2.

Shapes: N boxes, K points, H W pixels.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from labelgen.engines.hub import load_processor, load_square_processor
from labelgen.maskclip import load_weights
from labelgen.samples import InputError

EXAMPLE = "facebook/sam-vit-base"
PADDING = ("sam", "sam_hq")  # keep an image's shape and pad it to a square; the others stretch it
STRETCHING = ("sam2", "sam2_video")
SAME = 0.7  # IoU above which two masks are of one thing


class Sizes(NamedTuple):
    """(height, width) of an image, and of the part of the model's input that it fills."""

    image: tuple[int, int]
    went_in: tuple[int, int]

    @property
    def scale(self) -> Tensor:
        """(x, y) factors from pixels of the image to those of the input."""
        return torch.tensor([self.went_in[1] / self.image[1], self.went_in[0] / self.image[0]])


class Sam:
    """A segmenter that is shown where to look; what it sees in an image is computed once.

    at_once: boxes, or points, that its mask decoder answers together.
    """

    def __init__(self, model: Any, processor: Any, at_once: int = 32) -> None:
        self.model: Any = model.eval().requires_grad_(False)
        self.processor, self.at_once = processor, at_once
        self.pads = model.config.model_type in PADDING

    @classmethod
    def from_pretrained(
        cls, path_or_hub_id: str, kind: str, device: str | torch.device | None = None, at_once: int = 32
    ) -> Self:
        """Load a folder or hub id. kind: the setting that names it. Raises InputError that says how to get one."""
        from transformers import AutoModelForMaskGeneration, AutoProcessor

        model = load_weights(AutoModelForMaskGeneration, path_or_hub_id, kind, EXAMPLE)
        if model.config.model_type in PADDING:
            processor = load_processor(AutoProcessor, path_or_hub_id, kind, "image_processor").image_processor
        elif model.config.model_type in STRETCHING:
            processor = load_square_processor(path_or_hub_id, kind, model.config.prompt_encoder_config.image_size)
        else:
            raise InputError(f"{kind} must be a SAM, SAM-HQ or SAM 2, got a {model.config.model_type}")
        return cls(model.to(device), processor, at_once)

    @torch.inference_mode()
    def masks(self, image_HW3: NDArray[np.uint8], boxes_N4: Tensor) -> Iterator[Tensor]:
        """For some of the boxes at a time, in their order, probabilities (n, H, W) of what each one is about.

        image_HW3: uint8 RGB. boxes_N4: (x0, y0, x1, y1) in its pixels.
        """
        seen, sizes = self._look(image_HW3)
        scaled_N4 = boxes_N4.float().cpu() * sizes.scale.repeat(2)
        for start in range(0, len(scaled_N4), self.at_once):
            boxes_1n4 = scaled_N4[None, start : start + self.at_once].to(self.model.device)
            answer = self.model(**seen, input_boxes=boxes_1n4, multimask_output=False)
            yield self._enlarge(answer.pred_masks[0], sizes)[:, 0].sigmoid()

    @torch.inference_mode()
    def everything(self, image_HW3: NDArray[np.uint8], points: int, quality: float) -> NDArray[np.bool_]:
        """Masks (N, H, W) of what is at the points of a grid, so many a side: SAM's automatic mode, in short.

        Each point is answered by the mask that SAM itself finds best. Those whose IoU it foretells below `quality`, and
        those that a better one covers (IoU above SAME), are left out.
        """
        seen, sizes = self._look(image_HW3)
        middles = (torch.arange(points) + 0.5) / points
        places_K2 = torch.cartesian_prod(middles, middles).flip(1) * torch.tensor([sizes.went_in[1], sizes.went_in[0]])
        masks, scores = [], []
        for start in range(0, len(places_K2), self.at_once):
            points_1k12 = places_K2[None, start : start + self.at_once, None].to(self.model.device)
            answer = self.model(**seen, input_points=points_1k12, multimask_output=True)
            score_k, best_k = answer.iou_scores[0].float().max(1)
            good_k = score_k >= quality
            best = answer.pred_masks[0][good_k, best_k[good_k]]
            if len(best):
                masks.append((self._enlarge(best[:, None], sizes)[:, 0] > 0).cpu())
                scores.append(score_k[good_k].cpu())
        if not masks:
            return np.zeros((0, *sizes.image), np.bool_)
        return different(torch.cat(masks), torch.cat(scores)).numpy()

    def _look(self, image_HW3: NDArray[np.uint8]) -> tuple[dict[str, Any], Sizes]:
        """The image's embeddings, by the names that the model takes them under, and how it went in."""
        inputs = self.processor(images=[image_HW3], return_tensors="pt")
        pixels_13HW = inputs["pixel_values"].to(self.model.device)
        height, width = image_HW3.shape[:2]
        went_in = inputs["reshaped_input_sizes"][0].tolist() if self.pads else pixels_13HW.shape[2:]
        sizes = Sizes((height, width), (went_in[0], went_in[1]))
        embeddings = self.model.get_image_embeddings(pixels_13HW)
        if isinstance(embeddings, tuple):  # SAM-HQ
            return {"image_embeddings": embeddings[0], "intermediate_embeddings": embeddings[1]}, sizes
        return {"image_embeddings": embeddings}, sizes

    def _enlarge(self, logits_nmhw: Tensor, sizes: Sizes) -> Tensor:
        """(n, m, H, W) logits in the image's size, by the processor's own rule."""
        if not self.pads:
            return F.interpolate(logits_nmhw.float(), size=sizes.image, mode="bilinear")
        masks: list[Tensor] = self.processor.post_process_masks(
            [logits_nmhw.float()], [sizes.image], [sizes.went_in], binarize=False
        )
        return masks[0]


def different(masks_NHW: Tensor, score_N: Tensor) -> Tensor:
    """The masks, best first, without empty ones and those that are the same as a better one."""
    order = score_N.argsort(descending=True, stable=True)
    flat_NP = masks_NHW[order].flatten(1).float()
    both_NN, area_N = flat_NP @ flat_NP.T, flat_NP.sum(1)
    iou_NN = both_NN / (area_N[:, None] + area_N - both_NN).clamp(min=1)
    kept: list[int] = []
    for n in area_N.nonzero()[:, 0].tolist():
        if not kept or iou_NN[n, kept].max() <= SAME:
            kept.append(n)
    return masks_NHW[order][kept]
