"""carbseg report: one HTML page of a scored split, its training and its pseudo-labels."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evaluation.report import WIDTH, Report, ReportImage, write_report
from evaluation.scores import percent
from labelgen.images import read_image
from labelgen.samples import InputError
from pipeline.datasets.layouts import TRAIN_SPLIT
from pipeline.progress import progress
from pipeline.runs import anonymous, without_places
from pipeline.stages.inspection import read_truth
from pipeline.stages.run import Run
from pipeline.stages.scoring import Scored
from pipeline.stages.sources import STUDENT
from pipeline.stages.statistics import count_labels


def report(run: Run, scored: Scored, width: int = WIDTH, *, nameless: bool = False) -> Path:
    """Write OUT/report.html of a split that has just been scored; returns its path. width: of the pictures in pixels.

    nameless: without where the files are, and without names of the user and of the machine.

    OUT/tags-SPLIT.json, which `evaluate tags` writes, is shown if it is there, and so is what `engines compare` wrote
    into OUT or, where OUT is the run of one engine, into the folder above, and what `iterate` wrote.
    """
    split, rows = scored.metrics["split"], scored.metrics["rows"]
    curves = {row: _lines(run.out / row.removeprefix(STUDENT) / "metrics.jsonl") for row in rows if _is_student(row)}
    page = Report(
        metrics=scored.metrics,
        curves={row: lines for row, lines in curves.items() if lines},
        about=scored.about,
        statistics=_statistics(run, split),
        tags=_tags(run, scored.metrics),
        engines=_engines(run, scored.metrics),
        rounds=_about_the_same(run.out / "iterations.json", scored.metrics, ("dataset",), "iterate"),
    )
    path = run.out / "report.html"
    write_report(path, _nameless(page) if nameless else page, _images(run, scored), width)
    return path


def _nameless(page: Report) -> Report:
    """All that could tell where a run was made: the command, settings, sources of class maps, a data set's path."""
    rows = page.metrics["rows"].items()
    metrics = {**page.metrics, "rows": {row: {**s, "source": without_places(s["source"])} for row, s in rows}}
    parts = {"statistics": page.statistics, "tags": page.tags, "engines": page.engines, "rounds": page.rounds}
    named = {key: {**part, "dataset": without_places(part["dataset"])} for key, part in parts.items() if part}
    return replace(
        page,
        about=anonymous(dict(page.about)),
        metrics={**metrics, "dataset": without_places(page.metrics["dataset"])},
        **named,
    )


def _is_student(row: str) -> bool:
    return row.startswith(STUDENT)


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():  # a student that was trained elsewhere
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]  # a run may be writing its last one


def _tags(run: Run, metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """What `evaluate tags` found, if it looked at the same images."""
    path = run.out / f"tags-{metrics['split']}.json"
    return _about_the_same(path, metrics, ("dataset", "split", "images"), "evaluate tags")


def _engines(run: Run, metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """What `engines compare` found on the same data set, whatever split it scored students on."""
    folders = (run.out, run.out.resolve().parent)
    found = (_about_the_same(folder / "engines.json", metrics, ("dataset",), "engines compare") for folder in folders)
    return next(filter(None, found), None)


def _about_the_same(path: Path, metrics: Mapping[str, Any], keys: Sequence[str], command: str) -> dict[str, Any] | None:
    """What a command wrote, if that is there and says of `keys` what the metrics say."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        same = all(found[key] == metrics[key] for key in keys)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read; delete it, or run 'carbseg {command}' again") from error
    return found if same else None


def _statistics(run: Run, split: str) -> dict[str, Any] | None:
    """Of the training split, whose labels made the students; of the scored one where there is no training split."""
    for name in (TRAIN_SPLIT, split):
        try:
            statistics, _ = count_labels(run.samples(name, with_tags=True), run.spec.classes)
        except InputError:
            continue
        if statistics.images:
            return {"dataset": run.spec.name, "split": name} | statistics.as_dict()
    return None


def _images(run: Run, scored: Scored) -> Iterator[ReportImage]:
    image_iou = {row: tally.image_iou() for row, tally in scored.tallies.items()}
    places = {row: {image_id: i for i, image_id in enumerate(t.image_ids)} for row, t in scored.tallies.items()}
    with progress(len(scored.samples), "report", "images") as bar:
        for sample in scored.samples:
            image_id, image_HW3 = sample["image_id"], read_image(sample["image_path"])
            yield ReportImage(
                image_id=image_id,
                image_HW3=image_HW3,
                maps={"truth": read_truth(run.spec, sample)}
                | {row: source.again(sample, image_HW3) for row, source in scored.sources.items()},
                iou={row: [percent(value) for value in iou[places[row][image_id]]] for row, iou in image_iou.items()},
            )
            bar.update()
