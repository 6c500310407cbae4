"""For every image that has no pseudo-labels yet: views -> CLIP -> logits -> store."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from labelgen.images import image_size, normalise, read_image, resize_image
from labelgen.maskclip import DenseCLIP, Variant
from labelgen.prompts import TEMPLATES, read_templates, sentences
from labelgen.samples import ClassSet, InputError, Sample
from labelgen.store import ImageLogits, LocalView, PseudoLabelStore, StoreLayout
from labelgen.views import View, ViewConfig, global_views, local_views


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """How pseudo-labels are made."""

    variant: Variant = "maskclip"
    templates: str = ""  # path of a templates file; "" uses carbseg's own list
    batch: int = 8  # views of one size that CLIP sees at once
    images_per_shard: int = 16
    views: ViewConfig = field(default_factory=ViewConfig)

    def __post_init__(self) -> None:
        for name in ("batch", "images_per_shard"):
            if getattr(self, name) < 1:
                raise InputError(f"labels.{name} must be at least 1, got {getattr(self, name)}")


def generate(
    samples: Sequence[Sample],
    classes: ClassSet,
    dense: DenseCLIP,
    path: str | Path,
    config: LabelConfig,
    *,
    about: dict[str, Any],
    rank: int = 0,
    ranks: int = 1,
    on_images: Callable[[int], object] = lambda count: None,
    wait: Callable[[], object] = lambda: None,
) -> PseudoLabelStore:
    """Write the pseudo-labels of all samples into the store at `path`; resume it if it is there.

    about: goes into the provenance beside what the config says (data set, CLIP id). Rank r of `ranks` writes
    shards r, r + ranks, ...; `wait` is their barrier, called once the store exists. `on_images` hears of images
    as they are finished (or found finished).
    """
    templates = read_templates(config.templates) if config.templates else TEMPLATES
    if rank == 0:
        text_CD = dense.encode_text(sentences(classes.prompts, templates)).cpu().numpy()
        provenance = describe(classes, dense, config, templates) | about
        PseudoLabelStore.create(path, _layout(samples, text_CD, dense.patch_px, config), provenance)
    wait()
    store = PseudoLabelStore.open(path, writable=True)
    text_vectors = torch.from_numpy(store.text_vectors)
    written = store.is_written()
    todo = []
    for rows in store.shards()[rank::ranks]:
        if written[rows.start : rows.stop].all():
            on_images(len(rows))
        else:
            todo.append(rows)
    # Reading the next shard and writing the last one overlap with CLIP.
    with ThreadPoolExecutor(2) as pool:
        writing: Future[None] | None = None
        reading = _read_ahead(pool, [[samples[row] for row in rows] for rows in todo])
        for rows, images in zip(todo, reading, strict=True):
            shard = _label([samples[row] for row in rows], images, dense, text_vectors, config)
            if writing is not None:
                writing.result()
            writing = pool.submit(store.write_shard, rows, shard)
            on_images(len(rows))
        if writing is not None:
            writing.result()
    wait()
    return store


def describe(classes: ClassSet, dense: DenseCLIP, config: LabelConfig, templates: Sequence[str]) -> dict[str, Any]:
    """Everything that decides the logits, for the store's provenance."""
    settings = asdict(config)
    for name in ("batch", "images_per_shard"):  # these change speed, not logits
        del settings[name]
    return {
        "classes": asdict(classes),
        "labels": settings | {"templates": list(templates)},
        "clip": {
            "weights_sha256": _hash(dense),
            "patch_px": dense.patch_px,
            "image_mean": list(dense.image_mean),
            "image_std": list(dense.image_std),
        },
        "versions": {name: version(name) for name in ("torch", "transformers", "numpy", "zarr")},
    }


def _hash(dense: DenseCLIP) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(dense.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _layout(samples: Sequence[Sample], text_CD: NDArray[np.float32], patch_px: int, config: LabelConfig) -> StoreLayout:
    ids = [sample["image_id"] for sample in samples]
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise InputError(f"image id {twice!r} stands twice in the split; ids must be unique")
    labels_NC = np.zeros((len(ids), len(text_CD)), bool)
    local_grids, global_grids, count = [], [], 0
    for row, sample in enumerate(samples):
        labels_NC[row, sample["image_labels"]] = True
        size = image_size(sample["image_path"])
        views = local_views(config.views, sample["image_id"], *size)
        count = max(count, len(views))
        local_grids += [view.grid(patch_px) for view in views]
        global_grids.append([view.grid(patch_px) for view in global_views(config.views, *size)])
    largest = np.array(global_grids).max(0)
    local_h, local_w = np.array(local_grids).max(0)
    return StoreLayout(
        image_ids=ids,
        image_labels_NC=labels_NC,
        text_vectors_CD=text_CD,
        global_grids=[(int(h), int(w)) for h, w in largest],
        local_grid=(int(local_h), int(local_w)),
        local_count=count,
        images_per_shard=config.images_per_shard,
    )


def _read_ahead(pool: ThreadPoolExecutor, shards: Sequence[Sequence[Sample]]) -> Iterable[list[NDArray[np.uint8]]]:
    """The images of each shard, read one shard ahead."""

    def read(shard: Sequence[Sample]) -> list[NDArray[np.uint8]]:
        return [read_image(sample["image_path"]) for sample in shard]

    ahead = pool.submit(read, shards[0]) if shards else None
    for following in [*shards[1:], None] if shards else []:
        assert ahead is not None
        images = ahead.result()
        ahead = pool.submit(read, following) if following is not None else None
        yield images


def _label(
    samples: Sequence[Sample],
    images: Sequence[NDArray[np.uint8]],
    dense: DenseCLIP,
    text_vectors_CD: torch.Tensor,
    config: LabelConfig,
) -> list[ImageLogits]:
    """Logits of all views of some images; views of one size go through CLIP together, whatever image they show."""
    views: list[list[View]] = []
    by_grid: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for i, (sample, image_HW3) in enumerate(zip(samples, images, strict=True)):
        size = image_HW3.shape[0], image_HW3.shape[1]
        views.append([*global_views(config.views, *size), *local_views(config.views, sample["image_id"], *size)])
        for v, view in enumerate(views[i]):
            by_grid[view.grid(dense.patch_px)].append((i, v))
    logits: dict[tuple[int, int], NDArray[np.float32]] = {}
    for places in by_grid.values():
        for start in range(0, len(places), config.batch):
            some = places[start : start + config.batch]
            pixels = [view_pixels(images[i], views[i][v], dense) for i, v in some]
            batch_BChw = dense.logits(torch.from_numpy(np.stack(pixels)), text_vectors_CD)
            logits |= dict(zip(some, batch_BChw.cpu().numpy(), strict=True))
    wholes = len(config.views.global_zooms)
    return [
        ImageLogits(
            image_id=sample["image_id"],
            size=(image_HW3.shape[0], image_HW3.shape[1]),
            global_logits=[logits[i, v] for v in range(wholes)],
            local_views=[
                LocalView(view.box, view.zoom, logits[i, v]) for v, view in enumerate(views[i]) if v >= wholes
            ],
        )
        for i, (sample, image_HW3) in enumerate(zip(samples, images, strict=True))
    ]


def view_pixels(image_HW3: NDArray[np.uint8], view: View, dense: DenseCLIP) -> NDArray[np.float32]:
    """What CLIP sees of a view: (3, h * patch, w * patch) normalised pixels."""
    y0, x0, y1, x1 = view.box
    h, w = view.grid(dense.patch_px)
    resized = resize_image(image_HW3[y0:y1, x0:x1], h * dense.patch_px, w * dense.patch_px)
    return normalise(resized, dense.image_mean, dense.image_std)
