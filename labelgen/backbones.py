"""Feature extractors: a light one that trains from scratch, and dilated ResNets with ImageNet weights.

Shapes: B batch, H W pixels. Every backbone gives (fine, deep): features at stride 4 for borders, or None, and features
at stride 8 (a ResNet: 8 or 16); `fine_channels` (0 without) and `channels` are their depths.
"""

from pathlib import Path
from typing import Any, Literal, Self

import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from labelgen.pretrained import load_model, require_finite
from labelgen.samples import InputError

RESNET_DEPTHS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
# By output stride: stride and dilation of each stage.
STAGES = {8: ((1, 1), (2, 1), (1, 2), (1, 4)), 16: ((1, 1), (2, 1), (2, 1), (1, 2))}


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
    """HF's ResNet at output stride 8 (strides 1, 2, 1, 1 and dilations 1, 1, 2, 4 of its stages) or 16.

    deep_stem: three 3x3 convolutions instead of one 7x7 ("v1c"). stride_in_1x1: where the first block of a stage would
    stride, in its first 1x1 convolution (HF's `downsample_in_bottleneck`) or in its 3x3 one.
    """

    fine_channels = 0

    def __init__(
        self,
        depths: tuple[int, ...],
        deep_stem: bool = False,
        first_width: int = 64,
        output_stride: Literal[8, 16] = 8,
        stride_in_1x1: bool = False,
    ) -> None:
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
        self.resnet: Any = resnet
        self.output_stride, self.stride_in_1x1 = output_stride, stride_in_1x1
        self._frozen: tuple[nn.Module, ...] = ()
        self._place_strides()

    def _place_strides(self) -> None:
        before = 1
        for (stride, dilation), stage in zip(STAGES[self.output_stride], self.resnet.encoder.stages, strict=True):
            first, *others = stage.layers
            strides = (stride, 1) if self.stride_in_1x1 else (1, stride)
            # A 3x3 convolution that comes before its stage's stride dilates as the stage before, whose grid it sees.
            _place(first, *strides, dilation if self.stride_in_1x1 else before)
            first.shortcut.convolution.stride = (stride, stride)
            for block in others:
                _place(block, 1, 1, dilation)
            before = dilation

    def freeze(self, stages: int) -> None:
        """Let the stem and the first so many stages stay as they are, their batch statistics as well; 0: none."""
        self._frozen = (self.resnet.embedder, *self.resnet.encoder.stages[:stages]) if stages else ()
        for part in self._frozen:
            part.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """As any module, but what is frozen stays in evaluation mode."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def forward(self, x: Tensor) -> tuple[None, Tensor]:
        """(B, 3, H, W) -> features at the output stride."""
        return None, self.resnet.encoder(self.resnet.embedder(x)).last_hidden_state

    def load_imagenet(self, source: str) -> None:
        """ImageNet weights: a HF ResNet folder or hub id, or a safetensors file with mmseg's names
        ("resnet50_v1c", deep stem).

        Strides move to where those weights had them. Raises InputError for weights that cannot be had or do not fit.
        """
        if Path(source).is_file():
            state, self.stride_in_1x1 = _mmseg_names(source), False
        else:
            state, self.stride_in_1x1 = _hub_weights(source)
        self._place_strides()
        state = {name: tensor for name, tensor in state.items() if not name.startswith(("fc.", "classifier."))}
        try:
            self.resnet.load_state_dict(state)
        except RuntimeError as error:
            hint = "mmseg's v1c weights need student.deep_stem=true, HF's do without; depths must fit, too"
            raise InputError(f"the weights of {source} do not fit this backbone: {hint}") from error


def _place(block: Any, stride_1x1: int, stride_3x3: int, dilation: int) -> None:
    """Strides of a bottleneck block's first two convolutions, and the dilation of the second."""
    reduce, spatial, _ = (layer.convolution for layer in block.layer)
    reduce.stride, spatial.stride = (stride_1x1, stride_1x1), (stride_3x3, stride_3x3)
    spatial.dilation = spatial.padding = (dilation, dilation)


def _hub_weights(source: str) -> tuple[dict[str, Tensor], bool]:
    """Weights in HF's names, and whether they stride in the first 1x1 convolution."""
    from transformers import ResNetModel

    try:
        resnet: Any = load_model(ResNetModel, source)
    except InputError:
        raise
    except Exception as error:  # broken files raise safetensors', torch's and json's own errors
        raise InputError(
            f"no ImageNet weights at {source!r}: give a HF ResNet folder, a hub id such as microsoft/resnet-50 on a "
            "connected machine, or a safetensors file of mmseg's resnet50_v1c"
        ) from error
    if resnet.config.downsample_in_first_stage:
        raise InputError(f"{source} strides in its first stage, which no backbone here does; give another ResNet")
    return dict(resnet.state_dict()), bool(resnet.config.downsample_in_bottleneck)


def _mmseg_names(path: str) -> dict[str, Tensor]:
    """An mmseg or torchvision ResNet state dict in HF's names."""
    try:
        state = load_file(path)
    except Exception as error:  # of safetensors' own kinds
        raise InputError(
            f"{path} is no safetensors file, and others may run code when they are opened; if you trust it, convert it "
            'with Python: safetensors.torch.save_file(torch.load(OLD, weights_only=True)["state_dict"], NEW)'
        ) from error
    require_finite(state.items(), path)
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
