"""Session: what one run of the explorer looks at, and what has been changed in it.

Shapes: C classes, H W pixels.
"""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from labelgen.samples import ClassSet, InputError, Sample
from labelgen.store import MaskView, PseudoLabelStore
from labelgen.views import to_mask
from pipeline.datasets import DatasetSpec

OWN = "0"  # key of the store that is explored; others are looked at only
REMEMBERED = 6  # logits of so many masks


class Session:
    """One store, others to compare it with, and the images that they are of.

    Methods raise InputError for what cannot be shown.
    """

    def __init__(
        self, name: str, spec: DatasetSpec, root: Path | None, split: str, stores: Sequence[tuple[str, PseudoLabelStore]]
    ) -> None:
        self.name, self.spec, self.root, self.split = name, spec, root, split
        self.stores = {str(key): store for key, (_, store) in enumerate(stores)}
        self.labels = {str(key): label for key, (label, _) in enumerate(stores)}
        self.store = self.stores[OWN]
        about = self.store.provenance["classes"]
        self.classes = ClassSet(
            names=tuple(about["names"]),
            prompts=tuple(map(tuple, about["prompts"])),
            palette=cast("Any", tuple(map(tuple, about["palette"]))),
        )
        self.logits = lru_cache(REMEMBERED)(self._read_logits)

    @cached_property
    def _listed(self) -> dict[str, Sample] | InputError:
        """Where the images are, by id; or why nobody knows."""
        if self.root is None:
            return InputError(f"{self.spec.name} needs DATA_ROOT (--data-root)")
        try:
            for with_truth in (True, False):
                try:
                    rows = self.spec.list_samples(self.root, self.split, with_truth=with_truth, with_tags=False)
                    return {row["image_id"]: row for row in rows}
                except InputError:
                    if not with_truth:
                        raise
        except InputError as error:
            return error
        raise AssertionError

    def sample(self, row: int) -> Sample:
        """Where the image and its truth are."""
        if isinstance(self._listed, InputError):
            raise self._listed
        image_id = self.image_id(row)
        if image_id not in self._listed:
            raise InputError(f"{self.root} has no image {image_id!r} in {self.split}")
        return self._listed[image_id]

    def image_id(self, row: int) -> str:
        """The image of a row of the store. Raises IndexError."""
        return self.store.image_ids[row]

    def describe(self) -> dict[str, Any]:
        """What the page begins with."""
        made = int(self.store.is_written().sum())
        problems = [] if made == len(self.store) else [f"{len(self.store) - made} of {len(self.store)} images not made yet"]
        listed = self._listed
        if isinstance(listed, InputError):
            problems.append(f"no photos: {listed}")
        return {
            "name": self.name,
            "dataset": self.spec.name,
            "split": self.split,
            "images": len(self.store),
            "classes": [
                {"name": name, "colour": colour}
                for name, colour in zip(self.classes.names, self.classes.palette, strict=True)
            ],
            "words": {
                "classes": dict(zip(self.classes.names, self.classes.prompts, strict=True)),
                "templates": self.store.provenance["labels"]["templates"],
            },
            "stores": [{"key": key, "label": label} for key, label in self.labels.items()],
            "layers": self.store.mask_views,
            "has_truth": isinstance(listed, dict) and any(row["label_path"] for row in listed.values()),
            "clip": "words cannot be changed yet",
            "problems": problems,
            "changed_tags": 0,
            "unsaved": {"words": False, "tags": False},
        }

    def listing(self, query: str, offset: int, limit: int) -> dict[str, Any]:
        """A page of the list of images."""
        rows = [row for row, image_id in enumerate(self.store.image_ids) if query.casefold() in image_id.casefold()]
        made = self.store.is_written()
        return {
            "total": len(rows),
            "items": [
                {
                    "row": row,
                    "id": self.image_id(row),
                    "tags": self.tags(row) if made[row] else [],
                    "suspect": None,
                    "is_made": bool(made[row]),
                    "changed": False,
                }
                for row in rows[offset : offset + limit]
            ],
        }

    def about(self, row: int) -> dict[str, Any]:
        """What the page shows beside an image."""
        image_id = self.image_id(row)
        is_made = not self.store.missing([image_id])
        height, width = self.store.size(image_id) if is_made else (None, None)
        tags = self.tags(row) if is_made else []
        return {
            "row": row,
            "id": image_id,
            "height": height,
            "width": width,
            "tags": tags,
            "tags_saved": tags,
            "suspects": [],
            "is_made": is_made,
            "scores": {},
        }

    def tags(self, row: int) -> list[int]:
        """The classes that the image is said to show."""
        return cast("list[int]", np.flatnonzero(self.store.labels_of(self.image_id(row))).tolist())

    def mask(self, row: int, layer: str, key: str = OWN) -> NDArray[np.uint8]:
        """(H, W) class numbers, 255 = ignored."""
        if layer == "truth":
            path = self.sample(row)["label_path"]
            if path is None:
                raise InputError(f"{self.image_id(row)} has no truth")
            return self.spec.read_truth(path)
        store = self._compared(key)
        return to_mask(self.logits(row, layer, key), store.labels_of(self.image_id(row)))

    def _compared(self, key: str) -> PseudoLabelStore:
        if key not in self.stores:
            raise InputError(f"no store {key!r}")
        return self.stores[key]

    def _read_logits(self, row: int, layer: str, key: str) -> NDArray[np.float32]:
        return self._compared(key).logits(self.image_id(row), cast("MaskView", layer))
