"""CLIP-ES: Grad-CAM of CLIP's own scores of an image, spread along its attention (Lin et al., CVPR 2023).

Shapes: C classes that an image shows, K background words, T = C + K, D embedding, E width of the tokens, H W pixels,
h w patches, P = h * w, N = P + 1 tokens (CLS first), A attention heads, d = E / A.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from labelgen.engines.engine import EngineSpec, absent_is_silent, ask_each
from labelgen.label import Asked, Prepared
from labelgen.maskclip import DenseCLIP, check_grid
from labelgen.samples import ClassSet, InputError

# The paper's list, made for photos of objects. What is a class of the data set is no background.
BACKGROUND_WORDS = (
    *("ground", "land", "grass", "tree", "building", "wall", "sky", "lake", "water", "river", "sea", "railway"),
    *("railroad", "keyboard", "helmet", "cloud", "house", "mountain", "ocean", "road", "rock", "street", "valley"),
    *("bridge", "sign"),
)
BALANCING_ROUNDS = 3  # how often columns and rows of the attention are normalised
TINY = 1e-7  # what the authors add to a divisor


@dataclass(frozen=True, kw_only=True)
class ClipESConfig:
    """How CLIP-ES looks at images and words."""

    template: str = "a clean origami {}."  # chosen by its authors, for one sentence a class must do
    background: tuple[str, ...] = BACKGROUND_WORDS  # compete with the classes; names of classes are left out
    attention_blocks: int = 8  # how many of the last blocks' attentions are averaged
    box_threshold: float = 0.4  # attention spreads from boxes around what exceeds this share of a map's maximum
    confidence: float = 0.0  # nothing is said of patches whose best score (0..1) is below this; 0 = off, paper: 0.95
    faithful: bool = False  # positions as in the authors' code: resized bilinearly, rounded to half precision

    def __post_init__(self) -> None:
        if self.template.count("{}") != 1:
            raise InputError(f"clip_es.template needs exactly one {{}}, got {self.template!r}")
        if self.attention_blocks < 1:
            raise InputError(f"clip_es.attention_blocks must be at least 1, got {self.attention_blocks}")
        for name in ("box_threshold", "confidence"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"clip_es.{name} must be in [0, 1], got {getattr(self, name)}")


class Activation(NamedTuple):
    """What CLIP-ES found in one image; float32."""

    scores_T: Tensor  # probabilities of the classes, then of the background words
    attention_PP: Tensor  # from patch (row) to patch, mean over heads and blocks
    cam_Chw: Tensor  # Grad-CAM of each class, 0..1
    refined_Chw: Tensor  # the same after spreading along the attention, 0..1


class ClipES:
    """CLIP-ES with a frozen CLIP ViT: softmax Grad-CAM and class-aware attention-based affinity."""

    def __init__(self, dense: DenseCLIP, config: ClipESConfig | None = None) -> None:
        self.dense = dense
        self.config = config or ClipESConfig()

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | os.PathLike[str],
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        config: ClipESConfig | None = None,
    ) -> Self:
        """Load a HF CLIP folder or hub id, as `DenseCLIP.from_pretrained` does. Raises InputError."""
        return cls(DenseCLIP.from_pretrained(path_or_hub_id, device=device, dtype=dtype), config)

    def encode_words(self, classes: ClassSet) -> tuple[Tensor, Tensor]:
        """Unit vectors of all classes (C, D), one sentence each, and of the background words (K, D)."""
        names = [*fused_names(classes), *background_words(classes, self.config.background)]
        vectors_TD = self.dense.encode_sentences([self.config.template.format(name) for name in names])
        return vectors_TD[: len(classes)], vectors_TD[len(classes) :]

    def maps(self, pixels_13HW: Tensor, class_CD: Tensor, background_KD: Tensor) -> Tensor:
        """(C, h, w) scores in 0..1 of the classes that an image shows; NaN where none of them is sure enough."""
        return keep_confident(self.activate(pixels_13HW, class_CD, background_KD).refined_Chw, self.config.confidence)

    def activate(self, pixels_13HW: Tensor, class_CD: Tensor, background_KD: Tensor) -> Activation:
        """Score, locate and refine every class that an image shows.

        pixels_13HW: normalised by `DenseCLIP.normalise`, H and W multiples of the patch (else InputError).
        class_CD, background_KD: text vectors of any norm, of the classes present and of what else could be there.

        The gradients of all classes are taken at once: C passes back through the last block's MLP, in one batch, and
        one product of the attention with a (P, d) matrix for each class and head. Besides CLIP's forward pass that
        costs queries, keys and attention of the averaged blocks a second time. No tensor is larger than the
        attention of one block, (A, N, N), or the MLP's inside, (C, P, 4 E).
        """
        h, w = check_grid(pixels_13HW, self.dense.patch_px)
        if not len(class_CD):
            raise InputError("CLIP-ES needs an image that shows at least one class")
        # Autograd takes no tensor that was made in inference mode, whatever mode the caller is in.
        with torch.inference_mode(False), torch.no_grad():
            x_1NE = self._embed(pixels_13HW)
            *blocks, last = self.dense.blocks
            averaged = []
            for place, block in enumerate(blocks):
                if place > len(blocks) - self.config.attention_blocks:
                    averaged.append(attention_weights(block.self_attn, block.layer_norm1(x_1NE[0])).mean(0))
                x_1NE = block(x_1NE, attention_mask=None)
            layer, tokens_NE = last.self_attn, last.layer_norm1(x_1NE[0])
            weights_ANN = attention_weights(layer, tokens_NE)
            attention_PP = torch.stack([*averaged, weights_ANN.mean(0)]).mean(0)[1:, 1:]
            value_ANd = _heads(layer.v_proj, tokens_NE, layer.num_heads)
            mixed_PE = (weights_ANN[:, 1:].to(value_ANd) @ value_ANd).transpose(0, 1).flatten(1)
            text_TD = torch.cat([class_CD, background_KD])
            scores_T, gradient_CPE = self._scores(last, x_1NE[0, 1:], mixed_PE, text_TD, len(class_CD))
            channel_CE = mean_gradient(layer, tokens_NE, weights_ANN, gradient_CPE)
            cam_CP = (channel_CE @ tokens_NE[1:].float().T).clamp(min=0)
            cam_Chw = _scaled(_scaled(cam_CP.view(-1, h, w)))  # twice, as the authors' helper does
            refined_Chw = _scaled(refine(cam_Chw, attention_PP, self.config.box_threshold))
        return Activation(scores_T, attention_PP, cam_Chw, refined_Chw)

    def _embed(self, pixels_13HW: Tensor) -> Tensor:
        """The tokens that enter the first block."""
        if not self.config.faithful:
            return self.dense.embed(pixels_13HW)
        vision = self.dense.model.vision_model
        weight = vision.embeddings.patch_embedding.weight
        patch_1Ehw = vision.embeddings.patch_embedding(pixels_13HW.to(weight))
        position_NE = vision.embeddings.position_embedding.weight
        side = round((len(position_NE) - 1) ** 0.5)
        grid_1Ehw = position_NE[1:].T.reshape(1, -1, side, side)
        grid_1Ehw = F.interpolate(grid_1Ehw.float(), size=patch_1Ehw.shape[2:], mode="bilinear")
        position_NE = torch.cat([position_NE[:1].float(), grid_1Ehw[0].flatten(1).T]).half().to(weight)
        x_NE = torch.cat([vision.embeddings.class_embedding[None], patch_1Ehw[0].flatten(1).T]) + position_NE
        tokens_1NE: Tensor = vision.pre_layrnorm(x_NE[None])
        return tokens_1NE

    def _scores(
        self, last: Any, residual_PE: Tensor, mixed_PE: Tensor, text_TD: Tensor, classes: int
    ) -> tuple[Tensor, Tensor]:
        """Probabilities (T,) of the texts, and the gradients (C, P, E) of the first C by what attention mixed.

        The image is the mean of its patches after CLIP's last layer norm, not the CLS token.
        """
        model = self.dense.model
        with torch.enable_grad():
            mixed_PE.requires_grad_()
            z_PE = residual_PE + last.self_attn.out_proj(mixed_PE)
            z_PE = z_PE + last.mlp(last.layer_norm2(z_PE))
            image_D = model.visual_projection(model.vision_model.post_layernorm(z_PE).mean(0)).float()
            cosine_T = F.normalize(text_TD.to(image_D), dim=-1) @ F.normalize(image_D, dim=-1)
            scores_T = (model.logit_scale.exp() * cosine_T).softmax(0)
        each_CT = torch.eye(classes, len(text_TD), device=scores_T.device)
        (gradient_CPE,) = torch.autograd.grad(scores_T, mixed_PE, each_CT, is_grads_batched=True)
        return scores_T.detach(), gradient_CPE


class ClipESEngine:
    """CLIP-ES as a label engine: whole images, and the classes that they show."""

    needs_labels = True

    def __init__(self, clip_es: ClipES, classes: ClassSet) -> None:
        self.clip_es, self.classes = clip_es, classes
        self.patch_px, self.weights = clip_es.dense.patch_px, dict[str, str]()
        self.class_CD, self.background_KD = clip_es.encode_words(classes)

    def ask(self, images: Sequence[Prepared], text_TD: Tensor) -> Asked:
        """Maps of the classes present; its words are its own."""
        return ask_each(images, self._maps)

    def _maps(self, image: Prepared, view: int) -> NDArray[np.float32]:
        pixels_HW3, present = image.pixels_HW3[view], list(image.image_labels or ())
        if not present:
            h, w = (side // self.patch_px for side in pixels_HW3.shape[:2])
            return absent_is_silent(np.zeros((0, h, w), np.float32), (), len(self.classes))
        pixels_13HW = self.clip_es.dense.normalise(torch.from_numpy(pixels_HW3)[None])
        maps_Khw = self.clip_es.maps(pixels_13HW, self.class_CD[present], self.background_KD)
        return absent_is_silent(maps_Khw.cpu().numpy(), present, len(self.classes))


ENGINE = EngineSpec(
    about="where CLIP's score of each class comes from, spread along its attention (Lin et al., CVPR 2023)",
    needs="CLIP",
    cost="one pass of CLIP for each image, and for each class one back through its last block",
    settings=ClipESConfig,
    begin=lambda inputs: ClipESEngine(ClipES(inputs.dense, inputs.settings.clip_es), inputs.classes),
)


def _heads(linear: Any, tokens_NE: Tensor, heads: int) -> Tensor:
    """(A, N, d): what a projection makes of the tokens, head by head."""
    projected_NE: Tensor = linear(tokens_NE)
    return projected_NE.view(len(tokens_NE), heads, -1).transpose(0, 1)


def attention_weights(layer: Any, tokens_NE: Tensor) -> Tensor:
    """softmax(q kT / sqrt(d)), (A, N, N) float32, of a HF CLIP's attention layer, whose fused kernels keep it back."""
    query_ANd, key_ANd = (_heads(linear, tokens_NE, layer.num_heads) for linear in (layer.q_proj, layer.k_proj))
    scores_ANN: Tensor = query_ANd @ key_ANd.transpose(1, 2) * layer.scale
    return scores_ANN.softmax(-1, dtype=torch.float32)


def mean_gradient(layer: Any, tokens_NE: Tensor, weights_ANN: Tensor, gradient_CPE: Tensor) -> Tensor:
    """(C, E) float32: mean over patches of the gradients by the tokens that enter an attention layer.

    gradient_CPE: of C scores, by what attention mixed for the patches (before out_proj). With dS = P * (G vT - D),
    D = rowsum(G * o), for the scores S = q kT / sqrt(d): only the sums of dS over queries, and over the keys of all
    patches, are needed, and both follow from PT G. So no (N, N) matrix is made for a class. A row of dS sums to zero,
    hence its sum over patches is minus what CLS takes.
    """
    linears = (layer.q_proj, layer.k_proj, layer.v_proj)
    query_ANd, key_ANd, value_ANd = (_heads(linear, tokens_NE, layer.num_heads).float() for linear in linears)
    C, P, _ = gradient_CPE.shape
    gradient_CAPd = gradient_CPE.float().view(C, P, layer.num_heads, -1).transpose(1, 2)
    weights_APN = weights_ANN[:, 1:]
    by_value_CANd = torch.einsum("apn,capd->cand", weights_APN, gradient_CAPd)
    own_CAP = (gradient_CAPd * (weights_APN @ value_ANd)).sum(-1)
    of_key_CAN = (by_value_CANd * value_ANd).sum(-1) - torch.einsum("cap,apn->can", own_CAP, weights_APN)
    of_query_CAP = -weights_APN[:, :, 0] * (torch.einsum("capd,ad->cap", gradient_CAPd, value_ANd[:, 0]) - own_CAP)
    sums = (
        torch.einsum("can,and->cad", of_key_CAN, key_ANd) * layer.scale,
        torch.einsum("cap,apd->cad", of_query_CAP, query_ANd[:, 1:]) * layer.scale,
        by_value_CANd[:, :, 1:].sum(2),
    )
    by_token = [sum_CAd.flatten(1) @ linear.weight.float() for sum_CAd, linear in zip(sums, linears, strict=True)]
    return torch.stack(by_token).sum(0) / P


def refine(cam_Chw: Tensor, attention_PP: Tensor, box_threshold: float) -> Tensor:
    """Maps (C, h, w) spread along the attention, each from its own boxes ("class-aware attention-based affinity").

    The attention is balanced (columns and rows sum to about 1), made symmetric and squared; of its columns only those
    of patches in the boxes stay (`box_mask`).
    """
    transition_PP = attention_PP
    for _ in range(BALANCING_ROUNDS):
        transition_PP = transition_PP / transition_PP.sum(0, keepdim=True)
        transition_PP = transition_PP / transition_PP.sum(1, keepdim=True)
    transition_PP = (transition_PP + transition_PP.T) / 2
    transition_PP = transition_PP @ transition_PP
    is_in_box_Chw = np.stack([box_mask(map_hw, box_threshold) for map_hw in cam_Chw.cpu().numpy()])
    from_box_CP = (cam_Chw * torch.from_numpy(is_in_box_Chw).to(cam_Chw)).flatten(1)
    return (from_box_CP @ transition_PP.T).view_as(cam_Chw)


def box_mask(map_hw: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """(h, w): inside a box around a connected region, or a hole, above `threshold` of the maximum of a map in 0..1.

    As in the authors' code, no box holds the last row or column: a map that is high only there has none.
    """
    levels_hw = (map_hw * 255).astype(np.uint8)
    is_high_hw = (levels_hw > int(threshold * levels_hw.max())).astype(np.uint8)
    contours, _ = cv2.findContours(is_high_hw, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    is_inside_hw = np.zeros(map_hw.shape, np.bool_)
    h, w = map_hw.shape
    for contour in contours:
        x, y, width, height = cv2.boundingRect(contour)
        is_inside_hw[y : min(y + height, h - 1), x : min(x + width, w - 1)] = True
    return is_inside_hw


def keep_confident(maps_Chw: Tensor, confidence: float) -> Tensor:
    """Maps that say nothing (NaN) of patches where no class reaches `confidence` ("confidence-guided loss")."""
    return torch.where(maps_Chw.amax(0) >= confidence, maps_Chw, torch.nan)


def fused_names(classes: ClassSet) -> list[str]:
    """One name a class: all of its synonyms in one, "person,pedestrian,rider"."""
    return [",".join(synonyms) for synonyms in classes.prompts]


def background_words(classes: ClassSet, words: Sequence[str] = BACKGROUND_WORDS) -> list[str]:
    """The words that are no class: neither its name nor one of its synonyms."""
    taken = {name.lower() for name in (*classes.names, *(name for some in classes.prompts for name in some))}
    return [word for word in words if word.lower() not in taken]


def _scaled(maps_Chw: Tensor) -> Tensor:
    """Each map from its least to its greatest value, to 0..1."""
    risen_Chw = maps_Chw - maps_Chw.amin((1, 2), keepdim=True)
    return risen_Chw / (TINY + risen_Chw.amax((1, 2), keepdim=True))
