"""A student's predictions as pseudo-labels for another round of training: a store like the one it was trained on.

Shapes: C classes, h w the student's own grid, or that of refined scores.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from labelgen.clr import Refinement, grid_of
from labelgen.images import IMAGENET_MEAN, IMAGENET_STD, normalise, read_image
from labelgen.layout import StoreLayout
from labelgen.samples import InputError, Sample
from labelgen.store import ImageLogits, LocalView, PseudoLabelStore
from segtrain.predict import predict

STRIDES = (4, 8)  # of the students' logits


def relabel(
    student: PreTrainedModel,
    samples: Sequence[Sample],
    source: PseudoLabelStore,
    path: str | Path,
    on_images: Callable[[int], object] = lambda count: None,
    *,
    refinement: Refinement | None = None,
    part: int = 0,
    parts: int = 1,
) -> PseudoLabelStore:
    """Write the student's logits of the source's images into a new store; a cut one goes on where it was.

    Image-level labels and text vectors are the source's. The one local view of an image is the whole of it: crops
    taught the student, it needs none itself. refinement: what makes scores of superpixels of its class maps, which are
    written instead of logits. Part p of `parts` writes shards p, p + parts, ...; parts may run at once. on_images hears
    of each shard of its part. Raises InputError for images that the source does not hold.
    """
    by_id = {sample["image_id"]: sample for sample in samples}
    strangers = [image_id for image_id in source.image_ids if image_id not in by_id]
    if strangers:
        raise InputError(f"{strangers[0]!r} of {source.path} is not in the split; give the split that it was made of")
    source.require_complete()
    student = student.eval()  # type: ignore[no-untyped-call]
    height, width = (max(source.size(image_id)[side] for image_id in source.image_ids) for side in (0, 1))
    largest = -(-height // STRIDES[0]) + 1, -(-width // STRIDES[0]) + 1
    grid = largest if refinement is None else grid_of(height, width)
    layout = StoreLayout(source.image_ids, source.text_vectors, [grid], grid, 1, source.images_per_shard)
    digest = hashlib.sha256()
    for name, tensor in sorted(student.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    labels = {"student_sha256": digest.hexdigest()[:16], "round_before": source.provenance["labels"]}
    if refinement is not None:
        labels["refined"] = refinement.about
    store = PseudoLabelStore.create(path, layout, source.provenance | {"labels": labels})
    written = store.is_written()
    for rows in store.shards()[part::parts]:
        if not written[rows.start : rows.stop].all():
            images = [_label(student, by_id[store.image_ids[row]], source, refinement) for row in rows]
            store.write_shard(rows, images)
        on_images(len(rows))
    return store


def _label(
    student: PreTrainedModel, sample: Sample, source: PseudoLabelStore, refinement: Refinement | None
) -> ImageLogits:
    image_id, image_HW3 = sample["image_id"], read_image(sample["image_path"])
    size, is_present_C = (image_HW3.shape[0], image_HW3.shape[1]), source.labels_of(image_id)
    if refinement is None:
        logits_Chw = _logits(student, image_HW3)
    else:
        # Only classes that are present: the share of another one would leave its superpixel silent.
        classes_HW = predict(student, image_HW3, is_present_C=is_present_C)
        logits_Chw = refinement.scores(sample["image_path"], image_HW3, classes_HW, len(is_present_C))
    whole = LocalView((0, 0, *size), 1.0, logits_Chw)
    return ImageLogits(image_id, size, is_present_C.nonzero()[0].tolist(), [logits_Chw], [whole])


@torch.inference_mode()
def _logits(student: PreTrainedModel, image_HW3: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(C, h, w) of a whole image."""
    pixels_3HW = torch.from_numpy(normalise(image_HW3, IMAGENET_MEAN, IMAGENET_STD))
    logits_BChw = student(pixel_values=pixels_3HW[None].to(next(student.parameters()).device)).logits
    return np.asarray(logits_BChw[0].float().cpu().numpy(), np.float32)
