"""carbseg iterate: rounds of training and looking again ("One pixel per class", section 5 and Table 4).

OUT/labels/, OUT/STUDENT/                    round 0: pseudo-labels as the engine made them, and students of them
OUT/round-N/labels/, OUT/round-N/STUDENT/    round N: what a student of the round before says, refined; and its students
OUT/iterations.json, .md                     the table
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from evaluation.tables import markdown
from labelgen.clr import Refinement, SlicRefiner
from labelgen.samples import InputError, Sample
from labelgen.store import PseudoLabelStore
from pipeline.datasets.layouts import TRAIN_SPLIT
from pipeline.progress import progress
from pipeline.runs import write_json, write_text
from pipeline.stages.inspection import mean_scores
from pipeline.stages.labels import engine_inputs, engine_spec, load_dense, make_labels
from pipeline.stages.run import Run, own_device, process_state
from pipeline.stages.scoring import evaluate
from pipeline.stages.students import require_local_views, train_student, variants

FILE = "iterations.json"
COLUMNS = {"miou": "mIoU", "precision": "precision", "recall": "recall", "labelled": "labelled"}


def iterate(run: Run, split: str, names: Sequence[str], rounds: int) -> dict[str, Any]:
    """Train the named students, let the first look at the training images again, train on what it says, and so on.

    Every round trains from scratch, with the same settings and seed; a cut run goes on where it was. Returns what
    OUT/iterations.json holds: {"rows": {"round 0": {"labels": {"miou", "precision", "recall", "labelled"}, "students":
    {name: mIoU}}, ...}, ...} in percent. Labels are those of the training split, None where it has no truth; students
    are scored on `split`. Raises InputError.
    """
    configs = variants(run.config.train, names)
    for name, config in configs.items():
        if config.views not in ("base", "local"):
            raise InputError(f"student {name} does not learn from cached pseudo-labels; take base or local ones")
    require_local_views(run, configs)
    run.samples(split, with_truth=True)  # a missing split should not wait for the training
    is_main = process_state().is_main_process
    make_labels(run, TRAIN_SPLIT)
    refinement = _refinement(run)
    folders = [_of_round(run, number) for number in range(rounds + 1)]
    for number, here in enumerate(folders):
        if is_main:
            print(f"round {number} of {rounds}", file=sys.stderr)
        if number:
            _look_again(folders[number - 1], here, names[0], refinement)
        for name, config in configs.items():
            train_student(here, config, name)
    students = [_row_of(number, name) for number in range(rounds + 1) for name in names]
    scored = evaluate(run, split, students).metrics["rows"]
    samples = run.samples_to_look_at(TRAIN_SPLIT)
    rows = {
        f"round {number}": {
            "labels": None if samples[0]["label_path"] is None else _label_scores(here, samples, f"round {number}"),
            "students": {name: scored[f"student {_row_of(number, name)}"]["miou"] for name in names},
        }
        for number, here in enumerate(folders)
    }
    result = {"dataset": run.spec.name, "split": split, "settings": asdict(run.config.iterate), "rows": rows}
    if is_main:
        write_json(run.out / FILE, result)
        write_text(run.out / FILE.replace(".json", ".md"), as_markdown(result) + "\n")
    return result


def as_markdown(result: Mapping[str, Any]) -> str:
    """A line for each round."""
    rows = result["rows"]
    students = list(next(iter(rows.values()))["students"])
    lines = {
        name: [*((row["labels"] or {}).get(key) for key in COLUMNS), *(row["students"][name] for name in students)]
        for name, row in rows.items()
    }
    return markdown([*COLUMNS.values(), *(f"student {name}" for name in students)], lines)


def _row_of(number: int, name: str) -> str:
    """Where a student of a round is in OUT, which is what `evaluate` calls it, too."""
    return f"round-{number}/{name}" if number else name


def _of_round(run: Run, number: int) -> Run:
    """The run of one round, in a folder of its own."""
    if not number:
        return run
    out = run.out / f"round-{number}"
    return replace(run, out=out, stores=str(out / "labels"), suggestion="")


def _look_again(before: Run, here: Run, name: str, refinement: Refinement | None) -> None:
    """The pseudo-labels of a round, made or completed, from a student of the round before."""
    from segtrain.model import load_student
    from segtrain.relabel import relabel

    state, samples = process_state(), before.samples(TRAIN_SPLIT)
    with progress(len(samples), "looking again", "images", shown=state.is_main_process) as bar:
        relabel(
            load_student(before.out / name / "student").to(own_device()),
            samples,
            PseudoLabelStore.open(before.store_path(TRAIN_SPLIT)),
            here.store_path(TRAIN_SPLIT),
            bar.update,
            refinement=refinement,
            part=state.process_index,
            parts=state.num_processes,
        )
        state.wait_for_everyone()
        bar.update(len(samples) - bar.n)


def _refinement(run: Run) -> Refinement | None:
    """What makes pseudo-labels of class maps: with the regions that the run's engine knows, or SLIC's."""
    config = run.config.iterate
    if not config.refine:
        return None
    known = engine_spec(run.config.labels.engine).refiner
    if known is None:
        return Refinement(SlicRefiner(config, len(run.spec.classes)), config.threshold)
    dense = load_dense(run, run.samples(TRAIN_SPLIT)[0])
    return Refinement(known(engine_inputs(run, dense)), config.threshold)


def _label_scores(run: Run, samples: Sequence[Sample], name: str) -> dict[str, float | None]:
    store = PseudoLabelStore.open(run.store_path(TRAIN_SPLIT))
    is_main = process_state().is_main_process
    with progress(len(samples), f"scoring labels of {name}", "images", shown=is_main) as bar:
        return mean_scores(run.spec, samples, store, bar.update)
