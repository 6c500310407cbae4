"""How clean CARB's regions are: pseudo-labels, where a student agrees with them and where not, held against truth.

Something to look at; nothing here trains. Shapes: C classes, H W pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.confusion import NONE

RIGHT, WRONG, UNKNOWN = 0, 1, 2
HARDLY_ANY = 0.05  # a student that agrees with a smaller share of a class's pseudo-labels has not learned it
LOW = 0.2  # and below this weight it hardly will
SEEN = 0.0002  # classes of a smaller share of the pixels are not judged
Counts = NDArray[np.int64]


def count_regions(
    pseudo_HW: NDArray[np.uint8],
    predicted_HW: NDArray[np.uint8],
    truth_HW: NDArray[np.uint8] | None,
    num_classes: int,
) -> Counts:
    """Pixels of one image, (C, 2, 3): of each pseudo-label class, consistent and inconsistent, right, wrong, unknown.

    Consistent is where pseudo-label and prediction are the same class (CARB, Eq. 4). Pixels whose pseudo-label is 255
    are in no region; whether one is right is unknown where truth is 255, or None. Counts of images add up.
    """
    is_inconsistent_HW = pseudo_HW != predicted_HW
    verdict_HW = np.full(pseudo_HW.shape, UNKNOWN)
    if truth_HW is not None:
        verdict_HW = np.where(truth_HW == NONE, UNKNOWN, np.where(truth_HW == pseudo_HW, RIGHT, WRONG))
    valid_HW = pseudo_HW != NONE
    index_N = ((pseudo_HW.astype(np.int64) * 2 + is_inconsistent_HW) * 3 + verdict_HW)[valid_HW]
    return np.bincount(index_N, minlength=num_classes * 6).reshape(num_classes, 2, 3)


def region_shares(counts_R23: Counts) -> dict[str, float | None]:
    """Shares in 0..1 of all pixels counted, None where there are none: of R classes, or of one.

    consistent: of the pixels, those in the consistent region. right_consistent, right_inconsistent: of the region's
    pixels whose truth is known, those where the pseudo-label is right.
    """
    counts_23 = counts_R23.reshape(-1, 2, 3).sum(0)
    known_2 = counts_23[:, :2].sum(1)
    return {
        "consistent": _share(counts_23[0].sum(), counts_23.sum()),
        "right_consistent": _share(counts_23[0, RIGHT], known_2[0]),
        "right_inconsistent": _share(counts_23[1, RIGHT], known_2[1]),
    }


def diagnosis(counts_C23: Counts, names: Sequence[str]) -> dict[str, Any]:
    """The shares of all pixels, and under "classes" those of each pseudo-label class, with its "area" among them."""
    classes = {
        name: {"area": _share(counts.sum(), counts_C23.sum())} | region_shares(counts)
        for name, counts in zip(names, counts_C23, strict=True)
    }
    return region_shares(counts_C23) | {"classes": classes}


def lost_classes(row: Mapping[str, Any]) -> list[str]:
    """Classes that CARB keeps a student from learning: it agrees with hardly any of their labels, which weigh little.

    row: a line of metrics.jsonl; one without a diagnosis, or before CARB sets in, tells of none.
    """
    if not row.get("diagnosis") or row.get("weight") is None:
        return []
    weights = row.get("class_weights") or {}
    return [name for name in _unlearned(row["diagnosis"]) if weights.get(name, row["weight"]) < LOW]


def verdict(row: Mapping[str, Any]) -> str:
    """Whether CARB helps this student, in one sentence. row: the last line of its metrics.jsonl with a diagnosis.

    CARB takes inconsistent pseudo-labels for wrong. That helps where most of them are, and harms where they are all
    that a class has. Weights of single classes helped either way (docs/noise.md).
    """
    found, with_carb = row["diagnosis"], row.get("weight") is not None
    inside, outside = found["right_consistent"], found["right_inconsistent"]
    if outside is None:
        return f"Unknown: {'no truth is at hand' if inside is None else 'the student agrees with all pseudo-labels'}."
    shares = f"{100 * outside:.0f} % of the pseudo-labels that the student disagrees with are right"
    if inside is not None:
        shares += f", and {100 * inside:.0f} % of those that it agrees with"
    lost = lost_classes(row) if with_carb else _unlearned(found)
    price = f"{'loses' if with_carb else 'would lose'} {_in_words(lost)}" if lost else ""
    if row.get("class_weights") and not lost:
        return f"Probably: {shares}; each class has a weight of its own, and none is lost."
    if outside >= 0.5 and not row.get("class_weights"):
        harm = f"so CARB {'weighs' if with_carb else 'would weigh'} down what is right"
        return f"No: {shares}, {harm}{', and ' * bool(price)}{price}."
    return f"Not for every class: {shares}, but CARB {price}." if price else f"Yes: only {shares}."


def _unlearned(found: Mapping[str, Any]) -> list[str]:
    judged = {name: shares for name, shares in found["classes"].items() if (shares["area"] or 0) >= SEEN}
    return [name for name, shares in judged.items() if shares["consistent"] < HARDLY_ANY]


def _in_words(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _share(part: np.int64, whole: np.int64) -> float | None:
    return float(part / whole) if whole else None
