"""The paper's Table 1 on any data set: every student for several seeds, scored on one split, with mean and spread."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from evaluation.comparison import Difference, compare_pairs
from evaluation.tables import in_cell
from evaluation.tally import Tally
from pipeline.datasets.layouts import TRAIN_SPLIT
from pipeline.runs import write_json, write_text
from pipeline.stages.labels import make_labels
from pipeline.stages.run import Run, process_state
from pipeline.stages.scoring import evaluate
from pipeline.stages.students import train_student, variants


def ablation(run: Run, split: str, names: Sequence[str], seeds: int) -> dict[str, Any]:
    """Train the named students for seeds 0..seeds-1 under OUT/seed-K and score them on `split`; goes on where it was.

    Returns {"rows": {row: {"miou": [one a seed], "iou": {class: [one a seed]}}}, ...} in percent, as written to
    OUT/ablation.json. Pseudo-labels do not depend on the seed: their rows hold one number. "carb" holds what each row
    with CARB gains over the one without, as [value, low, high] with the 95 % interval of a paired bootstrap over
    images, each seed's difference averaged.
    """
    configs = variants(run.config.train, names)
    run.samples(split, with_truth=True)  # a missing split should not wait for the training
    make_labels(run, TRAIN_SPLIT)
    rows: dict[str, dict[str, Any]] = {}
    tallies: list[dict[str, Tally]] = []  # one a seed
    for seed in range(seeds):
        seeded = replace(run, out=run.out / f"seed-{seed}")
        for name, config in configs.items():
            train_student(seeded, replace(config, seed=seed), name)
        scored = evaluate(seeded, split, names)
        tallies.append(scored.tallies)
        for name, scores in scored.metrics["rows"].items():
            if name.startswith("pseudo-labels") and seed:
                continue
            row = rows.setdefault(name, {"miou": [], "iou": {c: [] for c in scores["iou"]}})
            row["miou"].append(scores["miou"])
            for class_name, value in scores["iou"].items():
                row["iou"][class_name].append(value)
    result = {"dataset": run.spec.name, "split": split, "seeds": seeds, "rows": rows}
    result["carb"] = [_gain(name, tallies, run.spec.classes.names) for name in names if without_carb(name) in names]
    if process_state().is_main_process:
        write_json(run.out / "ablation.json", result)
        tables = [as_markdown(result), *([gains_as_markdown(result)] if result["carb"] else [])]
        write_text(run.out / "ablation.md", "\n\n".join(tables) + "\n")
    return result


def as_markdown(result: dict[str, Any]) -> str:
    """One line a row: mean mIoU, its standard deviation over seeds, and the mean IoU of each class."""
    classes = list(next(iter(result["rows"].values()))["iou"])
    lines = [
        "| | mIoU | sd | " + " | ".join(map(in_cell, classes)) + " |",
        "|---|---|---|" + "---|" * len(classes),
    ]
    for name, row in result["rows"].items():
        spread = f"{np.std(row['miou'], ddof=1):.2f}" if len(row["miou"]) > 1 else ""
        values = [_mean(row["iou"][c]) for c in classes]
        lines.append(f"| {name} | {_mean(row['miou'])} | {spread} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def without_carb(name: str) -> str | None:
    """The row that a row with CARB is to be held against: base for base+paper."""
    views, plus, _ = name.partition("+")
    return views if plus else None


def _gain(name: str, tallies: Sequence[dict[str, Tally]], classes: Sequence[str]) -> dict[str, Any]:
    """What a row gains over the one without CARB: points of mIoU, and of each class."""
    rows = f"student {without_carb(name)}", f"student {name}"
    whole, by_class = compare_pairs([(of_seed[rows[0]], of_seed[rows[1]]) for of_seed in tallies])
    return {
        "row": name,
        "miou": _rounded(whole),
        "iou": {c: _rounded(difference) for c, difference in zip(classes, by_class, strict=True)},
    }


def _rounded(difference: Difference) -> list[float | None]:
    """[value, low, high] in points, None where there is none."""
    values = (difference.value, difference.low, difference.high)
    return [None if np.isnan(value) else round(value, 2) for value in values]


def gains_as_markdown(result: dict[str, Any]) -> str:
    """One line a row with CARB: what it gains over the row without, and the class that loses most."""
    lines = [
        "| | mIoU gained | 95 % over images | each seed | lowest of the classes |",
        "|---|---|---|---|---|",
    ]
    for gain in result["carb"]:
        value, low, high = gain["miou"]
        rows = (result["rows"][f"student {name}"]["miou"] for name in (without_carb(gain["row"]), gain["row"]))
        by_seed = ", ".join(f"{b - a:+.1f}" for a, b in zip(*rows, strict=True))
        known = {name: values[0] for name, values in gain["iou"].items() if values[0] is not None}
        worst = min(known, key=lambda name: known[name])
        interval = "-" if low is None else f"{low:+.1f} .. {high:+.1f}"
        lines.append(f"| {gain['row']} | {value:+.1f} | {interval} | {by_seed} | {worst} {known[worst]:+.1f} |")
    return "\n".join(lines)


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.1f}" if known else "-"
