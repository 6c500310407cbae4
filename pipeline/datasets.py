"""The data sets that carbseg knows, as data: classes, raw ids, where a split's files are.

`DATASETS[name].samples(root, split)` lists a split as Samples. To add a data set, add a DatasetSpec.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from labelgen.images import read_label_map
from labelgen.samples import IGNORE_INDEX, ClassSet, InputError, Sample
from pipeline.names import look_up

if TYPE_CHECKING:
    from datasets import Dataset

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
TRAIN_SPLIT = "train"


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """A data set in the SegNet layout: SPLIT/NAME.(png|jpg) beside SPLITannot/NAME.png.

    train_ids: raw id in the label file -> train id; raw ids that are not listed are ignored (255).
    """

    name: str
    classes: ClassSet
    train_ids: dict[int, int]
    splits: tuple[str, ...] = ("train", "val", "test")
    how_to_get: str = ""

    def samples(self, root: str | Path, split: str, *, with_truth: bool | None = None) -> "Dataset":
        """The split as a HF Dataset whose rows are Samples, sorted by file name.

        with_truth: keep label_path; by default on every split but the training one, so that truth cannot leak.
        Raises InputError for a missing folder, an empty split, or an image without a label file.
        """
        from datasets import Dataset

        rows = self.list_samples(root, split, with_truth=with_truth)
        return Dataset.from_list([dict(row) for row in rows])

    def list_samples(self, root: str | Path, split: str, *, with_truth: bool | None = None) -> list[Sample]:
        """The same as a plain list."""
        if split not in self.splits:
            raise InputError(f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}")
        folder = Path(root) / split
        if not folder.is_dir():
            raise InputError(f"no folder {folder}: {self.how_to_get} and give its path as DATA_ROOT (--data-root)")
        images = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        if not images:
            raise InputError(f"{folder} holds no {' or '.join(IMAGE_SUFFIXES)} image")
        keep_truth = split != TRAIN_SPLIT if with_truth is None else with_truth
        samples: list[Sample] = []
        for image in images:
            label = Path(root) / f"{split}annot" / f"{image.stem}.png"
            if not label.is_file():
                raise InputError(f"{image} has no label file {label}; image-level labels are derived from it")
            samples.append(
                {
                    "image_id": image.stem,
                    "image_path": str(image),
                    "label_path": str(label) if keep_truth else None,
                    "image_labels": present_classes(self.read_truth(label)),
                }
            )
        return samples

    def read_truth(self, label_path: str | Path) -> NDArray[np.uint8]:
        """truth_HW: uint8 train ids, 255 = ignore (void)."""
        table = np.full(256, IGNORE_INDEX, np.uint8)
        for raw, train in self.train_ids.items():
            table[raw] = train
        return table[read_label_map(label_path)]


def present_classes(truth_HW: NDArray[np.uint8]) -> list[int]:
    """Train ids in a label map, void left out: the image-level labels, as the paper derives them."""
    return [int(c) for c in np.unique(truth_HW) if c != IGNORE_INDEX]


CAMVID_CLASSES = ClassSet(
    names=(
        "sky",
        "building",
        "pole",
        "road",
        "sidewalk",
        "tree",
        "sign",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    prompts=(
        ("sky",),
        ("building",),
        ("pole",),
        ("road",),
        ("sidewalk",),
        ("tree",),
        ("sign symbol", "traffic sign"),
        ("fence",),
        ("car",),
        ("pedestrian",),
        ("bicyclist",),
    ),
    palette=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (0, 0, 192),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
)
ELEVEN_IDS = {i: i for i in range(11)}  # SegNet's CamVid marks void as 11: not listed, so ignored

DATASETS: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        DatasetSpec(
            name="toy",
            classes=CAMVID_CLASSES,
            train_ids=ELEVEN_IDS,
            how_to_get="draw the toy scenes with 'carbseg datasets draw-toy DATA_ROOT'",
        ),
        DatasetSpec(
            name="camvid",
            classes=CAMVID_CLASSES,
            train_ids=ELEVEN_IDS,
            how_to_get="get CamVid in the SegNet layout (folders train, trainannot, val, valannot, test, testannot)",
        ),
    )
}


def dataset(name: str) -> DatasetSpec:
    """The data set of that name. Raises InputError that lists the known ones."""
    return look_up(DATASETS, name, "data set")
