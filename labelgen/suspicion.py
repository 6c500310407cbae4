"""Which image-level labels ("tags") are likely wrong, from the cached logits: no engine is asked again.

What speaks for a class in an image is the share of it that the class wins when all classes compete. How much such a
share tells differs by class; so each class is calibrated by the images that carry its tag and those that do not, as
confident learning does (Northcutt et al., "Confident Learning", JAIR 2021): wrong tags are few beside right ones.

SPLIT.suspicion.npz      the shares of a store SPLIT.zarr in a folder, beside it; made anew when the store has changed

Shapes: N images, C classes, h w CLIP grid.
"""

import hashlib
import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelgen.layout import CHECKSUM
from labelgen.store import PseudoLabelStore

Kind = Literal["missing", "false"]

# What a false tag counts, in shares of the mean share of a class (1 / C). It costs pseudo-labels far less than a
# forgotten one; chosen on one seed of toy train, and on toy val (docs/labels.md).
FALSE_STAKE = 0.5


class Suspect(NamedTuple):
    """A tag that is likely wrong: forgotten ("missing") or claimed in vain ("false").

    score: for a missing tag the share of the image, 0..1, that its class would win, times how likely it is there; for
    a false one how unlikely it is there, times half of the mean share of a class.
    """

    row: int
    image_id: str
    class_index: int
    kind: Kind
    score: float


class Evidence(NamedTuple):
    """What there is to judge tags by, read off a store in one pass; 5 bytes for each image and class."""

    tags_NC: NDArray[np.bool_]  # as the store has them
    shares_NC: NDArray[np.float32]  # 0..1; NaN where nothing is said: image not written, class without a score


def suspects(
    store: PseudoLabelStore,
    evidence: Evidence | None = None,
    tags_NC: NDArray[np.bool_] | None = None,
    top: int | None = None,
) -> list[Suspect]:
    """Tags that are likely wrong, the most suspicious first, `top` at most; equals in order of image and class.

    evidence: of this store, if it was gathered before. tags_NC: tags to judge instead of the store's, such as those
    that somebody is mending. Of images that are not written nothing is said. Raises InputError for a damaged store.
    """
    tags, shares_NC = evidence or kept_evidence(store)
    if tags_NC is not None:
        tags = tags_NC
    scores = suspicion(tags, shares_NC).ravel()
    order = np.argsort(-scores, kind="stable")[:top]
    chosen = order[scores[order] > 0].tolist()
    C = len(store.class_names)
    return [
        Suspect(row, store.image_ids[row], c, "false" if tags[row, c] else "missing", float(scores[row * C + c]))
        for row, c in (divmod(place, C) for place in chosen)
    ]


def suspicion(tags_NC: NDArray[np.bool_], shares_NC: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, C) scores as in `Suspect`; 0 where nothing is said."""
    likely_NC = likelihood(tags_NC, shares_NC)
    C = tags_NC.shape[1]
    scores_NC = np.where(tags_NC, (1 - likely_NC) * FALSE_STAKE / C, likely_NC * shares_NC)
    return np.nan_to_num(scores_NC, nan=0.0).astype(np.float32)


def likelihood(tags_NC: NDArray[np.bool_], shares_NC: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N, C) in 0..1: how likely an image that gives a class such a share carries its tag; NaN where nothing is said.

    Two normal distributions of the shares, of images with and without the tag, equally wide (linear discriminant
    analysis). Where there are not both kinds, or images that carry the tag have no larger shares, shares tell nothing,
    and what is left is how many carry it (Laplace's rule of succession).
    """
    said_NC = ~np.isnan(shares_NC)
    x_NC = np.where(said_NC, shares_NC, 0).astype(np.float64)
    with_NC, without_NC = tags_NC & said_NC, ~tags_NC & said_NC
    with_C, without_C = with_NC.sum(0), without_NC.sum(0)
    mean_with_C = (x_NC * with_NC).sum(0) / np.maximum(with_C, 1)
    mean_without_C = (x_NC * without_NC).sum(0) / np.maximum(without_C, 1)
    count_C = np.maximum(with_C + without_C, 1)
    mean_C = x_NC.sum(0) / count_C
    variance_C = (said_NC * (x_NC - mean_C) ** 2).sum(0) / count_C
    within_C = ((x_NC - np.where(tags_NC, mean_with_C, mean_without_C)) ** 2 * said_NC).sum(0)
    # One more observation, of the variance of all: a few images that agree perfectly do not make certainty.
    within_C = (within_C + variance_C) / (count_C + 1)
    distance_C = np.where((with_C > 0) & (without_C > 0), np.maximum(mean_with_C - mean_without_C, 0), 0)
    slope_C = distance_C / np.where(distance_C > 0, within_C, 1)
    odds_NC = np.log((with_C + 1) / (without_C + 1)) + slope_C * (x_NC - (mean_with_C + mean_without_C) / 2)
    return np.where(said_NC, 1 / (1 + np.exp(-odds_NC)), np.nan)


def gather_evidence(store: PseudoLabelStore, on_images: Callable[[int], object] = lambda count: None) -> Evidence:
    """Read the tags and the logits of the whole image, once for each image that is written."""
    N, C = len(store), len(store.class_names)
    tags_NC, shares_NC = np.zeros((N, C), bool), np.full((N, C), np.nan, np.float32)
    for row in np.flatnonzero(store.is_written()).tolist():
        image_id = store.image_ids[row]
        tags_NC[row], shares_NC[row] = store.labels_of(image_id), won_shares(store.global_logits(image_id))
        on_images(1)
    return Evidence(tags_NC, shares_NC)


def won_shares(logits_Chw: NDArray[np.float32]) -> NDArray[np.float32]:
    """(C,) share of the patches, of those that any class has a score in, that each class wins; NaN for one without."""
    C = len(logits_Chw)
    unsaid_Chw = np.isnan(logits_Chw)
    said_hw = ~unsaid_Chw.all(0)
    winners = np.where(unsaid_Chw, -np.inf, logits_Chw).argmax(0)[said_hw]
    shares_C = np.bincount(winners, minlength=C) / max(len(winners), 1)
    return np.where(unsaid_Chw.all((1, 2)), np.nan, shares_C).astype(np.float32)


def kept_evidence(store: PseudoLabelStore, on_images: Callable[[int], object] = lambda count: None) -> Evidence:
    """The evidence of a store, gathered once and kept beside it; that of a store at a URL is not kept."""
    if "://" in store.path:
        return gather_evidence(store, on_images)
    file, state = Path(store.path).with_suffix(".suspicion.npz"), _state(store)
    kept = _read(file, state)
    if kept is not None:
        return kept
    evidence = gather_evidence(store, on_images)
    with suppress(PermissionError):  # a folder that is read-only costs the next one the same time, no more
        partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
        with partial.open("wb") as target:
            np.savez(target, state=np.array(state), **evidence._asdict())
        partial.replace(file)
    return evidence


def _state(store: PseudoLabelStore) -> str:
    """A digest of all that evidence depends on: which images are written, their checksums, the words of the classes."""
    parts = (store.is_written(), store.read(CHECKSUM), store.text_vectors)
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


def _read(file: Path, state: str) -> Evidence | None:
    """What a file holds; None where there is none, or a broken one, or one of a store that has changed."""
    try:
        with np.load(io.BytesIO(file.read_bytes())) as arrays:  # numpy leaves a broken file open
            if arrays["state"].item() != state:
                return None
            return Evidence(**{name: arrays[name] for name in Evidence._fields})
    except FileNotFoundError:
        return None
    except Exception:  # zipfile's, zlib's and numpy's own errors
        return None
