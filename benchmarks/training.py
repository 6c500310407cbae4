"""What a training step is made of, and how fast samples come: the toy preset, and a ResNet-50 at CamVid's size.

Weights are random, images and logits made up. Prints Markdown; compare shares between machines, not seconds.
Run by `make bench`; `--device cuda` where there is a GPU.
"""

import argparse
import contextlib
import gc
import itertools
import math
import os
import resource
import tempfile
import time
import warnings
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from benchmarks.devices import DEVICES, device_named
from benchmarks.labels import EMBEDDING, GLOBAL, LOCAL, PATCH, vit_b16
from labelgen.images import resize_image, write_png
from labelgen.layout import StoreLayout
from labelgen.maskclip import DenseCLIP
from labelgen.samples import Sample
from labelgen.store import ImageLogits, LocalView, PseudoLabelStore
from labelgen.training.order import Order
from labelgen.training.processes import make_accelerator
from labelgen.views import View, ViewConfig, largest_local, local_views
from pipeline.commands.options import quiet_libraries
from pipeline.datasets.classes import CAMVID_CLASSES
from pipeline.toy.scenes import driving_scene
from segtrain.augment import AugmentConfig
from segtrain.batch import augment
from segtrain.config import TrainConfig
from segtrain.data import PseudoLabelledImages, Views, batches, each
from segtrain.model import StudentConfig, build_student
from segtrain.online import OnlineLabels
from segtrain.trainer import Trainer

CLASSES = len(CAMVID_CLASSES)
WARM_UP = 2  # steps
MOST_LOADERS = 16  # processes; more take long to start
PARTS = ("waiting for data", "augmentation", "CLIP", "forward", "loss", "backward", "optimizer")


@dataclass(frozen=True)
class Case:
    """One size of everything."""

    name: str
    size: tuple[int, int]
    augment: AugmentConfig
    views: ViewConfig
    student: StudentConfig
    train: TrainConfig


def cases(batch: int) -> list[Case]:
    """The toy preset, and a ResNet-50 at CamVid's size."""
    base = TrainConfig(steps=1000, warmup_steps=0, workers=0)
    return [
        Case(
            "light, 160 x 320",
            (160, 320),
            AugmentConfig(crop_height=160, crop_width=320, scales=(1.0, 1.0), photometric=0.2),
            ViewConfig(local_height=160, local_width=80, local_zooms=(1.0, 1.0), zoom_levels=1),
            StudentConfig(),
            replace(base, batch=4, queue=100, optimizer="adamw", learning_rate=0.003, loss_stride=2),
        ),
        Case(
            "ResNet-50, {} x {}".format(*GLOBAL),
            GLOBAL,
            AugmentConfig(crop_height=GLOBAL[0], crop_width=GLOBAL[1], scales=(1.0, 2.0)),
            ViewConfig(local_height=LOCAL[0], local_width=LOCAL[1], local_zooms=(1.0, 2.0)),
            StudentConfig(backbone="resnet50"),
            replace(base, batch=batch),
        ),
    ]


def make_store(folder: Path, case: Case, images: int) -> list[Sample]:
    """Images, and a store of random logits of their shapes."""
    rng = np.random.default_rng(0)
    samples: list[Sample] = []
    folder.mkdir()
    for i in range(images):
        path = folder / f"{i}.png"
        write_png(path, resize_image(driving_scene(i)[0], *case.size))
        present = list(range(CLASSES))
        samples.append({"image_id": str(i), "image_path": str(path), "label_path": None, "image_labels": present})
    ids = [sample["image_id"] for sample in samples]
    views = {i: local_views(case.views, i, *case.size) for i in ids}
    count = max(map(len, views.values()))
    vectors = np.linalg.qr(rng.standard_normal((EMBEDDING, CLASSES)))[0].T.astype(np.float32)
    grid = View((0, 0, *case.size), 1.0).grid(PATCH)
    largest = largest_local(case.views, *case.size).grid(PATCH)
    layout = StoreLayout(ids, vectors, [grid], largest, count, images_per_shard=4)
    classes = {"names": list(CAMVID_CLASSES.names)}
    store = PseudoLabelStore.create(folder / "s.zarr", layout, {"classes": classes, "clip": {"patch_px": PATCH}})

    def logits(h: int, w: int) -> NDArray[np.float32]:
        return rng.standard_normal((CLASSES, h, w)).astype(np.float32)

    def image(image_id: str) -> ImageLogits:
        seen = [LocalView(view.box, view.zoom, logits(*view.grid(PATCH))) for view in views[image_id]]
        return ImageLogits(image_id, case.size, list(range(CLASSES)), [logits(*grid)], seen)

    for rows in store.shards():
        store.write_shard(rows, [image(ids[row]) for row in rows])
    return samples


def dataset(samples: Sequence[Sample], store: Path, case: Case, views: Views) -> PseudoLabelledImages:
    """Training samples as `train` loads them."""
    stride = case.train.loss_stride
    return PseudoLabelledImages(samples, store, case.augment, seed=0, views=views, loss_stride=stride, dual=case.views)


class Stopwatch:
    """Seconds by name, spent in functions it was given; what the device does for them included."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    def __call__(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def timed(*arguments: Any, **named: Any) -> Any:
            wait_for(self.device)
            started = time.perf_counter()
            result = function(*arguments, **named)
            wait_for(self.device)
            self.seconds[name] += time.perf_counter() - started
            return result

        return timed


def accelerator_on(device: str) -> Accelerator:
    """The processes, the device (cpu or cuda) and the precision of `train`."""
    return Accelerator(cpu=True) if device == "cpu" else make_accelerator()


class Run:
    """The loop of `segtrain.train`, without its log, checkpoints and signals. To be closed."""

    def __init__(
        self,
        accelerator: Accelerator,
        samples: Sequence[Sample],
        store: Path,
        case: Case,
        views: Views,
        workers: int,
    ) -> None:
        self.device, self.batch = accelerator.device, case.train.batch
        text_CD = torch.from_numpy(PseudoLabelStore.open(store).text_vectors)
        student = build_student(case.student, CAMVID_CLASSES, text_CD)
        self.trainer = Trainer(student, replace(case.train, views=views), accelerator)
        self.trainer.student.train()
        clip = DenseCLIP(vit_b16()).to(self.device) if views == "dual" else None
        self.relabel = OnlineLabels(clip, text_CD, case.train.loss_stride).relabel if clip else lambda batch: batch
        loader = batches(
            dataset(samples, store, case, views),
            Order(len(samples), self.batch, 0),
            0,
            case.train.steps,
            workers=workers,
            rank=accelerator.process_index,
            ranks=accelerator.num_processes,
        )
        self.coming, self.ahead = each(loader), batches_ahead(workers)

    def close(self) -> None:
        """Loader processes end, and accelerate forgets the student, of which it keeps every one."""
        self.coming.close()
        self.trainer.accelerator.free_memory()

    def warm_up(self) -> None:
        """Until nothing is at hand that was loaded while nobody trained."""
        self.steps(WARM_UP + self.ahead)

    def steps(self, count: int, watch: Stopwatch | None = None) -> float:
        """Seconds of the next steps; the watch is told of their parts."""
        trainer = self.trainer
        following: Callable[..., Any] = partial(next, self.coming)
        put, relabel = augment, self.relabel
        with contextlib.ExitStack() as undo:
            if watch is not None:
                following, put, relabel = (
                    watch(name, part) for name, part in zip(PARTS, (following, put, relabel), strict=False)
                )
                for owner, name, part in (
                    (trainer.student, "forward", "forward"),
                    (trainer, "loss", "loss"),
                    (trainer.accelerator, "backward", "backward"),
                    (trainer.optimizer, "step", "optimizer"),
                ):
                    undo.enter_context(patch.object(owner, name, watch(part, getattr(owner, name))))
            wait_for(self.device)
            started = time.perf_counter()
            for _ in range(count):
                trainer.train_step(relabel(put(following(), self.device)))
            trainer.check()
            wait_for(self.device)
            return time.perf_counter() - started


def step_row(run: Run, name: str, count: int) -> None:
    """What a step is made of, its rate when nobody measures the parts, and how busy a GPU is."""
    watch, is_gpu = Stopwatch(run.device), run.device.type == "cuda"
    reset_peak(run.device)
    run.warm_up()
    total = free = run.steps(count, watch)
    busy = waits = "-"
    if is_gpu:
        run.warm_up()
        free = run.steps(count)
        busy, waits = f"{device_seconds(run, count) / free:.0%}", f"{gpu_waits(run, count) / count:.1f}"
    watch.seconds["loss"] -= watch.seconds["forward"]
    shares = [watch.seconds[part] / total for part in PARTS]
    cells = [f"{count / free:.3g}", f"{count * run.batch / free:.3g}"]
    cells += [f"{share:.1%}" for share in [*shares, 1 - sum(shares)]]
    print(f"| {name} | {' | '.join(cells)} | {peak_gib(run.device):.1f} GiB | {busy} | {waits} |", flush=True)


def device_seconds(run: Run, count: int) -> float:
    """How long the device computes or copies in so many steps; at once counts once. On a CPU: in torch's operators."""
    from torch.profiler import ProfilerActivity, profile

    kind = run.device.type.upper()
    with profile(activities=[ProfilerActivity.__members__[kind]]) as profiled:
        run.steps(count)
    return 1e-6 * covered(
        (event.time_range.start, event.time_range.end)
        for event in profiled.events() or ()
        # An annotation is a name for what the device does, and for its waiting in between.
        if event.device_type.name == kind and not event.is_user_annotation
    )


def covered(ranges: Iterable[tuple[float, float]]) -> float:
    """Length of what lies in any of the ranges."""
    total, until = 0.0, -math.inf
    for start, end in sorted(ranges):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def gpu_waits(run: Run, count: int) -> int:
    """How often the CPU waits for the GPU in so many steps, as far as torch tells."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")  # which warns of itself, too
        try:
            run.steps(count)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(warning.message) for warning in told)


def loader_table(samples: Sequence[Sample], store: Path, case: Case, count: int, processes: Sequence[int]) -> None:
    """Samples per second of one core of loader work, and of loader processes when nobody holds them up."""
    data, order = dataset(samples, store, case, "local"), Order(len(samples), 4, 0)
    cv2.setNumThreads(1)
    [data[place] for place in order.places(0)]
    started = time.process_time()  # of all threads; zarr has one of its own
    for step in range(1, count + 1):
        [data[place] for place in order.places(step)]
    rate = 4 * count / (time.process_time() - started)
    print(f"{case.name}: {rate:.1f} samples/s per core of loader work; ", end="")
    print(f"{100 / rate:.1f} cores feed 100 samples/s, {500 / rate:.1f} feed 500")
    print("\n| loader processes | samples/s |\n|---|---|")
    for workers in processes:
        idle, steps = WARM_UP + batches_ahead(workers), count * max(1, workers)
        loader = batches(data, order, 0, idle + steps, workers=workers, rank=0, ranks=1)
        with contextlib.closing(each(loader)) as coming:
            deque(itertools.islice(coming, idle), maxlen=0)  # starting the processes is paid once
            started = time.perf_counter()
            deque(itertools.islice(coming, steps), maxlen=0)
            print(f"| {workers} | {4 * steps / (time.perf_counter() - started):.1f} |")


def batches_ahead(workers: int) -> int:
    """How many batches a loader has ready at most while nobody asks: two a process."""
    return 2 * workers


def wait_for(device: torch.device) -> None:
    """Until all that was asked of a device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    """What others have left goes, and the largest memory of a GPU is counted from here; that of a process cannot be."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: torch.device) -> float:
    """Largest memory so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one repeat of everything, to see that it runs")
    parser.add_argument("--batch", type=int, help="images a step of the ResNet-50 (default: 1 on a CPU, 8 on a GPU)")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--loader-only", action="store_true", help="only how fast samples come")
    options = parser.parse_args()
    accelerator = accelerator_on(device_named(options.device))
    quiet_libraries()
    torch.manual_seed(0)
    is_gpu, cores = accelerator.device.type == "cuda", len(os.sched_getaffinity(0))
    print(f"# Training: {accelerator.device}, precision {accelerator.mixed_precision}, {cores} cores\n")
    light, resnet = cases(options.batch or (8 if is_gpu else 1))
    rows: list[tuple[Case, Views, int]] = [(light, "local", 20), (resnet, "local", 3), (resnet, "dual", 3)]
    with tempfile.TemporaryDirectory() as root:
        folders = {case.name: Path(root) / case.name for case in (light, resnet)}
        samples = {case.name: make_store(folders[case.name], case, 8) for case in (light, resnet)}
        loaders = min(cores - 1, MOST_LOADERS)
        processes = sorted({0, 1, 2, *([loaders // 2, loaders] if is_gpu else [])})
        store = folders[resnet.name] / "s.zarr"
        loader_table(samples[resnet.name], store, resnet, 2 if options.quick else 10, processes)
        if options.loader_only:
            return
        titles = ("student", "views", "steps/s", "samples/s", *PARTS, "rest", "peak memory", "GPU busy", "GPU waits")
        print(f"\n| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
        for case, views, count in rows:
            steps = 1 if options.quick else 50 if is_gpu else count
            store, workers = folders[case.name] / "s.zarr", loaders if is_gpu else 0
            with contextlib.closing(Run(accelerator, samples[case.name], store, case, views, workers)) as run:
                step_row(run, f"{case.name}, {case.train.batch} a step | {views}", steps)
            del run  # or its student would live until the next has been made


if __name__ == "__main__":
    main()
