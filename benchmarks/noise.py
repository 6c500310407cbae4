"""When does CARB pay? Pseudo-labels made from truth by known noise; small students by plain cross-entropy and by CARB.

Draws toy scenes of 80 x 160 pixels, spoils their truth in one way and to one degree at a time, and trains four
students on each, which part where CARB sets in. Prints Markdown and writes a plot. Run by `make noise`; what it found
is in docs/noise.md.

Shapes: N scenes, B batch, C classes, H W pixels.
"""

import argparse
import copy
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.noise_kinds import KINDS, Mask
from evaluation.confusion import ConfusionMatrix
from evaluation.regions import count_regions, region_shares
from evaluation.tables import markdown
from labelgen.images import IMAGENET_MEAN, IMAGENET_STD, normalise
from labelgen.training.schedule import poly_learning_rate
from pipeline.commands.options import quiet_libraries
from pipeline.datasets.classes import CAMVID_CLASSES
from pipeline.progress import progress
from pipeline.toy.scenes import driving_scene
from segtrain.carb import ClassBalancer, RegionBalancer, find_regions, warmup_loss
from segtrain.config import TrainConfig
from segtrain.model import StudentConfig, build_student

Shares = Mapping[str, float | None]  # of region_shares
HEIGHT, WIDTH = 80, 160
CLASSES = len(CAMVID_CLASSES)
SCENES = {"train": 400, "val": 80}
DIAGNOSED = 100  # training scenes that are held against truth
STEPS, WARMUP, BATCH, QUEUE = 720, 400, 8, 40
METHODS = ("base", "carb", "gated", "corrected")
CONFIDENCE = 0.8  # train.correction of the last
CLEAN = "none"  # the kind of noise that leaves truth as it is


# ---- Students -------------------------------------------------------------------------------------------------------


class Scenes(NamedTuple):
    """Scenes as students see them, and their truth."""

    image_N3HW: Tensor
    truth_NHW: Mask


@cache
def scenes(split: str) -> Scenes:
    """The same in every process."""
    place = list(SCENES).index(split) + 1
    pairs = [driving_scene([place, number], HEIGHT, WIDTH) for number in range(SCENES[split])]
    images = np.stack([normalise(image, IMAGENET_MEAN, IMAGENET_STD) for image, _ in pairs])
    return Scenes(torch.from_numpy(images), np.stack([truth for _, truth in pairs]))


class Loss:
    """The loss of a method once the warm-up is over; the warm-up's is `warmup_loss`."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.balancer, self.class_balancer = RegionBalancer(QUEUE), ClassBalancer(QUEUE, TrainConfig().gate)

    def __call__(self, logits_BCHW: Tensor, pseudo_BHW: Tensor, is_present_BC: Tensor) -> Tensor:
        """A scalar."""
        if self.method == "base":
            return warmup_loss(logits_BCHW, pseudo_BHW)
        regions = find_regions(logits_BCHW, pseudo_BHW, is_present_BC)
        weight = self.balancer.update(regions.means())
        if self.method == "carb":
            return regions.loss(weight)
        loss = regions.loss(self.class_balancer.update(regions.by_class(CLASSES), weight))
        if self.method == "gated":
            return loss
        return loss + regions.correction_loss(
            logits_BCHW, is_present_BC, self.class_balancer.learned_C == 1, CONFIDENCE
        )


class Learner(NamedTuple):
    """A student and its optimizer, to be copied together."""

    student: PreTrainedModel
    optimizer: torch.optim.Optimizer


def new_learner(seed: int) -> Learner:
    """Untrained."""
    torch.manual_seed(seed)
    config = StudentConfig(width=8, aspp_channels=16, classifier="linear")
    student = build_student(config, CAMVID_CLASSES, torch.zeros(CLASSES, 1)).train()
    return Learner(student, torch.optim.AdamW(student.parameters(), weight_decay=0.01))


def train(learner: Learner, pseudo_NHW: Tensor, is_present_NC: Tensor, loss: Loss, steps: range, seed: int) -> None:
    """Some of the STEPS, on scenes drawn at random and mirrored; the loss looks at every other pixel."""
    image_N3HW = scenes("train").image_N3HW
    for step in steps:
        for group in learner.optimizer.param_groups:
            group["lr"] = poly_learning_rate(step, STEPS, 0.003, 0.0, 0.9, ramp_steps=30)
        rng = np.random.default_rng([seed, step])
        rows, flip = rng.choice(len(image_N3HW), BATCH, replace=False), [-1] * bool(rng.random() < 0.5)
        pseudo_BHW = pseudo_NHW[rows].flip(flip)[:, ::2, ::2]
        logits_BCHW = learner.student(image_N3HW[rows].flip(flip)).logits
        logits_BCHW = F.interpolate(logits_BCHW, size=pseudo_BHW.shape[1:], mode="bilinear")
        learner.optimizer.zero_grad()
        loss(logits_BCHW, pseudo_BHW, is_present_NC[rows]).backward()  # type: ignore[no-untyped-call]
        learner.optimizer.step()


@torch.inference_mode()
def predict(student: PreTrainedModel, image_N3HW: Tensor, is_present_NC: Tensor | None = None) -> Mask:
    """(N, H, W) train ids; with is_present_NC, of the classes that the image shows."""
    student.eval()  # type: ignore[no-untyped-call]
    parts = [
        F.interpolate(student(part).logits, size=(HEIGHT, WIDTH), mode="bilinear")
        for part in torch.split(image_N3HW, 20)
    ]
    student.train()
    logits_NCHW = torch.cat(parts)
    if is_present_NC is not None:
        logits_NCHW = logits_NCHW.masked_fill(~is_present_NC[:, :, None, None], -torch.inf)
    return logits_NCHW.argmax(1).to(torch.uint8).numpy()


# ---- The study ------------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """One kind of noise to one degree, and the seed of noise and students."""

    kind: str
    rate: float
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What became of a case."""

    case: Case
    right: float  # share of right pseudo-labels
    before: Shares  # at the end of the warm-up
    after: dict[str, Shares]  # by method, at the end
    iou_C: dict[str, NDArray[np.float64]]  # by method, in 0..1
    seconds_cpu: float


def study(case: Case) -> Outcome:
    """Train all methods on one case, from the same warmed-up student."""
    torch.set_num_threads(1)
    started = time.process_time()
    image_N3HW, truth_NHW = scenes("train")
    pseudo_NHW = np.stack([spoil(case, number, truth_HW) for number, truth_HW in enumerate(truth_NHW)])
    labels_NHW = torch.from_numpy(pseudo_NHW.astype(np.int64))
    shown_NC = torch.tensor(np.array([np.isin(range(CLASSES), truth_HW) for truth_HW in truth_NHW]))

    def shares(learner: Learner) -> Shares:
        predicted_NHW = predict(learner.student, image_N3HW[:DIAGNOSED], shown_NC[:DIAGNOSED])
        maps = zip(pseudo_NHW, predicted_NHW, truth_NHW, strict=False)
        return region_shares(np.sum([count_regions(*three, CLASSES) for three in maps], 0))

    warm = new_learner(case.seed)
    train(warm, labels_NHW, shown_NC, Loss("base"), range(WARMUP), case.seed)
    before, after, iou_C = shares(warm), {}, {}
    for method in METHODS:
        learner = copy.deepcopy(warm)
        train(learner, labels_NHW, shown_NC, Loss(method), range(WARMUP, STEPS), case.seed)
        after[method] = shares(learner)
        matrix = ConfusionMatrix(CLASSES)
        matrix.update(scenes("val").truth_NHW, predict(learner.student, scenes("val").image_N3HW))
        iou_C[method] = matrix.scores().iou
    right = float((pseudo_NHW == truth_NHW).mean())
    return Outcome(case, right, before, after, iou_C, time.process_time() - started)


def spoil(case: Case, number: int, truth_HW: Mask) -> Mask:
    """The pseudo-labels of a scene."""
    if case.kind == CLEAN:
        return truth_HW
    return KINDS[case.kind](truth_HW, case.rate, np.random.default_rng([case.seed, number]))


# ---- Tables and plot ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """Means over the seeds of one kind and rate, in percent."""

    kind: str
    rate: float
    right: float
    before: Shares
    after: dict[str, Shares]
    iou_C: dict[str, NDArray[np.float64]]
    gains: dict[str, list[float]]  # mIoU over base, of each seed

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> "Line":
        """Outcomes: one of each seed."""
        kind, rate, _ = outcomes[0].case
        iou_C = {method: 100 * np.mean([o.iou_C[method] for o in outcomes], 0) for method in METHODS}
        gains = {m: [100 * float((o.iou_C[m] - o.iou_C["base"]).mean()) for o in outcomes] for m in METHODS}
        after = {method: _mean_shares([o.after[method] for o in outcomes]) for method in METHODS}
        right = 100 * float(np.mean([o.right for o in outcomes]))
        return cls(kind, rate, right, _mean_shares([o.before for o in outcomes]), after, iou_C, gains)

    @property
    def title(self) -> str:
        """As tables name it."""
        return self.kind if self.kind == CLEAN else f"{self.kind} {self.rate:.0%}"

    def lost(self, method: str) -> int:
        """Classes that base finds (IoU of at least 5) and the method does not (below 1)."""
        return int(((self.iou_C["base"] >= 5) & (self.iou_C[method] < 1)).sum())


def _mean_shares(all_shares: Sequence[Shares]) -> Shares:
    """In percent; None where one of them is."""
    values = {name: [shares[name] for shares in all_shares] for name in all_shares[0]}
    return {name: None if None in some else 100 * float(np.mean(some)) for name, some in values.items()}  # type: ignore[arg-type]


def scores_table(lines: Sequence[Line]) -> str:
    """What students make of the noise."""
    seeds = range(len(lines[0].gains["base"]))
    gains = [(method, seed) for method in METHODS[1:] for seed in seeds]
    header = ["right", *METHODS, *(f"{m} - base, seed {k}" for m, k in gains), *(f"{m} loses" for m in METHODS[1:])]
    rows = {
        line.title: [
            line.right,
            *(float(line.iou_C[method].mean()) for method in METHODS),
            *(line.gains[method][seed] for method, seed in gains),
            *(line.lost(method) for method in METHODS[1:]),
        ]
        for line in lines
    }
    return markdown(header, rows)


def regions_table(lines: Sequence[Line]) -> str:
    """How large the consistent region is and how right both are, when CARB sets in and at the end."""
    short = {"consistent": "consistent", "right_consistent": "right in it", "right_inconsistent": "right outside"}
    header = [f"{stage}: {name}" for stage in ("warm-up", *METHODS[1:]) for name in short.values()]
    stages = {line.title: (line.before, *(line.after[method] for method in METHODS[1:])) for line in lines}
    return markdown(
        header, {title: [shares[key] for shares in some for key in short] for title, some in stages.items()}
    )


def classes_table(lines: Sequence[Line]) -> str:
    """IoU of each class, the mean over all kinds and rates."""
    rows = {method: np.mean([line.iou_C[method] for line in lines], 0).tolist() for method in METHODS}
    return markdown(CAMVID_CLASSES.names, rows)


def plot(lines: Sequence[Line], path: Path) -> None:
    """Over the rate: what share of both regions is right when CARB sets in, and what its forms gain over base."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(METHODS), figsize=(4 * len(METHODS), 3.4), layout="constrained")
    shares = {"consistent": ("right_consistent", "-"), "inconsistent": ("right_inconsistent", "--")}
    for kind, colour in zip(KINDS, ("#2f6fb5", "#e65a28", "#9a4fb0", "#3ca05a", "#444444"), strict=True):
        mine = [line for line in lines if line.kind == kind]
        rates = [100 * line.rate for line in mine]
        for share, dashes in shares.values():
            axes[0].plot(rates, [line.before[share] for line in mine], dashes, marker=".", color=colour)
        for axis, method in zip(axes[1:], METHODS[1:], strict=True):
            gains = [np.mean(line.gains[method]) for line in mine]
            axis.plot(rates, gains, marker=".", color=colour, label=kind if method == "carb" else None)
            axis.scatter(
                rates * len(mine[0].gains[method]),
                np.ravel([line.gains[method] for line in mine], "F"),
                s=8,
                color=colour,
                alpha=0.5,
            )
    axes[0].set(title="right pseudo-labels (%)\nconsistent (solid), inconsistent (dashed)", ylim=(0, 102))
    low = min(min(line.gains[m]) for line in lines for m in METHODS[1:]) - 1
    high = max(max(line.gains[m]) for line in lines for m in METHODS[1:]) + 1
    for axis, title in zip(axes[1:], METHODS[1:], strict=True):
        axis.axhline(0, color="#999999", linewidth=0.8, zorder=0)
        axis.set(title=f"mIoU, {title} - base (points)\nmean and each seed", ylim=(low, high))
    for axis in axes:
        axis.set(xlabel="rate of the noise (%)", xticks=sorted({100 * line.rate for line in lines}))
    figure.legend(loc="outside right center", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80, format="png")
    plt.close(figure)


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.2, 0.4, 0.6], help="of the noise, in 0..1")
    parser.add_argument("--seeds", type=int, default=2, help="how often, with other noise and other students")
    parser.add_argument("--plot", type=Path, default=Path("runs/noise.png"))
    options = parser.parse_args()
    quiet_libraries()
    settings = [(CLEAN, 0.0), *product(KINDS, options.rates)]
    cases = [Case(kind, rate, seed) for kind, rate in settings for seed in range(options.seeds)]
    started, outcomes = time.perf_counter(), []
    # Spawned, for torch's threads do not survive a fork; each process draws the scenes for itself.
    with (
        ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool,
        progress(len(cases), "noise", "cases") as bar,
    ):
        for outcome in pool.map(study, cases):
            outcomes.append(outcome)
            bar.update()
    seconds_cpu = sum(outcome.seconds_cpu for outcome in outcomes)
    by_setting = [outcomes[k : k + options.seeds] for k in range(0, len(outcomes), options.seeds)]
    lines = [Line.of(some) for some in by_setting]
    noisy = [line for line in lines if line.kind != CLEAN]
    plot(noisy, options.plot)
    print(f"# Noise: {STEPS} steps, CARB after {WARMUP}, {SCENES['train']} scenes of {HEIGHT} x {WIDTH}\n")
    print(f"mIoU in percent on {SCENES['val']} other scenes\n\n{scores_table(lines)}\n")
    print(f"Regions of {DIAGNOSED} training scenes, in percent\n\n{regions_table(lines)}\n")
    print(f"IoU by class, mean over all noise\n\n{classes_table(noisy)}\n")
    print(f"{seconds_cpu / 60:.0f} minutes of CPU time, {(time.perf_counter() - started) / 60:.0f} minutes in all")


if __name__ == "__main__":
    main()
