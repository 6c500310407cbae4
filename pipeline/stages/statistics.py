"""The statistics of a split's image-level labels: gathered, and written as JSON and a picture."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from evaluation.plots import plot_statistics
from evaluation.statistics import LabelStatistics
from labelgen.samples import ClassSet, InputError, Sample
from pipeline.datasets.tags import presence
from pipeline.runs import write_json
from pipeline.stages.run import Run


def count_labels(samples: Sequence[Sample], classes: ClassSet) -> tuple[LabelStatistics, int]:
    """The statistics of the images whose image-level labels are known, and how many images have none."""
    known = [sample["image_labels"] for sample in samples if sample["image_labels"] is not None]
    return LabelStatistics(classes.names, presence(known, len(classes))), len(samples) - len(known)


def write_statistics(run: Run, split: str) -> tuple[LabelStatistics, int]:
    """Count a split; write OUT/statistics-SPLIT.json and .png. Returns what `count_labels` does.

    Raises InputError where not a single image has labels; guesses (tags.source auto, model) are in stores only.
    """
    if run.config.tags.is_guessed:
        raise InputError(
            f"--tags {run.config.tags.source} is not possible here: labels are guessed only while pseudo-labels are "
            "made; leave it out, or give a labels file, such as 'carbseg tags guess' writes"
        )
    statistics, unknown = count_labels(run.samples(split, with_tags=True), run.spec.classes)
    if not statistics.images:
        raise InputError(
            f"none of the {unknown} images of {run.spec.name} {split} has image-level labels; "
            "give a labels file with --tags, or choose another split"
        )
    about = {
        "dataset": run.spec.name,
        "split": split,
        "image_labels": asdict(run.config.tags) | {"file": Path(run.config.tags.file).name},
        "unknown": unknown,
    }
    write_json(run.out / f"statistics-{split}.json", about | statistics.as_dict())
    plot_statistics(statistics, f"{run.spec.name} {split}", run.out / f"statistics-{split}.png")
    return statistics, unknown
