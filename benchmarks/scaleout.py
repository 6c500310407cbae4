"""How much faster N processes are than one, labelling and training: on one core each, or one GPU each.

Starts itself twice through accelerate (docs/many-gpus.md), in one process and in N. They share the same work and
measure it from barrier to barrier, once all are warm. CPU time tells what sharing costs, whatever else the machine is
doing: who waits for others uses none. Prints Markdown. Run by `make bench`.
"""

import argparse
import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import cv2
import torch
from accelerate import Accelerator

import labelgen.generate
from benchmarks.devices import DEVICES, device_named
from benchmarks.labels import GLOBAL, LOCAL, TimedCLIP, vit_b16
from benchmarks.training import MOST_LOADERS, Case, Run, accelerator_on, cases, make_store, wait_for
from labelgen.generate import LabelConfig, generate, load_clip, weights_hash
from labelgen.images import resize_image, write_png
from labelgen.samples import Sample
from labelgen.views import ViewConfig
from pipeline.commands.doctor import matmul_gflops
from pipeline.commands.options import quiet_libraries
from pipeline.datasets.classes import CAMVID_CLASSES
from pipeline.stages.run import TINY_CLIP
from pipeline.toy.scenes import driving_scene

# Without --multi_gpu accelerate starts one process only on a machine without GPUs.
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no"]
LAUNCH += ["--dynamo_backend", "no", "--main_process_port", "0"]
FILES = 8  # images that differ
BATCH = 8  # of a training step
AIMS = ("1.9", "1.8", "-", "-")  # times as fast with two processes, of each row


class Work(NamedTuple):
    """What there is to do for each of N processes: shards of images to label, training steps."""

    size: tuple[int, int]
    local: tuple[int, int]
    images_per_shard: int
    shards: int
    steps: int


class Cost(NamedTuple):
    """Of some work: how much of it is done in a second, and CPU time for one image, over all processes."""

    rate: float
    cpu_ms: float | None = None


def work_on(device: str, quick: bool) -> Work:
    """Less than half a minute of labels for one core or GPU."""
    if quick:
        return Work((160, 320), (160, 80), images_per_shard=1, shards=1, steps=2)
    if device == "cpu":  # SegNet's copy of CamVid, with views of half the paper's size
        return Work((360, 480), (256, 128), images_per_shard=2, shards=2, steps=20)
    return Work(GLOBAL, LOCAL, images_per_shard=16, shards=8, steps=50)


def measure(folder: Path, work: Work, device: str, most: int, quick: bool) -> None:
    """What one of some processes does. `most`: processes that there will be at most, among which the work is split."""
    if device == "cpu":
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(os.environ.get("LOCAL_RANK", "0")) % len(cores)]})
        cv2.setNumThreads(1)
    accelerator = accelerator_on(device)
    quiet_libraries()
    torch.manual_seed(0)
    title = "labels, {}, {} x {}: images/s".format("tiny CLIP" if quick else "ViT-B/16", *work.size)
    costs = {title: labels(accelerator, folder, work, most, quick)}
    strong, weak = most * max(1, BATCH // most), BATCH * accelerator.num_processes
    for title, batch in ((f"{strong} a step", strong), (f"{BATCH} a step in each process", weak)):
        case = training_case(device, batch)
        costs[f"training, {case.name}, {title}: samples/s"] = training(accelerator, folder, case, work.steps, most)
    accelerator.wait_for_everyone()
    rate = torch.tensor(matmul_gflops(torch.float32, device), device=accelerator.device)
    costs["matrix products, float32: GFLOP/s"] = Cost(accelerator.reduce(rate).item())
    if accelerator.is_main_process:
        results_of(folder, accelerator.num_processes).write_text(json.dumps(costs))
    accelerator.end_training()


def labels(accelerator: Accelerator, folder: Path, work: Work, most: int, quick: bool) -> Cost:
    """Of `generate`, each process with its own shards of one store."""
    rank, ranks = accelerator.process_index, accelerator.num_processes
    config = LabelConfig(
        images_per_shard=work.images_per_shard,
        views=ViewConfig(local_height=work.local[0], local_width=work.local[1], local_zooms=(1.0, 1.0), zoom_levels=1),
    )
    dense = load_clip(TINY_CLIP, config, accelerator.device) if quick else TimedCLIP(vit_b16()).to(accelerator.device)
    samples = samples_of(folder / "images", work.images_per_shard * work.shards * most)

    def make(some: list[Sample], name: str, part: int, parts: int) -> None:
        generate(some, CAMVID_CLASSES, dense, folder / name, config, about={}, part=part, parts=parts)

    # A process hashes CLIP's weights once, however many images it labels: that is no part of what is measured.
    with patch.object(labelgen.generate, "weights_hash", functools.cache(weights_hash)):
        make(samples[: work.images_per_shard], f"warm-up-{ranks}-{rank}.zarr", 0, 1)
        return cost(accelerator, len(samples), lambda: make(samples, f"labels-{ranks}.zarr", rank, ranks))


def training(accelerator: Accelerator, folder: Path, case: Case, steps: int, most: int) -> Cost:
    """Of training steps, each process with its share of every batch and of the cores."""
    cores = len(os.sched_getaffinity(0)) // most
    workers = 0 if accelerator.device.type == "cpu" else max(1, min(cores - 1, MOST_LOADERS))
    samples, store = samples_of(folder / "train", FILES), folder / "train" / "s.zarr"
    with contextlib.closing(Run(accelerator, samples, store, case, "local", workers)) as run:
        run.warm_up()
        return cost(accelerator, steps * case.train.batch, lambda: run.steps(steps))


def training_case(device: str, batch: int) -> Case:
    """The toy preset on CPUs, a ResNet-50 on GPUs."""
    light, resnet = cases(batch)
    return replace(light, train=replace(light.train, batch=batch)) if device == "cpu" else resnet


def cost(accelerator: Accelerator, images: int, work: Callable[[], object]) -> Cost:
    """Of work that all processes begin together, until the last is done."""
    accelerator.wait_for_everyone()
    started, cpu_started = time.perf_counter(), time.process_time()
    work()
    wait_for(accelerator.device)
    accelerator.wait_for_everyone()
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    cpu_of_all: float = accelerator.reduce(torch.tensor(cpu, device=accelerator.device)).item()
    return Cost(images / elapsed, 1e3 * cpu_of_all / images)


def samples_of(folder: Path, images: int) -> list[Sample]:
    """So many images, of FILES files, that show all classes."""
    present = list(range(len(CAMVID_CLASSES)))
    return [
        {
            "image_id": str(i),
            "image_path": str(folder / f"{i % FILES}.png"),
            "label_path": None,
            "image_labels": present,
        }
        for i in range(images)
    ]


def prepare(folder: Path, work: Work, device: str) -> None:
    """What the processes share: images to label, a store to train on."""
    (folder / "images").mkdir()
    for i in range(FILES):
        write_png(folder / "images" / f"{i}.png", resize_image(driving_scene(i)[0], *work.size))
    make_store(folder / "train", training_case(device, BATCH), FILES)


def results_of(folder: Path, processes: int) -> Path:
    """Where the main process of so many leaves what they have measured."""
    return folder / f"{processes}.json"


def launch(processes: int, folder: Path, arguments: list[str]) -> dict[str, Cost]:
    """What so many processes measure."""
    line = [sys.executable, *([*LAUNCH, "--num_processes", str(processes)] if processes > 1 else [])]
    line += ["-m", "benchmarks.scaleout", "--folder", str(folder), *arguments]
    # More threads would be too many for one core, and idle beside a GPU.
    if subprocess.run(line, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False).returncode:
        sys.exit(f"Error: measuring in {processes} processes failed, for the reason above")
    return {title: Cost(*cost) for title, cost in json.loads(results_of(folder, processes).read_text()).items()}


def table(results: dict[int, dict[str, Cost]]) -> str:
    """A row for each kind of work, from what each number of processes has measured."""
    counts = [f"{processes} process{'es' if processes > 1 else ''}" for processes in results]
    titles = ["", *counts, "times", "aim of two", *(f"CPU ms an image, {count}" for count in counts)]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    first, last = results[1], results[max(results)]
    for title, aim in zip(first, AIMS, strict=True):
        costs = [measured[title] for measured in results.values()]
        cells = [f"{cost.rate:.3g}" for cost in costs]
        cells += [f"{last[title].rate / first[title].rate:.2f}", aim]
        cells += ["-" if cost.cpu_ms is None else f"{cost.cpu_ms:.0f}" for cost in costs]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """The table; or, in a process that it starts, what belongs in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, help="N (default: 2 on a CPU, else as many as there are GPUs)")
    parser.add_argument("--quick", action="store_true", help="tiny CLIP, two steps, to see that it runs")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # in a process that this one starts
    options = parser.parse_args()
    if options.folder is not None:
        work = work_on(options.device, options.quick)
        measure(options.folder, work, options.device, options.processes, options.quick)
        return
    device = device_named(options.device)
    most = options.processes or (2 if device == "cpu" else torch.cuda.device_count())
    arguments = ["--device", device, "--processes", str(most), *(["--quick"] if options.quick else [])]
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), work_on(device, options.quick), device)
        results = {processes: launch(processes, Path(name), arguments) for processes in sorted({1, most})}
    share = "core" if device == "cpu" else torch.cuda.get_device_name()
    print(f"\n# Scale-out: one {share} for each process\n\n{table(results)}")


if __name__ == "__main__":
    main()
