"""CLIMS: CAM's network, fitted on so that CLIP finds the classes in what their maps show (Xie et al., CVPR 2022).

Shapes: B batch, K classes, L words for backgrounds, D embedding, P present (image, class) pairs, N masked images,
H W pixels, h w features, S side of CLIP's input.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from labelgen.engines import cam as cam_engine
from labelgen.engines.engine import EngineSpec, Inputs, OnStep
from labelgen.engines.fit import FitBatch, FitConfig, FitStep, FittedEngine, fit
from labelgen.engines.network import CamNetwork
from labelgen.images import IMAGENET_MEAN, IMAGENET_STD
from labelgen.maskclip import DenseCLIP, digest_weights
from labelgen.prompts import read_prompts, sentences
from labelgen.samples import ClassSet, InputError, Sample
from labelgen.training.processes import make_accelerator

TEMPLATE = "a photo of {}."
LOWEST, HIGHEST = 1e-4, 0.9999  # cosines are clamped before their logarithm is taken
PAPER_WEIGHTS, CODE_WEIGHTS = (10.0, 25.0, 29.5, 1.15), (10.0, 24.0, 1.0, 0.2)
# What is often seen with a class of street scenes and is none of it; what is a class itself is left out.
COOCCURRING: dict[str, tuple[str, ...]] = {
    "sky": ("mountain", "airplane", "overhead wire"),
    "building": ("scaffolding", "construction crane", "mountain"),
    "wall": ("ivy", "staircase", "embankment"),
    "fence": ("garden", "field", "construction site"),
    "guard rail": ("embankment", "ditch", "field"),
    "pole": ("overhead wire", "flag", "banner"),
    "traffic light": ("overhead wire", "gantry"),
    "traffic sign": ("gantry", "banner", "shop window"),
    "street light": ("overhead wire", "banner"),
    "billboard": ("gantry", "scaffolding"),
    "tree": ("garden", "hill", "mountain", "grass"),
    "grass": ("flower bed", "hill", "soil", "tree"),
    "road": ("railway", "river", "parking lot", "bridge"),
    "sidewalk": ("bench", "trash can", "staircase"),
    "road marking": ("asphalt", "manhole cover"),
    "pedestrian": ("bench", "umbrella", "stroller", "shop window"),
    "bicyclist": ("bicycle rack", "bench"),
    "rider": ("bicycle rack", "helmet"),
    "bicycle": ("bicycle rack", "bench"),
    "motorcycle": ("parking lot", "garage"),
    "car": ("parking lot", "garage", "driveway", "gas station"),
    "pickup truck": ("parking lot", "garage", "driveway"),
    "van": ("parking lot", "garage", "driveway"),
    "truck": ("loading dock", "warehouse", "gas station"),
    "bus": ("bus stop", "bus shelter"),
    "train": ("railway", "railroad", "railway platform"),
    "ego vehicle": ("dashboard", "windshield"),
}


@dataclass(frozen=True, kw_only=True)
class ClimsConfig(FitConfig):
    """How CAM's network is fitted on with CLIP."""

    section: ClassVar[str] = "clims"
    speed_only: ClassVar[tuple[str, ...]] = (*FitConfig.speed_only, "clip_batch")

    epochs: int = 15  # the public code; the paper has 10
    learning_rate: float = 2.5e-4
    # The public code's form: one list of backgrounds for all classes, its sum instead of its mean, and masked images
    # normalised as ImageNet networks want them, not CLIP. False: the paper's
    faithful: bool = False
    # Of object-text, background-text, co-occurring and area; default: the paper's, the public code's where faithful
    weights: tuple[float, float, float, float] | None = None
    cooccurring: str = ""  # path of a TOML file of words for the backgrounds of classes; "" = COOCCURRING
    threshold: float = 0.26  # cosine above which a background counts, where faithful
    clip_batch: int = 64  # masked images that CLIP keeps activations of at once; more are computed twice

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights is not None and (
            len(self.weights) != 4 or not all(0 <= weight < math.inf for weight in self.weights)
        ):
            raise InputError(f"clims.weights must be four weights that are not negative, got {self.weights}")
        if not -1 <= self.threshold <= 1:
            raise InputError(f"clims.threshold must be a cosine in [-1, 1], got {self.threshold}")
        if self.clip_batch < 1:
            raise InputError(f"clims.clip_batch must be at least 1, got {self.clip_batch}")

    @property
    def term_weights(self) -> tuple[float, float, float, float]:
        """Weights of object-text, background-text, co-occurring and area."""
        return self.weights or (CODE_WEIGHTS if self.faithful else PAPER_WEIGHTS)


class ClimsLosses(NamedTuple):
    """The four terms of CLIMS, scalars without their weights."""

    object_text: Tensor
    background_text: Tensor
    cooccurring: Tensor
    area: Tensor


def clims_losses(
    images_B3HW: Tensor,
    activation_BKhw: Tensor,
    labels_BK: Tensor,
    class_KD: Tensor,
    background_LD: Tensor,
    encode_image: Callable[[Tensor], Tensor],
    clip_size: int,
    threshold: float,
    faithful: bool = True,
    cooccurs_KL: Tensor | None = None,
) -> ClimsLosses:
    """How well CLIP finds each class in what its activation shows of the image, and not in the rest (Eqs. 6-12).

    images_B3HW: normalised pixels. activation_BKhw: p in 0..1. labels_BK: 1 where the image shows the class. class_KD,
    background_LD: text vectors of any norm. encode_image: pixels_N3SS to image vectors (N, D), S = clip_size.

    faithful: as the public code, which sums over the backgrounds whose cosine exceeds `threshold`, does not clamp them
    and has one list for all classes. Otherwise the mean over a class's own backgrounds (cooccurs_KL, default all).
    Means are taken over the pairs of an image and a class that it shows; without any, their terms are 0.
    """
    image_P, class_P = labels_BK.bool().nonzero(as_tuple=True)
    area = activation_BKhw.mean()
    if not len(image_P):
        nothing = area.new_zeros(())
        return ClimsLosses(nothing, nothing, nothing, area)
    size = (clip_size, clip_size)
    seen_B3SS = F.interpolate(images_B3HW, size, mode="bilinear", align_corners=True)
    mask_BKSS = F.interpolate(activation_BKhw, size, mode="bilinear", align_corners=True)
    seen_P3SS, mask_P1SS = seen_B3SS[image_P], mask_BKSS[image_P, class_P][:, None]
    both_N3SS = torch.cat([seen_P3SS * mask_P1SS, seen_P3SS * (1 - mask_P1SS)])
    object_PD, rest_PD = F.normalize(encode_image(both_N3SS), dim=-1).chunk(2)
    text_PD = F.normalize(class_KD, dim=-1)[class_P]
    object_P = (object_PD * text_PD).sum(1).clamp(LOWEST, HIGHEST)
    rest_P = (rest_PD * text_PD).sum(1).clamp(LOWEST, HIGHEST)
    background_PL = object_PD @ F.normalize(background_LD, dim=-1).T
    if faithful:
        cooccurring = -(1 - background_PL[background_PL > threshold]).log().sum()
    else:
        cooccurs_PL = torch.ones_like(background_PL) if cooccurs_KL is None else cooccurs_KL[class_P].float()
        terms_PL = -(1 - background_PL.clamp(LOWEST, HIGHEST)).log() * cooccurs_PL
        cooccurring = (terms_PL.sum(1) / cooccurs_PL.sum(1).clamp(min=1)).mean()
    return ClimsLosses(-object_P.log().mean(), -(1 - rest_P).log().mean(), cooccurring, area)


def cooccurring_words(classes: ClassSet, path: str = "") -> tuple[list[str], Tensor]:
    """Words for backgrounds, and cooccurs_KL: which of them are seen with which class.

    path: a TOML file such as `train = ["railway"]`; classes that it leaves out keep COOCCURRING's. A word that is a
    class of its own here is left out. Raises InputError as `read_prompts` does.
    """
    names = [(name, *prompts) for name, prompts in zip(classes.names, classes.prompts, strict=True)]
    known = [next((COOCCURRING[name] for name in some if name in COOCCURRING), ()) for some in names]
    given = replace(classes, prompts=tuple(known))
    taken = {name for some in names for name in some}
    by_class = [
        [word for word in words if word not in taken]
        for words in (read_prompts(path, given) if path else given).prompts
    ]
    words = list(dict.fromkeys(word for some in by_class for word in some))
    return words, torch.tensor([[word in some for word in words] for some in by_class]).reshape(len(classes), -1)


def image_encoder(dense: DenseCLIP, batch: int) -> Callable[[Tensor], Tensor]:
    """CLIP's image vectors (N, D), float32, of normalised pixels (N, 3, S, S), differentiable by the pixels.

    More than `batch` images are computed again for the gradient: their activations would fill a GPU.
    """
    vision, project = dense.model.vision_model, dense.model.visual_projection
    dtype = project.weight.dtype

    def encode(pixels_N3SS: Tensor) -> Tensor:
        vectors_ND: Tensor = project(vision(pixel_values=pixels_N3SS.to(dtype)).pooler_output)
        return vectors_ND.float()

    def encode_image(pixels_N3SS: Tensor) -> Tensor:
        if len(pixels_N3SS) <= batch:
            return encode(pixels_N3SS)
        parts = [checkpoint(encode, part, use_reentrant=False) for part in pixels_N3SS.split(batch)]  # type: ignore[no-untyped-call]
        return torch.cat(parts)

    return encode_image


def fit_clims(
    samples: Sequence[Sample],
    classes: ClassSet,
    dense: DenseCLIP,
    cam: CamNetwork,
    folder: str | Path,
    config: ClimsConfig,
    *,
    about: dict[str, Any] | None = None,
    accelerator: Accelerator | None = None,
    on_step: Callable[[FitStep], object] = lambda result: None,
) -> CamNetwork:
    """CAM's fitted network, fitted on with CLIP: see `fit`. about: what tells this CLIP from others, too."""
    accelerator = accelerator or make_accelerator(config.mixed_precision)
    dense.to(accelerator.device)
    words, cooccurs_KL = cooccurring_words(classes, config.cooccurring)
    cooccurs_KL = cooccurs_KL.to(accelerator.device)
    # Cloned: what comes out of inference mode has no place in a graph.
    class_KD = dense.encode_text(sentences(classes.prompts, [TEMPLATE])).clone()
    background_LD = class_KD[:0]
    if words:
        background_LD = dense.encode_sentences([TEMPLATE.format(word) for word in words]).clone()
    clip_size = int(dense.model.config.vision_config.image_size)
    encode_image = image_encoder(dense, config.clip_batch)
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if config.faithful else (dense.image_mean, dense.image_std)

    def losses(network: nn.Module, batch: FitBatch) -> dict[str, Tensor]:
        terms = clims_losses(
            _renormalise(batch.pixels_B3YX, mean, std),
            network(batch.pixels_B3YX).logits.float().sigmoid(),
            batch.labels_BC,
            class_KD,
            background_LD,
            encode_image,
            clip_size,
            config.threshold,
            config.faithful,
            cooccurs_KL,
        )
        weighted = zip(terms._asdict().items(), config.term_weights, strict=True)
        return {name: weight * term for (name, term), weight in weighted}

    return fit(
        lambda: copy.deepcopy(cam),
        losses,
        samples,
        classes,
        folder,
        config,
        about={"cam network": cam.config.fitted, "prompts": classes.prompts, "backgrounds": words} | (about or {}),
        accelerator=accelerator,
        on_step=on_step,
    )


def _renormalise(pixels_B3HW: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """ImageNet-normalised pixels with another mean and deviation."""
    of_imagenet, wanted = (
        [torch.tensor(v, device=pixels_B3HW.device)[:, None, None] for v in pair]
        for pair in ((IMAGENET_MEAN, IMAGENET_STD), (mean, std))
    )
    return (pixels_B3HW * of_imagenet[1] + of_imagenet[0] - wanted[0]) / wanted[1]


def fit_for(inputs: Inputs, samples: Sequence[Sample], on_step: OnStep) -> CamNetwork:
    """CAM's network of a run, fitted first if it is not there, and fitted on."""
    begun = cam_engine.fit_for(inputs, samples, on_step)
    return fit_clims(
        samples,
        inputs.classes,
        inputs.dense,
        begun,
        inputs.folder / "clims",
        inputs.settings.clims,
        about={"clip": digest_weights(inputs.dense.model)},
        on_step=lambda result: on_step(result.step, result.steps),
    )


ENGINE = EngineSpec(
    about="CAM's classifier, fitted on until CLIP finds the classes in their maps (Xie et al., CVPR 2022)",
    needs="what cam needs; CLIP",
    cost="fitting after cam's, with two passes of CLIP for each image and class; then as cam",
    settings=ClimsConfig,
    fit=fit_for,
    fitted_on="cam",
    begin=lambda inputs: FittedEngine(inputs.folder / "clims", inputs.settings.clims, inputs.dense.device),
)
