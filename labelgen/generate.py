"""For every image that has no pseudo-labels yet: views -> CLIP -> logits -> store."""

import hashlib
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from labelgen.codec import Precision
from labelgen.images import image_size
from labelgen.label import Prepared, guess_labels, label, prepare
from labelgen.layout import StoreLayout, differences
from labelgen.maskclip import DenseCLIP, Variant
from labelgen.prompts import TEMPLATES, Sentence, class_weights, read_prompts, read_templates, spell_out
from labelgen.samples import ClassSet, InputError, Sample
from labelgen.store import ImageLogits, LocalView, PseudoLabelStore
from labelgen.views import ViewConfig, global_views, local_views


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """How pseudo-labels are made."""

    variant: Variant = "maskclip"  # of CLIP's last block, see DenseCLIP
    templates: str = ""  # path of a templates file; "" uses carbseg's own list
    prompts: str = ""  # path of a TOML file of names for classes; "" uses the data set's
    per_prompt: bool = False  # logits of every sentence instead of every class: words can be changed later
    key_smoothing: float = 0.0  # MaskCLIP's refinements act below these confidences; 0 = off
    prompt_denoising: float = 0.0
    faithful: bool = False  # repeat the slips of the authors' code (DenseCLIP.as_the_authors_ran_it)
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # that CLIP's vision tower computes in
    precision: Precision = "float16"  # of the logits in the store
    guess_area: float = 0.005  # image-level labels that nobody gave: classes that win this share of the patches
    batch: int = 8  # views of one size that CLIP sees at once
    images_per_shard: int = 16
    readers: int = 2  # threads that read images and cut views while CLIP computes
    views: ViewConfig = field(default_factory=ViewConfig)

    def __post_init__(self) -> None:
        for name in ("batch", "images_per_shard", "readers"):
            if getattr(self, name) < 1:
                raise InputError(f"labels.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("key_smoothing", "prompt_denoising", "guess_area"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"labels.{name} must be in [0, 1], got {getattr(self, name)}")
        if self.per_prompt and (self.key_smoothing or self.prompt_denoising):
            raise InputError("labels.per_prompt keeps sentences apart, key_smoothing and prompt_denoising compare them")
        if self.precision == "int8" and self.prompt_denoising:
            raise InputError("labels.precision int8 has no room for the -1 of prompt_denoising; use float16")


SPEED_ONLY = ("batch", "images_per_shard", "readers")  # settings that change no logits


def load_clip(path_or_hub_id: str | Path, config: LabelConfig, device: str | torch.device | None = None) -> DenseCLIP:
    """The CLIP that a configuration asks for."""
    return DenseCLIP.from_pretrained(
        path_or_hub_id,
        config.variant,
        device,
        getattr(torch, config.dtype),
        key_smoothing=config.key_smoothing,
        prompt_denoising=config.prompt_denoising,
        faithful=config.faithful,
    )


def read_words(classes: ClassSet, config: LabelConfig) -> tuple[ClassSet, tuple[str, ...]]:
    """The classes with the names to prompt with, and the templates, that a configuration asks for."""
    templates = read_templates(config.templates) if config.templates else TEMPLATES
    return (read_prompts(config.prompts, classes) if config.prompts else classes), templates


def generate(
    samples: Sequence[Sample],
    classes: ClassSet,
    dense: DenseCLIP,
    path: str | Path,
    config: LabelConfig,
    *,
    about: dict[str, Any],
    like: PseudoLabelStore | None = None,
    part: int = 0,
    parts: int = 1,
    on_images: Callable[[int], object] = lambda count: None,
) -> PseudoLabelStore:
    """Write pseudo-labels of the samples into the store at `path` (folder or fsspec URL); resume it if it is there.

    about: goes into the provenance beside what the config says (data set, CLIP id). like: a store that this one must
    equal in how it is made. Part p of `parts` writes shards p, p + parts, ...; parts may run at once, anywhere.
    on_images hears how many images of the whole store are done. A sample whose image_labels are None gets those that
    CLIP guesses. Raises InputError.
    """
    classes, templates = read_words(classes, config)
    said = spell_out(classes.prompts, templates)
    vectors_PD = dense.encode_sentences([str(sentence) for sentence in said]).cpu().numpy()
    provenance = describe(classes, dense, config, templates) | about
    if all(sample["image_labels"] is not None for sample in samples):
        del provenance["labels"]["guess_area"]  # nothing is guessed
    if like is not None:
        _require_made_alike(like, provenance)
    layout = _layout(samples, said, vectors_PD, len(classes), dense.patch_px, config)
    store = PseudoLabelStore.create(path, layout, provenance)
    _require_same_labels(store, samples)
    text_TD = store.read("sentence_vectors") if store.sentences else store.text_vectors
    written = store.is_written()
    todo = [rows for rows in store.shards()[part::parts] if not written[rows.start : rows.stop].all()]
    # Reading the next shards and writing the last one overlap with CLIP.
    with ThreadPoolExecutor(config.readers) as readers, ThreadPoolExecutor(1) as writer:
        writing: Future[None] | None = None
        ahead = _read_ahead(readers, [[samples[row] for row in rows] for rows in todo], config, dense.patch_px)
        for rows, prepared in zip(todo, ahead, strict=True):
            done = int(store.is_written().sum())
            logits = label(
                prepared,
                dense,
                torch.from_numpy(text_TD),
                config.batch,
                lambda share, done=done, rows=rows: on_images(done + int(share * len(rows))),  # type: ignore[misc]
            )
            shard = [
                _image_logits(image, samples[row], maps, store, config)
                for row, image, maps in zip(rows, prepared, logits, strict=True)
            ]
            if writing is not None:
                writing.result()
            writing = writer.submit(store.write_shard, rows, shard)
        if writing is not None:
            writing.result()
    on_images(int(store.is_written().sum()))
    return store


def describe(classes: ClassSet, dense: DenseCLIP, config: LabelConfig, templates: Sequence[str]) -> dict[str, Any]:
    """Everything that decides the logits, for the store's provenance."""
    settings = {name: value for name, value in asdict(config).items() if name not in SPEED_ONLY}
    del settings["prompts"]  # they are in the classes
    return {
        "classes": asdict(classes),
        "labels": settings | {"templates": list(templates)},
        "clip": {
            "weights_sha256": weights_hash(dense),
            "patch_px": dense.patch_px,
            "image_mean": list(dense.image_mean),
            "image_std": list(dense.image_std),
        },
        "versions": {name: version(name) for name in ("torch", "transformers", "numpy", "zarr")},
    }


def weights_hash(dense: DenseCLIP) -> str:
    """What tells one CLIP's weights from another's."""
    digest = hashlib.sha256()
    for name, tensor in sorted(dense.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _layout(
    samples: Sequence[Sample],
    said: Sequence[Sentence],
    vectors_PD: NDArray[np.float32],
    classes: int,
    patch_px: int,
    config: LabelConfig,
) -> StoreLayout:
    ids = [sample["image_id"] for sample in samples]
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise InputError(f"image id {twice!r} stands twice in the split; ids must be unique")
    local_grids, global_grids, count = [], [], 0
    for sample in samples:
        size = image_size(sample["image_path"])
        views = local_views(config.views, sample["image_id"], *size)
        count = max(count, len(views))
        local_grids += [view.grid(patch_px) for view in views]
        global_grids.append([view.grid(patch_px) for view in global_views(config.views, *size)])
    largest = np.array(global_grids).max(0)
    local_h, local_w = np.array(local_grids).max(0)
    return StoreLayout(
        image_ids=ids,
        text_vectors_CD=class_weights(said, vectors_PD, classes) @ vectors_PD,
        global_grids=[(int(h), int(w)) for h, w in largest],
        local_grid=(int(local_h), int(local_w)),
        local_count=count,
        images_per_shard=config.images_per_shard,
        precision=config.precision,
        sentences=said if config.per_prompt else (),
        sentence_vectors_PD=vectors_PD if config.per_prompt else None,
    )


def _require_made_alike(like: PseudoLabelStore, provenance: dict[str, Any]) -> None:
    parts = ("classes", "labels", "clip")
    now = json.loads(json.dumps({part: provenance[part] for part in parts}))
    for key, was, value in differences({part: like.provenance[part] for part in parts}, now):
        if key == "labels.guess_area":  # of image-level labels, which are each split's own affair
            continue
        raise InputError(f"{like.path} was made with {key} = {was!r}, not {value!r}; give the same settings again")


def _require_same_labels(store: PseudoLabelStore, samples: Sequence[Sample]) -> None:
    given = zip(samples, store.image_labels, store.is_written(), strict=True)
    for sample, is_present_C, is_written in given:
        labels = sample["image_labels"]
        if is_written and labels is not None and sorted(labels) != np.flatnonzero(is_present_C).tolist():
            raise InputError(
                f"{store.path} was made with other image-level labels of {sample['image_id']!r}; "
                "delete it, or choose another OUT"
            )


def _read_ahead(
    readers: ThreadPoolExecutor, shards: Sequence[Sequence[Sample]], config: LabelConfig, patch_px: int
) -> Iterator[list[Prepared]]:
    """The prepared images of each shard, one shard ahead of who asks."""

    def begin(shard: Sequence[Sample]) -> list[Future[Prepared]]:
        return [readers.submit(prepare, sample, config.views, patch_px) for sample in shard]

    coming = iter(shards)
    ahead = deque(begin(shard) for shard in itertools.islice(coming, 2))
    while ahead:
        yield [image.result() for image in ahead.popleft()]
        ahead.extend(begin(shard) for shard in itertools.islice(coming, 1))


def _image_logits(
    image: Prepared, sample: Sample, maps: list[NDArray[np.float32]], store: PseudoLabelStore, config: LabelConfig
) -> ImageLogits:
    wholes = len(config.views.global_zooms)
    labels = sample["image_labels"]
    if labels is None:
        labels = guess_labels(store.of_classes(maps[0]), config.guess_area)
    seen = zip(image.views[wholes:], maps[wholes:], strict=True)
    return ImageLogits(
        image_id=image.image_id,
        size=image.size,
        image_labels=labels,
        global_logits=maps[:wholes],
        local_views=[LocalView(view.box, view.zoom, logits) for view, logits in seen],
    )
