from math import exp, log

import pytest
import torch

from labelgen.engines.cam import CamConfig, cam_loss
from labelgen.samples import InputError


def test_the_loss_is_the_mean_cross_entropy_of_mean_activations() -> None:
    maps_BChw = torch.tensor([[[[1.0, 3.0]], [[0.0, 0.0]]], [[[-1.0, -1.0]], [[4.0, -4.0]]]])  # means 2, 0, -1, 0
    labels_BC = torch.tensor([[1.0, 0.0], [1.0, 1.0]])

    def sigmoid(x: float) -> float:
        return 1 / (1 + exp(-x))

    expected = -(log(sigmoid(2)) + log(1 - sigmoid(0)) + log(sigmoid(-1)) + log(sigmoid(0))) / 4
    assert cam_loss(maps_BChw, labels_BC).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "resnet18"}, "cam.backbone must be light, resnet50 or resnet101, got 'resnet18'"),
        ({"backbone": "light", "pretrained": "x"}, "cam.backbone=resnet50 or resnet101, and cam.pretrained=FOLDER"),
        ({"backbone": "resnet50"}, "cam.backbone=resnet50 or resnet101, and cam.pretrained=FOLDER or hub id, belong"),
        ({"width": 0}, "cam.width must be at least 1, got 0"),
        ({"epochs": 0}, "cam.epochs must be at least 1, got 0"),
        ({"optimizer": "adam"}, "cam.optimizer must be sgd or adamw, got 'adam'"),
        ({"learning_rate": float("nan")}, "cam.learning_rate must be a positive number, got nan"),
        ({"weight_decay": -1.0}, "cam.weight_decay must not be negative, got -1.0"),
        ({"momentum": 1.0}, r"cam.momentum must be in \[0, 1\), got 1.0"),
        ({"crop": (512, 16)}, r"cam.crop must have at least 32 x 32 pixels, got \(512, 16\)"),
        ({"long_side": (640, 320)}, r"cam.long_side must be a range of at least 32 pixels, got \(640, 320\)"),
        ({"scales": ()}, r"cam.scales must be one or more positive factors, got \(\)"),
    ],
)
def test_settings_that_fit_nothing_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CamConfig(**settings)  # type: ignore[arg-type]
