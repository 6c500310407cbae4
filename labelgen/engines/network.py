"""The network behind CAM and CLIMS: a multi-label classifier whose classes can be looked up in its features.

Shapes: B batch, C classes, H W pixels, h w features.
"""

from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SemanticSegmenterOutput

from labelgen.backbones import RESNET_DEPTHS, DilatedResNet, LightBackbone
from labelgen.images import IMAGENET_MEAN, IMAGENET_STD, normalise, resize_image
from labelgen.pretrained import load_model
from labelgen.samples import InputError

STRIDE: dict[str, Literal[8, 16]] = {"light": 8, "resnet50": 16, "resnet101": 16}
SMALLEST_SIDE_PX = 32  # of a resized image: below it there are hardly any features


class CamNetworkConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """config.json: architecture, class names (id2label), and what the network was fitted with."""

    model_type = "carbseg-cam"

    def __init__(
        self,
        backbone: str = "light",
        width: int = 16,
        stride_in_1x1: bool = False,
        fixed_norm: bool = False,
        fitted: dict[str, Any] | None = None,
        **others: Any,
    ) -> None:
        self.backbone, self.width = backbone, width
        self.stride_in_1x1 = stride_in_1x1  # of a ResNet, as its ImageNet weights have it
        self.fixed_norm = fixed_norm  # BatchNorm keeps the statistics that came with the weights
        self.fitted = fitted or {}
        super().__init__(**others)


class CamNetwork(PreTrainedModel):  # type: ignore[no-untyped-call]
    """Class maps w_k . f (B, C, h, w) of ImageNet-normalised pixels: backbone and 1x1 convolution without bias.

    Their mean over the image is the class score of global average pooling before that convolution: both are linear.
    """

    config_class = CamNetworkConfig
    main_input_name = "pixel_values"

    def __init__(self, config: CamNetworkConfig) -> None:
        super().__init__(config)
        self.stride = STRIDE[config.backbone]
        self.backbone: Any = (
            LightBackbone(config.width)
            if config.backbone == "light"
            else DilatedResNet(
                RESNET_DEPTHS[config.backbone], output_stride=self.stride, stride_in_1x1=config.stride_in_1x1
            )
        )
        self.head = nn.Conv2d(self.backbone.channels, int(config.num_labels or 0), 1, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        """Weights stay as PyTorch's layers begin."""

    def train(self, mode: bool = True) -> Self:
        """Training mode, but for BatchNorm where its statistics are fixed."""
        super().train(mode)
        if self.config.fixed_norm:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, pixel_values: Tensor, **_: Any) -> SemanticSegmenterOutput:
        """Class maps (B, C, h, w) in `.logits`; h, w = H, W / stride, rounded up."""
        return SemanticSegmenterOutput(logits=self.head(self.backbone(pixel_values)[1]))


def load_network(folder: str | Path) -> CamNetwork:
    """A fitted network, in evaluation mode. Raises InputError for a folder that cannot be read."""
    try:
        network = load_model(CamNetwork, folder)
    except Exception as error:  # broken files raise json's, safetensors' and torch's own errors
        raise InputError(f"the fitted network in {folder} cannot be read; delete that folder to fit it anew") from error
    return network.eval()  # type: ignore[no-any-return]


@torch.inference_mode()
def class_maps(
    network: CamNetwork,
    image_HW3: NDArray[np.uint8],
    is_present_C: NDArray[np.bool_] | None = None,
    *,
    scales: tuple[float, ...] = (1.0,),
    flip: bool = False,
    grid: tuple[int, int] | None = None,
) -> NDArray[np.float32]:
    """Class activation maps (C, h, w) float32: ReLU(w_k . f) / its maximum over the image, in 0..1.

    image_HW3: uint8 RGB. scales, flip: the image is resized by each, and mirrored as well; activations are summed
    before the division. grid: h and w, by default those of the features. NaN for classes that are not present, and
    where no present class is active at all.
    """
    height, width = image_HW3.shape[:2]
    grid = grid or (-(-height // network.stride), -(-width // network.stride))
    total_Chw = torch.zeros(network.head.out_channels, *grid, device=network.device)
    for scale in scales:
        sides = (max(SMALLEST_SIDE_PX, round(side * scale)) for side in (height, width))
        pixels_3HW = torch.from_numpy(normalise(resize_image(image_HW3, *sides), IMAGENET_MEAN, IMAGENET_STD))
        for flipped in (False, True)[: 1 + flip]:
            seen_3HW = pixels_3HW.flip(2) if flipped else pixels_3HW
            active_1Chw = network(seen_3HW[None].to(network.device)).logits.float().relu()
            active_1Chw = active_1Chw.flip(3) if flipped else active_1Chw
            total_Chw += F.interpolate(active_1Chw, grid, mode="bilinear")[0]
    maps_Chw = (total_Chw / total_Chw.amax((1, 2), keepdim=True).clamp(min=1e-5)).cpu().numpy()
    if is_present_C is not None:
        maps_Chw[~is_present_C] = np.nan
    maps_Chw[:, ~(maps_Chw > 0).any(0)] = np.nan
    return maps_Chw
