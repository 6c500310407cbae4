"""How many wrong image-level labels stand at the top of the list of suspects, and what mending those wins back.

The exact tags of a split are spoilt as `carbseg evaluate tags` does it; rules rank all tags by the cached logits; who
looks at the first ones sets those right that are wrong. Pseudo-labels follow from the cached logits under the tags
before and after. Prints Markdown. Rules were chosen on seed 0 of toy train, and on toy val.

Shapes: N images, C classes, M lists of tags.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.scores import Scores
from evaluation.tables import markdown
from labelgen.layout import is_begun
from labelgen.samples import Sample
from labelgen.store import PseudoLabelStore
from labelgen.suspicion import gather_evidence, likelihood, suspicion
from pipeline.commands.options import quiet_libraries
from pipeline.datasets import DatasetSpec
from pipeline.datasets.tag_noise import draw
from pipeline.datasets.tags import presence, present_classes
from pipeline.progress import progress
from pipeline.stages.inspection import read_truth
from pipeline.stages.labels import make_labels
from pipeline.stages.run import Run
from pipeline.stages.tag_sweep import count_under

TOPS = (50, 100, 200)
Tags = NDArray[np.bool_]  # (N, C)
Scored = NDArray[np.floating]  # (N, C): how suspicious each tag is


class Noise(NamedTuple):
    """Probabilities with which a true tag is dropped, and a class that is not there is claimed."""

    dropped: float
    added: float

    @property
    def name(self) -> str:
        """As `carbseg evaluate tags` calls it."""
        parts = {"dropped": self.dropped, "added": self.added}
        return ", ".join(f"{100 * rate:g} % {kind}" for kind, rate in parts.items() if rate)


NOISES = (Noise(0.1, 0), Noise(0.3, 0), Noise(0.1, 0.1), Noise(0, 0.3))


def spoilt(noise: Noise, exact_NC: Tags, image_ids: Sequence[str], seed: int) -> Tags:
    """Exact tags with this noise: what `noisy_tags` makes of them with the same seed."""
    draw_NC = np.stack([draw(seed, image_id, exact_NC.shape[1]) for image_id in image_ids])
    return np.where(exact_NC, draw_NC >= noise.dropped, draw_NC < noise.added)


def _unlikely(tags_NC: Tags, shares_NC: Scored) -> Scored:
    """How unlikely each tag is to be as it is."""
    likely_NC = np.stack([likelihood(t, s) for t, s in zip(tags_NC.T, shares_NC.T.astype(float), strict=True)], 1)
    return np.where(tags_NC, 1 - likely_NC, likely_NC)


def _unlikely_for_its_class(tags_NC: Tags, shares_NC: Scored) -> Scored:
    """The same, beside the mean of those of its class that say the same."""
    unlikely_NC = _unlikely(tags_NC, shares_NC)
    for same_NC in (tags_NC, ~tags_NC):
        mean_C = (unlikely_NC * same_NC).sum(0) / np.maximum(same_NC.sum(0), 1)
        unlikely_NC = unlikely_NC - mean_C * same_NC
    return unlikely_NC


RANDOM, TAKEN = "none: at random", "as tags suspicious"
RULES: dict[str, Callable[[Tags, Scored], Scored]] = {
    RANDOM: lambda tags, shares: np.random.default_rng(0).random(tags.shape),
    "unlikely": _unlikely,
    "unlikely for its class": _unlikely_for_its_class,
    "missing only: share won": lambda tags, shares: np.where(tags, -1, shares),
    "unlikely x share won": lambda tags, shares: _unlikely(tags, shares) * shares,
    TAKEN: suspicion,
}
BEST = "by truth: what wins most"
IMAGES = {f"whole images, {rule}": rule for rule in (RANDOM, TAKEN)}


def first_tags(scores_NC: Scored, top: int) -> Tags:
    """(N, C) bool: the `top` tags with the highest scores."""
    chosen = np.zeros(scores_NC.size, bool)
    chosen[np.argsort(-scores_NC, axis=None, kind="stable")[:top]] = True
    return chosen.reshape(scores_NC.shape)


def first_images(scores_NC: Scored, top: int) -> Tags:
    """(N, C) bool: all tags of the `top` images with the highest sums of scores."""
    rank_N = np.argsort(np.argsort(-scores_NC.sum(1), kind="stable"))
    return np.broadcast_to(rank_N[:, None] < top, scores_NC.shape)


class Split:
    """A split with truth and complete pseudo-labels."""

    def __init__(self, spec: DatasetSpec, samples: Sequence[Sample], store: PseudoLabelStore) -> None:
        self.spec, self.samples, self.store = spec, samples, store
        self.ids = [sample["image_id"] for sample in samples]
        shown = [present_classes(read_truth(spec, sample)) for sample in samples]
        self.exact_NC = presence(shown, len(spec.classes))
        self.shares_NC = gather_evidence(store).shares_NC[[store.row(image_id) for image_id in self.ids]]

    def counts(self, lists_NMC: Iterable[NDArray[np.bool_]], what: str) -> list[list[NDArray[np.int64]]]:
        """For each image, whose tags are M lists (M, C), and for each of these: its pixels, (C, C + 1) as counted."""
        found = []
        with progress(len(self.samples), what, "images") as bar:
            for sample, lists_MC in zip(self.samples, lists_NMC, strict=True):
                logits_CHW = self.store.logits(sample["image_id"], self.store.mask_views[-1])
                matrices = count_under(sample, read_truth(self.spec, sample), logits_CHW, lists_MC)
                found.append([matrix.counts for matrix in matrices])
                bar.update()
        return found

    def mious(self, tags_MNC: Sequence[Tags], what: str) -> list[float]:
        """MIoU of the pseudo-labels under each of M sets of tags, in percent."""
        counts = self.counts(np.stack(tags_MNC, 1), what)
        return [_miou(np.sum([image[m] for image in counts], axis=0)) for m in range(len(tags_MNC))]

    def gains(self, tags_NC: Tags, what: str) -> Scored:
        """(N, C) mIoU in percent with that one tag set right; 0 where it is right already."""
        wrong = [np.flatnonzero(wrong_C) for wrong_C in tags_NC != self.exact_NC]
        one_CC = np.eye(tags_NC.shape[1], dtype=bool)
        lists_NMC = [
            np.stack([tags_C, *(tags_C ^ one_CC[places])]) for tags_C, places in zip(tags_NC, wrong, strict=True)
        ]
        counts = self.counts(lists_NMC, what)
        total = np.sum([image[0] for image in counts], axis=0)
        gains_NC = np.zeros(tags_NC.shape)
        for row, (before, *after) in enumerate(counts):
            gains_NC[row, wrong[row]] = [_miou(total - before + matrix) for matrix in after]
        return gains_NC


def _miou(counts: NDArray[np.int64]) -> float:
    return 100 * Scores.from_counts(counts).miou


def study(split: Split, noise: Noise, seeds: Sequence[int]) -> str:
    """What there was to mend, and a line for each rule; means over the seeds."""
    sets, wrong, doubted = [split.exact_NC], list[int](), list[int]()
    found = {rule: list[list[int]]() for rule in (*RULES, BEST, *IMAGES)}
    for seed in seeds:
        tags_NC = spoilt(noise, split.exact_NC, split.ids, seed)
        is_wrong_NC = tags_NC != split.exact_NC
        sets.append(tags_NC)
        wrong.append(int(is_wrong_NC.sum()))
        scores = {rule: score(tags_NC, split.shares_NC) for rule, score in RULES.items()}
        doubted.append(int((scores[TAKEN] > 0).sum()))
        scores[BEST] = split.gains(tags_NC, f"{noise.name}, seed {seed}")
        looked_at = {rule: [first_tags(scores_NC, top) for top in TOPS] for rule, scores_NC in scores.items()}
        looked_at |= {title: [first_images(scores[rule], top) for top in TOPS] for title, rule in IMAGES.items()}
        for rule, some in looked_at.items():
            found[rule].append([int((looked_NC & is_wrong_NC).sum()) for looked_NC in some])
            sets += [np.where(looked_NC, split.exact_NC, tags_NC) for looked_NC in some]
    exact, *others = split.mious(sets, f"{noise.name}, mended")
    by_seed = np.reshape(others, (len(seeds), -1))
    before, after_SRT = by_seed[:, 0], by_seed[:, 1:].reshape(len(seeds), len(found), len(TOPS))
    won_R = 100 * ((after_SRT[:, :, -1] - before[:, None]) / (exact - before)[:, None]).mean(0)
    lines = {rule: [*np.mean(found[rule], axis=0), *after_SRT[:, r].mean(0), won_R[r]] for r, rule in enumerate(found)}
    header = [*(f"{what} {top}" for what in ("wrong in first", "mIoU after") for top in TOPS), "% won back"]
    counts = f"{np.mean(wrong):.0f} wrong tags, {np.mean(doubted):.0f} doubted"
    title = f"{noise.name}: {counts}, mIoU {before.mean():.1f} instead of {exact:.1f}"
    return f"{title}\n\n{markdown(header, lines)}\n"


def main() -> None:
    """The tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="toy")
    parser.add_argument("--data-root", help="its folder; toy scenes are drawn into data/toy when left out")
    parser.add_argument("--out", help="run folder whose pseudo-labels are taken, and made where they are missing")
    parser.add_argument("--split", default="train")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the noise")
    options = parser.parse_args()
    quiet_libraries()
    run = Run.of(options.dataset, options.data_root, out=options.out)
    path = run.store_path(options.split)
    store = PseudoLabelStore.open(path) if is_begun(path) else make_labels(run, options.split)
    store.require_complete()
    split = Split(run.spec, run.samples(options.split, with_truth=True), store)
    N, C = split.exact_NC.shape
    print(f"# Wrong tags of {options.dataset} {options.split}: {N} images, {C} classes, seeds {options.seeds}\n")
    for noise in NOISES:
        print(study(split, noise, options.seeds), flush=True)


if __name__ == "__main__":
    main()
