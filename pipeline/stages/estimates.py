"""How long labels and training will take on this machine, from one image and one step."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from labelgen.label import label, prepare
from pipeline.datasets.layouts import TRAIN_SPLIT
from pipeline.stages.labels import load_dense
from pipeline.stages.run import Run, own_device
from segtrain.model import build_student

PARTS = 2  # images that a step is tried on: BatchNorm wants two


@dataclass(frozen=True)
class Times:
    """Seconds. A step's are without reading its data, which overlaps."""

    image_s: float
    step_s: float
    images: int
    steps: int

    @property
    def labels_s(self) -> float:
        """For all images."""
        return self.image_s * self.images

    @property
    def training_s(self) -> float:
        """For all steps of one student."""
        return self.step_s * self.steps


def estimate(run: Run) -> Times:
    """Look at the training split once and at one image with CLIP, and take a training step. Raises InputError."""
    samples = run.samples(TRAIN_SPLIT)
    dense, config = load_dense(run, samples[0]), run.config.labels
    text_CD = _unit_vectors(len(run.spec.classes), dense.model.config.projection_dim)

    def look() -> None:
        label([prepare(samples[0], config.views, dense.patch_px)], dense, text_CD, config.batch)

    return Times(_seconds(look), seconds_per_step(run), len(samples), run.config.train.steps)


def seconds_per_step(run: Run) -> float:
    """Forward and backward of a student on random pixels, for as many images as a step has."""
    device, config, augment = own_device(), run.config.train, run.config.augment
    text_CD = _unit_vectors(len(run.spec.classes), 512)
    student = build_student(run.config.student, run.spec.classes, text_CD).to(device).train()
    image_B3HW = torch.randn(PARTS, 3, augment.crop_height, augment.crop_width, device=device)
    h, w = (-(-side // config.loss_stride) for side in image_B3HW.shape[-2:])
    pseudo_Bhw = torch.zeros(PARTS, h, w, dtype=torch.int64, device=device)

    def step() -> None:
        logits_BChw = F.interpolate(student(image_B3HW).logits, size=(h, w), mode="bilinear")
        loss = F.cross_entropy(logits_BChw, pseudo_Bhw)
        loss.backward()  # type: ignore[no-untyped-call]
        loss.item()  # waits for the device

    return _seconds(step) * config.batch / PARTS


def _unit_vectors(count: int, dim: int) -> torch.Tensor:
    return F.normalize(torch.randn(count, dim), dim=1)


def _seconds(action: Callable[[], object]) -> float:
    """The faster of two times, after one that does not count."""
    action()
    taken = []
    for _ in range(2):
        started = time.perf_counter()
        action()
        taken.append(time.perf_counter() - started)
    return min(taken)
