"""Where the class maps that are scored come from: pseudo-labels, students, folders of PNGs, any HF model.

Shapes: C classes, H W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evaluation.confusion import NONE
from labelgen.files import read_json
from labelgen.images import IMAGENET_MEAN, IMAGENET_STD, read_class_map, write_indexed_png
from labelgen.maskclip import read_pixel_statistics
from labelgen.samples import ClassSet, InputError, Sample
from labelgen.store import MaskView, PseudoLabelStore
from pipeline.datasets import DatasetSpec
from pipeline.stages.run import own_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Mask = NDArray[np.uint8]
Picture = NDArray[np.uint8]

STUDENT = "student "  # a row of the table is called so, followed by the folder of the student in the run's


@dataclass(frozen=True)
class Source:
    """Where the class maps of a row of the table are from.

    class_map(sample, image_HW3): classes_HW, uint8 train ids, 255 = no class. about: what to say of it. kept: the
    folder where evaluate leaves them as ID.png; None: they are files already.
    """

    class_map: Callable[[Sample, Picture], Mask]
    about: str
    kept: Path | None = None

    def again(self, sample: Sample, image_HW3: Picture) -> Mask:
        """The class map of an image that has been scored."""
        return self.class_map(sample, image_HW3) if self.kept is None else read_class_map(self._file(sample))

    def keep(self, sample: Sample, classes_HW: Mask, classes: ClassSet) -> None:
        """Leave the class map where `again` finds it."""
        if self.kept is not None:
            write_indexed_png(self._file(sample), classes_HW, classes.palette)

    def _file(self, sample: Sample) -> Path:
        assert self.kept is not None
        return self.kept / f"{sample['image_id']}.png"


def pseudo_sources(store: PseudoLabelStore, maps: Path) -> dict[str, Source]:
    """The pseudo-labels of each view. maps: the folder where class maps are left, as for all sources."""

    def class_map(view: MaskView, sample: Sample, image_HW3: Picture) -> Mask:
        if store.size(sample["image_id"]) != image_HW3.shape[:2]:
            raise InputError(f"{sample['image_path']} has changed since its pseudo-labels were made; make them again")
        return store.mask(sample["image_id"], view)

    return {
        f"pseudo-labels {view}": Source(partial(class_map, view), store.path, maps / f"pseudo-labels-{view}")
        for view in store.mask_views
    }


def student_sources(spec: DatasetSpec, out: Path, names: Sequence[str] | None, maps: Path) -> dict[str, Source]:
    """The students in the run folder: those named, or all, of `iterate`'s rounds too."""
    if names is None:
        folders = sorted(out.glob("*/student")) + sorted(out.glob("round-*/*/student"))
        names = [path.parent.relative_to(out).as_posix() for path in folders if path.is_dir()]
    return {STUDENT + name: _model_source(spec, out / name / "student", maps / f"student-{name}") for name in names}


def other_sources(
    spec: DatasetSpec, samples: Sequence[Sample], predictions: Sequence[Path], models: Sequence[Path], maps: Path
) -> dict[str, Source]:
    """Folders of class maps, and HF models. Raises InputError for two that would have one name."""
    own = maps.parent.resolve()  # of all splits
    for folder in predictions:
        if folder.resolve().is_relative_to(own) or own.is_relative_to(folder.resolve()):
            raise InputError(f"{folder} holds what evaluate itself writes; score a copy of it in another folder")
    found = [(f"predictions {folder.name}", _folder_source(spec, samples, folder)) for folder in predictions]
    for folder in models:
        name = folder.parent.name if folder.name == "student" else folder.name
        found.append((f"model {name}", _model_source(spec, folder, maps / f"model-{name}")))
    sources = dict(found)
    if len(sources) < len(found):
        raise InputError("two folders would be one row of the table; give --predictions and --model different names")
    return sources


def _model_source(spec: DatasetSpec, folder: Path, kept: Path) -> Source:
    """Of a HF semantic segmentation model; its classes are those of the data set that have the same name or prompt."""
    from segtrain.model import load_student
    from segtrain.predict import predict

    _require_imagenet(folder)
    model = load_student(folder).to(own_device())
    labels = _labels(model)
    if len(labels) >= NONE:
        raise InputError(f"the model {folder} has {len(labels)} classes; class maps hold {NONE - 1} at most")
    train_ids = {prompt: i for i, prompts in enumerate(spec.classes.prompts) for prompt in prompts}
    train_ids |= {name: i for i, name in enumerate(spec.classes.names)}
    table = np.full(256, NONE, np.uint8)
    table[: len(labels)] = [train_ids.get(label, train_ids.get(label.lower(), NONE)) for label in labels]
    unknown = [label for label, train_id in zip(labels, table, strict=False) if train_id == NONE]
    if len(unknown) == len(labels):
        raise InputError(f"no class of the model {folder} is called like one of {spec.name}; rename its id2label")
    about = str(folder) + (f" (no class of {spec.name}: {', '.join(unknown)})" if unknown else "")
    return Source(lambda sample, image_HW3: table[predict(model, image_HW3)], about, kept)


def _require_imagenet(folder: Path) -> None:
    """Raise InputError for a model that was trained on pixels that were normalised in another way than ours are."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():  # a student of ours
        return
    about = read_json(path)
    theirs = read_pixel_statistics(str(folder), IMAGENET_MEAN, IMAGENET_STD)
    for key, ours, found in zip(("image_mean", "image_std"), (IMAGENET_MEAN, IMAGENET_STD), theirs, strict=True):
        if not (about.get("do_normalize", True) and np.allclose(found, ours, atol=1e-3)):
            raise InputError(
                f"the model {folder} was not trained with ImageNet's {key} ({path.name}); it cannot be scored"
            )


def _labels(model: "PreTrainedModel") -> list[str]:
    by_id = {int(i): str(name) for i, name in (model.config.id2label or {}).items()}
    return [by_id[i] for i in sorted(by_id)]


def _folder_source(spec: DatasetSpec, samples: Sequence[Sample], folder: Path) -> Source:
    """Of a folder, subfolders included: ID.png with train ids, or ID..._labelIds.png with the data set's own ids."""
    if not folder.is_dir():
        raise InputError(f"no folder {folder} of predictions")
    paths = sorted(folder.rglob("*.png"))
    files = {path.name: path for path in paths}
    names = ("{}.png", "{}_pred_labelIds.png", "{}_gtFine_labelIds.png")
    found = {
        sample["image_id"]: next((files[n] for name in names if (n := name.format(sample["image_id"])) in files), None)
        for sample in samples
    }
    wanted = {path.name for path in found.values() if path is not None}
    twice = next((path for path in paths if path.name in wanted and files[path.name] != path), None)
    if twice is not None:
        raise InputError(f"{twice} and {files[twice.name]} have one name; name the folder of one prediction")
    missing = [image_id for image_id, path in found.items() if path is None]
    if missing:
        raise InputError(
            f"{folder} has no class map of {len(missing)} of {len(found)} images, such as {missing[0]}.png"
        )

    def class_map(sample: Sample, image_HW3: Picture) -> Mask:
        path = found[sample["image_id"]]
        assert path is not None
        if path.name.endswith("_labelIds.png"):
            return spec.read_truth(path)
        classes_HW = read_class_map(path)
        highest = int(classes_HW[classes_HW != NONE].max(initial=0))
        if highest >= len(spec.classes):
            raise InputError(f"{path} holds {highest}, but train ids of {spec.name} end at {len(spec.classes) - 1}")
        return classes_HW

    return Source(class_map, str(folder))
