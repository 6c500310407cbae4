"""CLIP in dense mode: a similarity to each text for every patch of an image, without training (MaskCLIP).

Shapes: B batch, C classes, D embedding, H W pixels, h w patches (h = H / patch), P = h * w, N = P + 1 tokens,
K their width, A attention heads.
"""

import hashlib
import math
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labelgen.images import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from labelgen.pretrained import NO_CODE, load_model
from labelgen.refine import drop_classes, smooth_by_keys, unlikely_classes
from labelgen.samples import InputError

Variant = Literal["maskclip", "value", "sclip", "clearclip", "naclip"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
# Of the last block's three paths, these variants keep only the (changed) attention.
ATTENTION_ONLY: tuple[Variant, ...] = ("value", "clearclip", "naclip")
TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
TEXT_BATCH = 64
NEIGHBOUR_STD_PATCHES = 5.0  # width of naclip's Gaussian prior, in patches


class DenseCLIP(nn.Module):
    """A CLIP model whose last vision block is changed so that patches keep their place.

    All blocks but the last run as usual. In the last one, attention is replaced by (variant):
    `maskclip`: each token's own value (MaskCLIP; CARB's pseudo-masks); `value`: the same without residual and
    MLP; `sclip`: softmax(q qT) + softmax(k kT); `clearclip`: softmax(q qT), no residual, no MLP; `naclip`:
    softmax(k kT + a Gaussian prior around each patch), no residual, no MLP.

    key_smoothing, prompt_denoising: confidences in 0..1 below which MaskCLIP's refinements of the logits act
    (`labelgen.refine`); 0 = off.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        variant: Variant = "maskclip",
        *,
        key_smoothing: float = 0.0,
        prompt_denoising: float = 0.0,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise InputError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
        self.model: Any = model.eval().requires_grad_(False)  # Any: transformers' modules are hardly typed
        self.tokenizer = tokenizer
        self.variant: Variant = variant
        self.key_smoothing, self.prompt_denoising = key_smoothing, prompt_denoising
        self.patch_px = int(model.config.vision_config.patch_size)
        self.image_mean: tuple[float, ...] = CLIP_MEAN
        self.image_std: tuple[float, ...] = CLIP_STD
        self._temperature = float(model.logit_scale.exp())

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = self.model.visual_projection.weight.device
        return device

    @property
    def widths(self) -> tuple[int, int]:
        """Of the vision tower's tokens, and inside its MLPs."""
        vision = self.model.config.vision_config
        return int(vision.hidden_size), int(vision.intermediate_size)

    @property
    def compares_patches(self) -> bool:
        """Whether each patch is held against all others outside of attention: key smoothing."""
        return self.key_smoothing > 0

    @property
    def dtype(self) -> torch.dtype:
        """What its vision tower computes in."""
        dtype: torch.dtype = self.model.visual_projection.weight.dtype
        return dtype

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | os.PathLike[str],
        variant: Variant = "maskclip",
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        *,
        key_smoothing: float = 0.0,
        prompt_denoising: float = 0.0,
        faithful: bool = False,
    ) -> Self:
        """Load a HF CLIP folder or hub id, e.g. "openai/clip-vit-base-patch16".

        dtype: of the vision tower; texts are encoded in float32. Pixel mean and std come from the folder's
        preprocessor_config.json. faithful: see `as_the_authors_ran_it`. Raises InputError when the model cannot be
        had, saying how to get it.
        """
        from transformers import AutoTokenizer, CLIPModel

        name = str(path_or_hub_id)
        model = load_weights(CLIPModel, name, "CLIP", "openai/clip-vit-base-patch16")
        # transformers makes up an empty tokenizer for a folder without one; encode_text then says what is missing
        has_tokenizer = not Path(name).is_dir() or any((Path(name) / f).is_file() for f in TOKENIZER_FILES)
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, **NO_CODE) if has_tokenizer else None
        except Exception as error:
            raise InputError(f"the tokenizer of {name!r} cannot be read ({_first_line(error)})") from error
        dense = cls(model, tokenizer, variant, key_smoothing=key_smoothing, prompt_denoising=prompt_denoising)
        dense.image_mean, dense.image_std = read_pixel_statistics(name, CLIP_MEAN, CLIP_STD)
        if faithful:
            dense.as_the_authors_ran_it()
        dense.compute_in(dtype or torch.float32)
        return dense.to(device)

    def compute_in(self, dtype: torch.dtype) -> None:
        """Let the vision tower compute in a type; from fewer bits there is no way back."""
        for part in (self.model.vision_model, self.model.visual_projection):
            part.to(dtype)

    def as_the_authors_ran_it(self) -> None:
        """Repeat the slips of CARB's public code: its ViT had GELU, LayerNorm eps 1e-6 and ImageNet's mean and std.

        CLIP was trained with QuickGELU, 1e-5 and its own; the slips shift features by several percent.
        """
        self.image_mean, self.image_std = IMAGENET_MEAN, IMAGENET_STD
        for module in self.model.vision_model.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = 1e-6
            elif hasattr(module, "activation_fn"):
                module.activation_fn = nn.GELU()

    @torch.inference_mode()
    def encode_text(self, prompts: list[list[str]]) -> Tensor:
        """One unit vector a class: unit_text_CD, float32.

        Each sentence is encoded and L2-normalised; a class is the normalised mean of its sentences.
        """
        return torch.stack([F.normalize(self.encode_sentences(some).mean(0), dim=-1) for some in prompts])

    @torch.inference_mode()
    def encode_sentences(self, sentences: list[str]) -> Tensor:
        """One unit vector a sentence: unit_text_PD, float32. Raises InputError without a tokenizer."""
        if self.tokenizer is None:
            raise InputError("this CLIP folder has no tokenizer files (tokenizer.json, or vocab.json and merges.txt)")
        length = self.model.config.text_config.max_position_embeddings
        vectors = []
        for start in range(0, len(sentences), TEXT_BATCH):
            some = sentences[start : start + TEXT_BATCH]
            tokens = self.tokenizer(some, padding=True, truncation=True, max_length=length, return_tensors="pt")
            pooled = self.model.text_model(
                input_ids=tokens["input_ids"].to(self.device),
                attention_mask=tokens["attention_mask"].to(self.device),
            ).pooler_output
            vectors.append(F.normalize(self.model.text_projection(pooled).float(), dim=-1))
        return torch.cat(vectors)

    def unknown_words(self, names: Iterable[str]) -> list[str]:
        """Words in these names that the tokenizer does not know: CLIP takes all of them for one and the same.

        A byte-pair tokenizer, such as that of OpenAI's CLIP, spells every word.
        """
        if self.tokenizer is None or self.tokenizer.unk_token_id is None:
            return []
        words = dict.fromkeys(word for name in names for word in name.split())
        unknown = self.tokenizer.unk_token_id
        return [word for word in words if unknown in self.tokenizer(word, add_special_tokens=False)["input_ids"]]

    def normalise(self, image_BHW3: Tensor) -> Tensor:
        """pixels_B3HW: what `features` takes, on the model's device, of uint8 RGB images, pinned or not."""
        pixels_B3HW = image_BHW3.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float() / 255
        mean, std = (colour(values, self.device) for values in (self.image_mean, self.image_std))
        return ((pixels_B3HW - mean) / std).contiguous()

    def features(self, pixels_B3HW: Tensor) -> Tensor:
        """Unit vectors (B, D, h, w), float32, of normalised pixels whose H and W are multiples of the patch.

        Raises InputError for other sizes: the caller pads or resizes, so that no row is lost silently.
        """
        return self._encode(pixels_B3HW)[0]

    @torch.inference_mode()
    def logits(self, pixels_B3HW: Tensor, text_CD: Tensor) -> Tensor:
        """Cosine similarities (B, C, h, w) in [-1, 1] of every patch with unit text vectors (CARB, Eq. 1)."""
        features_BDhw, keys_BPK = self._encode(pixels_B3HW)
        logits_BChw = compare(features_BDhw, text_CD)
        if self.prompt_denoising:
            is_dropped_BC = unlikely_classes(logits_BChw, self._temperature, self.prompt_denoising)
            logits_BChw = drop_classes(logits_BChw, is_dropped_BC)
        if self.key_smoothing:
            assert keys_BPK is not None
            logits_BChw = smooth_by_keys(logits_BChw, keys_BPK, self._temperature, self.key_smoothing)
        return logits_BChw

    @torch.inference_mode()
    def _encode(self, pixels_B3HW: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features, and the last block's keys (B, P, K) where key smoothing needs them."""
        h, w = check_grid(pixels_B3HW, self.patch_px)
        x_BND = self.embed(pixels_B3HW)
        *blocks, last = self.blocks
        for block in blocks:
            x_BND = block(x_BND, attention_mask=None)
        z_BND = self._last_block(last, x_BND, h, w)
        features_BDhw = self.project(z_BND[:, 1:]).transpose(1, 2).reshape(len(x_BND), -1, h, w)
        keys_BPK = last.self_attn.k_proj(last.layer_norm1(x_BND))[:, 1:] if self.key_smoothing else None
        return features_BDhw, keys_BPK

    def embed(self, pixels_B3HW: Tensor) -> Tensor:
        """Tokens (B, N, K) that enter the first block, CLS first. Positions are resized to the grid, bicubic."""
        vision = self.model.vision_model
        x_BNK = vision.embeddings(pixels_B3HW.to(self.device), interpolate_pos_encoding=True)
        tokens_BNK: Tensor = vision.pre_layrnorm(x_BNK)
        return tokens_BNK

    @property
    def blocks(self) -> list[Any]:
        """The vision tower's blocks; the last is what engines change."""
        return list(self.model.vision_model.encoder.layers)

    def project(self, z_BPK: Tensor) -> Tensor:
        """Unit vectors (B, P, D), float32, in the space of the texts, of tokens that leave the last block."""
        embedded_BPD = self.model.visual_projection(self.model.vision_model.post_layernorm(z_BPK))
        return F.normalize(embedded_BPD.float(), dim=-1)

    def _last_block(self, block: Any, x_BND: Tensor, h: int, w: int) -> Tensor:
        attention = block.self_attn
        y_BND = block.layer_norm1(x_BND)
        value_BND = attention.v_proj(y_BND)
        if self.variant not in ("maskclip", "value"):
            value_BND = self._attend(attention, y_BND, value_BND, h, w)
        z_BND: Tensor = attention.out_proj(value_BND)
        if self.variant in ATTENTION_ONLY:
            return z_BND
        z_BND = x_BND + z_BND
        mlp_BND: Tensor = block.mlp(block.layer_norm2(z_BND))
        return z_BND + mlp_BND

    def _attend(self, attention: Any, y_BND: Tensor, value_BND: Tensor, h: int, w: int) -> Tensor:
        def heads(tokens_BND: Tensor) -> Tensor:
            B, N, _ = tokens_BND.shape
            return tokens_BND.view(B, N, attention.num_heads, -1).transpose(1, 2)

        value = heads(value_BND)
        key = heads(attention.k_proj(y_BND))
        if self.variant == "naclip":
            prior_NN = neighbour_prior(h, w, device=key.device).to(key)
            mixed_BAND = F.scaled_dot_product_attention(key, key, value, attn_mask=prior_NN)
        else:
            query = heads(attention.q_proj(y_BND))
            mixed_BAND = F.scaled_dot_product_attention(query, query, value)
            if self.variant == "sclip":
                mixed_BAND = mixed_BAND + F.scaled_dot_product_attention(key, key, value)
        return mixed_BAND.transpose(1, 2).flatten(2)


def compare(features_BDhw: Tensor, text_CD: Tensor) -> Tensor:
    """(B, C, h, w) products of patches and texts. On a CPU an image's are the same, to the bit, in any batch.

    One matrix product for each image: how a product's last bits are rounded depends on its size.
    """
    unit_BCD = text_CD.to(features_BDhw).expand(len(features_BDhw), -1, -1)
    products_BCP = torch.bmm(unit_BCD, features_BDhw.flatten(2).contiguous())
    return products_BCP.reshape(*products_BCP.shape[:2], *features_BDhw.shape[2:])


@cache  # making a tensor on a GPU waits for it
def colour(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(3, 1, 1) float32: to be added to images, channels first."""
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]


def digest_weights(module: nn.Module) -> str:
    """What tells a model's weights from another's, whatever type they are in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def load_weights(loader: Any, path_or_hub_id: str, kind: str, example: str) -> Any:
    """A model in float32, by a HF class such as CLIPModel. Raises InputError that says how to get one of its kind."""
    folder = Path(path_or_hub_id)
    if folder.exists() and not (folder / "config.json").is_file():
        raise InputError(f"{folder} is no {kind} model folder: it has no config.json")
    try:
        return load_model(loader, path_or_hub_id, dtype=torch.float32)
    except InputError:
        raise
    except Exception as error:  # broken files raise safetensors', torch's and json's own errors, too
        raise InputError(
            f"no {kind} weights at {path_or_hub_id!r}: give a local folder with config.json and model.safetensors, "
            f"or a hub id such as {example} on a connected machine ({_first_line(error)})"
        ) from error


def read_pixel_statistics(
    path_or_hub_id: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of a model's preprocessor_config.json, or those given where it has none. Raises InputError."""
    from transformers.image_processing_base import ImageProcessingMixin

    settings: dict[str, Any] = {}
    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(path_or_hub_id)
    except OSError as error:
        if (Path(path_or_hub_id) / "preprocessor_config.json").exists():
            raise InputError(f"the preprocessor_config.json of {path_or_hub_id!r} cannot be read") from error
    means, deviations = settings.get("image_mean", mean), settings.get("image_std", std)
    if not (_are_three(means) and _are_three(deviations) and min(deviations) > 0):
        raise InputError(
            f"image_mean and image_std of {path_or_hub_id!r} must be three numbers each, the latter positive, got "
            f"{means!r} and {deviations!r}"
        )
    return tuple(means), tuple(deviations)


def _are_three(values: Any) -> bool:
    is_list = isinstance(values, list | tuple) and len(values) == 3
    return is_list and all(isinstance(value, int | float) and math.isfinite(value) for value in values)


def check_grid(pixels_B3HW: Tensor, patch_px: int) -> tuple[int, int]:
    """The (h, w) patches of a batch of images. Raises InputError for sides that are no multiples of the patch."""
    H, W = pixels_B3HW.shape[2:]
    if H % patch_px or W % patch_px:
        raise InputError(f"height and width must be multiples of {patch_px}, got {H} x {W}")
    return H // patch_px, W // patch_px


def neighbour_prior(h: int, w: int, std: float = NEIGHBOUR_STD_PATCHES, device: torch.device | None = None) -> Tensor:
    """Added to naclip's attention scores: (N, N) Gaussian of the distance between patches, 0 for the CLS token."""
    places = (torch.arange(side, device=device) for side in (h, w))
    rows, columns = torch.meshgrid(*places, indexing="ij")
    place_P2 = torch.stack([rows.flatten(), columns.flatten()], 1).float()
    prior_PP = torch.exp(-torch.cdist(place_P2, place_P2).square() / (2 * std**2))
    return F.pad(prior_PP, (1, 0, 1, 0))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
