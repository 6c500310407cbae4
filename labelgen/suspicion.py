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

from labelgen.layout import CHECKSUM, location
from labelgen.store import PseudoLabelStore

Kind = Literal["missing", "false"]

# What a false tag counts, in shares of the mean share of a class (1 / C). It costs pseudo-labels far less than a
# forgotten one; chosen on one seed of toy train, and on toy val (docs/labels.md).
FALSE_STAKE = 0.5
# How likely wrong a tag must be to be doubted. Less finds no more of the wrong ones, and asks about right ones without
# end; more misses the false ones (chosen on the same).
LEAST_DOUBT = 0.3
ROUNDING = 1e-9  # means of equal shares may differ by less


class Suspect(NamedTuple):
    """A tag that is likely wrong, by 0.3 at least: forgotten ("missing") or claimed in vain ("false").

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
    """(N, C) scores as in `Suspect`; 0 for a tag that is not doubted, and where nothing is said."""
    C = tags_NC.shape[1]
    scores_NC = np.zeros(tags_NC.shape, np.float32)
    for c in range(C):
        said = np.flatnonzero(~np.isnan(shares_NC[:, c]))
        tags_S, shares_S = tags_NC[said, c], shares_NC[said, c].astype(np.float64)
        likely_S = likelihood(tags_S, shares_S)
        wrong_S = np.where(tags_S, 1 - likely_S, likely_S)
        stake_S = np.where(tags_S, FALSE_STAKE / C, shares_S)
        scores_NC[said, c] = np.where(wrong_S > LEAST_DOUBT, wrong_S * stake_S, 0)
    return scores_NC


def likelihood(tags_N: NDArray[np.bool_], shares_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) in 0..1: how likely images that give a class these shares carry its tag, judged by the tags themselves.

    Two normal distributions, of the shares with the tag and without it, equally wide (linear discriminant analysis).
    Where there are not both, or those with the tag have no larger shares, shares tell nothing, and what is left is how
    many carry it (Laplace's rule of succession).
    """
    with_S, without_S = shares_N[tags_N], shares_N[~tags_N]
    odds_N = np.full(len(tags_N), np.log((len(with_S) + 1) / (len(without_S) + 1)))
    if len(with_S) and len(without_S) and (apart := with_S.mean() - without_S.mean()) > ROUNDING:
        squares = ((with_S - with_S.mean()) ** 2).sum() + ((without_S - without_S.mean()) ** 2).sum()
        # One more observation, of the variance of all: a few images that agree perfectly do not make certainty.
        variance = (squares + shares_N.var()) / (len(tags_N) + 1)
        odds_N += apart / variance * (shares_N - (with_S.mean() + without_S.mean()) / 2)
    return np.asarray((1 + np.tanh(odds_N / 2)) / 2, np.float64)  # the logistic function, which cannot overflow so


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
    place = location(store.path)
    if "://" in place:
        return gather_evidence(store, on_images)
    file, state = Path(place).with_suffix(".suspicion.npz"), _state(store)
    kept = _read(file, state)
    if kept is not None:
        on_images(len(store))
        return kept
    evidence = gather_evidence(store, on_images)
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    with suppress(OSError):  # a folder that is read-only, or full, costs the next one the same time, no more
        try:
            with partial.open("wb") as target:
                np.savez(target, state=np.array(state), **evidence._asdict())
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
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
