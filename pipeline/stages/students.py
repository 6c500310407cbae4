"""carbseg train: a student from the cached pseudo-labels of the training split.

OUT/NAME/    checkpoints, metrics.jsonl, regions.png, run.json, student/, best/
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.confusion import ConfusionMatrix
from evaluation.plots import plot_regions
from evaluation.regions import lost_classes
from labelgen.images import read_image
from labelgen.samples import InputError, Sample
from labelgen.store import PseudoLabelStore
from pipeline.datasets import DatasetSpec
from pipeline.datasets.layouts import TRAIN_SPLIT
from pipeline.names import look_up
from pipeline.progress import progress
from pipeline.runs import MetricsLog, provenance, write_json
from pipeline.stages.diagnosis import Diagnosis
from pipeline.stages.inspection import fit, read_truth
from pipeline.stages.labels import load_dense
from pipeline.stages.run import Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from segtrain.data import Views
    from segtrain.trainer import StepResult, TrainConfig

# The rows of CARB's Table 1, and the upper bound that trains on pixel labels.
STUDENTS: "dict[str, tuple[Views, bool]]" = {
    "base": ("base", False),
    "base+carb": ("base", True),
    "local": ("local", False),
    "local+carb": ("local", True),
    "dual": ("dual", False),
    "dual+carb": ("dual", True),
    "truth": ("truth", False),
}


def student_name(config: "TrainConfig") -> str:
    """The row of the paper's Table 1 that a configuration is: base, local, dual, each with or without +carb; truth."""
    return config.views + ("+carb" if config.carb else "")


def train_student(run: Run, config: "TrainConfig") -> Path:
    """Train one student on the cached pseudo-labels; returns its folder. A cut run goes on where it was saved."""
    samples = run.samples(TRAIN_SPLIT, with_truth=True if config.views == "truth" else None)
    val = run.samples("val", with_truth=True) if config.validate_every else []
    PseudoLabelStore.open(run.store_path(TRAIN_SPLIT)).require_complete()
    from segtrain.model import save_student
    from segtrain.train import StoppedError, make_accelerator, train
    from segtrain.trainer import saved_step

    name = student_name(config)
    folder = run.out / name
    start = saved_step(folder)
    if not start and (folder / "student").is_dir():
        raise InputError(
            f"{folder} holds a trained student, but no checkpoint to go on from; delete it, or choose another --out"
        )
    accelerator = make_accelerator(config)
    about = provenance(run.settings() | {"train": asdict(config)})
    log = MetricsLog(folder / "metrics.jsonl", start) if accelerator.is_main_process else None
    told = {name for row in (log.read() if log is not None else []) for name in lost_classes(row)}
    looks = config.diagnose_every and config.views != "truth"  # truth agrees with itself
    with progress(config.steps, f"training {name}", "steps", shown=accelerator.is_main_process) as bar:
        bar.update(start)

        def on_step(result: "StepResult") -> None:
            bar.update()
            is_read = result.step % 10 == 0 or result.step == config.steps or result.val_miou or result.diagnosis
            if log is not None and is_read:
                values = asdict(result)
                if result.class_weights is not None:
                    values["class_weights"] = dict(zip(run.spec.classes.names, result.class_weights, strict=True))
                log.write(values)
                for name in lost_classes(values):
                    if name not in told:
                        told.add(name)
                        bar.write(_lost(name, config), file=sys.stderr)
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
                clip=load_dense(run) if config.views == "dual" else None,
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


def variants(config: "TrainConfig", names: Sequence[str]) -> list["TrainConfig"]:
    """The configuration as each of the named rows ("base", "local+carb", ...). Raises InputError."""
    known = {name: replace(config, views=views, carb=carb) for name, (views, carb) in STUDENTS.items()}
    return [look_up(known, name, "student") for name in names]
