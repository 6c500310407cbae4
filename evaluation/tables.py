"""Scores as tables: Markdown for people, CSV for other programs."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Rows = Mapping[str, Mapping[str, Any]]  # title -> scores, as in metrics.json: percentages, None where there is none
KINDS = ("iou", "precision", "recall", "boundary_iou")
SUMMARY = {"mIoU": "miou", "boundary": "boundary_miou", "categories": "category_miou", "accuracy": "pixel_accuracy"}


def markdown_table(rows: Rows, names: Sequence[str]) -> str:
    """MIoU and per-class IoU in percent, one line per entry of `rows`."""
    lines = {title: [scores["miou"], *(scores["iou"][name] for name in names)] for title, scores in rows.items()}
    return markdown(["mIoU", *names], lines)


def markdown_summary(rows: Rows) -> str:
    """mIoU, boundary mIoU, category mIoU (if there are categories) and pixel accuracy, one line per entry of `rows`."""
    shown = {name: key for name, key in SUMMARY.items() if any(scores[key] is not None for scores in rows.values())}
    return markdown(list(shown), {title: [scores[key] for key in shown.values()] for title, scores in rows.items()})


def markdown_by_class(rows: Rows, names: Sequence[str]) -> str:
    """IoU, precision and recall in percent, one line per class, three columns per entry of `rows`."""
    kinds = ("iou", "precision", "recall")
    header = [column for title in rows for column in (f"{title} IoU", "precision", "recall")]
    lines = {name: [scores[kind][name] for scores in rows.values() for kind in kinds] for name in names}
    lines["mean"] = [mean_score(scores[kind].values()) for scores in rows.values() for kind in kinds]
    return markdown(header, lines)


def csv_table(rows: Rows, names: Sequence[str]) -> str:
    """One line per entry of `rows` and class, percentages; a class called "mean" holds the means."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "class", *KINDS])
    for title, scores in rows.items():
        for name in names:
            writer.writerow([title, name, *(scores[kind][name] for kind in KINDS)])
        means = {kind: mean_score(scores[kind].values()) for kind in KINDS}
        means |= {"iou": scores["miou"], "boundary_iou": scores["boundary_miou"]}  # of values that were not rounded
        writer.writerow([title, "mean", *means.values()])
    return text.getvalue()


def mean_score(values: Iterable[float | None]) -> float | None:
    """Of percentages, without those that have no value; None where none has."""
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 2) if known else None


def in_cell(text: str) -> str:
    """A name in one line, without what ends a cell or begins an HTML element, a link, a picture or code."""
    return re.sub(r"([\\|<\[`])", r"\\\1", " ".join(text.split()))


def markdown(header: Sequence[str], rows: Mapping[str, Sequence[float | None]]) -> str:
    """A table with one decimal, right-aligned, a dash where there is no value; columns as wide as they need."""
    lines = [["", *map(in_cell, header)]]
    for title, values in rows.items():
        lines.append([in_cell(title), *("-" if value is None else f"{value:.1f}" for value in values)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        others = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return "| " + " | ".join([cells[0].ljust(widths[0]), *others]) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(lines[0]), rule, *map(line, lines[1:])])
