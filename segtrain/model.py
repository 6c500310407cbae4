"""The student: a dilated backbone, DeepLab-ASPP and a classifier of fixed CLIP text vectors.

Shapes: B batch, C classes, D embedding, H W pixels, h w features.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from labelgen.samples import InputError


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """Architecture of the student."""

    backbone: Literal["light"] = "light"
    width: int = 16  # channels of the light backbone's first convolution
    aspp_channels: int = 32
    aspp_rates: tuple[int, ...] = (1, 3, 6, 9)
    classifier: Literal["text", "linear"] = "text"

    def __post_init__(self) -> None:
        if self.backbone != "light":
            raise InputError(f"student.backbone must be light, got {self.backbone!r}")
        if self.classifier not in ("text", "linear"):
            raise InputError(f"student.classifier must be text or linear, got {self.classifier!r}")
        if min(self.width, self.aspp_channels) < 1 or not self.aspp_rates:
            raise InputError("student.width, aspp_channels and aspp_rates must be positive and not empty")


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
    """A residual network of 4 blocks that trains from scratch on a CPU: stride 8, and stride 4 for the borders."""

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
        """Fine features at stride 4 and deep features at stride 8."""
        fine = self.stem(x)
        return fine, self.body(fine)


class ASPP(nn.Module):
    """Atrous spatial pyramid: parallel dilated convolutions, summed (DeepLab v2)."""

    def __init__(self, inputs: int, outputs: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(conv(inputs, outputs, 3, dilation=rate) for rate in rates)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h, w)."""
        return sum((branch(x) for branch in self.branches), start=torch.zeros((), device=x.device))


class TextClassifier(nn.Module):
    """A 1x1 convolution whose weights are the CLIP text vectors and stay fixed; features are not normalised."""

    def __init__(self, inputs: int, text_CD: Tensor) -> None:
        super().__init__()
        self.text_CD: Tensor
        self.project = nn.Conv2d(inputs, text_CD.shape[1], 1)
        self.register_buffer("text_CD", text_CD.clone())

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> logits (B, C, h, w)."""
        # text @ (project @ x) = (text @ project) @ x: the D-channel map, 128 or 512 deep, need never exist
        weight = self.text_CD @ self.project.weight.flatten(1)
        bias = None if self.project.bias is None else self.text_CD @ self.project.bias
        return F.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)


class Student(nn.Module):
    """Logits (B, C, H / 4, W / 4) of ImageNet-normalised pixels (B, 3, H, W)."""

    def __init__(self, config: StudentConfig, text_CD: Tensor) -> None:
        super().__init__()
        self.config = config
        channels = config.aspp_channels
        self.backbone = LightBackbone(config.width)
        self.aspp = ASPP(self.backbone.channels, channels, config.aspp_rates)
        self.fine = conv(self.backbone.fine_channels, channels, 1)
        self.head = conv(2 * channels, 2 * channels)
        classifier = TextClassifier if config.classifier == "text" else _linear_classifier
        self.classifier = classifier(2 * channels, text_CD)

    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        """Class logits at stride 4."""
        fine, deep = self.backbone(pixels_B3HW)
        deep = F.interpolate(self.aspp(deep), size=fine.shape[-2:], mode="bilinear")
        logits: Tensor = self.classifier(self.head(torch.cat([deep, self.fine(fine)], 1)))
        return logits


def _linear_classifier(inputs: int, text_CD: Tensor) -> nn.Conv2d:
    return nn.Conv2d(inputs, text_CD.shape[0], 1)


def save_student(student: Student, folder: str | Path, about: dict[str, Any]) -> None:
    """Write model.safetensors and config.json; `about` (classes, run) is kept beside the architecture."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous().cpu() for name, tensor in student.state_dict().items()}
    save_file(state, folder / "model.safetensors.partial")
    (folder / "model.safetensors.partial").replace(folder / "model.safetensors")
    text = json.dumps({"student": asdict(student.config)} | about, indent=2)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def load_student(folder: str | Path) -> tuple[Student, dict[str, Any]]:
    """The student in evaluation mode, and what was saved about it. Raises InputError if there is none."""
    folder = Path(folder)
    if not (folder / "model.safetensors").is_file():
        raise InputError(f"no trained student in {folder}; train one with 'make train'")
    try:
        return _load_student(folder)
    except Exception as error:  # broken files raise json's, safetensors' and torch's own errors
        raise InputError(f"the student in {folder} cannot be read; train it again with 'make train'") from error


def _load_student(folder: Path) -> tuple[Student, dict[str, Any]]:
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings = about.pop("student")
    config = StudentConfig(**settings | {"aspp_rates": tuple(settings["aspp_rates"])})
    state = load_file(folder / "model.safetensors")
    classes, dimensions = len(about["classes"]["names"]), 1
    if "classifier.text_CD" in state:
        dimensions = state["classifier.text_CD"].shape[1]
    student = Student(config, torch.zeros(classes, dimensions))
    student.load_state_dict(state)
    return student.eval(), about
