"""CAM: where a multi-label classifier sees its classes (Zhou et al., CVPR 2016).

Shapes: B batch, C classes, h w features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from labelgen.backbones import RESNET_DEPTHS
from labelgen.engines.engine import EngineSpec, Inputs, OnStep
from labelgen.engines.fit import FitBatch, FitConfig, FitStep, FittedEngine, fit
from labelgen.engines.network import CamNetwork, CamNetworkConfig
from labelgen.samples import ClassSet, InputError, Sample


@dataclass(frozen=True, kw_only=True)
class CamConfig(FitConfig):
    """CAM's network, and how it is fitted."""

    section: ClassVar[str] = "cam"

    backbone: Literal["light", "resnet50", "resnet101"] = "light"
    pretrained: str = ""  # ImageNet weights of a ResNet: HF folder or hub id; their BatchNorm statistics stay fixed
    width: int = 16  # channels of the light backbone's first convolution

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backbone not in ("light", *RESNET_DEPTHS):
            raise InputError(f"cam.backbone must be light, {' or '.join(RESNET_DEPTHS)}, got {self.backbone!r}")
        if (self.backbone == "light") == bool(self.pretrained):
            raise InputError("cam.backbone=resnet50 or resnet101, and cam.pretrained=FOLDER or hub id, belong together")
        if self.width < 1:
            raise InputError(f"cam.width must be at least 1, got {self.width}")


def build_network(config: CamConfig, classes: ClassSet) -> CamNetwork:
    """A network to be fitted. Raises InputError for missing ImageNet weights."""
    labels = dict(enumerate(classes.names))
    network = CamNetwork(
        CamNetworkConfig(
            backbone=config.backbone,
            width=config.width,
            # As CAM's public code: crops in batches of 16 would spoil ImageNet's statistics.
            fixed_norm=bool(config.pretrained),
            id2label=labels,
            label2id={name: i for i, name in labels.items()},
        )
    )
    if config.pretrained:
        network.backbone.load_imagenet(config.pretrained)
        network.config.stride_in_1x1 = network.backbone.stride_in_1x1
    return network


def cam_loss(maps_BChw: Tensor, labels_BC: Tensor) -> Tensor:
    """Binary cross-entropy of the classes' mean activations, the mean over images and classes (CLIMS, Eq. 1)."""
    return F.binary_cross_entropy_with_logits(maps_BChw.float().mean((2, 3)), labels_BC)


def fit_cam(
    samples: Sequence[Sample],
    classes: ClassSet,
    folder: str | Path,
    config: CamConfig,
    *,
    about: dict[str, Any] | None = None,
    accelerator: Accelerator | None = None,
    on_step: Callable[[FitStep], object] = lambda result: None,
) -> CamNetwork:
    """The classifier, fitted to image-level labels: see `fit`."""

    def losses(network: nn.Module, batch: FitBatch) -> dict[str, Tensor]:
        return {"cross_entropy": cam_loss(network(batch.pixels_B3YX).logits, batch.labels_BC)}

    return fit(
        lambda: build_network(config, classes),
        losses,
        samples,
        classes,
        folder,
        config,
        about=about or {},
        accelerator=accelerator,
        on_step=on_step,
    )


def fit_for(inputs: Inputs, samples: Sequence[Sample], on_step: OnStep) -> CamNetwork:
    """The classifier of a run, in inputs.folder / "cam"."""
    return fit_cam(
        samples,
        inputs.classes,
        inputs.folder / "cam",
        inputs.settings.cam,
        on_step=lambda result: on_step(result.step, result.steps),
    )


ENGINE = EngineSpec(
    about="where a classifier of the whole image sees each class (Zhou et al., CVPR 2016)",
    needs="image-level labels of train (not --tags auto or model); for a ResNet its ImageNet weights, cam.pretrained",
    cost="fitting first; then one pass of the classifier for each scale, and as many for the mirrored image",
    settings=CamConfig,
    asks_clip=False,
    fit=fit_for,
    begin=lambda inputs: FittedEngine(inputs.folder / "cam", inputs.settings.cam, inputs.dense.device),
)
