"""Image-level labels from a model: what a Hugging Face image classifier, zero-shot or fixed, sees in an image.

Shapes: V views of an image, C classes, L labels of a classifier, D embedding, H W pixels.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from labelgen.engines.hub import load_processor, load_tokenizer
from labelgen.images import read_image, resize_image
from labelgen.maskclip import digest_weights, load_weights
from labelgen.pretrained import NO_CODE
from labelgen.prompts import TEMPLATES, sentences
from labelgen.samples import ClassSet, InputError, Sample

SETTING, EXAMPLE = "tagger.model", "google/siglip2-base-patch16-224"
ZERO_SHOT = ("clip", "siglip", "siglip2")  # siglip2: those of any shape (naflex); the others are siglip to transformers
SIDE_PX = 256  # of views for models that take any
READERS = 4


@dataclass(frozen=True, kw_only=True)
class TaggerConfig:
    """Which model says what images show (--tags model), and what of its answers counts."""

    model: str = EXAMPLE  # HF folder or hub id: CLIP, SigLIP, or a classifier with labels like the classes
    threshold: float = 0.05  # classes that are likelier in the whole image, or in a crop, are there
    crops: int = 3  # along the shorter side, looked at beside the whole image, for what is small; 0 = none

    def __post_init__(self) -> None:
        if not self.model:
            raise InputError("tagger.model must be a model folder or a hub id, got ''")
        if not 0 <= self.threshold < 1:
            raise InputError(f"tagger.threshold must be in [0, 1), got {self.threshold}")
        if self.crops < 0:
            raise InputError(f"tagger.crops must be at least 0, got {self.crops}")


class Tagger:
    """A model that says what images show.

    likely: probabilities (V, C) in 0..1 of what `processor` makes of V views, on `device`. unknown: names of classes
    that the model has no label for: any image may show them. weights: the hash of its weights.
    """

    def __init__(
        self,
        likely: Callable[[Mapping[str, Tensor]], Tensor],
        processor: Any,
        config: TaggerConfig,
        side_px: int,
        device: torch.device,
        unknown: Sequence[str] = (),
        weights: str = "",
    ) -> None:
        self._likely, self._processor, self.config = likely, processor, config
        self.side_px, self.device = side_px, device
        self.unknown, self.weights = unknown, weights

    @classmethod
    def from_pretrained(
        cls,
        classes: ClassSet,
        config: TaggerConfig,
        templates: Sequence[str] = TEMPLATES,
        device: str | torch.device | None = None,
    ) -> Self:
        """Load the model that config names. Raises InputError that says how to get it, or that it knows no class.

        classes: their prompts, in the templates, are the words for a CLIP or SigLIP; a classifier's labels mean the
        classes that have such a name or prompt.
        """
        from transformers import AutoImageProcessor

        model = (
            load_weights(_loader(config.model), config.model, SETTING, EXAMPLE).eval().requires_grad_(False).to(device)
        )
        kind, unknown = model.config.model_type, list[str]()
        if _has_labels(model.config):
            is_of_LC = meant(list(model.config.id2label.values()), classes)
            unknown = [name for c, name in enumerate(classes.names) if not is_of_LC[:, c].any()]
            if len(unknown) == len(classes):
                raise InputError(f"no label of {SETTING} {config.model!r} is called like a class; rename its id2label")
            likely = by_labels(model, torch.from_numpy(is_of_LC).to(model.device))
        elif kind in ZERO_SHOT:
            tokenizer = load_tokenizer(config.model, SETTING)
            likely = by_words(model, encode_words(model, tokenizer, classes, templates))
        else:
            raise InputError(f"{SETTING} must be an image classifier or one of {', '.join(ZERO_SHOT)}, got a {kind}")
        processor = load_processor(AutoImageProcessor, config.model, SETTING)
        processor.do_center_crop, processor.crop_pct = False, 1.0
        vision = getattr(model.config, "vision_config", model.config)
        size = getattr(vision, "image_size", None)
        side_px = size if isinstance(size, int) else SIDE_PX
        return cls(likely, processor, config, side_px, model.device, unknown, digest_weights(model))

    def tagged(self, samples: Sequence[Sample]) -> list[Sample]:
        """The same, with what their images show."""
        guessed = self.guess(sample["image_path"] for sample in samples)
        return [{**sample, "image_labels": present} for sample, present in zip(samples, guessed, strict=True)]

    def guess(self, paths: Iterable[str]) -> Iterator[list[int]]:
        """For each image the train ids that it shows, at least the likeliest; a few images are read ahead.

        Raises InputError for a broken image.
        """
        with ThreadPoolExecutor(READERS) as readers:
            ahead = deque[Future[Any]]()
            for path in paths:
                ahead.append(readers.submit(self._read, path))
                if len(ahead) > READERS:
                    yield self._present(ahead.popleft().result())
            while ahead:
                yield self._present(ahead.popleft().result())

    def prepare(self, image_HW3: NDArray[np.uint8]) -> Any:
        """What `probabilities` takes, of a uint8 RGB image."""
        return self._processor(images=views(image_HW3, self.config.crops, self.side_px), return_tensors="pt")

    @torch.inference_mode()
    def probabilities(self, prepared: Any) -> Tensor:
        """(C,) of an image, in 0..1: of each class the highest in any view."""
        return self._likely(prepared.to(self.device)).amax(0).cpu()

    def _read(self, path: str) -> Any:
        return self.prepare(read_image(path))

    def _present(self, prepared: Any) -> list[int]:
        likely_C = self.probabilities(prepared)
        return sorted({*(likely_C > self.config.threshold).nonzero()[:, 0].tolist(), int(likely_C.argmax())})


def views(image_HW3: NDArray[np.uint8], crops: int, side_px: int) -> list[NDArray[np.uint8]]:
    """The whole image, and tiles of it that are about square, `crops` along its shorter side; all stretched to squares.

    Of a square, processors that resize the shorter side and cut out the middle lose nothing.
    """
    short = min(image_HW3.shape[:2])
    tiles = []
    if crops:
        rows, columns = (
            np.linspace(0, side, max(round(side * min(crops, short) / short), 1) + 1).round().astype(int)
            for side in image_HW3.shape[:2]
        )
        tiles = [image_HW3[y0:y1, x0:x1] for y0, y1 in pairwise(rows) for x0, x1 in pairwise(columns)]
    return [resize_image(view_HW3, side_px, side_px) for view_HW3 in (image_HW3, *tiles)]


def _loader(source: str) -> Any:
    """Of a classifier with labels of its own, or of one that is asked by words, as a folder's config.json says."""
    from transformers import AutoConfig, AutoModelForImageClassification, AutoModelForZeroShotImageClassification

    try:
        has_labels = _has_labels(AutoConfig.from_pretrained(source, **NO_CODE))
    except Exception:  # who loads the weights says what is wrong
        has_labels = True
    return AutoModelForImageClassification if has_labels else AutoModelForZeroShotImageClassification


def _has_labels(config: Any) -> bool:
    return any(name.endswith("ForImageClassification") for name in config.architectures or ())


def meant(labels: Sequence[str], classes: ClassSet) -> NDArray[np.bool_]:
    """(L, C): which classes a classifier's labels mean, "cab, taxi" either word: those with such a name or prompt."""
    named = zip(classes.names, classes.prompts, strict=True)
    words = [{word.lower() for word in (name, *prompts)} for name, prompts in named]
    said = [{word.strip().lower() for word in label.split(",")} for label in labels]
    return np.array([[bool(label & names) for names in words] for label in said], bool)


def by_labels(model: Any, is_of_LC: Tensor) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """Probabilities by a classifier; a class without a label is always likely."""
    is_multi_label = model.config.problem_type == "multi_label_classification"  # as transformers' pipeline has it

    def likely(inputs: Mapping[str, Tensor]) -> Tensor:
        logits_VL = model(**inputs).logits.float()
        likely_VL = logits_VL.sigmoid() if is_multi_label else logits_VL.softmax(1)
        likely_VC: Tensor = likely_VL[:, :, None].where(is_of_LC, 0.0).amax(1)
        return likely_VC.where(is_of_LC.any(0), 1.0)

    return likely


def by_words(model: Any, unit_text_CD: Tensor) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """Probabilities by a CLIP, of a view among the classes, or by a SigLIP, of each class by itself."""
    is_clip, scale = model.config.model_type == "clip", model.logit_scale.exp()

    def likely(inputs: Mapping[str, Tensor]) -> Tensor:
        unit_VD = F.normalize(model.get_image_features(**inputs).pooler_output, dim=-1)
        logits_VC: Tensor = scale * unit_VD @ unit_text_CD.T
        return logits_VC.softmax(1) if is_clip else (logits_VC + model.logit_bias).sigmoid()

    return likely


@torch.inference_mode()
def encode_words(model: Any, tokenizer: Any, classes: ClassSet, templates: Sequence[str]) -> Tensor:
    """unit_text_CD: for each class the normalised mean of its sentences' unit vectors."""
    is_clip, length = model.config.model_type == "clip", model.config.text_config.max_position_embeddings
    # SigLIPs have learned from texts in lower case, padded to full length, without a mask.
    padding, names = (True, ("input_ids", "attention_mask")) if is_clip else ("max_length", ("input_ids",))
    vectors = []
    for some in sentences(classes.prompts, templates):
        lower = [sentence.lower() for sentence in some]
        tokens = tokenizer(lower, padding=padding, truncation=True, max_length=length, return_tensors="pt")
        text = model.get_text_features(**{name: tokens[name].to(model.device) for name in names})
        vectors.append(F.normalize(F.normalize(text.pooler_output, dim=-1).mean(0), dim=-1))
    return torch.stack(vectors)
