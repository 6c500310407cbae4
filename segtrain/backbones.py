"""Feature extractors of the student: a light one that trains from scratch, and dilated ResNets with ImageNet weights.

Shapes: B batch, H W pixels. Every backbone gives (fine, deep): features at stride 4 for borders, or None, and features
at stride 8; `fine_channels` (0 without) and `channels` are their depths.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labelgen.samples import InputError

RESNET_DEPTHS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU; keeps the size but for the stride."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, dilation * (kernel // 2), dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.first = conv(inputs, outputs, 3, stride, dilation)
        self.second = conv(outputs, outputs, 3, 1, dilation)[:2]  # ReLU comes after the sum
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else conv(inputs, outputs, 1, stride)[:2]

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


class LightBackbone(nn.Module):
    """A residual network of 4 blocks that trains from scratch on a CPU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, width, stride=2), ResidualBlock(width, 2 * width, stride=2))
        self.body = nn.Sequential(
            ResidualBlock(2 * width, 4 * width, stride=2),
            ResidualBlock(4 * width, 4 * width, dilation=2),
            ResidualBlock(4 * width, 4 * width, dilation=2),
        )
        self.fine_channels, self.channels = 2 * width, 4 * width

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> features at strides 4 and 8."""
        fine = self.stem(x)
        return fine, self.body(fine)


class DilatedResNet(nn.Module):
    """HF's ResNet at output stride 8: strides 1, 2, 1, 1 and dilations 1, 1, 2, 4 of its stages.

    The first block of a dilated stage has half the dilation, as in the authors' code. deep_stem: three 3x3
    convolutions instead of one 7x7 ("v1c").
    """

    fine_channels = 0

    def __init__(self, depths: tuple[int, ...], deep_stem: bool = False, first_width: int = 64) -> None:
        super().__init__()
        from transformers import ResNetConfig, ResNetModel

        widths = [4 * first_width * 2**stage for stage in range(4)]
        resnet: Any = ResNetModel(
            ResNetConfig(embedding_size=first_width, hidden_sizes=widths, depths=list(depths), layer_type="bottleneck")
        )
        self.channels = widths[-1]
        if deep_stem:
            half = first_width // 2
            resnet.embedder.embedder = nn.Sequential(conv(3, half, stride=2), conv(half, half), conv(half, first_width))
        for stage, dilation in ((2, 2), (3, 4)):
            for place, block in enumerate(resnet.encoder.stages[stage].layers):
                _dilate(block, dilation // 2 if place == 0 else dilation)
        self.resnet: Any = resnet

    def forward(self, x: Tensor) -> tuple[None, Tensor]:
        """(B, 3, H, W) -> features at stride 8."""
        return None, self.resnet.encoder(self.resnet.embedder(x)).last_hidden_state

    def load_imagenet(self, source: str) -> None:
        """ImageNet weights: a HF ResNet folder or hub id, or a file with mmseg's names ("resnet50_v1c", deep stem).

        Raises InputError for weights that cannot be had or do not fit.
        """
        state = _mmseg_names(source) if Path(source).is_file() else _hub_weights(source)
        state = {name: tensor for name, tensor in state.items() if not name.startswith(("fc.", "classifier."))}
        try:
            self.resnet.load_state_dict(state)
        except RuntimeError as error:
            hint = "mmseg's v1c weights need student.deep_stem=true, HF's do without; depths must fit, too"
            raise InputError(f"the weights of {source} do not fit this backbone: {hint}") from error


def _dilate(block: nn.Module, dilation: int) -> None:
    """No stride; the 3x3 convolution takes the dilation instead."""
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
            if module.kernel_size == (3, 3):
                module.dilation, module.padding = (dilation, dilation), (dilation, dilation)


def _hub_weights(source: str) -> dict[str, Tensor]:
    from transformers import ResNetModel

    try:
        return dict(ResNetModel.from_pretrained(source).state_dict())
    except Exception as error:  # broken files raise safetensors', torch's and json's own errors
        raise InputError(
            f"no ImageNet weights at {source!r}: give a HF ResNet folder, a hub id such as microsoft/resnet-50 on a "
            "connected machine, or a file of mmseg's resnet50_v1c"
        ) from error


def _mmseg_names(path: str) -> dict[str, Tensor]:
    """An mmseg or torchvision ResNet state dict in HF's names."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{path} cannot be read as a PyTorch state dict") from error
    state = state.get("state_dict", state)
    return {_hf_name(name.removeprefix("backbone.")): tensor for name, tensor in state.items()}


def _hf_name(name: str) -> str:
    """stem.3.weight, layer2.0.conv1.weight, layer2.0.bn1.bias, layer2.0.downsample.0.weight -> HF's."""
    part, _, rest = name.partition(".")
    if part == "stem":  # conv, norm, ReLU three times
        number, _, leaf = rest.partition(".")
        return f"embedder.embedder.{int(number) // 3}.{int(number) % 3}.{leaf}"
    if part in ("conv1", "bn1"):
        return f"embedder.embedder.{'convolution' if part == 'conv1' else 'normalization'}.{rest}"
    if not part.startswith("layer"):
        return name  # the classification head
    block, kind, leaf = rest.split(".", 2)
    prefix = f"encoder.stages.{int(part[5:]) - 1}.layers.{block}"
    if kind == "downsample":
        number, _, leaf = leaf.partition(".")
        return f"{prefix}.shortcut.{'convolution' if number == '0' else 'normalization'}.{leaf}"
    return f"{prefix}.layer.{int(kind[-1]) - 1}.{'convolution' if kind.startswith('conv') else 'normalization'}.{leaf}"
