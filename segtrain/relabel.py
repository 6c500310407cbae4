"""A student's predictions as pseudo-labels for another round of training: a store like the one it was trained on.

Shapes: C classes, h w the student's own grid.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from labelgen.images import IMAGENET_MEAN, IMAGENET_STD, normalise, read_image
from labelgen.layout import StoreLayout
from labelgen.samples import InputError, Sample
from labelgen.store import ImageLogits, LocalView, PseudoLabelStore

STRIDES = (4, 8)  # of the students' logits


def relabel(
    student: PreTrainedModel,
    samples: Sequence[Sample],
    source: PseudoLabelStore,
    path: str | Path,
    on_images: Callable[[int], object] = lambda count: None,
) -> PseudoLabelStore:
    """Write the student's logits of the source's images into a new store; a cut one goes on where it was.

    Image-level labels and text vectors are the source's. The one local view of an image is the whole of it: crops
    taught the student, it needs none itself. Raises InputError for images that the source does not hold.
    """
    by_id = {sample["image_id"]: sample for sample in samples}
    strangers = [image_id for image_id in source.image_ids if image_id not in by_id]
    if strangers:
        raise InputError(f"{strangers[0]!r} of {source.path} is not in the split; give the split that it was made of")
    source.require_complete()
    student = student.eval()  # type: ignore[no-untyped-call]
    height, width = (max(source.size(image_id)[side] for image_id in source.image_ids) for side in (0, 1))
    grid = -(-height // STRIDES[0]) + 1, -(-width // STRIDES[0]) + 1
    layout = StoreLayout(source.image_ids, source.text_vectors, [grid], grid, 1, source.images_per_shard)
    digest = hashlib.sha256()
    for name, tensor in sorted(student.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    labels = {"student_sha256": digest.hexdigest()[:16], "round_before": source.provenance["labels"]}
    store = PseudoLabelStore.create(path, layout, source.provenance | {"labels": labels})
    written = store.is_written()
    for rows in store.shards():
        if not written[rows.start : rows.stop].all():
            images = [_label(student, by_id[store.image_ids[row]], source) for row in rows]
            store.write_shard(rows, images)
        on_images(len(rows))
    return store


@torch.inference_mode()
def _label(student: PreTrainedModel, sample: Sample, source: PseudoLabelStore) -> ImageLogits:
    image_HW3 = read_image(sample["image_path"])
    size = image_HW3.shape[0], image_HW3.shape[1]
    device = next(student.parameters()).device
    pixels_3HW = torch.from_numpy(normalise(image_HW3, IMAGENET_MEAN, IMAGENET_STD))
    logits_Chw = student(pixel_values=pixels_3HW[None].to(device)).logits[0].float().cpu().numpy()
    labels = source.labels_of(sample["image_id"]).nonzero()[0].tolist()
    whole = LocalView((0, 0, *size), 1.0, logits_Chw)
    return ImageLogits(sample["image_id"], size, labels, [logits_Chw], [whole])
