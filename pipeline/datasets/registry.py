"""The data sets that carbseg knows, as data: classes, codes of their label files, where a split's files are.

`dataset(name, root).samples(root, split)` lists a split as Samples. To add a data set, add a DatasetSpec to DATASETS,
its classes to classes.py and, if its folders look like nobody else's, a Layout to layouts.py.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from labelgen.samples import IGNORE_INDEX, ClassSet, InputError, Sample
from pipeline.datasets.classes import (
    CAMVID_CLASSES,
    CAMVID_COLOURS,
    CAMVID_IDS,
    CITYSCAPES_CLASSES,
    CITYSCAPES_IDS,
    WILDDASH2_CLASSES,
    WILDDASH2_IDS,
    read_classes,
)
from pipeline.datasets.derived_tags import derive_tags
from pipeline.datasets.hub import unpack, write_classes
from pipeline.datasets.layouts import (
    CAMVID,
    CITYSCAPES,
    FOLDER,
    HUB,
    SEGNET,
    TRAIN_SPLIT,
    WILDDASH2,
    Item,
    Layout,
    NotHereError,
)
from pipeline.datasets.tags import TagConfig, as_typed, read_tags
from pipeline.datasets.truth import LabelCode
from pipeline.names import look_up

if TYPE_CHECKING:
    from datasets import Dataset

CLASSES_FILE = "classes.toml"
LABELS_FILES = ("labels.csv", "labels.json")


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """A data set: its classes, how its label files are to be read, and where they are.

    hidden: splits whose pixel labels are not public. is_users: classes.toml and a file of image-level labels stand in
    the root folder, and pixel labels may be missing. source: what a hub data set is unpacked from.
    """

    name: str
    layout: Layout
    classes: ClassSet
    code: LabelCode
    splits: tuple[str, ...] = ("train", "val", "test")
    hidden: tuple[str, ...] = ()
    is_users: bool = False
    source: str = ""
    how_to_get: str = ""

    def at(self, root: str | Path) -> "DatasetSpec":
        """The same with the classes that it has in `root`: itself, unless the classes are the user's."""
        if not self.is_users:
            return self
        path = Path(root) / CLASSES_FILE
        if self.source and not path.is_file():
            write_classes(self.source, path)
        if not path.is_file():
            raise InputError(f"no {path}: {self.how_to_get} and give its path as DATA_ROOT (--data-root)")
        classes = read_classes(path)
        ids = {i: i for i in (*range(len(classes)), IGNORE_INDEX)}
        return replace(self, classes=classes, code=LabelCode(ids=ids))

    def samples(
        self, root: str | Path, split: str, *, with_truth: bool | None = None, tags: TagConfig | None = None
    ) -> "Dataset":
        """The split as a HF Dataset whose rows are Samples, sorted by image id. Arguments as for `list_samples`."""
        from datasets import Dataset

        rows = self.list_samples(root, split, with_truth=with_truth, tags=tags)
        return Dataset.from_list([dict(row) for row in rows])

    def list_samples(
        self,
        root: str | Path,
        split: str,
        *,
        with_truth: bool | None = None,
        tags: TagConfig | None = None,
        with_tags: bool = True,
        kept: Path | None = None,
    ) -> list[Sample]:
        """The split, sorted by image id.

        with_truth: True needs a label_path in every row; by default rows have those that there are, but none on the
        training split, so that truth cannot leak. tags: where image_labels come from; by default from the user's
        labels file, for images that it does not list from pixel labels; else they are None: unknown. with_tags: False
        for None in every row; no label file is read then. kept: file where what is derived from pixel labels is kept.
        Raises InputError for a missing folder, an empty split, a broken labels file, or missing truth.
        """
        spec, tags = self.at(root), tags or TagConfig()
        from_pixels = with_tags and tags.source == "data" and not tags.file
        items = self.items(root, split, needs_labels=bool(with_truth) or from_pixels)
        if with_truth and split in self.hidden:
            raise InputError(f"the pixel labels of {self.name} {split} are not public; score on another split")
        without = next((item.image for item in items if item.label is None), None)
        if with_truth and without is not None:
            raise InputError(f"{without} has no pixel labels to score against; they belong in {Path(root) / 'truth'}")
        keep_truth = split != TRAIN_SPLIT if with_truth is None else with_truth
        shown = spec.image_labels(root, items, tags, kept) if with_tags else [None] * len(items)
        return [
            {
                "image_id": item.image_id,
                "image_path": str(item.image),
                "label_path": str(item.label) if keep_truth and item.label is not None else None,
                "image_labels": present,
            }
            for item, present in zip(items, shown, strict=True)
        ]

    def items(self, root: str | Path, split: str, *, needs_labels: bool = True) -> list[Item]:
        """The files of a split; label files that are not there are None.

        Raises InputError, also for a missing label file if they are needed and images are not the user's own.
        """
        items = []
        for item in self.files(root, split):
            is_there = item.label is not None and item.label.is_file()
            if item.label is not None and not is_there and needs_labels and not self.is_users:
                raise InputError(f"{item.image} has no label file {item.label}; image-level labels are derived from it")
            items.append(item if is_there else item._replace(label=None))
        return items

    def files(self, root: str | Path, split: str) -> list[Item]:
        """The images of a split, and where their label files belong (None: not public). Raises InputError."""
        if split not in self.splits:
            raise InputError(f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}")
        if self.source:
            unpack(self.source, Path(root), split, self.at(root).classes)
        try:
            items = self.layout.find(Path(root), split)
        except NotHereError as error:
            raise InputError(f"{error}: {self.how_to_get} and give its path as DATA_ROOT (--data-root)") from error
        return [item._replace(label=None) for item in items] if split in self.hidden else items

    def image_labels(
        self, root: str | Path, items: list[Item], tags: TagConfig, kept: Path | None = None
    ) -> list[list[int] | None]:
        """The train ids that each image shows, None where they are unknown. Raises InputError."""
        if tags.is_guessed:
            return [None] * len(items)
        if tags.file:
            return self._image_labels_from(Path(tags.file), root, items)
        own_file = self.labels_file(root)
        shown: list[list[int] | None] = [None] * len(items)
        if own_file is not None:
            shown = self._image_labels_from(own_file, root, items)
        maps = {place: item.label for place, item in enumerate(items) if shown[place] is None and item.label}
        decided_by = {"min_area": tags.min_area, "label_code": self.code.as_dict()}
        derived = derive_tags(list(maps.values()), self.read_truth, decided_by, kept)
        for place, present in zip(maps, derived, strict=True):
            shown[place] = present
        return shown

    def read_truth(self, label_path: str | Path) -> NDArray[np.uint8]:
        """truth_HW: uint8 train ids, 255 = ignore (void, and ids or colours that the data set does not know)."""
        return self.code.read(label_path)

    def labels_file(self, root: str | Path) -> Path | None:
        """The user's file of image-level labels, if there is one. Raises InputError if there are two."""
        files = [Path(root) / name for name in LABELS_FILES if self.is_users and (Path(root) / name).is_file()]
        if len(files) > 1:
            raise InputError(f"{files[0]} and {files[1].name} both say what the images show; keep one of them")
        return files[0] if files else None

    def _image_labels_from(self, file: Path, root: str | Path, items: list[Item]) -> list[list[int] | None]:
        tags = read_tags(file, self.classes)
        # A file may speak of several splits, so only a name that is in none of them is a mistake.
        known = {name for split in self.splits for item in self._other_items(root, split) for name in _names(item)}
        stranger = next((name for name in tags if name not in known), None)
        if stranger is not None and not self.source:  # what is unpacked may be cut before its images are there
            raise InputError(f"{file} names {stranger!r}, but {root} has no such image; correct the name or remove it")
        return [next((tags[name] for name in _names(item) if name in tags), None) for item in items]

    def _other_items(self, root: str | Path, split: str) -> list[Item]:
        try:
            return self.layout.find(Path(root), split)
        except InputError:  # a split that is not there has no images
            return []


def _names(item: Item) -> tuple[str, str, str]:
    """What a labels file may call an image, first the most exact: "train/a.jpg", "a.jpg", or "a"."""
    name = as_typed(item.image.name)
    return f"{item.image.parent.name}/{name}", name, as_typed(item.image_id)


DATASETS: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        DatasetSpec(
            name="toy",
            layout=SEGNET,
            classes=CAMVID_CLASSES,
            code=LabelCode(ids=CAMVID_IDS),
            how_to_get="draw the toy scenes with 'carbseg datasets draw-toy DATA_ROOT'",
        ),
        DatasetSpec(
            name="camvid",
            layout=CAMVID,
            classes=CAMVID_CLASSES,
            code=LabelCode(ids=CAMVID_IDS, colours=CAMVID_COLOURS),
            how_to_get="get CamVid with 'carbseg datasets fetch camvid DATA_ROOT', or the release of 720 x 960 pixels "
            "from http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/",
        ),
        DatasetSpec(
            name="cityscapes",
            layout=CITYSCAPES,
            classes=CITYSCAPES_CLASSES,
            code=LabelCode(ids=CITYSCAPES_IDS, train_id_files="_labelTrainIds.png"),
            hidden=("test",),
            how_to_get="get leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from "
            "https://www.cityscapes-dataset.com (free for research, needs an account), unpack both into one folder",
        ),
        DatasetSpec(
            name="wilddash2",
            layout=WILDDASH2,
            classes=WILDDASH2_CLASSES,
            code=LabelCode(ids=WILDDASH2_IDS),
            splits=("train", "val"),
            how_to_get="get wd_public_02.zip ('old WD2 beta') from https://wilddash.cc (needs an account), unpack it",
        ),
        DatasetSpec(
            name="folder",
            layout=FOLDER,
            classes=ClassSet((), (), ()),
            code=LabelCode(ids={i: i for i in range(256)}),
            is_users=True,
            how_to_get="put your images and a classes.toml into a folder (README, 'Your own images')",
        ),
        DatasetSpec(
            name="hf",
            layout=HUB,
            classes=ClassSet((), (), ()),
            code=LabelCode(ids={i: i for i in range(256)}),
            is_users=True,
            how_to_get="name it as hf:PATH_OR_NAME (what Hugging Face datasets opens), make a folder to unpack it into",
        ),
    )
}


def dataset(name: str, root: str | Path | None = None) -> DatasetSpec:
    """The data set of that name, with the classes that it has in `root` (only folder and hf:SOURCE need one).

    Raises InputError that lists the known ones.
    """
    kind, _, source = name.partition(":")
    spec = look_up(DATASETS, kind, "data set")
    if (kind == "hf") != bool(source):
        raise InputError(f"{name!r} names no data set; a Hugging Face one is hf:PATH_OR_NAME, the others have no ':'")
    if source:
        spec = replace(spec, name=name, source=source)
    return spec if root is None else spec.at(root)
