"""Whether one run is better than another, from what `evaluate` counted in each image."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from evaluation.comparison import Difference, compare
from evaluation.tables import in_cell
from evaluation.tally import Tally, load_tallies
from labelgen.samples import InputError
from pipeline.stages.scoring import SCHEMA


def compare_runs(a: Path, b: Path) -> str:
    """Differences from A to B as Markdown: of every row of the table that both have, or of two students.

    a, b: run folders (runs/toy), or students in them (runs/toy/base). Raises InputError for runs that were not scored,
    or not on the same images.
    """
    (metrics_a, tallies_a), (metrics_b, tallies_b) = read_scores(a), read_scores(b)
    for key in ("dataset", "split", "classes"):
        if metrics_a[key] != metrics_b[key]:
            raise InputError(f"{a} and {b} were scored on another {key}; evaluate both on the same")
    if len(tallies_a) == len(tallies_b) == 1:
        pairs = [(next(iter(tallies_a)), next(iter(tallies_b)))]
    else:
        pairs = [(row, row) for row in tallies_a if row in tallies_b]
    if not pairs:
        raise InputError(f"{a} has {', '.join(tallies_a)}, and {b} none of these; name two students instead")
    where = f"{metrics_a['dataset']} {metrics_a['split']}, {metrics_a['images']} images"
    tables = [_table(f"A: {a}", f"B: {b}", metrics_a["classes"]["names"], tallies_a, tallies_b, pair) for pair in pairs]
    note = (
        "95 %: paired bootstrap over images; * where 0 is outside; - where fewer than ten images show the class. It "
        "does not tell how much depends on the seed of the training: 'carbseg ablation' does."
    )
    return "\n\n".join([f"IoU in percent on {where}", *tables, note])


def read_scores(path: Path) -> tuple[dict[str, Any], dict[str, Tally]]:
    """What a run was scored on, and its tallies; for a student, its own alone. Raises InputError as above."""
    is_run = (path / "metrics.json").is_file()
    folder = path if is_run else path.parent
    if not (folder / "metrics.json").is_file():
        raise InputError(f"{path} was not scored; run 'carbseg evaluate' first")
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        if metrics.get("schema") != SCHEMA:
            raise InputError(f"{folder} was scored by another version of carbseg; run 'carbseg evaluate' again")
        tallies = load_tallies(folder / f"counts-{metrics['split']}.npz")
    except (OSError, KeyError, ValueError, BadZipFile) as error:
        raise InputError(f"the scores in {folder} cannot be read ({error}); run 'carbseg evaluate' again") from error
    if list(tallies) != list(metrics["rows"]) or any(
        tally.confusion.sum(0).tolist() != metrics["rows"][row]["confusion"] for row, tally in tallies.items()
    ):
        raise InputError(
            f"metrics.json and the counts in {folder} do not belong together; run 'carbseg evaluate' again"
        )
    row = f"student {path.name}"
    if not is_run and row not in tallies:
        raise InputError(f"{folder} has no scored {row!r}, only {', '.join(tallies)}; run 'carbseg evaluate' again")
    return metrics, tallies if is_run else {row: tallies[row]}


def _table(
    title_a: str,
    title_b: str,
    names: Sequence[str],
    tallies_a: dict[str, Tally],
    tallies_b: dict[str, Tally],
    pair: tuple[str, str],
) -> str:
    a, b = tallies_a[pair[0]], tallies_b[pair[1]]
    try:
        mean, by_class = compare(a, b)
    except ValueError as error:
        raise InputError(f"{title_a} and {title_b}: {error}; evaluate both again") from error
    scores_a, scores_b = (tally.as_dict(names) for tally in (a, b))
    lines = [
        f"{title_a}, {pair[0]}  \n{title_b}, {pair[1]}\n",
        "|              |    A |    B |     B - A |          95 % |   |",
        "|--------------|-----:|-----:|----------:|--------------:|---|",
        _line("mIoU", scores_a["miou"], scores_b["miou"], mean),
    ]
    lines += [
        _line(name, scores_a["iou"][name], scores_b["iou"][name], difference)
        for name, difference in zip(names, by_class, strict=True)
    ]
    return "\n".join(lines)


def _line(name: str, a: float | None, b: float | None, difference: Difference) -> str:
    def cell(value: float | None) -> str:
        return f"{'-' if value is None else f'{value:.1f}':>4}"

    if math.isnan(difference.value):
        return f"| {in_cell(name):12} | {cell(a)} | {cell(b)} | {'-':>9} | {'-':>13} |   |"
    interval = "-" if math.isnan(difference.low) else f"{difference.low:+.1f} .. {difference.high:+.1f}"
    sure = "*" if difference.is_sure else " "
    return f"| {in_cell(name):12} | {cell(a)} | {cell(b)} | {difference.value:+9.1f} | {interval:>13} | {sure} |"
