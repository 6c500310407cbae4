"""carbseg tags guess: what a tagger model sees in the images of a split, as a file of image-level labels."""

import csv
import io
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelgen.samples import InputError
from pipeline.datasets.tags import as_typed, presence
from pipeline.progress import progress
from pipeline.runs import provenance, write_json, write_text
from pipeline.stages.inspection import ImageLabelScores
from pipeline.stages.run import TINY_CLIP, TINY_CLIP_NAME, Run, own_device

if TYPE_CHECKING:
    from labelgen.tagger import Tagger


def load_tagger(run: Run) -> "Tagger":
    """The tagger of a run, on this process's device; it says which classes it does not know. Raises InputError."""
    from labelgen.generate import read_words
    from labelgen.tagger import Tagger

    classes, templates = read_words(run.spec.classes, run.config.labels)
    config = run.config.tagger
    if config.model == TINY_CLIP_NAME:
        config = replace(config, model=str(TINY_CLIP))
    tagger = Tagger.from_pretrained(classes, config, templates, own_device())
    if tagger.unknown:
        said = f"{run.config.tagger.model} has no label for {', '.join(tagger.unknown)}"
        print(f"{said}: every image is taken to show them", file=sys.stderr)
    return tagger


def about_tagger(run: Run, tagger: "Tagger") -> dict[str, Any]:
    """What decides what images are said to show, for provenance."""
    return asdict(run.config.tagger) | {"weights_sha256": tagger.weights}


def guess_tags(run: Run, split: str, file: Path) -> tuple[int, ImageLabelScores | None]:
    """Write what each image of a split shows, and beside it FILE.provenance.json with what has said so.

    Returns the number of images, and how right it is about those with image-level labels of their own, if there are
    any. Raises InputError, also for a file that is there: a person may have written it.
    """
    if file.suffix.lower() != ".csv":
        raise InputError(f"image-level labels are written as a .csv file (--to), got {file}")
    if file.exists():
        raise InputError(f"{file} exists already; choose another file (--to), or delete it")
    samples = run.samples(split)
    tagger = load_tagger(run)
    guessed = []
    with progress(len(samples), f"tags of {split}", "images") as bar:
        for present in tagger.guess(sample["image_path"] for sample in samples):
            guessed.append(present)
            bar.update()
    scores = _compare(run, split, guessed)  # first: the file may become the data set's own
    lines = io.StringIO()
    rows = csv.writer(lines, lineterminator="\n")
    rows.writerow(("image", "labels"))
    for sample, present in zip(samples, guessed, strict=True):
        path = Path(sample["image_path"])
        name = f"{path.parent.name}/{as_typed(path.name)}"  # images of different splits may have one name
        rows.writerow((name, ";".join(run.spec.classes.names[c] for c in present)))
    about = provenance(run.settings()) | {"split": split, "tagger": about_tagger(run, tagger)}
    write_json(file.with_name(f"{file.name}.provenance.json"), about)
    write_text(file, lines.getvalue())
    return len(samples), scores


def _compare(run: Run, split: str, guessed: list[list[int]]) -> ImageLabelScores | None:
    """The guesses against the image-level labels that there are."""
    try:
        samples = run.samples(split, with_tags=True)
    except InputError as error:
        print(f"not compared with other labels: {error}", file=sys.stderr)
        return None
    both = [
        (said, sample["image_labels"])
        for said, sample in zip(guessed, samples, strict=True)
        if sample["image_labels"] is not None
    ]
    if not both:
        return None
    said_NC, shown_NC = (presence(labels, len(run.spec.classes)) for labels in zip(*both, strict=True))
    return ImageLabelScores.of(said_NC, shown_NC)
