"""What an image costs each label engine, at true size with random weights, beside MaskCLIP in the same run.

Prints Markdown. Engines take turns, and each turn is held against MaskCLIP's: compare the ratios, not the milliseconds,
between machines. On a CPU they are CPU time, which other work on the machine hardly changes. Run by `make bench`.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.devices import DEVICES, device_named
from benchmarks.labels import EMBEDDING, WordlessCLIP, vit_b16
from labelgen.engines.cam import CamConfig
from labelgen.engines.clip_es import ClipES, ClipESEngine
from labelgen.engines.engine import Engine
from labelgen.engines.fit import NETWORK, FittedEngine
from labelgen.engines.network import CamNetwork, CamNetworkConfig
from labelgen.engines.one_pixel.config import OnePixelConfig
from labelgen.engines.one_pixel.engine import OnePixelEngine, feature_folder
from labelgen.engines.one_pixel.features import FeatureFolder, Features
from labelgen.engines.one_pixel.representation import ClassVectors
from labelgen.engines.proxyclip import Proxy, ProxyCLIP, ProxyCLIPConfig
from labelgen.images import resize_image
from labelgen.label import Labeller, Prepared, view_pixels
from labelgen.maskclip import DenseCLIP
from labelgen.views import ViewConfig, global_views
from pipeline.commands.options import quiet_libraries
from pipeline.datasets.classes import CAMVID_CLASSES

SIZE = (360, 480)
SHOWN = range(5)  # classes that the image shows
REFERENCE = "maskclip"


def dinov2_base() -> Any:
    """DINOv2-base, patch 14, with random weights."""
    from transformers import Dinov2Config, Dinov2Model

    return Dinov2Model(Dinov2Config())


def resnet50() -> CamNetwork:
    """CAM's network with random weights."""
    return CamNetwork(CamNetworkConfig(backbone="resnet50", num_labels=len(CAMVID_CLASSES)))


def imagenet_classifier() -> Any:
    """ResNet-50 with random weights, that tells ImageNet's 1000 classes apart."""
    from transformers import ResNetConfig, ResNetForImageClassification

    return ResNetForImageClassification(ResNetConfig(num_labels=1000))


class Anew(FeatureFolder):
    """Features that are computed whenever they are asked for, of one picture."""

    def of(self, path: str | Path) -> Features:
        """Those of the picture, whatever the path."""
        return self.compute(picture())


def one_pixel(dense: DenseCLIP, folder: Path) -> OnePixelEngine:
    """Classes are what some superpixels show; nothing is kept. folder: for weights."""
    network = folder / "imagenet"
    imagenet_classifier().save_pretrained(network)
    config, classes = OnePixelConfig(features=str(network)), np.arange(len(CAMVID_CLASSES))
    seen = feature_folder(config, folder, dense)
    semantic_SD = seen.compute(picture()).semantic_SD.astype(np.float32)
    vectors = ClassVectors(
        semantic_SD[classes % len(semantic_SD)], classes, np.zeros((0, 128), np.float32), classes[:0]
    )
    return OnePixelEngine(vectors, CAMVID_CLASSES, config, Anew(folder, seen.decided_by, seen.compute))


def picture() -> NDArray[np.uint8]:
    """Blobs of colour: noise itself would be one superpixel."""
    return resize_image(np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8), *SIZE)


def engines(device: str, folder: Path) -> dict[str, Engine]:
    """By name; CLIMS looks at images as CAM does. folder: for weights."""
    dense = WordlessCLIP(vit_b16()).to(device)
    proxy = Proxy(dinov2_base()).to(device)
    resnet50().save_pretrained(folder / NETWORK)
    return {
        REFERENCE: Labeller(dense),
        "clip-es": ClipESEngine(ClipES(dense), CAMVID_CLASSES),
        "proxyclip": Labeller(ProxyCLIP(dense, proxy, ProxyCLIPConfig())),
        "cam": FittedEngine(folder, CamConfig(), torch.device(device)),
        "one-pixel": one_pixel(dense, folder),
    }


def turns(asked: dict[str, Engine], device: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each engine for an image that has been read, round by round, after one that does not count."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    images = {name: whole(picture(), engine.patch_px) for name, engine in asked.items()}
    text_CD = torch.nn.functional.normalize(torch.randn(len(CAMVID_CLASSES), EMBEDDING), dim=-1).to(device)
    taken: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(1 + rounds):
        for name, engine in asked.items():
            started = clock()
            engine.ask([images[name]], text_CD).logits()  # on the CPU: a GPU is done
            taken[name].append(clock() - started)
    return {name: seconds[1:] for name, seconds in taken.items()}


def whole(image_HW3: NDArray[np.uint8], patch_px: int) -> Prepared:
    """An image as engines get it, without local views."""
    views = global_views(ViewConfig(local=False), *SIZE)
    return Prepared("image", SIZE, views, [view_pixels(image_HW3, view, patch_px) for view in views], SHOWN)


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, to see that it runs")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    options = parser.parse_args()
    device = device_named(options.device)
    quiet_libraries()
    torch.manual_seed(0)
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads, CPU time"
    print(f"# Label engines, {SIZE[0]} x {SIZE[1]}, {len(SHOWN)} classes present, random weights, {where}\n")
    with tempfile.TemporaryDirectory() as folder:
        taken = turns(engines(device, Path(folder)), device, 1 if options.quick else 3)
    print("| engine | ms an image | times MaskCLIP | lowest .. highest |\n|---|---|---|---|")
    for name, seconds in taken.items():
        ratios = [one / reference for one, reference in zip(seconds, taken[REFERENCE], strict=True)]
        cells = (f"{1e3 * statistics.median(seconds):.1f}", f"{statistics.median(ratios):.2f}")
        print(f"| {name} | " + " | ".join(cells) + f" | {min(ratios):.2f} .. {max(ratios):.2f} |")


if __name__ == "__main__":
    main()
