"""Settings that fit a user's images and machine: crops, local views, student and schedule, scaled from the paper's.

`suggest` is a pure function of a Situation; `look` sees what the situation is; a run keeps what it was begun with.
"""

import json
import os
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labelgen.files import read_toml
from labelgen.images import image_size
from labelgen.samples import InputError
from pipeline.datasets import DatasetSpec
from pipeline.datasets.layouts import TRAIN_SPLIT

KEPT = "suggested.toml"
LOOKED_AT = 100  # images whose sizes are read: the median of a million is no other
MIN_VIEW_PX = 160  # ten patches
CPU_CROP_PX = 360 * 480
Tree = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What the settings have to fit: median size in pixels, number of training images, and the machine."""

    height: int
    width: int
    images: int
    has_gpu: bool
    gpu_gb: float = 0.0
    cores: int = 1
    tiny_clip: bool = False

    def __str__(self) -> str:
        device = f"a GPU of {self.gpu_gb:.0f} GB" if self.has_gpu else "no GPU"
        return f"{self.images} images of about {self.height} x {self.width}, {self.cores} cores, {device}"


def look(spec: DatasetSpec, root: str | Path, *, tiny_clip: bool) -> Situation:
    """What a training split and this machine are like; reads the headers of some images. Raises InputError."""
    import torch

    items = spec.files(root, TRAIN_SPLIT)
    places = np.unique(np.linspace(0, len(items) - 1, LOOKED_AT).astype(int))
    sizes = [image_size(items[place].image) for place in places]
    has_gpu = torch.cuda.is_available()
    return Situation(
        height=int(statistics.median(height for height, _ in sizes)),
        width=int(statistics.median(width for _, width in sizes)),
        images=len(items),
        has_gpu=has_gpu,
        gpu_gb=torch.cuda.get_device_properties(0).total_memory / 2**30 if has_gpu else 0.0,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        tiny_clip=tiny_clip,
    )


def suggest(situation: Situation) -> Tree:
    """Settings as a tree of plain values. With a GPU they are the paper's, scaled to the images; without, toy's."""
    s = situation
    # A run that is cut goes on after the last whole shard.
    labels = {"images_per_shard": min(16, max(1, s.images // 8)), "views": _views(s)}
    return {"labels": labels} | (_on_gpu(s) if s.has_gpu else _on_cpu(s))


def _views(s: Situation) -> Tree:
    """Upright local views with the paper's share of the height: 512 of 720 (CamVid) to 512 of 1024 (Cityscapes)."""
    height = min(s.height, max(MIN_VIEW_PX, _sixteens(min(s.height * 512 / 720, max(512, s.height / 2)))))
    views: Tree = {"local_height": height, "local_width": min(s.width, _sixteens(height / 2))}
    shrink = round(min(1.0, _shrink(s, 1024 * 2048)), 2)  # the most pixels that the paper shows CLIP at once
    if shrink < 1:
        views["global_zooms"] = [shrink]
    # The tiny CLIP sees crops best as they are (presets/toy.toml).
    zooms = [1.0, 1.0] if s.tiny_clip else [1.0, 2.0]
    views["local_zooms"] = [zoom * shrink for zoom in zooms]
    return views | ({"zoom_levels": 1} if s.tiny_clip else {})


def _on_gpu(s: Situation) -> Tree:
    """CARB's ResNet-50 and schedule: crops of whole images up to CamVid's size, of Cityscapes' crop's above."""
    is_whole = s.height * s.width <= 720 * 960
    batch = 8 if s.gpu_gb >= 20 else 4
    steps = _hundreds(250 * s.images / batch, 2000, 30_000)  # 250 epochs: CamVid's; at most Cityscapes' steps
    return {
        "augment": _crop(s, 1.0 if is_whole else _shrink(s, 512 * 1024))
        | {"scales": [1.0, 2.0] if is_whole else [0.5, 2.0]},
        "student": {"backbone": "resnet50", "pretrained": "microsoft/resnet-50"},
        "train": {"batch": batch, "steps": steps, "warmup_steps": steps // 2, "workers": min(8, s.cores)},
    }


def _on_cpu(s: Situation) -> Tree:
    """A light student from scratch, in crops and for so many steps that it ends within the hour."""
    steps = _hundreds(24 * s.images / 4, 300, 3000)
    return {
        "augment": _crop(s, min(1.0, _shrink(s, CPU_CROP_PX))) | {"scales": [0.8, 1.4], "photometric": 0.7},
        "student": {"backbone": "light"},
        "train": {
            "batch": 4,
            "steps": steps,
            "warmup_steps": steps // 2,
            "balance": "gated",
            "queue": min(100, steps // 10),
            "optimizer": "adamw",
            "learning_rate": 0.003,
            "min_learning_rate": 0.0,
            "weight_decay": 0.01,
            "ramp_steps": 30,
            "loss_stride": 2,
            "workers": 0,
        },
    }


def _shrink(s: Situation, pixels: int) -> float:
    """The factor that gives images so many pixels."""
    return float((pixels / (s.height * s.width)) ** 0.5)


def _crop(s: Situation, factor: float) -> Tree:
    return {"crop_height": round(s.height * factor), "crop_width": round(s.width * factor)}


def _sixteens(side: float) -> int:
    """The nearest multiple of CLIP's patch."""
    return max(16, round(side / 16) * 16)


def _hundreds(steps: float, low: int, high: int) -> int:
    return min(high, max(low, round(steps / 100) * 100))


def as_toml(tree: Mapping[str, Any], situation: Situation) -> str:
    """The settings as a file for --config."""
    lines = [f"# For {situation}.", "# --config and --set override these settings."]

    def write(table: Mapping[str, Any], name: str) -> None:
        lines.extend(["", f"[{name}]"])
        lines.extend(f"{key} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, Mapping))
        for key, value in table.items():
            if isinstance(value, Mapping):
                write(value, f"{name}.{key}")

    for name, table in tree.items():
        write(table, name)
    return "\n".join(lines) + "\n"


def read_kept(out: Path) -> Tree | None:
    """What the run in this folder was begun with, if it was begun with a suggestion. Raises InputError."""
    path = out / KEPT
    if not path.is_file():
        return None
    try:
        return read_toml(path)
    except InputError as error:
        raise InputError(f"{path} cannot be read ({error}); mend it, or delete it to get a new suggestion") from error
