"""Session: what one run of the explorer shows, and what has been changed in it; answers are ready for JSON.

Shapes: C classes, H W pixels.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.confusion import count_pixels
from labelgen.samples import ClassSet, InputError, Sample
from labelgen.store import PseudoLabelStore
from pipeline.datasets import DatasetSpec
from pipeline.explorer.images import Images
from pipeline.explorer.jobs import Job, Step
from pipeline.explorer.masks import OWN, Masks, Shown
from pipeline.explorer.moves import Moves, miou
from pipeline.explorer.ranking import Ranking
from pipeline.explorer.reproduction import Options
from pipeline.explorer.saving import Keeper
from pipeline.explorer.tags import Tags
from pipeline.explorer.words import SAVED, Versions, Words

if TYPE_CHECKING:
    from pipeline.explorer.looking import Looker

Json = dict[str, Any]
SUSPICION, ORDER = "suspicion", "order"
MOST_TRIED = 200


class Session:
    """One store, others to compare it with, and the images that they are of.

    Methods raise InputError for what cannot be shown or done.
    """

    def __init__(
        self,
        options: Options,
        spec: DatasetSpec,
        root: Path,
        split: str,
        stores: Mapping[str, PseudoLabelStore],
        open_looker: "Callable[[Sample], Looker]",
    ) -> None:
        """stores: by what to call them, the explored one first. open_looker: loads CLIP, given one of the images."""
        self._options, self._spec, self._split = options, spec, split
        self._labels, by_key = list(stores), {str(key): store for key, store in enumerate(stores.values())}
        self.store = by_key[OWN]
        about = self.store.provenance
        self._classes = ClassSet(
            names=tuple(about["classes"]["names"]),
            prompts=tuple(map(tuple, about["classes"]["prompts"])),
            palette=tuple(map(tuple, about["classes"]["palette"])),
        )
        for other in by_key.values():
            if other.class_names != self.store.class_names:
                raise InputError(f"{other.path} has other classes than {self.store.path}: they cannot be compared")
        self.images = Images(spec, root, split, self.store)
        self._words = Words(self._classes.prompts, tuple(about["labels"].get("templates", ())))
        self._versions = Versions(self._words)
        self._tags = Tags(self._stored_tags)
        self.masks = Masks(by_key, self.images, self._tags, self._versions, open_looker)
        self._ranking = Ranking(self.store)
        self._tries: list[Job] = []
        self._warming: Job | None = None
        self._keeper = Keeper(options, self.store, split, self.images, self._classes)
        self._kept_words, self._trouble = self._words, ""
        self._go_on()

    def _go_on(self) -> None:
        """With what an earlier session saved."""
        try:
            self._kept_words = self._keeper.kept_words(self._words).in_order_of(self.store.sentences)
            made = self.store.is_written()
            self._tags.go_on_with({row: tags for row, tags in self._keeper.kept_tags().items() if made[row]})
        except InputError as error:
            self._trouble = f"what was saved before is left alone: {error}"

    @property
    def parting(self) -> str:
        """What is lost when it ends now; "" for nothing."""
        count = len(self._tags.changed)
        return "" if self._tags.are_saved else f"changes of tags were not saved; images with other tags: {count}"

    # ---- What there is -------------------------------------------------------------------------------------------

    def describe(self) -> Json:
        """What the page begins with."""
        colours = zip(self._classes.names, self._classes.palette, strict=True)
        missing = int((~self.store.is_written()).sum())
        problems = []
        if missing == len(self.store):
            problems.append(f"{self.store.path} is empty; make its labels with 'carbseg labels'")
        elif missing:
            problems.append(f"{missing} of {len(self.store)} images are not made yet; 'carbseg labels' goes on")
        if self.images.problem:
            problems.append(f"no photos: {self.images.problem}")
        if self.images.missing:
            problems.append(f"{self.images.missing} of {len(self.store)} images are not in {self.images.root}")
        if self._trouble:
            problems.append(self._trouble)
        return {
            "name": self._labels[0],
            "dataset": self._spec.name,
            "split": self._split,
            "images": len(self.store),
            "classes": [{"name": name, "colour": colour} for name, colour in colours],
            "words": self._as_json(self._words),
            "kept_words": self._as_json(self._kept_words),
            "stores": [{"key": str(key), "label": label} for key, label in enumerate(self._labels)],
            "layers": self.store.mask_views,
            "has_truth": self.images.have_truth,
            "clip": None if self.store.sentences else self.masks.why_no_clip or None,
            "problems": problems,
            "changed_tags": len(self._tags.changed),
            "can_undo": self._tags.can_undo,
            "are_tags_saved": self._tags.are_saved,
        }

    def listing(self, sort: str, query: str, offset: int, limit: int, row: int | None = None) -> Json:
        """A page of the list of images whose id holds the query, and where a row stands in it."""
        if sort not in (SUSPICION, ORDER):
            raise InputError(f"sort must be {SUSPICION} or {ORDER}, got {sort!r}")
        ranking = self._ranking.start() if sort == SUSPICION else None
        ids, wanted = self.store.image_ids, query.casefold()
        rows = self._ranking.rows() if ranking else range(len(ids))
        found = [row for row in rows if wanted in ids[row].casefold()]
        place = found.index(row) if row in found else None
        is_made_N = self.store.is_written()
        items = [self._item(row, bool(is_made_N[row])) for row in found[offset : offset + limit]]
        return {"total": len(found), "items": items, "place": place} | ({"suspicion": ranking} if ranking else {})

    def about(self, row: int) -> Json:
        """What the page says of an image."""
        image_id = self.store.image_ids[row]
        is_made = not self.store.missing([image_id])
        height, width = self.store.size(image_id) if is_made else (None, None)
        return {
            "row": row,
            "id": image_id,
            "height": height,
            "width": width,
            "tags": self._tags.of(row) if is_made else [],
            "tags_saved": self._tags.saved(row) if is_made else [],
            "suspects": self._ranking.of(row),
            "is_made": is_made,
        }

    def miou(self, shown: Shown) -> Json:
        """Of a mask, in percent; None without truth."""
        mask_HW = self.masks.mask(shown)
        truth_HW = self.images.truth(shown.row, (mask_HW.shape[0], mask_HW.shape[1]))
        return {"miou": None if truth_HW is None else miou(count_pixels(truth_HW, mask_HW, len(self._classes)))}

    def warm_up(self) -> None:
        """Load CLIP in the background, so that the first change of words need not wait for it."""
        if self._warming is None and not self.store.sentences and not self.masks.why_no_clip:
            self._warming = Job(1, lambda step: self.masks.looker().encode(self._words))

    def _item(self, row: int, is_made: bool) -> Json:
        suspects = self._ranking.of(row)
        return {
            "row": row,
            "id": self.store.image_ids[row],
            "tags": self._tags.of(row) if is_made else [],
            "suspect": suspects[0] if suspects else None,
            "is_made": is_made,
            "changed": row in self._tags.changed,
        }

    # ---- Words ---------------------------------------------------------------------------------------------------

    def ask_words(self, data: Json) -> Json:
        """Masks of one image in other words, and what moved."""
        begun, row, words = time.monotonic(), self.row(data), self._read_words(data)
        version = self._versions.add(words)
        moves = Moves(len(self._classes))
        self._count_moves(moves, Shown(row, self._layer(data), words=version), remember=True)
        return {
            "version": version,
            "source": self.masks.source(version),
            "unknown": self.masks.unknown_words(version),
            "seconds": round(time.monotonic() - begun, 3),
            **moves.as_dict(),
        }

    def ask_word(self, data: Json) -> Json:
        """Where one more word would win in an image, beside words that are as in `ask_words`."""
        begun, row = time.monotonic(), self.row(data)
        version = self._versions.add(self._read_words(data).asking(data.get("word")))
        share = self.masks.share_won(Shown(row, self._layer(data), words=version))
        unknown = self.masks.unknown_words(version)
        return {"version": version, "share": share, "unknown": unknown, "seconds": round(time.monotonic() - begun, 3)}

    def try_words(self, data: Json) -> Json:
        """Begin to find out what other words do to some images, evenly spread; ends the try before."""
        count = data.get("images", 20)
        if type(count) is not int or not 1 <= count <= MOST_TRIED:
            raise InputError(f"images must be a number from 1 to {MOST_TRIED}, got {count!r}")
        layer, version = self._layer(data), self._versions.add(self._read_words(data))
        made = np.flatnonzero(self.store.is_written())
        if not len(made):
            raise InputError(f"{self.store.path} is empty; make its labels with 'carbseg labels'")
        rows = made[np.unique(np.linspace(0, len(made) - 1, min(count, len(made))).astype(int))].tolist()

        def work(step: Step) -> Json:
            moves = Moves(len(self._classes))
            for row in rows:
                self._count_moves(moves, Shown(row, layer, words=version), remember=False)
                step()
            return moves.as_dict()

        if self._tries:
            self._tries[-1].stop()
        self._tries.append(Job(len(rows), work))
        return {"job": f"j{len(self._tries)}"}

    def job(self, name: str) -> Json:
        """How far a try is."""
        number = name.removeprefix("j")
        if not number.isdecimal() or not 1 <= int(number) <= len(self._tries):
            raise InputError(f"there is no job {name!r}")
        return self._tries[int(number) - 1].as_dict()

    def looking(self) -> Json:
        """Whether CLIP is being loaded, and what share of an image it has seen; None where it looks at none."""
        return {"is_loading": self.masks.is_loading, "share": self.masks.share_looked_at}

    def _count_moves(self, moves: Moves, shown: Shown, *, remember: bool) -> None:
        before_HW = self.masks.mask(shown._replace(words=SAVED, has_saved_tags=True), remember=remember)
        after_HW = self.masks.mask(shown, remember=remember)
        moves.add(before_HW, after_HW, self.images.truth(shown.row, (before_HW.shape[0], before_HW.shape[1])))

    def _read_words(self, data: Json) -> Words:
        # In the order of what is cached: in another one, sums would be rounded otherwise.
        return Words.read(data, self._classes.names, self._words).in_order_of(self.store.sentences)

    # ---- Tags ----------------------------------------------------------------------------------------------------

    def change_tag(self, data: Json) -> Json:
        """Add or remove a class of an image."""
        row, train_id, is_present = self.row(data), data.get("class"), data.get("present")
        if type(train_id) is not int or not 0 <= train_id < len(self._classes) or type(is_present) is not bool:
            raise InputError("a change of tags is a row, the number of a class, and whether it is present")
        if self.store.provenance.get("image_labels", {}).get("source") == "none":
            raise InputError("these labels were made without image-level labels; there is nothing to mend")
        self._tags.change(row, train_id, is_present=is_present)
        return self._changed(row)

    def undo_tag(self, data: Json) -> Json:
        """Take the last change back."""
        return self._changed(self._tags.undo())

    def _changed(self, row: int) -> Json:
        changes = len(self._tags.changed)
        return {
            "row": row,
            "tags": self._tags.of(row),
            "can_undo": self._tags.can_undo,
            "changes": changes,
            "are_saved": self._tags.are_saved,
        }

    def _stored_tags(self, row: int) -> list[int]:
        return np.flatnonzero(self.store.labels_of(self.store.image_ids[row])).tolist()

    # ---- Saving --------------------------------------------------------------------------------------------------

    def save(self, data: Json) -> Json:
        """Write the words and the tags, and say the command that makes a store with them."""
        return self._keeper.save(self._read_words(data), self._tags, replace=data.get("replace") is True)

    def _as_json(self, words: Words) -> Json:
        return {"classes": dict(zip(self._classes.names, words.names, strict=True)), "templates": words.templates}

    def row(self, data: Json) -> int:
        """The image that a request is about."""
        row = data.get("row")
        if type(row) is not int or not 0 <= row < len(self.store):
            raise InputError(f"row must be a number below {len(self.store)}, got {row!r}")
        return row

    def _layer(self, data: Json) -> str:
        layer = data.get("layer", self.store.mask_views[-1])
        if layer not in self.store.mask_views:
            raise InputError(f"layer must be one of {', '.join(self.store.mask_views)}, got {layer!r}")
        return str(layer)

    def close(self) -> bool:
        """End what runs in the background; whether it has ended: nobody can stop CLIP from being loaded."""
        self._ranking.stop()
        return all(job.stop(wait_s=5) for job in (*self._tries, *([self._warming] if self._warming else [])))
