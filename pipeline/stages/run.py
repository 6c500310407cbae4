"""Run: which data set, which CLIP, which settings, and where everything of a run is; the processes that share it.

OUT/labels/SPLIT.zarr          pseudo-labels of a split
OUT/image-labels-SPLIT.json    its image-level labels, where they were derived from pixel labels
OUT/suggested.toml             the settings that suit a user's own data, where there is no preset
OUT/engine/NAME/               the weights of a label engine that is fitted first
OUT/NAME/                      a student
OUT/round-N/                   the same of a round of `iterate`
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelgen.layout import is_begun, location
from labelgen.samples import InputError, Sample
from labelgen.store import PseudoLabelStore
from pipeline.config import RunConfig, as_tree, load_config
from pipeline.datasets import DatasetSpec, dataset
from pipeline.datasets.layouts import TRAIN_SPLIT
from pipeline.progress import progress
from pipeline.runs import folder_name, require_folder, write_text
from pipeline.suggestion import KEPT, Tree, as_toml, look, read_kept, suggest

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
    suggestion: str = ""  # TOML, if the settings were suggested and OUT does not hold them yet

    @classmethod
    def of(
        cls,
        name: str,
        data_root: str | None = None,
        clip: str | None = None,
        out: str | None = None,
        stores: str | None = None,
        file: str | None = None,
        settings: Sequence[str] = (),
        engine: str | None = None,
    ) -> "Run":
        """With the defaults: data are in data/NAME (toy data are drawn into it), OUT is runs/NAME, stores are in
        OUT/labels, and CLIP and label engine are those that OUT was begun with, or the tiny one and MaskCLIP.

        file and settings override the data set's preset (`load_config`); a user's own data has none, but what suits it.
        """
        as_folder = folder_name(name)
        folder = Path(out or f"runs/{as_folder}")
        stores = (stores or str(folder / "labels")).rstrip("/")
        for place in (folder, Path(location(stores))):
            require_folder(place)  # of s3://bucket there is nothing here
        begun = _begun_with(stores)
        clip = clip or begun.get("clip_id") or TINY_CLIP_NAME
        engine = engine or begun.get("engine", {}).get("name")
        if engine is not None:
            settings = (*settings, f"labels.engine={engine}")
        root = Path(data_root or f"data/{as_folder}")
        known = root if data_root or name == "toy" or root.exists() else None  # some commands need no data
        spec = dataset(name, known)
        suggested, fresh = _suggested(spec, known, folder, clip) if spec.is_users else (None, "")
        return cls(spec, known, clip, folder, stores, load_config(name, file, settings, suggested), fresh)

    def store_path(self, split: str) -> str:
        """Folder or fsspec URL of the pseudo-labels of a split."""
        return f"{self.stores}/{split}.zarr"

    def require_data(self) -> Path:
        """The data set's folder. Raises InputError where none was given."""
        if self.data_root is None:
            raise InputError(
                f"{self.spec.name} needs DATA_ROOT (--data-root): {self.spec.how_to_get} and give its path"
            )
        return self.data_root

    def samples(self, split: str, *, with_truth: bool | None = None, with_tags: bool = False) -> list[Sample]:
        """The split, after drawing the toy scenes if they are asked for and not there.

        with_tags: with image-level labels; what is derived from pixel labels is kept in OUT. Who reads a store needs
        none: they are in there.
        """
        root = self.require_data()
        if self.spec.name == "toy" and not any(root.glob("*")):
            with process_state().main_process_first():
                if not any(root.glob("*")):  # the other processes find it drawn
                    draw_toy(root)
        kept = self.out / f"image-labels-{split}.json"
        return self.spec.list_samples(
            root, split, with_truth=with_truth, tags=self.config.tags, with_tags=with_tags, kept=kept
        )

    def samples_to_look_at(self, split: str) -> list[Sample]:
        """The split; with truth, where there is some, for pictures and scores and nothing else."""
        try:
            return self.samples(split, with_truth=True)
        except InputError:
            return self.samples(split)

    def keep_suggestion(self) -> None:
        """Leave the suggested settings in OUT and say them, unless it holds them already."""
        if self.suggestion and not (self.out / KEPT).exists():
            write_text(self.out / KEPT, self.suggestion)
            print(f"{self.suggestion}\nkept in {self.out / KEPT}", file=sys.stderr)

    def settings(self) -> dict[str, Any]:
        """For provenance."""
        return {"dataset": self.spec.name, "clip": self.clip} | as_tree(self.config)


def suggestion(spec: DatasetSpec, root: Path, clip: str) -> tuple[Tree, str]:
    """Settings that fit the images and this machine: as a tree, and as TOML. Raises InputError for no images."""
    situation = look(spec, root, tiny_clip=clip == TINY_CLIP_NAME)
    tree = suggest(situation)
    return tree, as_toml(tree, situation)


def _suggested(spec: DatasetSpec, root: Path | None, out: Path, clip: str) -> tuple[Tree | None, str]:
    """What a run was begun with, or is to begin with: as a tree, and as TOML where OUT does not hold it yet."""
    if (kept := read_kept(out)) is not None:
        return kept, ""
    try:
        return (None, "") if root is None else suggestion(spec, root, clip)
    except InputError:  # who needs the images will say what is wrong with them
        return None, ""


def _begun_with(stores: str) -> dict[str, Any]:
    """The provenance of the training labels, if there are any."""
    path = f"{stores}/{TRAIN_SPLIT}.zarr"
    return PseudoLabelStore.open(path).provenance if is_begun(path) else {}


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


def own_device() -> Any:
    """The torch.device of this process (Any: transformers' models take it, but do not say so).

    In a launch accelerate calls the CPU cpu:0. Weights that are moved there are copied, lie otherwise in memory, and
    their products differ in the last bit from those of a process that was started alone.
    """
    import torch

    device = process_state().device
    return torch.device("cpu") if device.type == "cpu" else device
