"""carbseg engines compare: one table of what every label engine makes of a data set, and the students of it.

OUT/NAME/                    a run of its own: labels, fitted weights, students
OUT/engines.json, .md        the table
OUT/engines.png              some images with the masks of every engine
"""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from evaluation.tables import markdown
from labelgen.engines.fit import NETWORK
from labelgen.images import write_png
from labelgen.samples import InputError, Sample
from labelgen.store import PseudoLabelStore
from labelgen.training.checkpoints import whole_folder
from pipeline.datasets.layouts import TRAIN_SPLIT
from pipeline.names import look_up
from pipeline.progress import progress
from pipeline.runs import write_json, write_text
from pipeline.stages.inspection import MaskOf, contact_sheet, mean_scores
from pipeline.stages.labels import engine_spec, gives_local_views, make_labels
from pipeline.stages.run import Run, process_state
from pipeline.stages.scoring import evaluate
from pipeline.stages.students import STUDENTS, train_student, variants

SECONDS = "label-seconds.json"  # in a run, by split: what labelling an image took
FILE = "engines.json"
PICTURES = 4  # images
NO_LOCAL = {"local": "base"}  # what stands in for a student where there are no local views


def compare_engines(run: Run, split: str, engines: Sequence[str], students: Sequence[str]) -> dict[str, Any]:
    """Label, score and train with each engine under OUT/NAME; goes on where it was.

    Returns what OUT/engines.json holds: {"rows": {engine: {"seconds": {split: an image's}, "labels": {split: {"miou",
    "precision", "recall", "labelled"}}, "students": {name: mIoU}}}, ...}, scores in percent. Pseudo-labels are the
    fused ones where there are local views; a student on local views is one on whole images where there are none.
    """
    for name in engines:
        engine_spec(name)
    for name in students:
        look_up(STUDENTS, name, "student")
    truth = {name: run.samples(name, with_truth=True) for name in dict.fromkeys((TRAIN_SPLIT, split))}
    is_main, rows, masks = process_state().is_main_process, dict[str, Any](), dict[str, MaskOf]()
    for engine in engines:
        own = of_engine(run, engine)
        _hand_on(run, engine)
        for name in truth:
            _timed_labels(own, name)
        labels = {name: _label_scores(own, name, samples, shown=is_main) for name, samples in truth.items()}
        store = PseudoLabelStore.open(own.store_path(split))
        masks[engine] = partial(store.mask, view=store.mask_views[-1])
        names = list(dict.fromkeys(trainable(own, name) for name in students))
        for name, config in variants(own.config.train, names).items():
            train_student(own, config, name)
        scored = evaluate(own, split, names).metrics["rows"] if names else {}
        rows[engine] = {
            "seconds": _noted_seconds(own.out),
            "labels": labels,
            "students": {name: scored[f"student {name}"]["miou"] for name in names},
        }
    result = {"dataset": run.spec.name, "split": split, "rows": rows}
    if is_main:
        write_json(run.out / FILE, result)
        write_text(run.out / FILE.replace(".json", ".md"), as_markdown(result) + "\n")
        write_png(run.out / FILE.replace(".json", ".png"), contact_sheet(run.spec, truth[split], masks, PICTURES))
    return result


def of_engine(run: Run, engine: str) -> Run:
    """The run of one engine, in a folder of its own."""
    out = run.out / engine
    config = replace(run.config, labels=replace(run.config.labels, engine=engine))
    return replace(run, out=out, stores=str(out / "labels"), config=config)


def _hand_on(run: Run, engine: str) -> None:
    """Give an engine the network that it starts from, where that was fitted for its own row."""
    before = engine_spec(engine).fitted_on
    place = Path("engine") / before / NETWORK
    there, here = run.out / before / place, run.out / engine / place
    if before and process_state().is_main_process and there.is_dir() and not here.is_dir():
        here.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(here) as partial:
            shutil.copytree(there, partial)
    process_state().wait_for_everyone()


def as_markdown(result: Mapping[str, Any]) -> str:
    """A line for each engine."""
    rows = result["rows"]
    splits = list(next(iter(rows.values()))["labels"])
    students = list(dict.fromkeys(name for row in rows.values() for name in row["students"]))
    header = ["ms / image", *(f"{split} {score}" for split in splits for score in ("mIoU", "precision", "recall"))]
    lines = {
        engine: [
            1000 * row["seconds"][TRAIN_SPLIT] if TRAIN_SPLIT in row["seconds"] else None,
            *(row["labels"][split][score] for split in splits for score in ("miou", "precision", "recall")),
            *(row["students"].get(name) for name in students),
        ]
        for engine, row in rows.items()
    }
    return markdown([*header, *(f"student {name}" for name in students)], lines)


def _timed_labels(run: Run, split: str) -> None:
    """The pseudo-labels of a split; what an image took, without what is paid once, is noted in OUT."""
    heard: list[tuple[float, int]] = []
    make_labels(run, split, on_images=lambda count: heard.append((time.monotonic(), count)))
    (started, first), (ended, last) = heard[0], heard[-1]
    if last > first and process_state().is_main_process:
        noted = _noted_seconds(run.out)
        noted[split] = (ended - started) / (last - first)
        write_json(run.out / SECONDS, noted)


def _noted_seconds(out: Path) -> dict[str, float]:
    try:
        noted: dict[str, float] = json.loads((out / SECONDS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(f"{out / SECONDS} cannot be read; delete it") from error
    return noted


def _label_scores(run: Run, split: str, samples: Sequence[Sample], *, shown: bool) -> dict[str, float | None]:
    store = PseudoLabelStore.open(run.store_path(split))
    with progress(len(samples), f"scoring {run.config.labels.engine} on {split}", "images", shown=shown) as bar:
        return mean_scores(run.spec, samples, store, bar.update)


def trainable(run: Run, name: str) -> str:
    """The student itself, or the one on whole images where the engine gives no local views."""
    views, plus, carb = name.partition("+")
    return name if gives_local_views(run) else NO_LOCAL.get(views, views) + plus + carb
