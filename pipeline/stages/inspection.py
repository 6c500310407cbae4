"""Looking at pseudo-labels: scores against truth, contact sheets, exports, and what each kind of view sees.

Shapes: C classes, H W pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evaluation.confusion import resize_classes
from evaluation.overlay import colourise, legend, panel
from evaluation.tables import mean_score
from evaluation.tally import Tally
from labelgen.images import read_image, write_indexed_png
from labelgen.samples import ClassSet, InputError, Sample
from labelgen.store import MaskView, PseudoLabelStore
from labelgen.views import ViewConfig, merge, to_mask
from pipeline.datasets import DatasetSpec
from pipeline.datasets.classes import CITYSCAPES_ROWS
from pipeline.datasets.tags import presence, present_classes
from pipeline.names import look_up
from pipeline.runs import require_folder

if TYPE_CHECKING:
    import torch

    from labelgen.maskclip import DenseCLIP

Mask = NDArray[np.uint8]
MaskOf = Callable[[str], Mask]  # of an image id


@dataclass(frozen=True)
class ImageLabelScores:
    """How right the image-level labels are, over all images: shares in 0..1, NaN where nothing was said or there."""

    precision: float
    recall: float

    @classmethod
    def of(cls, said_NC: NDArray[np.bool_], shown_NC: NDArray[np.bool_]) -> "ImageLabelScores":
        """From what was said and what is there, (N, C) bool each."""
        hits, nothing = int((said_NC & shown_NC).sum()), float("nan")
        said, shown = int(said_NC.sum()), int(shown_NC.sum())
        return cls(hits / said if said else nothing, hits / shown if shown else nothing)


def read_truth(spec: DatasetSpec, sample: Sample) -> Mask:
    """truth_HW: uint8 train ids, 255 = void. Raises InputError when there is no truth."""
    if sample["label_path"] is None:
        raise InputError(f"{sample['image_path']} has no truth to score against")
    return spec.read_truth(sample["label_path"])


def fit(classes_HW: Mask, size: tuple[int, ...], sample: Sample) -> Mask:
    """A class map of an image in the size of its label map. Raises InputError where their shapes differ."""
    try:
        return resize_classes(classes_HW, (size[0], size[1]))
    except ValueError as error:
        raise InputError(f"{sample['image_id']}: {error}; look at {sample['label_path']}") from error


def score_labels(
    spec: DatasetSpec,
    samples: Sequence[Sample],
    store: PseudoLabelStore,
    on_images: Callable[[int], object] = lambda count: None,
) -> tuple[dict[str, Tally], ImageLabelScores]:
    """Pseudo-labels of each view against truth, and the image-level labels against the classes that truth shows."""
    tallies = {str(view): Tally(len(spec.classes)) for view in store.mask_views}
    said, shown = list[NDArray[np.bool_]](), list[list[int]]()
    for sample in samples:
        image_id = sample["image_id"]
        truth_HW = read_truth(spec, sample)
        for view in store.mask_views:
            tallies[view].update(image_id, truth_HW, fit(store.mask(image_id, view), truth_HW.shape, sample))
        said.append(store.labels_of(image_id))
        shown.append(present_classes(truth_HW))
        on_images(1)
    return tallies, ImageLabelScores.of(np.array(said, bool), presence(shown, len(spec.classes)))


def mean_scores(
    spec: DatasetSpec,
    samples: Sequence[Sample],
    store: PseudoLabelStore,
    on_images: Callable[[int], object] = lambda count: None,
) -> dict[str, float | None]:
    """MIoU, mean precision and recall of a store's pseudo-labels, and the share of pixels that have one, in percent.

    The pseudo-labels are the fused ones where there are local views.
    """
    tally = Tally(len(spec.classes))
    for sample in samples:
        truth_HW = read_truth(spec, sample)
        mask_HW = store.mask(sample["image_id"], store.mask_views[-1])
        tally.update(sample["image_id"], truth_HW, fit(mask_HW, truth_HW.shape, sample))
        on_images(1)
    scores, pixels = tally.as_dict(store.class_names), tally.confusion.sum((0, 1))
    means = {kind: mean_score(scores[kind].values()) for kind in ("precision", "recall")}
    labelled = round(100 * float(pixels[:-1].sum() / pixels.sum()), 2) if pixels.any() else None
    return {"miou": scores["miou"], **means, "labelled": labelled}


def contact_sheet(
    spec: DatasetSpec, samples: Sequence[Sample], masks: Mapping[str, MaskOf], count: int
) -> NDArray[np.uint8]:
    """Up to `count` images, evenly spread: image, truth where there is some, and masks, each under its caption."""
    palette = spec.classes.palette
    rows, captions = [], list[str]()
    for place in np.unique(np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int)):
        sample = samples[place]
        pictures = {"image": read_image(sample["image_path"])}
        if sample["label_path"] is not None:
            pictures["truth"] = colourise(spec.read_truth(sample["label_path"]), palette)
        pictures |= {caption: colourise(mask(sample["image_id"]), palette) for caption, mask in masks.items()}
        rows.append(list(pictures.values()))
        captions = list(pictures)
    sheet = panel(rows, captions)
    return np.concatenate([sheet, legend(spec.classes.names, palette, sheet.shape[1])])


def masks_by_view(store: PseudoLabelStore) -> dict[str, MaskOf]:
    """Its kinds of pseudo-labels, for a contact sheet."""
    return {view: partial(store.mask, view=view) for view in store.mask_views}


def export_masks(
    store: PseudoLabelStore,
    folder: Path,
    view: MaskView,
    name_of: Callable[[str], str] = lambda image_id: f"{image_id}.png",
    ids: Sequence[int] | None = None,
    on_images: Callable[[int], object] = lambda count: None,
) -> int:
    """Write the mask of every image as an indexed PNG in the classes' palette; returns how many.

    name_of: the file's name, from the image id. ids: what to write for each train id (default: the train id itself).
    255 stays ignore.
    """
    store.require_complete()
    require_folder(folder)
    palette = [tuple(colour) for colour in store.provenance["classes"]["palette"]]
    table, colours = np.full(256, 255, np.uint8), [(0, 0, 0)] * 256
    for train_id, colour in enumerate(palette):
        written = train_id if ids is None else ids[train_id]
        table[train_id], colours[written] = written, colour
    for image_id in store.image_ids:
        path = folder / name_of(image_id)
        if not path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"image id {image_id!r} leads out of {folder}; rename the image")
        written_HW = table[store.mask(image_id, view)]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_indexed_png(path, written_HW, colours)
        on_images(1)
    return len(store)


CITYSCAPES_NAMES = {"tree": "vegetation", "grass": "terrain", "pedestrian": "person", "bicyclist": "rider"}
CITYSCAPES_NAMES |= {"sign": "traffic sign"}


def cityscapes_ids(class_names: Sequence[str]) -> list[int]:
    """Cityscapes' label id of each class, by its name or by what CamVid calls it. Raises InputError for another one."""
    ids = {row.name: row.raw_id for row in CITYSCAPES_ROWS}
    return [look_up(ids, CITYSCAPES_NAMES.get(name, name), "class of Cityscapes") for name in class_names]


def cityscapes_name(image_id: str) -> str:
    """Where Cityscapes' tools look for the labels of an image: CITY/ID_gtFine_labelIds.png."""
    return f"{image_id.partition('_')[0]}/{image_id}_gtFine_labelIds.png"


def compare_views(
    image_path: Path, dense: "DenseCLIP", text_CD: "torch.Tensor", views: ViewConfig, batch: int
) -> dict[str, NDArray[np.float32]]:
    """What CARB's Fig. 3 compares: logits (C, H, W) of (a) the image, (b) resized x2, (c) cropped, (d) both."""
    from labelgen.label import label, prepare

    name, path = image_path.stem, str(image_path)
    sample: Sample = {"image_id": name, "image_path": path, "label_path": None, "image_labels": None}
    plain = replace(views, global_zooms=(1.0, 2.0), local_zooms=(1.0, 1.0), zoom_levels=1)
    doubled = replace(plain, global_zooms=(1.0,), local_zooms=(2.0, 2.0))
    images = [prepare(sample, config, dense.patch_px) for config in (plain, doubled)]
    (original, resized, *cropped), (_, *both) = label(images, dense, text_CD, batch)
    size = images[0].size
    whole = (0, 0, *size)
    boxes = [view.box for view in images[0].views[2:]]
    return {
        "(a) original": merge([(whole, original)], *size),
        "(b) resized x2": merge([(whole, resized)], *size),
        "(c) cropped": merge(list(zip(boxes, cropped, strict=True)), *size),
        "(d) cropped and resized x2": merge(list(zip(boxes, both, strict=True)), *size),
    }


def views_panel(
    image_HW3: NDArray[np.uint8], logits: dict[str, NDArray[np.float32]], classes: ClassSet, present: Sequence[int]
) -> NDArray[np.uint8]:
    """The image and the masks of `compare_views` side by side, with a legend."""
    is_present_C = np.isin(np.arange(len(classes)), present)
    masks = {caption: colourise(to_mask(maps, is_present_C), classes.palette) for caption, maps in logits.items()}
    sheet = panel([[image_HW3, *masks.values()]], ["image", *masks])
    return np.concatenate([sheet, legend(classes.names, classes.palette, sheet.shape[1])])
