"""ProxyCLIP: CLIP's patches attend as those of another backbone resemble each other (Lan et al., ECCV 2024).

Shapes: B batch, C classes, D embedding, E width of CLIP's tokens, F width of the proxy's features, H W pixels,
h w patches, P = h * w, N = P + 1 tokens (CLS first).
"""

import inspect
import os
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labelgen.engines.engine import EngineSpec, Inputs
from labelgen.images import IMAGENET_MEAN, IMAGENET_STD
from labelgen.label import Labeller
from labelgen.maskclip import DenseCLIP, check_grid, digest_weights, load_weights, read_pixel_statistics
from labelgen.samples import InputError

OWN = "clip"  # a proxy that needs no other weights: what CLIP's patches are before its last block
PROBE_PATCHES = 16  # side of the empty image that shows how a backbone answers
DEFAULT_PATCH_PX = 16  # of that image, where a configuration names no patch size


@dataclass(frozen=True, kw_only=True)
class ProxyCLIPConfig:
    """Which backbone says what belongs together, and how strictly."""

    proxy: str = "facebook/dinov2-base"  # HF folder or hub id of a vision backbone; "clip" = CLIP itself
    layer: int = -1  # whose features: 0 = embedded patches, n = after n blocks (stages); -1 = the last, normalised
    beta: float = 1.2  # patches attend to those more alike than this many times the mean similarity
    gamma: float = 3.0  # sharpness of the attention among them

    def __post_init__(self) -> None:
        if not self.proxy:
            raise InputError(f"proxyclip.proxy must be a model folder, a hub id, or {OWN}, got ''")
        for name in ("beta", "gamma"):
            if not getattr(self, name) > 0:
                raise InputError(f"proxyclip.{name} must be positive, got {getattr(self, name)}")


class ProxyCLIP(nn.Module):
    """A CLIP whose last block mixes its values by a proxy's patch similarities, and does nothing else.

    `patch_px` is the smaller of both patches, and its grid the one of the answer. A model with larger patches sees the
    image resized to whole ones, and what it says of them is brought to the finer grid, bilinearly.
    """

    def __init__(self, dense: DenseCLIP, proxy: "Proxy | None", config: ProxyCLIPConfig) -> None:
        """proxy: None is CLIP itself, whose last block does not count. Raises InputError where it has no such layer."""
        super().__init__()
        self.dense, self.proxy, self.config = dense, proxy, config
        self.patch_px = min(dense.patch_px, proxy.patch_px) if proxy else dense.patch_px
        if proxy is None:
            check_layer(config.layer, len(dense.blocks))

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | os.PathLike[str],
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        config: ProxyCLIPConfig | None = None,
    ) -> Self:
        """Load a HF CLIP folder or hub id, and the proxy that config names. dtype: of both vision towers.

        Raises InputError when a model cannot be had, saying how to get it.
        """
        config = config or ProxyCLIPConfig()
        dense = DenseCLIP.from_pretrained(path_or_hub_id, device=device, dtype=dtype)
        proxy = None if config.proxy == OWN else Proxy.from_pretrained(config.proxy, device, dtype, config.layer)
        return cls(dense, proxy, config)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.dense.device

    @property
    def dtype(self) -> torch.dtype:
        """What CLIP's vision tower computes in."""
        return self.dense.dtype

    @property
    def widths(self) -> tuple[int, int]:
        """Of CLIP's tokens, and inside its MLPs."""
        return self.dense.widths

    compares_patches = True  # with the proxy's features

    def normalise(self, image_BHW3: Tensor) -> Tensor:
        """As `DenseCLIP.normalise`; the proxy has its own way with what comes out."""
        return self.dense.normalise(image_BHW3)

    @torch.inference_mode()
    def logits(self, pixels_B3HW: Tensor, text_CD: Tensor) -> Tensor:
        """Cosine similarities (B, C, h, w) in [-1, 1] of every patch with unit text vectors."""
        features_BDhw = self.features(pixels_B3HW)
        return torch.einsum("bdhw,cd->bchw", features_BDhw, text_CD.to(features_BDhw))

    @torch.inference_mode()
    def features(self, pixels_B3HW: Tensor) -> Tensor:
        """Unit vectors (B, D, h, w), float32, of pixels from `DenseCLIP.normalise`.

        H and W are multiples of `patch_px`; raises InputError for other sizes.
        """
        grid = check_grid(pixels_B3HW, self.patch_px)
        value_BEhw, proxy_BFhw = self._clip(fit(pixels_B3HW, self.dense.patch_px))
        if self.proxy:
            mean, std = pixel_statistics(self.dense, pixels_B3HW)
            proxy_BFhw = self.proxy(pixels_B3HW * std + mean)
        attention_BPP = proxy_attention(_resize(proxy_BFhw, grid), self.config.beta, self.config.gamma)
        value_BPE = _resize(value_BEhw, grid).flatten(2).transpose(1, 2)
        mixed_BPE = self.dense.blocks[-1].self_attn.out_proj(attention_BPP.to(value_BPE) @ value_BPE)
        return _patches(self.dense.project(mixed_BPE), grid)

    def _clip(self, pixels_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """(B, E, h, w) each, on CLIP's own grid: the last block's values, and the tokens of the configured layer."""
        grid = check_grid(pixels_B3HW, self.dense.patch_px)
        *blocks, last = self.dense.blocks
        x_BNE = layer_BNE = self.dense.embed(pixels_B3HW)
        for place, block in enumerate(blocks, start=1):
            x_BNE = block(x_BNE, attention_mask=None)
            if place <= self.config.layer % len(self.dense.blocks):
                layer_BNE = x_BNE
        value_BNE = last.self_attn.v_proj(last.layer_norm1(x_BNE))
        return _patches(value_BNE, grid), _patches(layer_BNE, grid)


class Proxy(nn.Module):
    """A frozen vision backbone as a giver of patch features: a HF ViT (whatever tokens precede its patches) or ConvNet.

    patch_px: pixels of the image to a patch, or to a cell of the feature map.
    """

    def __init__(
        self,
        model: Any,
        image_mean: tuple[float, ...] = IMAGENET_MEAN,
        image_std: tuple[float, ...] = IMAGENET_STD,
        layer: int = -1,
    ) -> None:
        """Raises InputError for a model that is no such backbone, and one without that layer."""
        super().__init__()
        self.model: Any = model.eval().requires_grad_(False)
        if any(name.startswith("pooler.") for name, _ in model.named_parameters()):
            model.pooler = None  # patches need none, and where a checkpoint has none it was drawn at random
        self.image_mean, self.image_std, self.layer = image_mean, image_std, layer
        resizes = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters
        self._options = {"interpolate_pos_encoding": True} if resizes else {}
        self.patch_px = self._measure_patch()

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        layer: int = -1,
    ) -> Self:
        """Load a HF vision backbone; pixel mean and std come from its preprocessor_config.json, else ImageNet's.

        Raises InputError when it cannot be had or is none, saying how to get one.
        """
        from transformers import AutoModel

        model = load_weights(AutoModel, path_or_hub_id, "proxy", "facebook/dinov2-base")
        mean, std = read_pixel_statistics(path_or_hub_id, IMAGENET_MEAN, IMAGENET_STD)
        return cls(model, mean, std, layer).to(device=device, dtype=dtype)

    @torch.inference_mode()
    def forward(self, image_B3HW: Tensor) -> Tensor:
        """Features (B, F, h, w) of RGB in 0..1, resized so that whole patches fit."""
        mean, std = pixel_statistics(self, image_B3HW)
        pixels_B3HW = fit((image_B3HW - mean) / std, self.patch_px)
        states = self._states(pixels_B3HW)
        return states if states.ndim == 4 else _patches(states, check_grid(pixels_B3HW, self.patch_px))

    def _states(self, pixels_B3HW: Tensor) -> Tensor:
        """What the layer gives: tokens (B, N, F) of a ViT, or a feature map (B, F, h, w) of a ConvNet."""
        first = next(self.model.parameters())
        answer = self.model(pixels_B3HW.to(first), output_hidden_states=self.layer != -1, **self._options)
        if self.layer == -1:
            states: Tensor = answer.last_hidden_state
        else:
            check_layer(self.layer, len(answer.hidden_states))
            states = answer.hidden_states[self.layer]
        return states

    @torch.inference_mode()
    def _measure_patch(self) -> int:
        """A ViT knows its patch; how far a ConvNet shrinks an image is seen on an empty one."""
        config = self.model.config
        try:
            side = PROBE_PATCHES * int(getattr(config, "patch_size", DEFAULT_PATCH_PX))
            states = self._states(torch.zeros(1, 3, side, side))
            patch_px = side // (states.shape[-1] if states.ndim == 4 else PROBE_PATCHES)
            has_patches = states.ndim == 4 or states.shape[1] >= PROBE_PATCHES**2
        except InputError:
            raise
        except Exception as error:  # whatever models do that take no images, or take them otherwise
            raise InputError(f"a {config.model_type} is no proxy: it must be a ViT or ConvNet of images") from error
        if not has_patches:
            raise InputError(f"a {config.model_type} is no proxy: it has fewer tokens than patches")
        return patch_px


def _begin(inputs: Inputs) -> Labeller:
    dense, config = inputs.dense, inputs.settings.proxyclip
    if config.proxy == OWN:
        return Labeller(ProxyCLIP(dense, None, config), inputs.batch)
    proxy = Proxy.from_pretrained(config.proxy, dense.device, dense.dtype, config.layer)
    return Labeller(ProxyCLIP(dense, proxy, config), inputs.batch, {"proxy": digest_weights(proxy.model)})


ENGINE = EngineSpec(
    about="CLIP's patches, mixed as those of a second backbone resemble each other (Lan et al., ECCV 2024)",
    needs="CLIP; a vision backbone, labels.proxy: a folder, a hub id, or clip for CLIP's own layers",
    cost="one pass of each backbone for each view",
    settings=ProxyCLIPConfig,
    is_dense=True,
    begin=_begin,
)


def proxy_attention(features_BFhw: Tensor, beta: float, gamma: float) -> Tensor:
    """(B, P, P) float32, rows sum to 1: softmax of gamma * (S - beta * mean of S) where that is not negative.

    S: cosines between the patches of an image; its mean is taken image by image. A patch always attends to itself,
    even where all of an image looks alike and S is nowhere above beta times its mean.
    """
    unit_BFP = F.normalize(features_BFhw.flatten(2).float(), dim=1)
    similarity_BPP = unit_BFP.transpose(1, 2) @ unit_BFP
    score_BPP = gamma * (similarity_BPP - beta * similarity_BPP.mean((1, 2), keepdim=True))
    is_other_PP = ~torch.eye(score_BPP.shape[1], dtype=torch.bool, device=score_BPP.device)
    return score_BPP.masked_fill((score_BPP < 0) & is_other_PP, -torch.inf).softmax(-1)


def fit(pixels_B3HW: Tensor, patch_px: int) -> Tensor:
    """The images, resized to the nearest whole number of patches, at least one, a side."""
    sides = [max(round(side / patch_px), 1) * patch_px for side in pixels_B3HW.shape[2:]]
    if sides == list(pixels_B3HW.shape[2:]):
        return pixels_B3HW
    return F.interpolate(pixels_B3HW, size=sides, mode="bilinear", antialias=True)


def check_layer(layer: int, count: int) -> None:
    """Raises InputError for a layer that a model with so many hidden states does not have."""
    if not -count <= layer < count:
        raise InputError(f"proxyclip.layer must be in [{-count}, {count - 1}] for this proxy, got {layer}")


def _patches(tokens_BNF: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, F, h, w): the last tokens, without CLS, registers and the like before them."""
    h, w = grid
    return tokens_BNF[:, -h * w :].transpose(1, 2).reshape(len(tokens_BNF), -1, h, w)


def pixel_statistics(seer: "DenseCLIP | Proxy", pixels_B3HW: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and std, (3, 1, 1) each, of what a model was trained on, beside the pixels."""
    mean, std = (pixels_B3HW.new_tensor(v)[:, None, None] for v in (seer.image_mean, seer.image_std))
    return mean, std


def _resize(maps_BFhw: Tensor, grid: tuple[int, int]) -> Tensor:
    if maps_BFhw.shape[2:] == grid:
        return maps_BFhw
    return F.interpolate(maps_BFhw, size=grid, mode="bilinear")
