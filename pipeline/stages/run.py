"""Run: which data set, which CLIP, which settings, and where everything of a run is; the processes that share it.

OUT/labels/SPLIT.zarr          pseudo-labels of a split
OUT/image-labels-SPLIT.json    its image-level labels, where they were derived from pixel labels
OUT/NAME/                      a student
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelgen.layout import store_exists
from labelgen.samples import InputError, Sample
from labelgen.store import PseudoLabelStore
from pipeline.config import RunConfig, as_tree
from pipeline.datasets import DatasetSpec, dataset
from pipeline.datasets.layouts import TRAIN_SPLIT
from pipeline.progress import progress

if TYPE_CHECKING:
    from accelerate import PartialState

TINY_CLIP = Path(__file__).parent.parent / "toy" / "clip"
TINY_CLIP_NAME = "tiny"  # in provenance: not where the package happens to be installed


@dataclass(frozen=True)
class Run:
    """What every stage needs to know."""

    spec: DatasetSpec
    data_root: Path | None
    clip: str
    out: Path
    stores: str
    config: RunConfig

    @classmethod
    def of(
        cls,
        name: str,
        data_root: str | None,
        clip: str | None,
        out: str | None,
        stores: str | None,
        config: RunConfig,
    ) -> "Run":
        """With the defaults: data are in data/NAME (toy data are drawn into it), OUT is runs/NAME, stores are in
        OUT/labels, and the CLIP is the one that OUT was begun with, or the tiny one.
        """
        as_folder = re.sub(r"[^\w.-]+", "-", name)  # of hf:PATH_OR_NAME
        folder = Path(out or f"runs/{as_folder}")
        stores = (stores or str(folder / "labels")).rstrip("/")
        clip = clip or _clip_of(stores) or TINY_CLIP_NAME
        root = Path(data_root or f"data/{as_folder}")
        known = root if data_root or name == "toy" or root.exists() else None  # some commands need no data
        return cls(dataset(name, known), known, clip, folder, stores, config)

    def store_path(self, split: str) -> str:
        """Folder or fsspec URL of the pseudo-labels of a split."""
        return f"{self.stores}/{split}.zarr"

    def samples(self, split: str, *, with_truth: bool | None = None, with_tags: bool = False) -> list[Sample]:
        """The split, after drawing the toy scenes if they are asked for and not there.

        with_tags: with image-level labels; what is derived from pixel labels is kept in OUT. Who reads a store needs
        none: they are in there.
        """
        if self.data_root is None:
            raise InputError(
                f"{self.spec.name} needs DATA_ROOT (--data-root): {self.spec.how_to_get} and give its path"
            )
        if self.spec.name == "toy" and not any(self.data_root.glob("*")):
            with process_state().main_process_first():
                if not any(self.data_root.glob("*")):  # the other processes find it drawn
                    draw_toy(self.data_root)
        kept = self.out / f"image-labels-{split}.json"
        return self.spec.list_samples(
            self.data_root, split, with_truth=with_truth, tags=self.config.tags, with_tags=with_tags, kept=kept
        )

    def settings(self) -> dict[str, Any]:
        """For provenance."""
        return {"dataset": self.spec.name, "clip": self.clip} | as_tree(self.config)


def _clip_of(stores: str) -> str | None:
    """The CLIP that the training labels were made with, if there are any."""
    path = f"{stores}/{TRAIN_SPLIT}.zarr"
    return str(PseudoLabelStore.open(path).provenance["clip_id"]) if store_exists(path) else None


def draw_toy(root: Path) -> None:
    """Draw all splits of the toy data set."""
    from pipeline.toy.scenes import SCENES, write_scenes

    with progress(sum(SCENES.values()), "drawing toy scenes", "images") as bar:
        write_scenes(root, SCENES, on_scene=bar.update)


def process_state() -> "PartialState":
    """Which process of a launcher runs this, and on what device."""
    import torch
    from accelerate import PartialState

    # Without cpu=True accelerate takes each process of a CPU launch for the only one.
    return PartialState(cpu=not torch.accelerator.is_available())
