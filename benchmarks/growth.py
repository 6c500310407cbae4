"""What grows with the number of images: beginning and resuming a store, a shard's book-keeping, opening, reading.

Rows are of 11 classes, with the logits of toy scenes' size; some shards are written, of the others only what is small
(tables and markers), copied from one of them. CLIP and the reading of images are left out. Prints Markdown. Run by
`make bench`.
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np
import torch

import labelgen.generate
from labelgen.engines.engine import Engine
from labelgen.generate import LabelConfig, generate, image_sizes
from labelgen.images import write_png
from labelgen.label import Asked, Prepared
from labelgen.samples import Sample
from labelgen.store import ImageLogits, LocalView, PseudoLabelStore
from labelgen.training.order import Order
from labelgen.views import ViewConfig
from pipeline.datasets.classes import CAMVID_CLASSES

SIZES = (1_000, 10_000, 100_000, 1_000_000)
CLASSES, EMBEDDING, PATCH = len(CAMVID_CLASSES), 128, 8
IMAGE = (160, 320)
CONFIG = LabelConfig(views=ViewConfig(local_height=160, local_width=80, local_zooms=(1.0, 1.0), zoom_levels=1))
SHARD = CONFIG.images_per_shard
REAL = 20  # shards that are written whole
BATCH = 8
BY_SHARD = {"views": ".0.0", "image_labels": ".0", "checksum": "", "is_written": ""}  # and how their files' names end


def a_split(images: int, path: Path) -> list[Sample]:
    """Samples with ids and labels of their own, all of one file."""
    return [
        {
            "image_id": f"drive_{i // 1000:04d}_{i:07d}",
            "image_path": str(path),
            "label_path": None,
            "image_labels": [i % CLASSES, CLASSES - 1] if i % CLASSES < CLASSES - 1 else [0],
        }
        for i in range(images)
    ]


class NoCLIP(SimpleNamespace):
    """What `generate` asks of a CLIP before it looks at images."""

    def encode_sentences(self, sentences: list[str]) -> torch.Tensor:
        """Unit vectors, one a sentence."""
        return torch.eye(EMBEDDING)[torch.arange(len(sentences)) % EMBEDDING]


CLIP: Any = NoCLIP(
    patch_px=PATCH,
    image_mean=(0, 0, 0),
    image_std=(1, 1, 1),
    device=torch.device("cpu"),
    dtype=torch.float32,
    model=SimpleNamespace(state_dict=lambda: {}),
)


class NoEngine:
    """An engine that says nothing at once, and knows when it was asked."""

    patch_px, needs_labels = PATCH, False
    weights: ClassVar[dict[str, str]] = {}

    def __init__(self) -> None:
        self.asked_at: list[float] = []

    def ask(self, images: Sequence[Prepared], text_TD: torch.Tensor) -> Asked:
        """Of no view."""
        self.asked_at.append(time.perf_counter())
        return Asked(images, iter(()))


def labelled(
    samples: list[Sample], store: Path, part: int = 0, parts: int = 1, engine: Engine | None = None
) -> PseudoLabelStore:
    """`generate` without CLIP."""
    return generate(samples, CAMVID_CLASSES, CLIP, store, CONFIG, about={}, part=part, parts=parts, engine=engine)


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def median_ms(works: Sequence[Callable[[], object]]) -> float:
    """How long the middle one takes."""
    return statistics.median(seconds(work) for work in works) * 1e3


def peak_gib() -> float:
    """Largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def overhead_ms(samples: list[Sample], store: Path) -> float:
    """From shard to shard, where images need no reading, logits no computing, and shards no writing."""
    engine = NoEngine()
    with (
        patch.object(labelgen.generate, "prepare", lambda sample, *_: Prepared(sample["image_id"], IMAGE, [], [], [])),
        patch.object(PseudoLabelStore, "write_shard"),
    ):
        labelled(samples, store, parts=max(1, len(samples) // SHARD // 50), engine=engine)
    return float(np.median(np.diff(engine.asked_at))) * 1e3


def real_shards(images: int) -> list[range]:
    """Rows of the shards that are written whole."""
    shards = np.random.default_rng(0).permutation(-(-images // SHARD))[:REAL]
    return [range(shard * SHARD, min((shard + 1) * SHARD, images)) for shard in shards.tolist()]


def label_side(images: int, folder: Path) -> dict[str, float]:
    """Making a store: what `labels` does besides CLIP, on one process."""
    scene, path = folder / "scene.png", folder / "s.zarr"
    write_png(scene, np.zeros((*IMAGE, 3), np.uint8))
    samples = a_split(images, scene)
    costs = {"headers, s": seconds(lambda: image_sizes(samples))}
    with patch.object(labelgen.generate, "image_sizes", lambda samples: {IMAGE}):
        costs["begin, s"] = seconds(lambda: labelled(samples, path, part=images, parts=images + 1))
    store = PseudoLabelStore.open(path, writable=True)
    costs["overhead a shard, ms"] = overhead_ms(samples, path)
    rng = np.random.default_rng(0)
    shards_of_images = [(rows, [an_image(samples[row], rng) for row in rows]) for rows in real_shards(images)]
    costs["write of a shard, ms"] = median_ms([partial(store.write_shard, *shard) for shard in shards_of_images])
    copy_small_files(store, {rows.start // SHARD for rows in real_shards(images)})
    costs["resume, s"] = seconds(lambda: labelled(samples, path))
    return costs | {"peak of labelling, GiB": peak_gib()}


def an_image(sample: Sample, rng: np.random.Generator) -> ImageLogits:
    """Random logits in the shapes of a toy scene's."""

    def logits(h: int, w: int) -> Any:
        return rng.standard_normal((CLASSES, h, w)).astype(np.float32)

    views = [LocalView((0, x, 160, x + 80), 1.0, logits(20, 10)) for x in (0, 60, 120, 180, 240)]
    return ImageLogits(sample["image_id"], IMAGE, sample["image_labels"] or [], [logits(20, 40)], views)


def copy_small_files(store: PseudoLabelStore, real: set[int]) -> None:
    """Tables and markers of a written shard for all that are not written."""
    for name, rest in BY_SHARD.items():
        folder = Path(store.path) / name
        for shard in set(range(len(store.shards()))) - real:
            os.link(folder / f"c.{min(real)}{rest}", folder / f"c.{shard}{rest}")


def read_side(images: int, folder: Path) -> dict[str, float]:
    """Reading it at random, as a loader process does."""
    ids = [f"drive_{row // 1000:04d}_{row:07d}" for rows in real_shards(images) for row in rows]
    first, *others = (ids[i] for i in np.random.default_rng(1).permutation(len(ids)))
    opened: list[PseudoLabelStore] = []

    def read(*image_ids: str) -> None:
        for image_id in image_ids:
            for read_part in ("size", "labels_of", "global_logits", "local_views"):
                getattr(opened[0], read_part)(image_id)

    def open_and_read() -> None:
        opened.append(PseudoLabelStore.open(folder / "s.zarr"))
        read(first)

    costs = {"open and first read, ms": seconds(open_and_read) * 1e3}
    costs["any other read, ms"] = seconds(lambda: read(*others)) / len(others) * 1e3
    epochs = [Order(images, BATCH, seed) for seed in range(6)]  # of which nothing is known yet
    costs["order of an epoch's first step, ms"] = median_ms([partial(epoch.places, 0) for epoch in epochs[1:]])
    steps = range(images // BATCH)
    costs["order of a step, ms"] = seconds(lambda: [epochs[0].places(step) for step in steps]) / len(steps) * 1e3
    costs["peak of reading, GiB"] = peak_gib()
    samples = a_split(images, folder / "scene.png")
    costs["samples to a loader process, s"] = seconds(lambda: ForkingPickler.loads(ForkingPickler.dumps(samples)))
    costs["missing(all), s"] = seconds(lambda: opened[0].missing(opened[0].image_ids))
    return costs


def in_a_process(side: Callable[[int, Path], dict[str, float]], images: int, folder: Path) -> dict[str, float]:
    """Of its own, so that memory is counted from nothing."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(side, (images, folder))


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="no more than 10,000 images, to see that it runs")
    sizes = [size for size in SIZES if size <= 10_000 or not parser.parse_args().quick]
    print(f"# Growth, {CLASSES} classes, {SHARD} images a shard\n")
    rows: dict[str, list[float]] = {}
    for images in sizes:
        with tempfile.TemporaryDirectory() as folder:
            for side in (label_side, read_side):
                for name, cost in in_a_process(side, images, Path(folder)).items():
                    rows.setdefault(name, []).append(cost)
    print("| images | " + " | ".join(f"{size:,}" for size in sizes) + " |\n|---|" + "---|" * len(sizes))
    for name, costs in rows.items():
        print(f"| {name} | " + " | ".join(f"{cost:.3g}" for cost in costs) + " |")


if __name__ == "__main__":
    main()
