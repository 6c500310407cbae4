"""What an ImageNet network sees at each superpixel, looking at overlapping slices of the image (MOSF).

Shapes: B slices, D features, H W pixels, h w cells of a slice's feature map, S superpixels.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array  # type: ignore[import-untyped]
from torch import Tensor, nn

from labelgen.engines.proxyclip import OWN, Proxy, fit, pixel_statistics
from labelgen.images import IMAGENET_MEAN, IMAGENET_STD, resize_image
from labelgen.maskclip import DenseCLIP, load_weights, read_pixel_statistics
from labelgen.samples import InputError
from labelgen.views import Box

Semantics = Literal["classes", "features"]
Dtype = Literal["float32", "bfloat16"]
PIXELS_AT_ONCE = 2**22  # of slices that the network sees
SMALLEST_SIDE_PX = 32  # of a resized slice: below it there are hardly any features

Span = tuple[int, int]


class Slices(NamedTuple):
    """A grid of overlapping slices: where each row and each column of it begins and ends, in pixels of the image."""

    rows: list[Span]
    columns: list[Span]

    @property
    def boxes(self) -> list[Box]:
        """(y0, x0, y1, x1) of all slices, row by row."""
        return [(y0, x0, y1, x1) for y0, y1 in self.rows for x0, x1 in self.columns]


def fusion_slices(height: int, width: int) -> Slices:
    """MOSF's 15 slices of half the height and a third of the width, in steps of half their size."""
    return Slices(_spans(height, 4), _spans(width, 6))


def whole_image(height: int, width: int) -> Slices:
    """One slice that is the image ("Single Enc.")."""
    return Slices([(0, height)], [(0, width)])


def mosf_slices(height: int, width: int) -> list[Box]:
    """15 boxes (y0, x0, y1, x1) of height / 2 x width / 3 pixels at (height * m / 4, width * n / 6), rounded down.

    m = 0..2, n = 0..4, in this order. Sides have at least one pixel.
    """
    return fusion_slices(height, width).boxes


def _spans(side: int, steps: int) -> list[Span]:
    starts = [side * step // steps for step in range(steps - 1)]
    return [(start, max(side * (step + 2) // steps, start + 1)) for step, start in enumerate(starts)]


def nearest(spans: list[Span], side: int) -> NDArray[np.int64]:
    """(side,): for each pixel the span whose centre is nearest, the first of equals.

    Slices stand in a grid, so that rows and columns together give the slice whose centre is nearest in the plane.
    """
    centres = np.array([(start + stop) / 2 for start, stop in spans])
    return np.asarray(np.abs(np.arange(side)[:, None] + 0.5 - centres).argmin(1))


class ClipPatches(nn.Module):
    """The run's own CLIP as a giver of features: of its patches, and without words (MaskCLIP)."""

    def __init__(self, dense: DenseCLIP) -> None:
        super().__init__()
        self.dense = dense

    def forward(self, image_B3HW: Tensor) -> Tensor:
        """Unit vectors (B, D, h, w) of RGB in 0..1, resized so that whole patches fit."""
        mean, std = pixel_statistics(self.dense, image_B3HW)
        return self.dense.features(fit((image_B3HW - mean) / std, self.dense.patch_px))


class SemanticNetwork(nn.Module):
    """A frozen HF image classifier, or backbone, that is asked for a vector at every place.

    kind: "classes" are the classifier's activations (CAM), its weights applied to each place's features;
    "features" are these features themselves. dtype: of its products; weights stay in float32.
    """

    def __init__(
        self, backbone: Proxy | ClipPatches, weights_KD: Tensor | None = None, dtype: Dtype = "float32"
    ) -> None:
        super().__init__()
        self.backbone = backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.register_buffer("weights_KD", weights_KD)

    @classmethod
    def begin(cls, source: str, kind: Semantics, dense: DenseCLIP, dtype: Dtype = "float32") -> "SemanticNetwork":
        """What `source` names, on the run's device: a HF folder or hub id, or "clip", the run's own.

        Raises InputError when it cannot be had.
        """
        if source != OWN:
            return cls.from_pretrained(source, kind, dense.device, dtype)
        if kind == "classes":
            raise InputError("one_pixel.features=clip has no classifier: set one_pixel.semantics=features")
        return cls(ClipPatches(dense), dtype=dtype)

    @classmethod
    def from_pretrained(
        cls, path_or_hub_id: str, kind: Semantics, device: torch.device | None = None, dtype: Dtype = "float32"
    ) -> "SemanticNetwork":
        """Load a HF folder or hub id. Raises InputError when it cannot be had, saying how to get one."""
        from transformers import AutoModel, AutoModelForImageClassification

        loader = AutoModelForImageClassification if kind == "classes" else AutoModel
        what = "image classifier" if kind == "classes" else "vision backbone"
        model = load_weights(loader, path_or_hub_id, what, "microsoft/resnet-50")
        mean, std = read_pixel_statistics(path_or_hub_id, IMAGENET_MEAN, IMAGENET_STD)
        if kind == "features":
            return cls(Proxy(model, mean, std), dtype=dtype).to(device)
        weights_KD = _classifier(model)
        if weights_KD is None:
            raise InputError(
                f"{path_or_hub_id} has no linear classifier, whose classes could be looked up; "
                "take its features with one_pixel.semantics=features"
            )
        return cls(Proxy(model.base_model, mean, std), weights_KD, dtype).to(device)

    def forward(self, image_B3HW: Tensor) -> Tensor:
        """(B, D, h, w) of RGB in 0..1."""
        with torch.autocast(image_B3HW.device.type, self.dtype, enabled=self.dtype != torch.float32):
            features_BDhw: Tensor = self.backbone(image_B3HW.contiguous(memory_format=torch.channels_last)).float()
        if self.weights_KD is None:
            return features_BDhw
        return torch.einsum("bdhw,kd->bkhw", features_BDhw, self.weights_KD)

    @torch.inference_mode()
    def pooled(
        self, image_HW3: NDArray[np.uint8], map_HW: NDArray[np.int32], slices: Slices, scale: float
    ) -> NDArray[np.float32]:
        """(S, D): means over each superpixel of what was seen at its pixels, each in the slice with the nearest centre.

        scale: slices are resized by it before the network sees them.
        """
        sides = [max(SMALLEST_SIDE_PX, round(max(stop - start for start, stop in spans) * scale)) for spans in slices]
        seen = [resize_image(image_HW3[y0:y1, x0:x1], *sides) for y0, x0, y1, x1 in slices.boxes]
        pixels_B3HW = torch.from_numpy(np.stack(seen)).permute(0, 3, 1, 2)
        device, at_once = next(self.parameters()).device, max(1, PIXELS_AT_ONCE // (sides[0] * sides[1]))
        maps = [self(some.to(device).float() / 255).cpu() for some in torch.split(pixels_B3HW, at_once)]
        maps_BDhw = torch.cat(maps).numpy()
        B, D, h, w = maps_BDhw.shape
        seen_ND = maps_BDhw.transpose(0, 2, 3, 1).reshape(B * h * w, D)
        return np.asarray(pooling(map_HW, slices, (h, w)) @ seen_ND, np.float32)


def pooling(map_HW: NDArray[np.int32], slices: Slices, grid: tuple[int, int]) -> coo_array:
    """(S, B * h * w) sparse: means over superpixels of what is sampled, bilinearly, from the slices' maps."""
    H, W = map_HW.shape
    h, w = grid
    pixels_S = np.bincount(map_HW.ravel())
    rows, columns = _samples(slices.rows, H, h), _samples(slices.columns, W, w)
    total = coo_array((len(pixels_S), len(slices.rows) * len(slices.columns) * h * w), dtype=np.float32)
    for row_of, y_H, weight_H in rows:
        for column_of, x_W, weight_W in columns:
            slice_HW = row_of[:, None] * len(slices.columns) + column_of
            cell_HW = (slice_HW * h + y_H[:, None]) * w + x_W
            weight_HW = weight_H[:, None] * weight_W / pixels_S[map_HW]
            total = total + coo_array((weight_HW.ravel(), (map_HW.ravel(), cell_HW.ravel())), shape=total.shape)
    return total


def _samples(
    spans: list[Span], side: int, cells: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """For the two cells that each pixel lies between: its span, the cell in it, the cell's share; (side,) each."""
    own = nearest(spans, side)
    starts, stops = np.array(spans).T
    place = (np.arange(side) + 0.5 - starts[own]) * cells / (stops - starts)[own]
    place = np.clip(place - 0.5, 0, cells - 1)
    lower = place.astype(np.int64)
    share = (place - lower).astype(np.float32)
    return [(own, lower, 1 - share), (own, np.minimum(lower + 1, cells - 1), share)]


def _classifier(model: Any) -> Tensor | None:
    """Weights (K, D) of the linear layer that a HF image classifier ends with, if there is one."""
    inner = set(model.base_model.modules())
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m not in inner]
    return layers[-1].weight.detach() if layers else None
