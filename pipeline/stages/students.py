"""carbseg train: a student from the cached pseudo-labels of the training split.

OUT/NAME/    checkpoints, metrics.jsonl, regions.png, run.json, student/, best/
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.confusion import ConfusionMatrix
from evaluation.plots import plot_regions
from evaluation.regions import lost_classes
from labelgen.images import read_image
from labelgen.samples import InputError, Sample
from labelgen.store import PseudoLabelStore
from pipeline.datasets import DatasetSpec
from pipeline.datasets.layouts import TRAIN_SPLIT
from pipeline.names import look_up
from pipeline.progress import follow, progress
from pipeline.runs import MetricsLog, provenance, write_json
from pipeline.stages.diagnosis import Diagnosis
from pipeline.stages.inspection import fit, read_truth
from pipeline.stages.labels import gives_local_views, load_dense
from pipeline.stages.run import Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from segtrain.config import TrainConfig
    from segtrain.trainer import StepResult

PAPER: "dict[str, Any]" = {"carb": True, "balance": "adaptive", "fixed_weight": None, "correction": 0.0}
GATED = PAPER | {"balance": "gated"}
CORRECTED = GATED | {"correction": 0.8}
# The rows of CARB's Table 1, with CARB as the configuration has it (+carb), the paper's weight w, gated weights, or
# these and correction; and the upper bound that trains on pixel labels.
STUDENTS: "dict[str, dict[str, Any]]" = {"truth": {"views": "truth", "carb": False}} | {
    views + suffix: {"views": views} | weights
    for views in ("base", "local", "dual")
    for suffix, weights in (
        *(("", {"carb": False}), ("+carb", {"carb": True})),
        *(("+paper", PAPER), ("+gated", GATED), ("+corrected", CORRECTED)),
    )
}
# What an ablation trains.
TABLE = (*(views + suffix for views in ("base", "local", "dual") for suffix in ("", "+paper", "+corrected")), "truth")


def variants(config: "TrainConfig", names: Sequence[str]) -> "dict[str, TrainConfig]":
    """The configuration as each of the named rows ("base", "local+carb", ...). Raises InputError."""
    return {name: replace(config, **look_up(STUDENTS, name, "student")) for name in names}


def require_local_views(run: Run, configs: "Mapping[str, TrainConfig]") -> None:
    """Raise InputError where a student is to learn from local views, and the run's engine gives none."""
    if any(config.views == "local" for config in configs.values()) and not gives_local_views(run):
        raise InputError(
            f"there are no local views of {run.config.labels.engine} to train on; take --students base,base+carb"
        )


def train_student(run: Run, config: "TrainConfig", name: str = "") -> Path:
    """Train one student on the cached pseudo-labels; returns its folder. A cut run goes on where it was saved.

    name: its row and folder; by default base, local or dual, each with or without +carb, or truth.
    """
    samples = run.samples(TRAIN_SPLIT, with_truth=True if config.views == "truth" else None)
    val = run.samples("val", with_truth=True) if config.validate_every else []
    PseudoLabelStore.open(run.store_path(TRAIN_SPLIT)).require_complete()
    from labelgen.training.checkpoints import saved_step
    from labelgen.training.processes import StoppedError, make_accelerator
    from segtrain.model import save_student
    from segtrain.train import train
    from segtrain.trainer import LOG_EVERY

    name = name or config.views + ("+carb" if config.carb else "")
    folder = run.out / name
    start = saved_step(folder)
    if not start and (folder / "student").is_dir():
        raise InputError(
            f"{folder} holds a trained student, but no checkpoint to go on from; delete it, or choose another --out"
        )
    accelerator = make_accelerator(config.mixed_precision)
    if accelerator.is_main_process:
        run.keep_suggestion()
    about = provenance(run.settings() | {"train": asdict(config)})
    log = MetricsLog(folder / "metrics.jsonl", start) if accelerator.is_main_process else None
    told = {name for row in (log.read() if log is not None else []) for name in lost_classes(row)}
    looks = config.diagnose_every and config.views != "truth"  # truth agrees with itself
    with progress(config.steps, f"training {name}", "steps", shown=accelerator.is_main_process) as bar:
        move = follow(bar)
        move(start)

        def on_step(result: "StepResult") -> None:
            if log is not None and result.step == start + 1 > 1:
                bar.write(f"training {name} goes on from step {start}", file=sys.stderr)
            move(result.step)
            has_more = result.val_miou is not None or result.diagnosis is not None
            if log is not None and (result.step % LOG_EVERY == 0 or result.step == config.steps or has_more):
                values = asdict(result)
                if result.class_weights is not None:
                    values["class_weights"] = dict(zip(run.spec.classes.names, result.class_weights, strict=True))
                log.write(values)
                for lost in lost_classes(values):
                    if lost not in told:
                        told.add(lost)
                        bar.write(_lost(lost, config), file=sys.stderr)
                shown = {"loss": result.loss, "w": result.weight, "agreed": result.agreed}
                texts = {name: f"{value:.3f}" for name, value in shown.items() if value is not None}
                if rate := bar.format_dict["rate"]:
                    texts["images/s"] = f"{rate * config.batch:.1f}"
                bar.set_postfix(texts, refresh=False)

        try:
            student = train(
                samples,
                run.spec.classes,
                run.store_path(TRAIN_SPLIT),
                folder,
                config,
                run.config.augment,
                run.config.student,
                accelerator=accelerator,
                clip=load_dense(run, samples[0]) if config.views == "dual" else None,
                dual=run.config.labels.views,
                read_truth=partial(read_truth, run.spec),
                validate=partial(_miou, run.spec, val),
                diagnose=Diagnosis(run, filter_labels=config.filter_labels) if looks else None,
                on_step=on_step,
                on_best=lambda best, score: save_student(best, folder / "best", about | {"val_miou": score}),
            )
        except StoppedError as stop:
            bar.write(f"{stop.message}; give the same command again to go on", file=sys.stderr)
            raise
    if log is not None:
        write_json(folder / "run.json", about)
        save_student(student, folder / "student", about)
        plot_regions(log.read(), folder / "regions.png")
    accelerator.wait_for_everyone()
    return folder


def _lost(name: str, config: "TrainConfig") -> str:
    """What to do about a class that is being lost."""
    does = "--set train.balance=gated leaves it to be learned"
    if config.balance in ("class-wise", "gated"):
        does = "a longer train.warmup_steps gives it more time"
    return (
        f"{name} is being lost: the student agrees with hardly any of its pseudo-labels, which CARB weighs down; {does}"
    )


def _miou(spec: DatasetSpec, samples: Sequence[Sample], student: "PreTrainedModel") -> float:
    """MIoU of a student in percent."""
    from segtrain.predict import predict

    matrix = ConfusionMatrix(len(spec.classes))
    for sample in samples:
        truth_HW = read_truth(spec, sample)
        matrix.update(truth_HW, fit(predict(student, read_image(sample["image_path"])), truth_HW.shape, sample))
    return 100 * matrix.scores().miou
