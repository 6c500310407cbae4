"""How fast pseudo-labels are made, stored and read, at true ViT-B/16 size with random weights.

Prints Markdown. Every rate stands beside the machine's own matrix-product rate, measured in the same run: compare the
ratios, not the seconds, between machines. Run by `make bench`.
"""

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.devices import DEVICES, device_named
from labelgen.codec import PRECISIONS, Precision
from labelgen.generate import LabelConfig, generate, load_clip
from labelgen.images import resize_image, resize_logits, write_png
from labelgen.label import MOST_VIEWS, Labeller
from labelgen.layout import StoreLayout
from labelgen.maskclip import DenseCLIP
from labelgen.probe import name_of
from labelgen.samples import Sample
from labelgen.store import ImageLogits, LocalView, PseudoLabelStore
from labelgen.views import ViewConfig
from pipeline.commands.doctor import matmul_gflops
from pipeline.commands.options import quiet_libraries
from pipeline.datasets.classes import CAMVID_CLASSES
from pipeline.stages.run import TINY_CLIP
from pipeline.toy.scenes import driving_scene

WIDTH, BLOCKS, EMBEDDING, PATCH = 768, 12, 512, 16
Shape = tuple[int, int, int]
GLOBAL, LOCAL = (720, 960), (512, 256)
A_SHARD = 16  # images, on a GPU
PRODUCT = 2048  # side of the matrices whose product's rate is the measure; a GPU's are larger
EMULATED = 2.0  # GFLOP/s; no CPU that computes in a type is so slow


def vit_b16() -> Any:
    """CLIP ViT-B/16 with random weights."""
    from transformers import CLIPConfig, CLIPModel

    vision = {"patch_size": PATCH, "hidden_size": WIDTH, "num_hidden_layers": BLOCKS}
    return CLIPModel(CLIPConfig(vision_config=vision, projection_dim=EMBEDDING))


class WordlessCLIP(DenseCLIP):
    """DenseCLIP that needs no tokenizer: every sentence is a random vector."""

    def encode_sentences(self, sentences: list[str]) -> Tensor:
        """Unit vectors (P, D), on the CPU."""
        vectors_PD = torch.randn(len(sentences), EMBEDDING, generator=torch.Generator().manual_seed(0))
        return torch.nn.functional.normalize(vectors_PD, dim=-1)


class TimedCLIP(WordlessCLIP):
    """DenseCLIP that knows how long its views took; nobody waits for a GPU to be told."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.spans: list[tuple[Any, Any]] = []  # moments
        self.began = 0.0  # seconds, with the first of them

    def logits(self, pixels_B3HW: Tensor, text_CD: Tensor) -> Tensor:
        """As DenseCLIP."""
        self.began = self.began if self.spans else time.perf_counter()
        started = moment(self.device)
        logits_BChw = super().logits(pixels_B3HW, text_CD)
        self.spans.append((started, moment(self.device)))
        return logits_BChw


def moment(device: torch.device) -> Any:
    """Now: seconds; of a GPU an event, which is when it has done what it was asked before."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def between(started: Any, ended: Any) -> float:
    """Seconds from one moment to another, on a GPU that has nothing left to do."""
    return float(started.elapsed_time(ended) / 1e3 if isinstance(started, torch.cuda.Event) else ended - started)


def flops(height: int, width: int) -> float:
    """Of one view in MaskCLIP mode: matrix products only, 2 per multiply-add."""
    patches = height * width // PATCH**2
    tokens = patches + 1
    projections, mlp = 8 * tokens * WIDTH**2, 16 * tokens * WIDTH**2
    attention = 4 * tokens**2 * WIDTH
    last = 4 * tokens * WIDTH**2 + mlp  # values and output only, no attention
    embedding = 2 * patches * 3 * PATCH**2 * WIDTH + 2 * patches * WIDTH * EMBEDDING
    return (BLOCKS - 1) * (projections + mlp + attention) + last + embedding


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median, after one call to warm up."""
    call()
    return statistics.median(_timed(call) for _ in range(repeats))


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def speed_of_clip(device: str, dtypes: list[torch.dtype], repeats: int) -> None:
    """Views per second and their share of the matrix-product rate."""
    print("| view | type | views/s | GFLOP/s | matrix product GFLOP/s | ratio |\n|---|---|---|---|---|---|")
    text_CD = torch.nn.functional.normalize(torch.randn(11, EMBEDDING), dim=-1).to(device)
    for dtype in dtypes:
        if matmul_gflops(dtype, device) < EMULATED:
            print(f"| {name_of(dtype)} is not measured: this CPU has no instructions for it | | | | | |")
            continue
        dense = DenseCLIP(vit_b16()).to(device)
        dense.compute_in(dtype)
        for (height, width), most in ((GLOBAL, 1 if device == "cpu" else A_SHARD), (LOCAL, MOST_VIEWS)):
            batch = min(most, Labeller(dense).views_at_once(height, width))
            pixels = torch.randn(batch, 3, height, width, device=device)
            peak = peak_gflops(dtype, device)
            taken = seconds(lambda d=dense, p=pixels: d.logits(p, text_CD).cpu(), repeats) / batch  # type: ignore[misc]
            rate = flops(height, width) / taken / 1e9
            row = (f"{height} x {width}, batch {batch}", name_of(dtype), f"{1 / taken:.2f}", f"{rate:.0f}")
            print("| " + " | ".join(row) + f" | {peak:.0f} | {rate / peak:.0%} |")


def peak_gflops(dtype: torch.dtype, device: str) -> float:
    """The rate of matrix products that are large enough for the device."""
    return matmul_gflops(dtype, device, size=PRODUCT if device == "cpu" else 4 * PRODUCT)


def labelling_run(device: str, dtype: torch.dtype, images: int, a_shard: int) -> None:
    """A whole run at 720 x 960 with the paper's local views: images/s, and what reading, cutting, writing cost.

    Set-up (hashing the weights, the first reads) is paid once and left out: the clock starts with the first view, after
    a run on one image that warms up.
    """
    with tempfile.TemporaryDirectory() as folder:
        samples: list[Sample] = []
        for i in range(images):
            path = Path(folder) / f"{i}.png"
            write_png(path, resize_image(driving_scene(i)[0], *GLOBAL))
            samples.append({"image_id": str(i), "image_path": str(path), "label_path": None, "image_labels": [0]})
        views = ViewConfig(local_height=LOCAL[0], local_width=LOCAL[1], local_zooms=(1.0, 1.0), zoom_levels=1)
        config = LabelConfig(images_per_shard=a_shard, views=views)
        dense = TimedCLIP(vit_b16()).to(device)
        dense.compute_in(dtype)
        generate(samples[:1], CAMVID_CLASSES, dense, f"{folder}/warm.zarr", config, about={})
        dense.spans.clear()
        store = generate(samples, CAMVID_CLASSES, dense, f"{folder}/s.zarr", config, about={})
        total = time.perf_counter() - dense.began
        inside = sum(between(*span) for span in dense.spans)
        count = len(store.local_views("0"))
    rate = images * (flops(*GLOBAL) + count * flops(*LOCAL)) / total / 1e9 / peak_gflops(dtype, device)
    print(f"\n{images} images in {name_of(dtype)}, each 1 global and {count} local views: ", end="")
    print(f"{images / total:.2f} images/s, {rate:.0%} of the matrix-product rate, ", end="")
    print(f"{1 - inside / total:.1%} of the time outside CLIP, {peak_gib(device):.1f} GiB at most")


def peak_gib(device: str) -> float:
    """Largest memory so far: of the GPU, or of this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def speed_of_store(images: int) -> None:
    """Write and read rates, and bytes per image, of logits as CamVid and Cityscapes have them."""
    print("\n| store | precision | bytes/image | write MB/s | images/s | one image's global logits, at random |")
    print("|---|---|---|---|---|---|")
    for name, whole, local, views in (
        ("CamVid 720 x 960", (11, 45, 60), (11, 32, 16), 10),
        ("Cityscapes", (19, 64, 128), (19, 48, 24), 24),
    ):
        for precision in PRECISIONS:
            print(
                f"| {name} | {precision} | " + " | ".join(_store_rates(images, whole, local, views, precision)) + " |"
            )


def _store_rates(images: int, whole: Shape, local: Shape, views: int, precision: Precision) -> list[str]:
    rng = np.random.default_rng(0)

    def smooth(shape: Shape) -> NDArray[np.float32]:
        """As CLIP's logits are: near 0.2, a few hundredths apart, alike between neighbours."""
        coarse = rng.standard_normal((shape[0], shape[1] // 4 + 1, shape[2] // 4 + 1)) * 0.03 + 0.2
        fine = resize_logits(coarse.astype(np.float32), *shape[1:])
        return np.asarray(fine + rng.standard_normal(shape) * 0.003, np.float32)

    def image(image_id: str) -> ImageLogits:
        locals_ = [LocalView((0, 0, GLOBAL[0] // 2, GLOBAL[1] // 2), 1.0, smooth(local)) for _ in range(views)]
        return ImageLogits(image_id, GLOBAL, [0], [smooth(whole)], locals_)

    ids = [str(i) for i in range(images)]
    vectors = np.eye(whole[0], EMBEDDING, dtype=np.float32)
    layout = StoreLayout(ids, vectors, [whole[1:]], local[1:], views, precision=precision)
    with tempfile.TemporaryDirectory() as folder:
        classes = {"names": [str(c) for c in range(whole[0])]}
        store = PseudoLabelStore.create(f"{folder}/s.zarr", layout, {"classes": classes})
        shards = [[image(ids[row]) for row in rows] for rows in store.shards()]
        started = time.perf_counter()
        for rows, shard in zip(store.shards(), shards, strict=True):
            store.write_shard(rows, shard)
        taken = time.perf_counter() - started
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        reader = PseudoLabelStore.open(f"{folder}/s.zarr")
        order = [ids[i] for i in rng.permutation(images)]
        reading = statistics.median(_timed(partial(reader.global_logits, image_id)) for image_id in order)
    rates = (f"{size / taken / 1e6:.0f}", f"{images / taken:.0f}", f"{1e3 * reading:.1f} ms")
    return [f"{size / images:,.0f}", *rates]


def agreement(device: str, images: int) -> None:
    """Share of pixels that keep their class with fewer bits in CLIP or in the store: tiny CLIP, toy scenes."""
    with tempfile.TemporaryDirectory() as folder:
        samples: list[Sample] = []
        for i in range(images):
            scene, truth, *_ = driving_scene([9, i])
            path = Path(folder) / f"{i}.png"
            write_png(path, scene)
            shown: list[int] = np.unique(truth).tolist()
            samples.append({"image_id": str(i), "image_path": str(path), "label_path": None, "image_labels": shown})
        views = ViewConfig(local_height=160, local_width=80, local_zooms=(1.0, 1.0), zoom_levels=1)
        exact = LabelConfig(dtype="float32", views=views)
        coarser = {
            "bfloat16 in CLIP": replace(exact, dtype="bfloat16"),
            "int8 in the store": replace(exact, precision="int8"),
        }
        stores = {}
        for name, config in {"exact": exact, **coarser}.items():
            dense = load_clip(TINY_CLIP, config, device)
            stores[name] = generate(samples, CAMVID_CLASSES, dense, f"{folder}/{name}.zarr", config, about={})
        print("\n| against float32 in CLIP, float16 in the store | same class |\n|---|---|")
        for name in coarser:
            same = [stores["exact"].mask(i) == stores[name].mask(i) for i in stores["exact"].image_ids]
            print(f"| {name} | {np.mean(same):.2%} of pixels |")


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one repeat of everything, to see that it runs")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    options = parser.parse_args()
    quick, device = options.quick, device_named(options.device)
    quiet_libraries()
    torch.manual_seed(0)
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"# Pseudo-labels, ViT-B/16 with random weights, {name}\n")
    speed_of_clip(device, [torch.float32, torch.bfloat16], 1 if quick else 7)
    if device == "cuda":
        for dtype in (torch.float32, torch.bfloat16):
            torch.cuda.reset_peak_memory_stats()
            labelling_run(device, dtype, (2 if quick else 20) * A_SHARD, A_SHARD)
    else:
        labelling_run(device, torch.float32, 3 if quick else 8, 1)
    speed_of_store(16 if quick else 128)
    agreement(device, 2 if quick else 20)


if __name__ == "__main__":
    main()
