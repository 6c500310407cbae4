"""The student: a backbone, DeepLab-ASPP and a classifier of fixed CLIP text vectors, as a Hugging Face model.

Any HF model of `AutoModelForSemanticSegmentation` can take its place. Shapes: B batch, C classes, D embedding, H W
pixels, h w features.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSemanticSegmentation, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SemanticSegmenterOutput

from labelgen.backbones import RESNET_DEPTHS, DilatedResNet, LightBackbone, conv
from labelgen.pretrained import load_model
from labelgen.samples import IGNORE_INDEX, ClassSet, InputError
from labelgen.training.checkpoints import whole_folder

RGB = tuple[int, int, int]
CARD = "README.md"
WIDEST = 4096  # channels of a layer


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """Architecture of the student."""

    model: str = ""  # a HF semantic segmentation model (folder or hub id) instead of all below, e.g. nvidia/mit-b0
    backbone: Literal["light", "resnet50", "resnet101"] = "light"
    pretrained: str = ""  # ImageNet weights of a ResNet: HF folder or hub id, or a safetensors file with mmseg's names
    deep_stem: bool = False  # ResNet-v1c, as mmseg's weights want it
    output_stride: Literal[8, 16] = 8  # of a ResNet's features: 8 (CARB), or 16 for a quarter of the places
    frozen_stages: int = 0  # 1 to 4: the stem and so many stages of a ResNet stay as ImageNet's weights have them
    width: int = 16  # channels of the light backbone's first convolution
    aspp_channels: int | None = None  # default: 32 on the light backbone, 512 on a ResNet (CARB)
    aspp_rates: tuple[int, ...] | None = None  # default: 1, 3, 6, 9 on the light backbone, 6, 12, 18, 24 on a ResNet
    classifier: Literal["text", "linear"] = "text"

    def __post_init__(self) -> None:
        if self.backbone not in ("light", *RESNET_DEPTHS):
            raise InputError(f"student.backbone must be light, {' or '.join(RESNET_DEPTHS)}, got {self.backbone!r}")
        if self.classifier not in ("text", "linear"):
            raise InputError(f"student.classifier must be text or linear, got {self.classifier!r}")
        if not 1 <= min(sizes := (self.width, *self.aspp[1], self.aspp[0])) <= max(sizes) <= WIDEST:
            raise InputError(f"student.width, aspp_channels and aspp_rates must be positive, {WIDEST} at most")
        if self.backbone == "light" and (self.pretrained or self.output_stride != 8):
            name = "pretrained" if self.pretrained else "output_stride"
            raise InputError(f"student.{name} needs student.backbone=resnet50 or resnet101")
        if self.output_stride not in (8, 16):
            raise InputError(f"student.output_stride must be 8 or 16, got {self.output_stride}")
        if not 0 <= self.frozen_stages <= 4:
            raise InputError(f"student.frozen_stages must be 0 to 4, got {self.frozen_stages}")
        if self.frozen_stages and not self.pretrained:
            raise InputError("student.frozen_stages keeps ImageNet's weights: give student.pretrained=FOLDER, too")

    @property
    def aspp(self) -> tuple[int, tuple[int, ...]]:
        """Channels and rates of ASPP, with the backbone's defaults."""
        light = self.backbone == "light"
        channels = self.aspp_channels if self.aspp_channels is not None else 32 if light else 512
        return channels, self.aspp_rates or ((1, 3, 6, 9) if light else (6, 12, 18, 24))


class CarbsegConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """config.json of a student: architecture, class names (id2label) and palette."""

    model_type = "carbseg-student"

    def __init__(
        self,
        student: dict[str, Any] | None = None,
        embedding_dim: int = 1,
        palette: Sequence[RGB] = (),
        stride_in_1x1: bool = False,
        **others: Any,
    ) -> None:
        self.student = student or asdict(StudentConfig())
        self.embedding_dim = embedding_dim
        self.palette = [list(colour) for colour in palette]
        self.stride_in_1x1 = stride_in_1x1  # of a ResNet, as its ImageNet weights have it
        super().__init__(**others)


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

    def __init__(self, inputs: int, classes: int, embedding_dim: int) -> None:
        super().__init__()
        self.text_CD: Tensor
        self.project = nn.Conv2d(inputs, embedding_dim, 1)
        self.register_buffer("text_CD", torch.zeros(classes, embedding_dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> logits (B, C, h, w)."""
        # text @ (project @ x) = (text @ project) @ x: the D-channel map, 128 or 512 deep, need never exist
        weight = self.text_CD @ self.project.weight.flatten(1)
        bias = None if self.project.bias is None else self.text_CD @ self.project.bias
        return F.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)


class Student(PreTrainedModel):  # type: ignore[no-untyped-call]
    """Class logits of ImageNet-normalised pixels (B, 3, H, W), at stride 4 (light backbone), 8 or 16 (ResNet)."""

    config_class = CarbsegConfig
    main_input_name = "pixel_values"

    def __init__(self, config: CarbsegConfig) -> None:
        super().__init__(config)
        settings, classes = _settings(config), int(config.num_labels or 0)
        channels, rates = settings.aspp
        self.backbone = _backbone(settings, config.stride_in_1x1)
        self.aspp = ASPP(self.backbone.channels, channels, rates)
        if self.backbone.fine_channels:
            self.fine = conv(self.backbone.fine_channels, channels, 1)
            self.head = conv(2 * channels, 2 * channels)
            channels = 2 * channels
        self.classifier = (
            TextClassifier(channels, classes, config.embedding_dim)
            if settings.classifier == "text"
            else nn.Conv2d(channels, classes, 1)
        )
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        """Weights stay as PyTorch's layers begin."""

    def forward(self, pixel_values: Tensor, **_: Any) -> SemanticSegmenterOutput:
        """Logits (B, C, h, w) in `.logits`."""
        fine, x = self.backbone(pixel_values)
        x = self.aspp(x)
        if fine is not None:
            x = F.interpolate(x, size=fine.shape[-2:], mode="bilinear")
            x = self.head(torch.cat([x, self.fine(fine)], 1))
        return SemanticSegmenterOutput(logits=self.classifier(x))


def _backbone(settings: StudentConfig, stride_in_1x1: bool) -> Any:
    if settings.backbone == "light":
        return LightBackbone(settings.width)
    depths = RESNET_DEPTHS[settings.backbone]
    resnet = DilatedResNet(
        depths, settings.deep_stem, output_stride=settings.output_stride, stride_in_1x1=stride_in_1x1
    )
    resnet.freeze(settings.frozen_stages)
    return resnet


AutoConfig.register(CarbsegConfig.model_type, CarbsegConfig)
AutoModelForSemanticSegmentation.register(CarbsegConfig, Student)


def build_student(settings: StudentConfig, classes: ClassSet, text_CD: Tensor) -> PreTrainedModel:
    """A student to be trained. text_CD: unit text vectors of the classes. Raises InputError for missing weights."""
    labels = dict(enumerate(classes.names))
    names: dict[str, Any] = {"id2label": labels, "label2id": {name: i for i, name in labels.items()}}
    if settings.model:
        return _hub_student(settings.model, names, classes.palette)
    student = Student(
        CarbsegConfig(student=asdict(settings), embedding_dim=text_CD.shape[1], palette=classes.palette, **names)
    )
    if isinstance(student.classifier, TextClassifier):
        student.classifier.text_CD.copy_(text_CD)
    if settings.pretrained:
        student.backbone.load_imagenet(settings.pretrained)
        student.config.stride_in_1x1 = student.backbone.stride_in_1x1
    return student


def _hub_student(source: str, names: dict[str, Any], palette: Sequence[RGB]) -> PreTrainedModel:
    try:
        model = load_model(AutoModelForSemanticSegmentation, source, ignore_mismatched_sizes=True, **names)
    except InputError:
        raise
    except Exception as error:  # missing and broken files raise errors of many kinds
        raise InputError(
            f"no semantic segmentation model at {source!r}: give a HF folder, or a hub id such as nvidia/mit-b0 on a "
            "connected machine"
        ) from error
    model.config.palette = [list(colour) for colour in palette]
    return model  # type: ignore[no-any-return]


def _settings(config: CarbsegConfig) -> StudentConfig:
    rates = config.student["aspp_rates"]
    return StudentConfig(**config.student | {"aspp_rates": rates and tuple(rates)})


def save_student(student: PreTrainedModel, folder: str | Path, about: dict[str, Any]) -> None:
    """Write a HF model folder: model.safetensors, config.json, and a model card that tells `about` the run.

    The folder is whole or not there.
    """
    with whole_folder(Path(folder)) as partial:
        student.save_pretrained(partial)
        write_card(partial, about)


def write_card(folder: Path, about: dict[str, Any]) -> None:
    """The model card: what it is, how to load it, what made it."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = f"""---
library_name: transformers
pipeline_tag: image-segmentation
tags: [carbseg, semantic-segmentation, weakly-supervised]
---

# A carbseg student

Trained on dense CLIP pseudo-labels and image-level labels, with CARB (Kim et al., AAAI 2024) where the run says so; no
pixel labels. Pixels: RGB in 0..1, normalised with ImageNet's mean (0.485, 0.456, 0.406) and deviation (0.229, 0.224,
0.225). Classes:

    {", ".join(config["id2label"].values())}

```python
from segtrain.model import load_student

student = load_student("this/folder")  # or AutoModelForSemanticSegmentation.from_pretrained, after importing segtrain
logits = student(pixel_values).logits  # (B, {len(config["id2label"])}, h, w)
```

## The run

```json
{json.dumps(about, indent=1, ensure_ascii=False)}
```
"""
    (folder / CARD).write_text(text, encoding="utf-8")


def load_student(folder: str | Path) -> PreTrainedModel:
    """A student in evaluation mode: one of ours, or any HF semantic segmentation model. Raises InputError.

    folder: the model's, or that of a training, which holds it as student/. The config of the student has id2label, and
    palette if it is ours.
    """
    given = Path(folder)
    found = next((place for place in (given, given / "student") if (place / "config.json").is_file()), None)
    if found is None:
        raise InputError(f"no trained student in {given}: train one with 'make train', or give a HF model folder")
    try:
        student = load_model(AutoModelForSemanticSegmentation, found)
        palette = palette_of(student)
    except InputError:
        raise
    except Exception as error:  # broken files raise json's, safetensors' and torch's own errors
        raise InputError(f"the student in {found} cannot be read; train it again with 'make train'") from error
    names, classes = len(student.config.id2label or {}), int(student.config.num_labels or 0)
    if not names == classes == len(palette) or classes > IGNORE_INDEX:
        raise InputError(
            f"the student in {found} has {classes} classes, {names} names and {len(palette)} colours; as many of each "
            f"are needed, {IGNORE_INDEX} at most"
        )
    return student.eval()  # type: ignore[no-any-return]


def palette_of(student: PreTrainedModel) -> list[RGB]:
    """The colours of the classes: the student's own, or greys for a model that has none."""
    count = int(student.config.num_labels or 0)
    own = getattr(student.config, "palette", None) or [[255 * i // count] * 3 for i in range(count)]
    return [(int(r), int(g), int(b)) for r, g, b in own]
