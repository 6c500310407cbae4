"""Predicting files: class maps of a user's images, in the forms that others read, or as pseudo-labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from labelgen.images import read_image, require_size, write_indexed_png
from labelgen.samples import InputError, Sample, is_whole_number
from labelgen.store import PseudoLabelStore
from pipeline.datasets.layouts import images_in
from pipeline.names import look_up
from pipeline.progress import progress
from pipeline.runs import require_folder
from pipeline.stages.inspection import cityscapes_ids
from segtrain.model import palette_of
from segtrain.predict import PredictConfig, predict
from segtrain.relabel import relabel


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The images that are named, and all in the folders that are. Raises InputError for none, or for equal names."""
    missing = next((path for path in paths if not path.exists()), None)
    if missing is not None:
        raise InputError(f"no image or folder {missing}")
    files = [file for path in paths for file in (images_in(path) if path.is_dir() else [path])]
    if not files:
        raise InputError("name at least one image, or a folder of images")
    if len({file.stem for file in files}) < len(files):
        raise InputError("class maps are named after their images: give images of different names")
    return files


def predict_files(
    student: PreTrainedModel,
    files: Sequence[Path],
    out: Path,
    config: PredictConfig,
    show: Sequence[str] | None,
    layout: str,
) -> None:
    """Write the class map of each file into `out`. show: names of the only classes to be predicted; None: all."""
    if out.resolve() in {file.resolve().parent for file in files}:
        raise InputError(f"{out} holds the images themselves; choose another --out")
    require_folder(out)
    names, palette = list((student.config.id2label or {}).values()), palette_of(student)
    by_name = {name: place for place, name in enumerate(names)}
    shown = None if show is None else [look_up(by_name, name, "class") for name in show]
    is_present_C = None if shown is None else np.isin(np.arange(len(names)), shown)
    ids = cityscapes_ids(names) if layout == "cityscapes" else list(range(len(names)))
    colours = [(0, 0, 0)] * 256
    for written, colour in zip(ids, palette, strict=True):
        colours[written] = colour
    suffix = "_pred_labelIds.png" if layout == "cityscapes" else ".png"
    with progress(len(files), "predicting", "images") as bar:
        for file in files:
            classes_HW = predict(student, read_image(file), config, is_present_C)
            name = file.stem.removesuffix("_leftImg8bit") + suffix
            out.mkdir(parents=True, exist_ok=True)
            write_indexed_png(out / name, np.array(ids, np.uint8)[classes_HW], colours)
            bar.update()


def relabel_files(student: PreTrainedModel, files: Sequence[Path], source: str, out: Path) -> PseudoLabelStore:
    """A store of the student's predictions of the images of the store `source`."""
    samples: list[Sample] = [
        {
            "image_id": file.stem.removesuffix("_leftImg8bit"),
            "image_path": str(file),
            "label_path": None,
            "image_labels": None,
        }
        for file in files
    ]
    opened = PseudoLabelStore.open(source)
    with progress(len(opened), "predicting", "images") as bar:
        return relabel(student, samples, opened, out, bar.update)


def parse_scales(text: str) -> tuple[float, ...]:
    """Of "0.75,1,1.25"."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--scales takes numbers with commas between, such as 0.75,1,1.25, got {text!r}") from error


def parse_window(text: str | None) -> tuple[int, int] | None:
    """(height, width) of "512x1024"."""
    if text is None:
        return None
    height, cross, width = text.partition("x")
    if not (cross and is_whole_number(height) and is_whole_number(width)):
        raise InputError(f"a size is HEIGHTxWIDTH, such as 512x1024, got {text!r}")
    require_size(int(height), int(width), f"{text} is")
    return int(height), int(width)
