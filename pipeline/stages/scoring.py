"""carbseg evaluate: the class maps of a split, from wherever they come, against truth.

OUT/metrics.json          scores, as evaluation/metrics.schema.json says; metrics.md and metrics.csv hold the same
OUT/run.json              provenance: of the scores, and of the students that were scored
OUT/counts-SPLIT.npz      what was counted in each image: what comparisons are made from
OUT/maps/SPLIT/ROW/       the class maps, as indexed PNGs
OUT/panels/SPLIT.png      pictures
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.overlay import agreement, colourise, panel
from evaluation.tables import csv_table, markdown_by_class, markdown_summary, markdown_table
from evaluation.tally import Tally, save_tallies
from labelgen.files import read_json
from labelgen.images import read_image, write_png
from labelgen.samples import InputError, Sample
from pipeline.datasets import DatasetSpec
from pipeline.progress import progress
from pipeline.runs import provenance, write_json, write_text
from pipeline.stages.inspection import fit, read_truth
from pipeline.stages.labels import make_labels
from pipeline.stages.run import Run, process_state
from pipeline.stages.sources import STUDENT, Picture, Source, other_sources, pseudo_sources, student_sources

SCHEMA = 1
TRAINING = ("augment", "train", "student")  # settings that evaluate has no use for: each student has its own
PANEL_IMAGES = 6
RULES = (
    "Pixels whose truth is void count for nothing.",
    "Pixels without a predicted class miss the class that is there and hit none.",
    "IoU, precision and recall are those of all pixels of all images together, not means over images.",
    "mIoU is the mean over the classes that are in truth or prediction; an absent class is left out, not counted as 0.",
    "Scores are taken in the size of the label maps; class maps of another size are resized by nearest neighbour.",
    "Boundary IoU counts pixels within 2 % of the image's diagonal of an outline of their class.",
    "Students and models are given whole images, normalised with ImageNet's mean and deviation.",
    "Pseudo-labels know which classes each image shows; students and other predictions do not.",
)


@dataclass(frozen=True)
class Scored:
    """A split that has been scored: its images, the rows of the table, what was counted, metrics.json, run.json."""

    samples: list[Sample]
    sources: dict[str, Source]
    tallies: dict[str, Tally]
    metrics: dict[str, Any]
    about: dict[str, Any]


def evaluate(
    run: Run,
    split: str,
    students: Sequence[str] | None = None,
    predictions: Sequence[Path] = (),
    models: Sequence[Path] = (),
) -> Scored:
    """Score the split's pseudo-labels, the students in OUT (all, or those named) and others; write what is above.

    predictions: folders of class maps. models: folders of HF semantic segmentation models, whose classes are found by
    name. The pseudo-labels of the split are made first where they are missing. Under several processes each scores its
    share of the images, and the first one writes.
    """
    samples = run.samples(split, with_truth=True)
    maps = run.out / "maps" / split
    others = other_sources(run.spec, samples, predictions, models, maps)
    trained, state = student_sources(run.spec, run.out, students, maps), process_state()
    if not trained and students is None and state.is_main_process:
        print(f"no student in {run.out}: only {' and '.join(['pseudo-labels', *others])} are scored", file=sys.stderr)
    sources = pseudo_sources(make_labels(run, split), maps) | others | trained
    about = _about(run, sources)
    for source in sources.values():
        if source.kept is not None:
            source.kept.mkdir(parents=True, exist_ok=True)
    mine = samples[state.process_index :: state.num_processes]
    with progress(len(mine), f"scoring {split}", "images", shown=state.is_main_process) as bar:
        tallies = _gathered(score(run.spec, mine, sources, bar.update))
    metrics = _metrics(run.spec, split, sources, tallies)
    scored = Scored(samples, sources, tallies, metrics, about)
    if state.is_main_process:
        _write(run, scored)
    state.wait_for_everyone()
    return scored


def score(
    spec: DatasetSpec,
    samples: Iterable[Sample],
    sources: Mapping[str, Source],
    on_images: Callable[[int], object] = lambda count: None,
) -> dict[str, Tally]:
    """Count every image of every source against truth. Raises InputError for maps that do not fit."""
    tallies = {name: Tally(len(spec.classes)) for name in sources}
    for sample in samples:
        image_HW3, truth_HW = read_image(sample["image_path"]), read_truth(spec, sample)
        for name, source in sources.items():
            classes_HW = source.class_map(sample, image_HW3)
            tallies[name].update(sample["image_id"], truth_HW, fit(classes_HW, truth_HW.shape, sample))
            source.keep(sample, classes_HW, spec.classes)
        on_images(1)
    return tallies


def _gathered(tallies: dict[str, Tally]) -> dict[str, Tally]:
    """The tallies of all processes, in each of them."""
    from accelerate.utils import gather_object

    parts = gather_object([tallies])
    return {name: Tally.merged(part[name] for part in parts) for name in tallies}


def _about(run: Run, sources: Mapping[str, Source]) -> dict[str, Any]:
    """Provenance of the scores, and under "students" what its run.json says of the training of each; None: it has none.

    The settings of the command that scores may be others than those of the training.
    """
    settings = {section: values for section, values in run.settings().items() if section not in TRAINING}
    names = (row.removeprefix(STUDENT) for row in sources if row.startswith(STUDENT))
    return provenance(settings) | {"students": {name: _trained_with(run.out / name / "run.json") for name in names}}


def _trained_with(path: Path) -> dict[str, Any] | None:
    """Command, time and settings of a training, without what the provenance of the pseudo-labels says better."""
    if not path.is_file():  # a student that was trained elsewhere
        return None
    about = read_json(path)
    try:
        settings = {section: about["settings"][section] for section in TRAINING}
        return {"command": about["command"], "time": about["time"], "settings": settings}
    except (LookupError, TypeError) as error:
        raise InputError(f"{path} does not say how its student was trained; delete it to go on without") from error


def _metrics(
    spec: DatasetSpec, split: str, sources: Mapping[str, Source], tallies: Mapping[str, Tally]
) -> dict[str, Any]:
    classes = spec.classes
    return {
        "schema": SCHEMA,
        "dataset": spec.name,
        "split": split,
        "images": len(next(iter(tallies.values())).image_ids),
        "rules": list(RULES),
        "classes": {
            "names": list(classes.names),
            "palette": [list(colour) for colour in classes.palette],
            "categories": list(classes.categories),
        },
        "rows": {
            name: tally.as_dict(classes.names, classes.categories) | {"source": sources[name].about}
            for name, tally in tallies.items()
        },
    }


def as_markdown(metrics: Mapping[str, Any]) -> str:
    """IoU of every class, the means, and the rules."""
    rows, names = metrics["rows"], metrics["classes"]["names"]
    title = f"IoU in percent on {metrics['images']} images of {metrics['dataset']} {metrics['split']}"
    parts = [title, markdown_table(rows, names), markdown_summary(rows), markdown_by_class(rows, names)]
    return "\n\n".join([*parts, "\n".join(f"- {rule}" for rule in metrics["rules"])]) + "\n"


def _write(run: Run, scored: Scored) -> None:
    metrics, split = scored.metrics, scored.metrics["split"]
    run.out.mkdir(parents=True, exist_ok=True)
    save_tallies(run.out / f"counts-{split}.npz", scored.tallies)
    write_text(run.out / "metrics.md", as_markdown(metrics))
    write_text(run.out / "metrics.csv", csv_table(metrics["rows"], metrics["classes"]["names"]))
    write_json(run.out / "run.json", scored.about)
    (run.out / "panels").mkdir(exist_ok=True)
    write_png(run.out / "panels" / f"{split}.png", _panel(run.spec, scored))
    write_json(run.out / "metrics.json", metrics)


def _panel(spec: DatasetSpec, scored: Scored) -> Picture:
    """Some images, evenly spread: image, truth, global and local pseudo-labels, agreement, the last prediction."""
    palette = spec.classes.palette
    rows, captions = [], list[str]()
    for place in np.unique(np.linspace(0, len(scored.samples) - 1, PANEL_IMAGES).astype(int)):
        sample = scored.samples[place]
        image_HW3 = read_image(sample["image_path"])
        maps = {name: source.again(sample, image_HW3) for name, source in scored.sources.items()}
        pictures = {"image": image_HW3, "truth": colourise(read_truth(spec, sample), palette)}
        pseudo = {view: maps[name] for view in ("global", "local") if (name := f"pseudo-labels {view}") in maps}
        pictures |= {f"{view} pseudo-labels": colourise(pseudo_HW, palette) for view, pseudo_HW in pseudo.items()}
        last = list(maps)[-1]
        if not last.startswith("pseudo-labels "):
            predicted_HW = fit(maps[last], pseudo["global"].shape, sample)
            pictures |= {"agreement": agreement(pseudo["global"], predicted_HW), last: colourise(predicted_HW, palette)}
        rows.append(list(pictures.values()))
        captions = list(pictures)
    return panel(rows, captions)
