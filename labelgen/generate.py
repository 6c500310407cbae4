"""For every image that has no pseudo-labels yet: views -> CLIP -> logits -> store."""

import hashlib
import itertools
import json
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from labelgen.codec import Precision
from labelgen.engines.engine import Engine
from labelgen.images import image_size, resize_image
from labelgen.label import Asked, Labeller, Prepared, guess_labels, label, prepare
from labelgen.layout import StoreLayout, differences, is_begun
from labelgen.maskclip import DenseCLIP, Variant, digest_weights
from labelgen.prompts import TEMPLATES, Sentence, class_weights, read_prompts, read_templates, spell_out
from labelgen.samples import ClassSet, InputError, Sample
from labelgen.store import ImageLogits, LocalView, PseudoLabelStore
from labelgen.tagger import Tagger
from labelgen.views import View, ViewConfig, count_local, global_views, largest_local

T = TypeVar("T")
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """How pseudo-labels are made."""

    engine: str = "maskclip"  # 'carbseg engines' lists them; each has settings of its own
    variant: Variant = "maskclip"  # of CLIP's last block, see DenseCLIP
    templates: str = ""  # path of a templates file; "" uses carbseg's own list
    prompts: str = ""  # path of a TOML file of names for classes; "" uses the data set's
    per_prompt: bool = False  # logits of every sentence instead of every class: words can be changed later
    key_smoothing: float = 0.0  # MaskCLIP's refinements act below these confidences; 0 = off
    prompt_denoising: float = 0.0
    faithful: bool = False  # repeat the slips of the authors' code (DenseCLIP.as_the_authors_ran_it)
    dtype: Dtype = "auto"  # that CLIP's vision tower computes in; auto: what `labelgen.probe` finds best
    precision: Precision = "float16"  # of the logits in the store
    guess_area: float = 0.005  # image-level labels that nobody gave: classes that win this share of the patches
    batch: int = 0  # views of one size that CLIP sees at once; 0 = what fits a GPU's memory, 8 on a CPU
    images_per_shard: int = 16
    readers: int = 0  # threads that read images and cut views while CLIP computes; 0 = as many as cores, 2 on a CPU
    views: ViewConfig = field(default_factory=ViewConfig)

    def __post_init__(self) -> None:
        for name, least in (("batch", 0), ("images_per_shard", 1), ("readers", 0)):
            if getattr(self, name) < least:
                raise InputError(f"labels.{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("key_smoothing", "prompt_denoising", "guess_area"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"labels.{name} must be in [0, 1], got {getattr(self, name)}")
        if self.per_prompt and (self.key_smoothing or self.prompt_denoising):
            raise InputError("labels.per_prompt keeps sentences apart, key_smoothing and prompt_denoising compare them")
        if self.precision == "int8" and self.prompt_denoising:
            raise InputError("labels.precision int8 has no room for the -1 of prompt_denoising; use float16")


HEADERS_AT_ONCE = 16  # opening a file waits for the disk or the network
LOOK_S, LOOK_SHARE = 10.0, 0.02  # between two looks at what others have written, and of the time spent on looking
SPEED_ONLY = ("batch", "images_per_shard", "readers")  # settings that change no logits
CPU_READERS = 2


def load_clip(path_or_hub_id: str | Path, config: LabelConfig, device: str | torch.device | None = None) -> DenseCLIP:
    """The CLIP that a configuration asks for; with dtype "auto" in float32, for `labelgen.probe` to look at."""
    return DenseCLIP.from_pretrained(
        path_or_hub_id,
        config.variant,
        device,
        torch.float32 if config.dtype == "auto" else getattr(torch, config.dtype),
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
    engine: Engine | None = None,
    tagger: Tagger | None = None,
    on_images: Callable[[int], object] = lambda count: None,
) -> PseudoLabelStore:
    """Write pseudo-labels of the samples into the store at `path` (folder or fsspec URL); resume it if it is there.

    engine: what looks at the images; default: `dense` itself, which knows the words in any case. about: goes into the
    provenance beside what the config says (data set, CLIP id). like: a store that this one must equal in how it is
    made. Part p of `parts` writes shards p, p + parts, ...; parts may run at once, anywhere. on_images hears how many
    images of the whole store are done. A sample whose image_labels are None gets those that CLIP guesses; or, with a
    tagger, all samples get those that it guesses. Raises InputError.

    What each part does once for all N images: compares their ids, digests their labels, lists the markers; and where no
    store has been begun, hashes the ids and reads all headers, for the arrays must hold the largest image.
    """
    engine = engine or Labeller(dense, config.batch)
    classes, templates = read_words(classes, config)
    said = spell_out(classes.prompts, templates)
    vectors_PD = dense.encode_sentences([str(sentence) for sentence in said]).cpu().numpy()
    provenance = describe(classes, dense, config, templates) | about
    if tagger is not None or all(sample["image_labels"] is not None for sample in samples):
        del provenance["labels"]["guess_area"]  # CLIP guesses nothing
    if like is not None:
        _require_made_alike(like, provenance)
    ids, digest = [sample["image_id"] for sample in samples], _digest_labels(samples)
    if is_begun(path):
        store = PseudoLabelStore.resume(path, ids, provenance)
    else:
        layout = _layout(ids, image_sizes(samples), said, vectors_PD, len(classes), engine.patch_px, config, digest)
        store = PseudoLabelStore.create(path, layout, provenance)
    if store.labels_digest != digest:
        _require_same_labels(store, samples)
    text_TD = torch.from_numpy(store.read("sentence_vectors") if store.sentences else store.text_vectors)
    text_TD = text_TD.to(dense.device)
    written = store.is_written()
    todo = [rows for rows in store.shards()[part::parts] if not written[rows.start]]
    progress = _Progress(store, int(written.sum()), on_images)

    def write(rows: range, asked: Asked, logits: list[list[NDArray[np.float32]]]) -> None:
        seen = zip(asked.images, logits, strict=True)
        store.write_shard(rows, [_image_logits(image, maps, store, config) for image, maps in seen])

    # Reading the next shards and writing the last one overlap with CLIP; a GPU has been asked for one shard more.
    fitting = None if dense.device.type == "cuda" else CPU_READERS  # None: as many as cores, and some
    threads = config.readers or fitting
    with ThreadPoolExecutor(threads) as readers, ThreadPoolExecutor(1) as writer:
        writing: Future[None] | None = None
        shards = ([samples[row] for row in rows] for rows in todo)
        if tagger is not None:
            shards = (tagger.tagged(shard) for shard in shards)
        prepared = _read_ahead(readers, shards, config, engine.patch_px)
        if engine.needs_labels:
            prepared = (_with_labels(images, dense, text_TD, config) for images in prepared)
        coming = (engine.ask(images, text_TD) for images in prepared)
        for rows, asked in zip(todo, _one_ahead(coming), strict=True):
            logits = asked.logits(progress.of_shard(len(rows)))
            if writing is not None:
                writing.result()
            writing = writer.submit(write, rows, asked, logits)
        if writing is not None:
            writing.result()
    on_images(int(store.is_written().sum()))
    return store


def describe(classes: ClassSet, dense: DenseCLIP, config: LabelConfig, templates: Sequence[str]) -> dict[str, Any]:
    """Everything that decides the logits, for the store's provenance."""
    settings = {name: value for name, value in asdict(config).items() if name not in SPEED_ONLY}
    del settings["engine"]  # an engine speaks for itself
    settings["dtype"] = str(dense.dtype).removeprefix("torch.")
    del settings["prompts"]  # they are in the classes
    if config.views.local:
        del settings["views"]["local"]  # stores that were made before one could do without say nothing of it
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
    return digest_weights(dense.model)


class _Progress:
    """How many images of a whole store are done: our own as they come, those of others looked up now and then."""

    def __init__(self, store: PseudoLabelStore, done: int, on_images: Callable[[int], object]) -> None:
        self._store, self._on_images = store, on_images
        self._known, self._own, self._look_at = done, 0, time.monotonic() + LOOK_S

    def of_shard(self, images: int) -> Callable[[float], object]:
        """For one shard of our own: hears what share of it is done."""
        now = time.monotonic()
        if now > self._look_at:
            # Our own last shard may not be written yet.
            self._known, self._own = max(int(self._store.is_written().sum()), self._known + self._own), 0
            self._look_at = now + max(LOOK_S, (time.monotonic() - now) / LOOK_SHARE)
        before = self._known + self._own
        self._own += images
        return lambda share: self._on_images(before + int(share * images))


def image_sizes(samples: Sequence[Sample]) -> set[tuple[int, int]]:
    """The (height, width) that there are among the images, from their headers. Raises InputError for a broken one.

    About 30,000 a second (PNG or JPEG in the cache of one core's system); once for a store.
    """
    pieces = (samples[start : start + 1000] for start in range(0, len(samples), 1000))
    with ThreadPoolExecutor(HEADERS_AT_ONCE) as pool:
        return set().union(*pool.map(lambda piece: {image_size(sample["image_path"]) for sample in piece}, pieces))


def _layout(
    ids: Sequence[str],
    sizes: Collection[tuple[int, int]],
    said: Sequence[Sentence],
    vectors_PD: NDArray[np.float32],
    classes: int,
    patch_px: int,
    config: LabelConfig,
    labels_digest: str,
) -> StoreLayout:
    # A grid's rows follow from the height alone and its columns from the width.
    height, width = (max(size[side] for size in sizes) for side in (0, 1))
    return StoreLayout(
        image_ids=ids,
        text_vectors_CD=class_weights(said, vectors_PD, classes) @ vectors_PD,
        global_grids=[view.grid(patch_px) for view in global_views(config.views, height, width)],
        local_grid=largest_local(config.views, height, width).grid(patch_px),
        local_count=max(count_local(config.views, *size) for size in sizes),
        images_per_shard=config.images_per_shard,
        precision=config.precision,
        sentences=said if config.per_prompt else (),
        sentence_vectors_PD=vectors_PD if config.per_prompt else None,
        labels_digest=labels_digest,
    )


def _digest_labels(samples: Sequence[Sample]) -> str:
    """What tells one split's image-level labels from another's, without reading a store."""
    digest = hashlib.sha256()
    for sample in samples:
        labels = sample["image_labels"]
        digest.update(f"{labels and sorted(labels)};".encode())
    return digest.hexdigest()


def made_differently(like: PseudoLabelStore, provenance: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """In what a store of another split would differ in how it is made: (dotted key, of `like`, of the other one)."""
    parts = ("classes", "labels", "clip", "engine", "regions")
    now = json.loads(json.dumps({part: provenance.get(part) for part in parts}))
    for key, was, value in differences({part: like.provenance.get(part) for part in parts}, now):
        if key != "labels.guess_area":  # of image-level labels, which are each split's own affair
            yield key, was, value


def _require_made_alike(like: PseudoLabelStore, provenance: dict[str, Any]) -> None:
    for key, was, value in made_differently(like, provenance):
        raise InputError(f"{like.path} was made with {key} = {was!r}, not {value!r}; give the same settings again")


def _require_same_labels(store: PseudoLabelStore, samples: Sequence[Sample]) -> None:
    """Labels of images that are not written yet may change."""
    given = zip(samples, store.image_labels, store.is_written(), strict=True)
    for sample, is_present_C, is_written in given:
        labels = sample["image_labels"]
        if is_written and labels is not None and sorted(labels) != np.flatnonzero(is_present_C).tolist():
            raise InputError(
                f"{store.path} was made with other image-level labels of {sample['image_id']!r}; "
                "delete it, or choose another OUT"
            )


def _read_ahead(
    readers: ThreadPoolExecutor, shards: Iterator[Sequence[Sample]], config: LabelConfig, patch_px: int
) -> Iterator[list[Prepared]]:
    """The prepared images of each shard, one shard ahead of who asks."""

    def begin(shard: Sequence[Sample]) -> list[Future[Prepared]]:
        return [readers.submit(prepare, sample, config.views, patch_px) for sample in shard]

    ahead = deque(begin(shard) for shard in itertools.islice(shards, 2))
    while ahead:
        yield [image.result() for image in ahead.popleft()]
        ahead.extend(begin(shard) for shard in itertools.islice(shards, 1))


def _one_ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items, of which the next has been fetched when one is given; an error waits until all before it are."""
    ahead: deque[T] = deque()
    try:
        for item in items:
            ahead.append(item)
            if len(ahead) > 1:
                yield ahead.popleft()
    except (InputError, OSError):
        yield from ahead
        raise
    yield from ahead


def _with_labels(
    images: list[Prepared], dense: DenseCLIP, text_TD: torch.Tensor, config: LabelConfig
) -> list[Prepared]:
    """The images with the classes that CLIP guesses where nobody has said any, as MaskCLIP's own labels have them."""
    unsaid = [image for image in images if image.image_labels is None]
    wholes = []
    for image in unsaid:
        whole = View((0, 0, *image.size), config.views.global_zooms[0])
        h, w = whole.grid(dense.patch_px)
        seen_HW3 = resize_image(image.pixels_HW3[0], h * dense.patch_px, w * dense.patch_px)
        wholes.append(replace(image, views=[whole], pixels_HW3=[seen_HW3]))
    guessed = {
        image.image_id: guess_labels(logits_Chw, config.guess_area)
        for image, (logits_Chw,) in zip(wholes, label(wholes, dense, text_TD, config.batch), strict=True)
    }
    return [replace(image, image_labels=guessed.get(image.image_id, image.image_labels)) for image in images]


def _image_logits(
    image: Prepared, maps: list[NDArray[np.float32]], store: PseudoLabelStore, config: LabelConfig
) -> ImageLogits:
    wholes = len(config.views.global_zooms)
    labels = image.image_labels
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
