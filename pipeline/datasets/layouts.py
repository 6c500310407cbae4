"""Where a split's images and label files are: one Layout for each way that data sets are laid out in folders.

A Layout finds images and says where their label files would be; it looks into none. To add one, write
`find(root, split) -> list[Item]` and draw its picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from labelgen.files import read_text
from labelgen.samples import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
TRAIN_SPLIT = "train"


class NotHereError(InputError):
    """The folder does not hold the data set in this layout; whoever knows the data set adds how to get it."""


class Item(NamedTuple):
    """An image of a split, and where its label file belongs (None: it has none)."""

    image_id: str
    image: Path
    label: Path | None


@dataclass(frozen=True)
class Layout:
    """picture: the files, drawn for people. find(root, split): the items sorted by image id; raises InputError."""

    picture: str
    find: Callable[[Path, str], list[Item]]


def images_in(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """The images in a folder. Raises NotHereError for no folder, InputError for an empty one and for equal stems."""
    if not folder.is_dir():
        raise NotHereError(f"no folder {folder}")
    # macOS leaves ._NAME.jpg beside NAME.jpg on foreign disks.
    images = sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith("."))
    if not images:
        raise InputError(f"{folder} holds no {' or '.join(suffixes)} image")
    return unique(images)


def unique(images: list[Path]) -> list[Path]:
    """The images as they are. Raises InputError if two have one stem, for the stem is the image id."""
    first: dict[str, Path] = {}
    for image in images:
        if (other := first.setdefault(image.stem, image)) is not image:
            raise InputError(f"{other} and {image.name} would have one image id; rename one of them")
    return images


def read_list(path: Path) -> list[str]:
    """The image ids of a list file: the stem of each line's first column, whatever folder it names."""
    lines = read_text(path).splitlines()
    stems = [Path(line.split()[0]).stem for line in lines if line.strip()]
    if not stems or len(set(stems)) < len(stems):
        raise InputError(f"{path} must name at least one image, and each image once")
    return sorted(stems)


def pick(folder: Path, stems: Sequence[str], list_file: Path) -> list[Path]:
    """The listed images of a folder. Raises InputError for one that is not there."""
    by_stem = {image.stem: image for image in images_in(folder)}
    missing = [stem for stem in stems if stem not in by_stem]
    if missing:
        raise InputError(f"{list_file} names {missing[0]}, which is not in {folder} ({len(missing)} such names)")
    return [by_stem[stem] for stem in stems]


def _segnet(root: Path, split: str) -> list[Item]:
    return [Item(image.stem, image, root / f"{split}annot" / f"{image.stem}.png") for image in images_in(root / split)]


SEGNET = Layout(
    """SPLIT/NAME.png (or .jpg)    the images; SPLIT is train, val or test
SPLITannot/NAME.png         class ids""",
    _segnet,
)

CAMVID_IMAGES = ("701_StillsRaw_full", "images")
CAMVID_LABELS = ("LabeledApproved_full", "Labels", "labels")


def _camvid(root: Path, split: str) -> list[Item]:
    if (root / f"{split}_labels").is_dir():
        labels = root / f"{split}_labels"
        return [Item(image.stem, image, labels / f"{image.stem}_L.png") for image in images_in(root / split)]
    if (root / split).is_dir():
        return _segnet(root, split)
    folders = [root / name for name in CAMVID_IMAGES if (root / name).is_dir()]
    label_folders = [root / name for name in CAMVID_LABELS if (root / name).is_dir()]
    if not folders or not label_folders:
        raise NotHereError(
            f"no folder {root / split} (with {split}annot or {split}_labels), "
            f"nor {CAMVID_IMAGES[0]} with {CAMVID_LABELS[0]} and {split}.txt"
        )
    list_file = root / f"{split}.txt"
    if not list_file.is_file():
        raise InputError(f"{folders[0]} is not split: list the image names of {split} in {list_file}, one a line")
    images = pick(folders[0], read_list(list_file), list_file)
    return [Item(image.stem, image, label_folders[0] / f"{image.stem}_L.png") for image in images]


CAMVID = Layout(
    f"""one of:
{SEGNET.picture}

SPLIT/NAME.png, SPLIT_labels/NAME_L.png                             labels in the 32 colours of the release

701_StillsRaw_full/NAME.png, LabeledApproved_full/NAME_L.png        the release itself
train.txt, val.txt, test.txt                                        the names of each split, one a line""",
    _camvid,
)


def _cityscapes(root: Path, split: str) -> list[Item]:
    folder, suffix = root / "leftImg8bit" / split, "_leftImg8bit.png"
    if not folder.is_dir():
        raise NotHereError(f"no folder {folder}")
    images = sorted(folder.glob(f"*/*{suffix}"))
    if not images:
        raise InputError(f"{folder} holds no CITY/*{suffix} image")
    items = []
    for image in images:
        image_id = image.name.removesuffix(suffix)
        labels = [root / "gtFine" / split / image.parent.name / f"{image_id}_gtFine_{kind}.png" for kind in CITY_KINDS]
        items.append(Item(image_id, image, next((path for path in labels if path.is_file()), labels[0])))
    return items


CITY_KINDS = ("labelIds", "labelTrainIds")
CITYSCAPES = Layout(
    """leftImg8bit/SPLIT/CITY/ID_leftImg8bit.png
gtFine/SPLIT/CITY/ID_gtFine_labelIds.png    (or ID_gtFine_labelTrainIds.png)""",
    _cityscapes,
)

WILDDASH2_COUNTS = {"train": 3618, "val": 638}  # CARB, "Dataset & Evaluation Metric"


def _wilddash2(root: Path, split: str) -> list[Item]:
    images, list_file = images_in(root / "images"), root / f"{split}.txt"
    if list_file.is_file():
        images = pick(root / "images", read_list(list_file), list_file)
    elif len(images) == sum(WILDDASH2_COUNTS.values()):
        first = WILDDASH2_COUNTS["train"]
        images = images[:first] if split == TRAIN_SPLIT else images[first:]
    else:
        raise InputError(
            f"{root / 'images'} holds {len(images)} images, not the {sum(WILDDASH2_COUNTS.values())} of wd_public_02; "
            f"list the image names of {split} in {list_file}, one a line"
        )
    return [Item(image.stem, image, root / "labels" / f"{image.stem}.png") for image in images]


WILDDASH2 = Layout(
    """images/NAME.jpg
labels/NAME.png         ids 0..38
train.txt, val.txt      the names of each split, one a line; without them the first 3,618 names are train and
                        the last 638 are val (the paper's counts; its own split is not published)""",
    _wilddash2,
)


def _folder(root: Path, split: str) -> list[Item]:
    images, truth = root / "images" / split, root / "truth" / split
    if split == TRAIN_SPLIT and not images.is_dir():
        images, truth = root / "images", root / "truth"
    elif split != TRAIN_SPLIT and not images.is_dir() and (root / "images").is_dir():
        raise InputError(
            f"no folder {images}: scores need images of {split} there, and their truth in {truth}; without any, "
            "'carbseg labels sheet' and 'carbseg predict' show masks"
        )
    return [Item(image.stem, image, truth / f"{image.stem}.png") for image in images_in(images)]


FOLDER = Layout(
    """classes.toml                classes = ["sky", "road", "car", ...]
images/SPLIT/NAME.jpg       (or .png) SPLIT is train, val or test; images/NAME.jpg if all are train
labels.csv                  a line "image,labels", then lines such as "a.jpg,road;car" (or labels.json)
truth/SPLIT/NAME.png        only to be scored: class numbers 0, 1, ... as in classes.toml, 255 = ignore""",
    _folder,
)

HUB = Layout(
    """classes.toml    classes = ["sky", "road", "car", ...], unless the data set's tags have names

The rest is unpacked from the data set: its column of images, and of class lists ('tags') or label maps ('label_map',
class numbers as in classes.toml, 255 = ignore).""",
    _folder,
)
