"""What noisy image-level labels cost: pseudo-labels from the cached logits under each kind of tags, against truth.

Shapes: K kinds of tags, N images, C classes, H W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.confusion import ConfusionMatrix
from evaluation.plots import plot_tags
from evaluation.scores import Scores, percent
from evaluation.tables import markdown
from labelgen.label import guess_labels
from labelgen.layout import is_begun
from labelgen.samples import InputError, Sample
from labelgen.store import PseudoLabelStore
from labelgen.views import to_mask
from pipeline.datasets import DatasetSpec
from pipeline.datasets.tag_noise import TAGGINGS, Tagging, draw, noisy_tags
from pipeline.progress import progress
from pipeline.runs import write_json, write_text
from pipeline.stages.inspection import ImageLabelScores, fit, read_truth
from pipeline.stages.run import Run


@dataclass(frozen=True)
class TagScores:
    """How right one kind of tags is, and how good the pseudo-labels of each view are with it."""

    tagging: Tagging
    tags: ImageLabelScores  # against the exact ones
    views: dict[str, Scores]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: percentages (the rate in 0..1), None where there is no value."""
        return {
            "name": self.tagging.name,
            "kind": self.tagging.kind,
            "rate": self.tagging.rate,
            "precision": percent(self.tags.precision),
            "recall": percent(self.tags.recall),
            "miou": {view: percent(scores.miou) for view, scores in self.views.items()},
        }


def sweep_tags(
    spec: DatasetSpec,
    samples: Sequence[Sample],
    store: PseudoLabelStore,
    guess_area: float,
    seed: int = 0,
    taggings: Sequence[Tagging] = TAGGINGS,
    on_images: Callable[[int], object] = lambda count: None,
) -> list[TagScores]:
    """Score every kind of tags on samples with truth; CLIP's logits are those of the store, its tags are not asked.

    guess_area: share of the patches of the whole image that a class must win to be guessed; of several global zooms
    their mean is asked here, but the first one by `carbseg labels --tags auto`. An image that a kind says nothing of
    has no pseudo-labels at all: its pixels miss the truth.
    """
    K, N, C = len(taggings), len(samples), len(spec.classes)
    matrices = {view: [ConfusionMatrix(C) for _ in taggings] for view in store.mask_views}
    said_KNC, exact_NC = np.zeros((K, N, C), bool), np.zeros((N, C), bool)
    for row, sample in enumerate(samples):
        image_id = sample["image_id"]
        truth_HW = read_truth(spec, sample)
        guessed_C = np.isin(np.arange(C), guess_labels(store.global_logits(image_id), guess_area))
        draw_C = draw(seed, image_id, C)
        exact_NC[row] = noisy_tags(Tagging("exact"), truth_HW, guessed_C, draw_C)
        for k, tagging in enumerate(taggings):
            said_KNC[k, row] = noisy_tags(tagging, truth_HW, guessed_C, draw_C)
        for view in store.mask_views:
            counts = count_under(sample, truth_HW, store.logits(image_id, view), said_KNC[:, row])
            matrices[view] = [total + count for total, count in zip(matrices[view], counts, strict=True)]
        on_images(1)
    return [
        TagScores(
            tagging,
            ImageLabelScores.of(said_KNC[k], exact_NC),
            {view: matrices[view][k].scores() for view in store.mask_views},
        )
        for k, tagging in enumerate(taggings)
    ]


def count_under(
    sample: Sample, truth_HW: NDArray[np.uint8], logits_CHW: NDArray[np.float32], said_KC: NDArray[np.bool_]
) -> list[ConfusionMatrix]:
    """The pixels of one image against truth under each of K lists of its tags; equal ones share a mask."""
    counted: dict[bytes, ConfusionMatrix] = {}
    for is_present_C in said_KC:
        if is_present_C.tobytes() not in counted:
            matrix = counted[is_present_C.tobytes()] = ConfusionMatrix(len(is_present_C))
            matrix.update(truth_HW, fit(to_mask(logits_CHW, is_present_C), truth_HW.shape, sample))
    return [counted[is_present_C.tobytes()] for is_present_C in said_KC]


def evaluate_tags(run: Run, split: str, seed: int = 0) -> dict[str, Any]:
    """Sweep a split whose pseudo-labels are there; write OUT/tags-SPLIT.json, .md and .png.

    Returns what the JSON file holds. Raises InputError where logits or truth are missing.
    """
    if run.config.tags.is_guessed or run.config.tags.file:
        raise InputError("all kinds of tags that are compared here come from truth and from CLIP; leave out --tags")
    path = run.store_path(split)
    if not is_begun(path):
        raise InputError(
            f"{path} does not exist; make the pseudo-labels with 'carbseg labels --split {split}' "
            f"or 'carbseg evaluate --split {split}' first"
        )
    store = PseudoLabelStore.open(path)
    store.require_complete()
    samples = run.samples(split, with_truth=True)
    guess_area = run.config.labels.guess_area
    with progress(len(samples), f"tags of {split}", "images") as bar:
        scores = sweep_tags(run.spec, samples, store, guess_area, seed, on_images=bar.update)
    rows = [row.as_dict() for row in scores]
    about = {"dataset": run.spec.name, "split": split, "images": len(samples), "seed": seed, "guess_area": guess_area}
    result = about | {"rows": rows}
    write_json(run.out / f"tags-{split}.json", result)
    write_text(run.out / f"tags-{split}.md", as_markdown(rows) + "\n")
    plot_tags(rows, f"{run.spec.name} {split}: {len(samples)} images", run.out / f"tags-{split}.png")
    return result


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table of a sweep, in percent: a line for each kind of tags."""
    header = ["precision", "recall", *(f"{view} mIoU" for view in rows[0]["miou"])]
    lines = {row["name"]: [row["precision"], row["recall"], *row["miou"].values()] for row in rows}
    return markdown(header, lines)
