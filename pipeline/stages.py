"""Labels and training: the two stages that write what all others read, in one run folder.

OUT/labels/SPLIT.zarr    pseudo-labels of a split
OUT/NAME/                a student: checkpoint, metrics.jsonl, run.json, student/
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.confusion import ConfusionMatrix
from evaluation.plots import plot_regions
from labelgen.images import read_image
from labelgen.layout import store_exists
from labelgen.samples import InputError, Sample
from labelgen.store import PseudoLabelStore
from pipeline.config import RunConfig, as_tree
from pipeline.datasets import DatasetSpec, dataset
from pipeline.inspection import compare_views, fit, read_truth, views_panel
from pipeline.layouts import TRAIN_SPLIT
from pipeline.names import look_up
from pipeline.progress import follow, progress
from pipeline.runs import MetricsLog, provenance, write_json

if TYPE_CHECKING:
    from accelerate import PartialState
    from transformers import PreTrainedModel

    from labelgen.maskclip import DenseCLIP
    from segtrain.data import Views
    from segtrain.trainer import StepResult, TrainConfig

TINY_CLIP = Path(__file__).parent / "toy" / "clip"
TINY_CLIP_NAME = "tiny"  # in provenance: not where the package happens to be installed
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


@dataclass(frozen=True)
class Run:
    """What every stage needs to know."""

    spec: DatasetSpec
    data_root: Path | None
    clip: str
    out: Path
    stores: str
    config: RunConfig

    @classmethod
    def of(
        cls,
        name: str,
        data_root: str | None,
        clip: str | None,
        out: str | None,
        stores: str | None,
        config: RunConfig,
    ) -> "Run":
        """With the defaults: data are in data/NAME (toy data are drawn into it), OUT is runs/NAME, stores are in
        OUT/labels, and the CLIP is the one that OUT was begun with, or the tiny one.
        """
        as_folder = re.sub(r"[^\w.-]+", "-", name)  # of hf:PATH_OR_NAME
        folder = Path(out or f"runs/{as_folder}")
        stores = (stores or str(folder / "labels")).rstrip("/")
        clip = clip or _clip_of(stores) or TINY_CLIP_NAME
        root = Path(data_root or f"data/{as_folder}")
        known = root if data_root or name == "toy" or root.exists() else None  # some commands need no data
        return cls(dataset(name, known), known, clip, folder, stores, config)

    def store_path(self, split: str) -> str:
        """Folder or fsspec URL of the pseudo-labels of a split."""
        return f"{self.stores}/{split}.zarr"

    def samples(self, split: str, *, with_truth: bool | None = None) -> list[Sample]:
        """The split, after drawing the toy scenes if they are asked for and not there."""
        if self.data_root is None:
            raise InputError(
                f"{self.spec.name} needs DATA_ROOT (--data-root): {self.spec.how_to_get} and give its path"
            )
        if self.spec.name == "toy" and not any(self.data_root.glob("*")):
            with process_state().main_process_first():
                if not any(self.data_root.glob("*")):  # the other processes find it drawn
                    draw_toy(self.data_root)
        return self.spec.list_samples(self.data_root, split, with_truth=with_truth, tags=self.config.tags)

    def settings(self) -> dict[str, Any]:
        """For provenance."""
        return {"dataset": self.spec.name, "clip": self.clip} | as_tree(self.config)


def draw_toy(root: Path) -> None:
    """Draw all splits of the toy data set."""
    from pipeline.toy.scenes import SCENES, write_scenes

    with progress(sum(SCENES.values()), "drawing toy scenes", "images") as bar:
        write_scenes(root, SCENES, on_scene=bar.update)


def make_labels(run: Run, split: str, part: tuple[int, int] = (1, 1)) -> PseudoLabelStore:
    """Pseudo-labels of a split, made or completed. part: (i, n) makes the i-th of n parts, counted from 1."""
    samples = run.samples(split)
    unknown = next((sample["image_id"] for sample in samples if sample["image_labels"] is None), None)
    if unknown is not None and run.config.tags.source != "auto":
        raise InputError(
            f"{unknown} has no image-level labels; give a labels file, or let CLIP guess them with --tags auto"
        )
    from labelgen.generate import generate

    state = process_state()
    dense = _clip(run)
    index, count = part
    trained_on = run.store_path(TRAIN_SPLIT)
    with progress(len(samples), f"pseudo-labels of {split}", "images", shown=state.is_main_process) as bar:
        store = generate(
            samples,
            run.spec.classes,
            dense,
            run.store_path(split),
            run.config.labels,
            like=PseudoLabelStore.open(trained_on) if split != TRAIN_SPLIT and store_exists(trained_on) else None,
            about={
                "dataset": run.spec.name,
                "split": split,
                "clip_id": run.clip,
                "image_labels": asdict(run.config.tags) | {"file": Path(run.config.tags.file).name},
            },
            part=(index - 1) * state.num_processes + state.process_index,
            parts=count * state.num_processes,
            on_images=follow(bar),
        )
        state.wait_for_everyone()
        bar.update(int(store.is_written().sum()) - bar.n)
    return store


def view_pictures(run: Run, image: Path, present: Sequence[int]) -> NDArray[np.uint8]:
    """A panel of what each kind of view sees in one image (CARB, Fig. 3), of the classes that it shows."""
    image_HW3 = read_image(image)
    from labelgen.generate import read_words
    from labelgen.prompts import sentences

    dense, config = _clip(run), run.config.labels
    classes, templates = read_words(run.spec.classes, config)
    text_CD = dense.encode_text(sentences(classes.prompts, templates))
    return views_panel(image_HW3, compare_views(image, dense, text_CD, config.views, config.batch), classes, present)


def process_state() -> "PartialState":
    """Which process of a launcher runs this, and on what device."""
    import torch
    from accelerate import PartialState

    # Without cpu=True accelerate takes each process of a CPU launch for the only one.
    return PartialState(cpu=not torch.accelerator.is_available())


def _clip(run: Run) -> "DenseCLIP":
    from labelgen.generate import load_clip

    folder_or_id = TINY_CLIP if run.clip == TINY_CLIP_NAME else run.clip
    return load_clip(folder_or_id, run.config.labels, process_state().device)


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
    with progress(config.steps, f"training {name}", "steps", shown=accelerator.is_main_process) as bar:
        bar.update(start)

        def on_step(result: "StepResult") -> None:
            bar.update()
            if log is not None and (result.step % 10 == 0 or result.step == config.steps or result.val_miou):
                log.write(asdict(result))
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
                clip=_clip(run) if config.views == "dual" else None,
                dual=run.config.labels.views,
                read_truth=partial(read_truth, run.spec),
                validate=partial(_miou, run.spec, val),
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


def _clip_of(stores: str) -> str | None:
    """The CLIP that the training labels were made with, if there are any."""
    path = f"{stores}/{TRAIN_SPLIT}.zarr"
    return str(PseudoLabelStore.open(path).provenance["clip_id"]) if store_exists(path) else None
