"""Whether long runs stay as they begin: memory, open files, threads and processes of labels, train and evaluate.

Small images (32 x 64) and a small student, but many: each command runs as a user starts it, and is looked at from
outside, through /proc (Linux only). Prints Markdown: what each command held at 20 % and at 90 % of its work, what it
left behind, whether its progress ended at its total and how far its time left was off, and how large its logs became.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from labelgen.images import write_png
from pipeline.datasets.classes import CAMVID_CLASSES

SIZE, BLOCK = (32, 64), 8  # of an image, and of its blocks of one class, in pixels
SETTINGS = (
    *("labels.views.local_height=32", "labels.views.local_width=32", "augment.crop_height=32", "augment.crop_width=64"),
    *("train.batch=2", "train.workers=1", "train.checkpoint_every=1000", "train.diagnose_every=1000"),
    *("student.width=4", "student.aspp_channels=8"),
)
EARLY, LATE = 0.2, 0.9  # shares of the work between which nothing should grow
GRACE_S = 10.0  # that helpers of multiprocessing have to see that their command has ended
TITLES = (
    *("minutes", "MiB at 20 %", "at 90 %", "open files", "threads", "processes"),
    *("left behind", "progress", "time left off"),
)
BAR = re.compile(r"(\d+)/(\d+) \[([\d:]+)<([\d:]+)")  # tqdm's: done, total, time gone, time left


@dataclass(frozen=True)
class Look:
    """What all processes of a command hold at a time: seconds since it began, MiB of memory, counts."""

    at_s: float
    memory_mib: float  # pages that processes share are counted once
    files: float
    threads: float
    processes: float


@dataclass(frozen=True)
class Watched:
    """A command that has ended."""

    looks: list[Look]
    bars: list[tuple[float, int, int, float]]  # what its progress said: when, done, total, seconds left
    left: list[str]  # processes and temporary files that are still there

    def at(self, share: float) -> Look:
        """The median of the looks around a share of the work, between the first progress and the last."""
        starts, ends = self.bars[0][0], self.bars[-1][0]
        middle, around = starts + share * (ends - starts), 0.05 * (ends - starts)
        near = [look for look in self.looks if abs(look.at_s - middle) <= around] or self.looks[-1:]
        return Look(*(float(np.median([getattr(look, name) for look in near])) for name in Look.__annotations__))

    def time_left_off(self) -> float:
        """How far "elapsed + left", said half-way, is off what the work took, as a share of that."""
        starts, ends = self.bars[0][0], self.bars[-1][0]
        at_s, *_, left_s = min(self.bars, key=lambda bar: abs(bar[1] - bar[2] / 2))
        return (at_s + left_s - ends) / max(ends - starts, 1e-9)

    def progress_is_right(self) -> bool:
        """It never goes back, and ends at its total."""
        done = [count for _, count, *_ in self.bars]
        return all(a <= b for a, b in pairwise(done)) and done[-1] == self.bars[-1][2]


def main(arguments: Sequence[str] | None = None) -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=20_000, help="of training")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two looks")
    parser.add_argument("--plot", type=Path, default=Path("runs/longrun.png"))
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder, "data"), Path(folder, "out")
        write_images(root, options.images)
        run: tuple[str, ...] = ("--dataset", "toy", "--data-root", str(root), "--out", str(out))
        run += tuple(word for setting in SETTINGS for word in ("--set", setting))
        commands = {
            f"labels, {options.images:,} images": ("labels", *run),
            f"train, {options.steps:,} steps": ("train", *run, "--steps", str(options.steps)),
            f"evaluate, {options.images:,} images": ("evaluate", *run, "--split", "train"),
        }
        print("| | " + " | ".join(TITLES) + " |\n|---|" + "---|" * len(TITLES))
        watched: dict[str, Watched] = {}
        for name, words in commands.items():
            watched[name] = watch(words, Path(folder, "tmp"), options.every)
            print(f"| {name} | {' | '.join(cells(watched[name]))} |", flush=True)
            plot(watched, options.plot)
        print(f"\nlogs: {sizes_of_logs(out)}\n\nplot in {options.plot}")


def write_images(root: Path, count: int) -> None:
    """Blocks of the classes' colours, with noise, and their label maps, as toy scenes lie."""
    palette = np.array(CAMVID_CLASSES.palette, np.float32)
    for folder in ("train", "trainannot"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        blocks = rng.integers(0, len(palette), (SIZE[0] // BLOCK, SIZE[1] // BLOCK), np.uint8)
        ids_HW = np.kron(blocks, np.ones((BLOCK, BLOCK), np.uint8))
        image_HW3 = np.clip(palette[ids_HW] + rng.normal(0, 20, (*SIZE, 3)), 0, 255).astype(np.uint8)
        write_png(root / "train" / f"{number:06d}.png", image_HW3)
        write_png(root / "trainannot" / f"{number:06d}.png", ids_HW)


def watch(words: Sequence[str], temporary: Path, every_s: float) -> Watched:
    """Run carbseg with these words in a session of its own and look at it until it ends. Raises where it fails."""
    temporary.mkdir(exist_ok=True)
    errors = temporary.with_suffix(".stderr")
    cache = str(temporary.with_suffix(".cache"))  # torch's own, which it keeps from run to run
    environment = os.environ | {"TMPDIR": str(temporary), "TORCHINDUCTOR_CACHE_DIR": cache, "HF_HUB_OFFLINE": "1"}
    looks, bars = list[Look](), list[tuple[float, int, int, float]]()
    with errors.open("wb") as stderr:
        command = [sys.executable, "-m", "pipeline", *words]
        run = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True
        )
        started, heard = time.monotonic(), 0
        while run.poll() is None:
            at_s = time.monotonic() - started
            looks += look(run.pid, at_s)
            said = errors.read_bytes()[heard:]
            said = said[: said.rfind(b"]") + 1]  # whole bars
            heard += len(said)
            bars += [(at_s, *bar) for bar in read_bars(said.decode())]
            time.sleep(every_s)
    bars += [(time.monotonic() - started, *bar) for bar in read_bars(errors.read_bytes()[heard:].decode())]
    if run.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{errors.read_text()}")
    ended = time.monotonic()
    while (left := [f"process {pid}" for pid in of_session(run.pid)]) and time.monotonic() < ended + GRACE_S:
        time.sleep(0.1)
    return Watched(looks, last_bar(bars), left + [path.name for path in temporary.iterdir()])


def read_bars(said: str) -> Iterator[tuple[int, int, float]]:
    """What progress bars said: done, total, seconds left."""
    for done, total, _, left in BAR.findall(said):
        yield int(done), int(total), float(sum(60**k * int(n) for k, n in enumerate(reversed(left.split(":")))))


def last_bar(bars: list[tuple[float, int, int, float]]) -> list[tuple[float, int, int, float]]:
    """Those of the command's last bar, which is the work itself; before it are bars of what it needs."""
    begins = [place for place, bar in enumerate(bars) if not place or bar[1] < bars[place - 1][1]]
    return bars[begins[-1] :]


def look(session: int, at_s: float) -> Iterator[Look]:
    """One look at all processes of a session; none where it has just ended."""
    memory_kib = files = threads = processes = 0
    for pid in of_session(session):
        folder = Path("/proc", str(pid))
        try:
            found = re.search(r"^Pss: +(\d+) kB", (folder / "smaps_rollup").read_text(), re.MULTILINE)
            memory_kib += int(found[1]) if found else 0
            files += len(os.listdir(folder / "fd"))
            threads += len(os.listdir(folder / "task"))
            processes += 1
        except OSError:  # it has ended
            continue
    if processes:
        yield Look(at_s, memory_kib / 1024, files, threads, processes)


def of_session(session: int) -> Iterator[int]:
    """Ids of the processes of a session that have not ended."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, its_session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(its_session) == session and state != "Z":
            yield int(folder.name)


def cells(run: Watched) -> list[str]:
    """Of a line of the table; of counts, the early one and the late one."""
    early, late = run.at(EARLY), run.at(LATE)
    counts = [f"{getattr(early, key):.0f}, {getattr(late, key):.0f}" for key in ("files", "threads", "processes")]
    return [
        *(f"{run.looks[-1].at_s / 60:.1f}", f"{early.memory_mib:.0f}", f"{late.memory_mib:.0f}", *counts),
        *(", ".join(run.left) or "nothing", "right" if run.progress_is_right() else "WRONG"),
        f"{run.time_left_off():+.0%}",
    ]


def sizes_of_logs(out: Path) -> str:
    """What trainings wrote down."""
    logs = [path for path in sorted(out.glob("*/*")) if path.name in ("metrics.jsonl", "tensorboard")]
    sizes = (sum(p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*"))) for path in logs)
    return ", ".join(f"{path.name} {size / 1e3:.0f} kB" for path, size in zip(logs, sizes, strict=True))


def plot(watched: Mapping[str, Watched], path: Path) -> None:
    """Memory, open files and threads of each command over the share of its time."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3), layout="constrained")
    kinds = (("memory, MiB", "memory_mib"), ("open files", "files"), ("threads", "threads"))
    for axis, (title, key) in zip(axes, kinds, strict=True):
        for name, run in watched.items():
            shares: Any = [look.at_s / run.looks[-1].at_s for look in run.looks]
            axis.plot(shares, [getattr(look, key) for look in run.looks], label=name, linewidth=1)
        axis.set(title=title, xlabel="share of the run", ylim=(0, None))
    axes[0].legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80, format="png")
    pyplot.close(figure)


if __name__ == "__main__":
    main()
