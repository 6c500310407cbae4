"""The masks that are shown: of any store, in any words, with the tags as they are now or were.

Shapes: C classes, H W pixels.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelgen.prompts import spell_out
from labelgen.samples import InputError, Sample
from labelgen.store import ImageLogits, PseudoLabelStore, in_image
from labelgen.views import to_mask
from pipeline.datasets.tags import presence
from pipeline.explorer.images import Images
from pipeline.explorer.memory import Memory
from pipeline.explorer.pictures import probabilities
from pipeline.explorer.reproduction import MASKCLIP
from pipeline.explorer.tags import Tags
from pipeline.explorer.words import SAVED, Versions, Words

if TYPE_CHECKING:
    from pipeline.explorer.looking import Looker

OWN = "0"  # key of the store that is explored; others are only looked at
REMEMBERED = 6  # logits of so many masks
FIGHT = 0.5  # where the second-best class is so likely, beside the best one


class Shown(NamedTuple):
    """Which mask: of what image (row of the explored store), in what layer of what store, in what words, whose tags."""

    row: int
    layer: str
    store: str = OWN
    words: str = SAVED
    has_saved_tags: bool = False


class Masks:
    """Methods raise InputError for what is not there."""

    def __init__(
        self,
        stores: Mapping[str, PseudoLabelStore],
        images: Images,
        tags: Tags,
        versions: Versions,
        open_looker: "Callable[[Sample], Looker]",
    ) -> None:
        self.stores, self._images, self._tags, self._versions = stores, images, tags, versions
        self._logits = Memory[NDArray[np.float32]](REMEMBERED)
        self._wordings = Memory[PseudoLabelStore | None](REMEMBERED)
        self._looker, self._open_looker = Memory["Looker"](1), open_looker
        self._loaded: Looker | None = None
        self.is_loading = False  # CLIP

    def logits(self, shown: Shown, *, remember: bool = True) -> NDArray[np.float32]:
        """(C, H, W), NaN where nothing is said; one map more where the words ask for one more."""
        memory = self._logits if remember else Memory[NDArray[np.float32]](1)
        return memory.get(shown._replace(has_saved_tags=False), lambda: self._ask(shown, remember))

    def mask(self, shown: Shown, *, remember: bool = True) -> NDArray[np.uint8]:
        """(H, W) class numbers, 255 = ignored."""
        logits_CHW = self.logits(shown, remember=remember)
        return to_mask(logits_CHW, presence([self._present(shown)], len(logits_CHW))[0])

    def score(self, shown: Shown, train_id: int | None) -> NDArray[np.float32]:
        """(H, W) in 0..1: how likely a class is beside those that are present. None: the word that was asked."""
        logits_CHW = self.logits(shown)
        place = len(logits_CHW) - 1 if train_id is None else train_id
        if place >= len(logits_CHW):
            raise InputError(f"there is no class {place}, but {len(logits_CHW)} from 0")
        beside = sorted({*self._present(shown), place})
        return np.asarray(probabilities(logits_CHW[beside])[beside.index(place)])

    def share_won(self, shown: Shown) -> float:
        """Of the pixels, by the word that was asked, if it were a class beside those that are present."""
        logits_CHW = self.logits(shown)
        place = len(logits_CHW) - 1
        is_present_C = presence([[*self._present(shown), place]], len(logits_CHW))[0]
        return float((to_mask(logits_CHW, is_present_C) == place).mean())

    def contest(self, shown: Shown) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        """How hard the two best classes fight, (H, W) in 0..1, 1 where they are equal; which, (2, H, W)."""
        logits_CHW = self.logits(shown)
        present = self._present(shown)
        if len(present) < 2:
            return np.zeros(logits_CHW.shape[1:], np.float32), np.zeros((2, *logits_CHW.shape[1:]), np.intp)
        likely_CHW = probabilities(logits_CHW[present])
        best_2HW = np.argpartition(-likely_CHW, 1, axis=0)[:2]
        first_HW, second_HW = np.take_along_axis(likely_CHW, best_2HW, 0)
        contest_HW = second_HW / np.maximum(first_HW, np.finfo(np.float32).tiny)
        return contest_HW.astype(np.float32), np.array(present)[best_2HW]

    def pairs(self, shown: Shown, most: int = 8) -> list[dict[str, object]]:
        """The pairs of classes that fight in the largest shares of the pixels."""
        contest_HW, classes_2HW = self.contest(shown)
        fighting = np.sort(classes_2HW[:, contest_HW > FIGHT], axis=0)
        pairs, pixels = np.unique(fighting, axis=1, return_counts=True)
        largest = np.argsort(-pixels, kind="stable")[:most]
        return [{"classes": pairs[:, k].tolist(), "share": float(pixels[k] / contest_HW.size)} for k in largest]

    def source(self, version: str) -> str:
        """Who speaks in these words: the "cache" or "clip"."""
        return "cache" if version == SAVED or self._reworded(self._versions[version]) is not None else "clip"

    def unknown_words(self, version: str) -> list[str]:
        """Words, other than the store's, that CLIP does not know, where it was asked."""
        was = {name for names in self._versions[SAVED].names for name in names}
        new = {name: None for names in self._versions[version].names for name in names if name not in was}
        return [] if self._loaded is None else self._loaded.unknown_words(new)

    @property
    def why_no_clip(self) -> str:
        """Why CLIP cannot be asked for other words; "" where it can."""
        about = self.stores[OWN].provenance
        engine = about.get("engine", {}).get("name", MASKCLIP)
        if "round_before" in about["labels"]:
            return "these labels are a student's predictions: explore the run that they were made from"
        if engine != MASKCLIP:
            return f"words can be changed in labels of the engine {MASKCLIP} only, these are of {engine}"
        if "regions" in about:
            return "these scores were averaged in regions, which are not kept: make labels without them"
        if about["labels"].get("key_smoothing") or about["labels"].get("prompt_denoising"):
            return "key_smoothing and prompt_denoising compare all words: make labels without these"
        return f"CLIP must see the images: {self._images.problem}" if self._images.problem else ""

    @property
    def share_looked_at(self) -> float | None:
        """Of the image that CLIP looks at now; None where it looks at none."""
        return None if self._loaded is None else self._loaded.share

    def looker(self) -> "Looker":
        """CLIP, loaded when it is first asked for."""
        if self.why_no_clip:
            raise InputError(self.why_no_clip)

        def load() -> "Looker":
            self.is_loading = True
            try:
                self._loaded = self._open_looker(next(iter(self._images.all.values())))
            finally:
                self.is_loading = False
            return self._loaded

        return self._looker.get(None, load)

    def _ask(self, shown: Shown, remember: bool) -> NDArray[np.float32]:
        store, image_id = self._store(shown.store), self.stores[OWN].image_ids[shown.row]
        if shown.layer not in store.mask_views:
            raise InputError(f"{store.path} has no layer {shown.layer!r}, but {', '.join(store.mask_views)}")
        if shown.words == SAVED or shown.store != OWN:
            return store.logits(image_id, shown.layer)
        words = self._versions[shown.words]
        cached = self._reworded(words)
        if cached is not None:
            return cached.logits(image_id, shown.layer)
        return _in_layer(self.looker().look(self._images.sample(shown.row), words, remember=remember), shown.layer)

    def _reworded(self, words: Words) -> PseudoLabelStore | None:
        """The store in other words, where it holds them."""
        return self._wordings.get(words, lambda: reworded(self.stores[OWN], words))

    def _store(self, key: str) -> PseudoLabelStore:
        if key not in self.stores:
            raise InputError(f"there is no store {key!r}; known: {', '.join(self.stores)}")
        return self.stores[key]

    def _present(self, shown: Shown) -> list[int]:
        if shown.store != OWN:
            image_id = self.stores[OWN].image_ids[shown.row]
            return np.flatnonzero(self._store(shown.store).labels_of(image_id)).tolist()
        return self._tags.saved(shown.row) if shown.has_saved_tags else self._tags.of(shown.row)


def reworded(store: PseudoLabelStore, words: Words) -> PseudoLabelStore | None:
    """The store in other words; None where it does not hold the sentences."""
    if not {*spell_out(words.names, words.templates)} <= {*store.sentences}:
        return None
    return store.reworded(dict(zip(store.class_names, words.names, strict=True)), words.templates)


def _in_layer(seen: ImageLogits, layer: str) -> NDArray[np.float32]:
    """As `PseudoLabelStore.logits` has it."""
    (whole_Chw,) = seen.global_logits
    return in_image(seen.size, None if layer == "local" else whole_Chw, [] if layer == "global" else seen.local_views)
