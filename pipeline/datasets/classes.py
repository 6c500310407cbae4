"""The classes of each data set, and what stands for them in its label files; a user's own classes.toml."""

import colorsys
import itertools
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from labelgen.files import read_toml
from labelgen.samples import IGNORE_INDEX, ClassSet, InputError

RGB = tuple[int, int, int]


class ClassRow(NamedTuple):
    """A class as a line of a table; prompts default to the name."""

    raw_id: int
    name: str
    colour: RGB
    category: str = ""
    prompts: tuple[str, ...] = ()


def class_set(rows: Sequence[ClassRow]) -> ClassSet:
    """The table's lines, by train id."""
    categories = tuple(row.category for row in rows)
    return ClassSet(
        names=tuple(row.name for row in rows),
        prompts=tuple(row.prompts or (row.name,) for row in rows),
        palette=tuple(row.colour for row in rows),
        categories=categories if all(categories) else (),
    )


def id_table(rows: Sequence[ClassRow], void: Collection[int] = ()) -> dict[int, int]:
    """Raw id -> train id; `void` and 255 are ids that mean nothing, ids that are not here are unknown."""
    table = dict.fromkeys((*void, IGNORE_INDEX), IGNORE_INDEX)
    return table | {row.raw_id: train_id for train_id, row in enumerate(rows)}


CAMVID_ROWS = (
    ClassRow(0, "sky", (128, 128, 128)),
    ClassRow(1, "building", (128, 0, 0)),
    ClassRow(2, "pole", (192, 192, 128)),
    ClassRow(3, "road", (128, 64, 128)),
    ClassRow(4, "sidewalk", (0, 0, 192)),
    ClassRow(5, "tree", (128, 128, 0)),
    ClassRow(6, "sign", (192, 128, 128), prompts=("sign symbol", "traffic sign")),
    ClassRow(7, "fence", (64, 64, 128)),
    ClassRow(8, "car", (64, 0, 128)),
    ClassRow(9, "pedestrian", (64, 64, 0)),
    ClassRow(10, "bicyclist", (0, 128, 192)),
)
CAMVID_CLASSES = class_set(CAMVID_ROWS)
CAMVID_IDS = id_table(CAMVID_ROWS, void=[11])  # SegNet's copy marks void as 11

# The release's 32 colours are sure (its label_colors.txt, quoted alike in many places). Their grouping into eleven
# classes is the one that is quoted for SegNet (MathWorks' CamVid example, SDBNet); SegNet's authors published the
# finished maps, not the grouping, so that it is exactly theirs cannot be checked from the files.
CAMVID_GROUPS: dict[str, dict[str, RGB]] = {
    "sky": {"Sky": (128, 128, 128)},
    "building": {
        "Archway": (192, 0, 128),
        "Bridge": (0, 128, 64),
        "Building": (128, 0, 0),
        "Tunnel": (64, 0, 64),
        "Wall": (64, 192, 0),
    },
    "pole": {"Column_Pole": (192, 192, 128), "TrafficCone": (0, 0, 64)},
    "road": {"LaneMkgsDriv": (128, 0, 192), "LaneMkgsNonDriv": (192, 0, 64), "Road": (128, 64, 128)},
    "sidewalk": {"ParkingBlock": (64, 192, 128), "RoadShoulder": (128, 128, 192), "Sidewalk": (0, 0, 192)},
    "tree": {"Tree": (128, 128, 0), "VegetationMisc": (192, 192, 0)},
    "sign": {"Misc_Text": (128, 128, 64), "SignSymbol": (192, 128, 128), "TrafficLight": (0, 64, 64)},
    "fence": {"Fence": (64, 64, 128)},
    "car": {
        "Car": (64, 0, 128),
        "OtherMoving": (128, 64, 64),
        "SUVPickupTruck": (64, 128, 192),
        "Train": (192, 64, 128),
        "Truck_Bus": (192, 128, 192),
    },
    "pedestrian": {
        "Animal": (64, 128, 64),
        "CartLuggagePram": (64, 0, 192),
        "Child": (192, 128, 64),
        "Pedestrian": (64, 64, 0),
    },
    "bicyclist": {"Bicyclist": (0, 128, 192), "MotorcycleScooter": (192, 0, 192)},
}
CAMVID_COLOURS: dict[RGB, int] = {(0, 0, 0): IGNORE_INDEX} | {
    colour: CAMVID_CLASSES.names.index(name) for name, group in CAMVID_GROUPS.items() for colour in group.values()
}

# Prompts: CARB renames vegetation, terrain and person by what they depict.
CITYSCAPES_ROWS = (
    ClassRow(7, "road", (128, 64, 128), "flat"),
    ClassRow(8, "sidewalk", (244, 35, 232), "flat"),
    ClassRow(11, "building", (70, 70, 70), "construction"),
    ClassRow(12, "wall", (102, 102, 156), "construction"),
    ClassRow(13, "fence", (190, 153, 153), "construction"),
    ClassRow(17, "pole", (153, 153, 153), "object"),
    ClassRow(19, "traffic light", (250, 170, 30), "object"),
    ClassRow(20, "traffic sign", (220, 220, 0), "object"),
    ClassRow(21, "vegetation", (107, 142, 35), "nature", ("tree",)),
    ClassRow(22, "terrain", (152, 251, 152), "nature", ("grass",)),
    ClassRow(23, "sky", (70, 130, 180), "sky"),
    ClassRow(24, "person", (220, 20, 60), "human", ("pedestrian",)),
    ClassRow(25, "rider", (255, 0, 0), "human"),
    ClassRow(26, "car", (0, 0, 142), "vehicle"),
    ClassRow(27, "truck", (0, 0, 70), "vehicle"),
    ClassRow(28, "bus", (0, 60, 100), "vehicle"),
    ClassRow(31, "train", (0, 80, 100), "vehicle"),
    ClassRow(32, "motorcycle", (0, 0, 230), "vehicle"),
    ClassRow(33, "bicycle", (119, 11, 32), "vehicle"),
)
CITYSCAPES_CLASSES = class_set(CITYSCAPES_ROWS)
CITYSCAPES_IDS = id_table(CITYSCAPES_ROWS, void=range(34))

# The 25 classes and their order are those of the authors' public code. The ids are those that the data set's own
# meta-data mark as evaluated; id 31 (trains and trams) is not among them. wd_public_02 uses ids 0..38; the later
# "Public GT Package" has finer ones, which count as unknown.
WILDDASH2_ROWS = (
    ClassRow(1, "ego vehicle", (0, 20, 50), "vehicle"),
    ClassRow(7, "road", (128, 64, 128), "flat"),
    ClassRow(8, "sidewalk", (244, 35, 232), "flat"),
    ClassRow(11, "building", (70, 70, 70), "construction"),
    ClassRow(12, "wall", (102, 102, 156), "construction"),
    ClassRow(13, "fence", (190, 153, 153), "construction"),
    ClassRow(14, "guard rail", (180, 165, 180), "construction"),
    ClassRow(17, "pole", (152, 152, 152), "object"),
    ClassRow(19, "traffic light", (250, 170, 30), "object"),
    ClassRow(20, "traffic sign", (220, 220, 0), "object"),
    ClassRow(21, "vegetation", (107, 142, 35), "nature", ("tree",)),
    ClassRow(22, "terrain", (152, 251, 152), "nature", ("grass",)),
    ClassRow(23, "sky", (70, 130, 180), "sky"),
    ClassRow(24, "person", (220, 20, 60), "human", ("pedestrian",)),
    ClassRow(25, "rider", (255, 0, 0), "human"),
    ClassRow(26, "car", (0, 0, 142), "vehicle"),
    ClassRow(27, "truck", (0, 0, 70), "vehicle"),
    ClassRow(28, "bus", (0, 60, 100), "vehicle"),
    ClassRow(32, "motorcycle", (0, 0, 230), "vehicle"),
    ClassRow(33, "bicycle", (119, 11, 32), "vehicle"),
    ClassRow(34, "pickup", (40, 0, 100), "vehicle", ("pickup truck",)),
    ClassRow(35, "van", (0, 40, 120), "vehicle"),
    ClassRow(36, "billboard", (174, 64, 67), "object"),
    ClassRow(37, "street light", (210, 170, 100), "object"),
    ClassRow(38, "road marking", (196, 176, 128), "flat"),
)
WILDDASH2_CLASSES = class_set(WILDDASH2_ROWS)
WILDDASH2_IDS = id_table(WILDDASH2_ROWS, void=range(39))


def read_classes(path: Path) -> ClassSet:
    """A user's classes, in order. Each is a name, or a table with a name and, if wanted, prompts and a colour.

    classes = ["sky", "road", {name = "sign", prompts = ["traffic sign"], color = [220, 220, 0]}]

    [[classes]] tables say the same. Missing colours are made up. Raises InputError.
    """
    entries = read_toml(path).get("classes")
    if not isinstance(entries, list) or not 1 <= len(entries) < IGNORE_INDEX:
        raise InputError(f'{path} must list 1 to {IGNORE_INDEX - 1} classes, such as classes = ["sky", "road", "car"]')
    tables = [_class_table(path, entry) for entry in entries]
    names = [table["name"] for table in tables]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path} lists the class {twice!r} twice")
    given: list[RGB] = [tuple(table["color"]) for table in tables if "color" in table]
    made_up = _distinct_colours(taken=set(given))
    colours = [tuple(table["color"]) if "color" in table else next(made_up) for table in tables]
    return ClassSet(tuple(names), tuple(tuple(t.get("prompts", [t["name"]])) for t in tables), tuple(colours))


def _class_table(path: Path, entry: Any) -> dict[str, Any]:
    """An entry of classes.toml, checked."""
    table = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(table, dict) or not isinstance(table.get("name"), str) or not table["name"].strip():
        raise InputError(f"{path}: each class needs a name, got {entry!r}")
    if ";" in table["name"]:
        raise InputError(f"{path}: ';' separates classes in labels.csv, so no name may hold one, got {table['name']!r}")
    name, unknown = table["name"], set(table) - {"name", "prompts", "color"}
    if unknown:
        raise InputError(f"{path}: class {name!r} has an unknown {min(unknown)!r}; known: name, prompts, color")
    prompts = table.get("prompts", [name])
    if not isinstance(prompts, list) or not prompts or not all(isinstance(p, str) and p.strip() for p in prompts):
        raise InputError(f"{path}: prompts of {name!r} must be a list of words, got {prompts!r}")
    colour = table.get("color", [0, 0, 0])
    if not isinstance(colour, list) or len(colour) != 3 or not all(type(v) is int and 0 <= v <= 255 for v in colour):
        raise InputError(f"{path}: color of {name!r} must be [red, green, blue] in 0..255, got {colour!r}")
    return table


def _distinct_colours(taken: set[RGB]) -> Iterator[RGB]:
    """Colours that are not taken: hues a golden angle apart, in four shades."""
    shades = ((0.9, 0.9), (0.9, 0.55), (0.45, 0.95), (0.5, 0.65))
    for i in itertools.count():
        saturation, value = shades[i // 8 % len(shades)]
        red, green, blue = colorsys.hsv_to_rgb(i * 0.618034 % 1, saturation, value)
        colour = round(255 * red), round(255 * green), round(255 * blue)
        if colour not in taken:
            taken.add(colour)
            yield colour
