"""The paper's Table 1 on any data set: every student for several seeds, scored on one split, with mean and spread."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.datasets.layouts import TRAIN_SPLIT
from pipeline.runs import write_json, write_text
from pipeline.stages.labels import make_labels
from pipeline.stages.run import Run, process_state
from pipeline.stages.scoring import evaluate
from pipeline.stages.students import train_student, variants


def ablation(run: Run, split: str, names: Sequence[str], seeds: int) -> dict[str, Any]:
    """Train the named students for seeds 0..seeds-1 under OUT/seed-K and score them on `split`; goes on where it was.

    Returns {"rows": {row: {"miou": [one a seed], "iou": {class: [one a seed]}}}, ...} in percent, as written to
    OUT/ablation.json. Pseudo-labels do not depend on the seed: their rows hold one number.
    """
    configs = variants(run.config.train, names)
    run.samples(split, with_truth=True)  # a missing split should not wait for the training
    make_labels(run, TRAIN_SPLIT)
    rows: dict[str, dict[str, Any]] = {}
    for seed in range(seeds):
        seeded = replace(run, out=run.out / f"seed-{seed}")
        for name, config in configs.items():
            train_student(seeded, replace(config, seed=seed), name)
        for name, scores in evaluate(seeded, split, names).metrics["rows"].items():
            if name.startswith("pseudo-labels") and seed:
                continue
            row = rows.setdefault(name, {"miou": [], "iou": {c: [] for c in scores["iou"]}})
            row["miou"].append(scores["miou"])
            for class_name, value in scores["iou"].items():
                row["iou"][class_name].append(value)
    result = {"dataset": run.spec.name, "split": split, "seeds": seeds, "rows": rows}
    if process_state().is_main_process:
        write_json(run.out / "ablation.json", result)
        write_text(run.out / "ablation.md", as_markdown(result) + "\n")
    return result


def as_markdown(result: dict[str, Any]) -> str:
    """One line a row: mean mIoU, its standard deviation over seeds, and the mean IoU of each class."""
    classes = list(next(iter(result["rows"].values()))["iou"])
    lines = [
        "| | mIoU | sd | " + " | ".join(classes) + " |",
        "|---|---|---|" + "---|" * len(classes),
    ]
    for name, row in result["rows"].items():
        spread = f"{np.std(row['miou'], ddof=1):.2f}" if len(row["miou"]) > 1 else ""
        values = [_mean(row["iou"][c]) for c in classes]
        lines.append(f"| {name} | {_mean(row['miou'])} | {spread} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.1f}" if known else "-"
