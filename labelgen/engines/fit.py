"""Fitting a label engine's network to image-level labels: one loop for CAM and CLIMS, resumable to the bit.

Shapes: B batch, C classes, H W pixels of an image, Y X pixels of a crop.
"""

import contextlib
import hashlib
import json
import math
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from numpy.typing import NDArray
from torch import Tensor, nn

from labelgen.engines.engine import ask_each
from labelgen.engines.network import CamNetwork, class_maps, load_network
from labelgen.images import IMAGENET_MEAN, IMAGENET_STD, normalise, read_image, resize_image
from labelgen.label import Asked, Prepared
from labelgen.maskclip import digest_weights
from labelgen.samples import ClassSet, InputError, Sample
from labelgen.training.checkpoints import (
    read_checkpoint,
    remove_checkpoints,
    require_made_with,
    whole_folder,
    write_checkpoint,
)
from labelgen.training.order import Order, Place
from labelgen.training.processes import StoppedError, asking, make_accelerator, signals
from labelgen.training.schedule import poly_learning_rate

NETWORK = "network"  # folder of the fitted network, in that of the run
STEPS_AHEAD = 2  # whose images are read while the network computes


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How an engine's network is fitted, and how images are looked at afterwards; defaults are CAM's public code."""

    section: ClassVar[str] = "fit"  # what errors call these settings
    speed_only: ClassVar[tuple[str, ...]] = ("checkpoint_every", "readers")  # settings that change no result
    afterwards: ClassVar[tuple[str, ...]] = ("scales", "flip")  # those that change no weights

    epochs: int = 5
    batch: int = 16  # images a step, over all processes
    crop: tuple[int, int] = (512, 512)  # height and width in pixels; smaller images lie anywhere in it
    long_side: tuple[int, int] = (320, 640)  # pixels: images are resized so that the longer side is in this range
    optimizer: Literal["sgd", "adamw"] = "sgd"  # adamw: small networks from scratch
    learning_rate: float = 0.1
    head_factor: float = 10.0  # of the 1x1 convolution's learning rate
    momentum: float = 0.0  # of SGD; the public code passes its weight decay in momentum's place, and has neither
    weight_decay: float = 1e-4
    poly_power: float = 0.9  # of the learning rate's decay to 0
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"  # auto: bf16 on GPUs that have it
    checkpoint_every: int = 100  # steps
    readers: int = 4  # threads that read images
    seed: int = 0
    scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)  # of the image, whose activations are summed
    flip: bool = True  # the mirrored image as well

    def __post_init__(self) -> None:
        if self.optimizer not in ("sgd", "adamw"):
            raise InputError(f"{self.section}.optimizer must be sgd or adamw, got {self.optimizer!r}")
        for name in ("epochs", "batch", "checkpoint_every", "readers"):
            if getattr(self, name) < 1:
                raise InputError(f"{self.section}.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "head_factor"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{self.section}.{name} must be a positive number, got {getattr(self, name)}")
        for name in ("weight_decay", "poly_power"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{self.section}.{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.momentum < 1:
            raise InputError(f"{self.section}.momentum must be in [0, 1), got {self.momentum}")
        if min(self.crop) < 32:
            raise InputError(f"{self.section}.crop must have at least 32 x 32 pixels, got {self.crop}")
        if not 32 <= self.long_side[0] <= self.long_side[1]:
            raise InputError(f"{self.section}.long_side must be a range of at least 32 pixels, got {self.long_side}")
        if not self.scales or not min(self.scales) > 0:
            raise InputError(f"{self.section}.scales must be one or more positive factors, got {self.scales}")

    def steps(self, images: int) -> int:
        """How many steps the fit of so many images takes."""
        return max(1, self.epochs * images // self.batch)

    def maps(
        self, network: CamNetwork, image_HW3: NDArray[np.uint8], is_present_C: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """Activation maps (C, h, w) of an image as these settings look at it: see `class_maps`."""
        return class_maps(network, image_HW3, is_present_C, scales=self.scales, flip=self.flip)


class FittedEngine:
    """A fitted network as a label engine: whole images, and the classes that they show."""

    needs_labels = True

    def __init__(self, folder: Path, config: FitConfig, device: torch.device) -> None:
        """folder: where `fit` left it. Raises InputError for one that cannot be read."""
        network: Any = load_network(folder / NETWORK)
        self.network, self.config = network, config
        self.weights = {"network": digest_weights(network)}
        self.patch_px = self.network.stride
        self.network.to(device)

    def ask(self, images: Sequence[Prepared], text_TD: Tensor) -> Asked:
        """Maps of the classes present; words say nothing to it."""
        return ask_each(images, self._maps)

    def _maps(self, image: Prepared, view: int) -> NDArray[np.float32]:
        is_present_C = np.isin(np.arange(self.network.head.out_channels), list(image.image_labels or ()))
        return self.config.maps(self.network, image.pixels_HW3[view], is_present_C)


class FitBatch(NamedTuple):
    """What a step looks at."""

    pixels_B3YX: Tensor  # ImageNet-normalised; 0, which is the mean colour, where there is no image
    labels_BC: Tensor  # float: 1 where the image shows the class, else 0


class FitStep(NamedTuple):
    """What a step reports: it was the step-th of so many, and the terms whose sum was the loss."""

    step: int
    steps: int
    terms: dict[str, float]


Losses = Callable[[nn.Module, FitBatch], dict[str, Tensor]]  # the terms whose sum is the loss


def fit(
    build: Callable[[], CamNetwork],
    losses: Losses,
    samples: Sequence[Sample],
    classes: ClassSet,
    folder: str | Path,
    config: FitConfig,
    *,
    about: dict[str, Any],
    accelerator: Accelerator | None = None,
    on_step: Callable[[FitStep], object] = lambda result: None,
) -> CamNetwork:
    """The network that `build` begins, fitted to the samples' image-level labels; on the CPU, in evaluation mode.

    It is kept in folder/network: where that is, nothing is fitted. Checkpoints go to `folder`, from where a cut run
    goes on. Images whose labels nobody has said are left out. about: what decides the outcome besides config, classes
    and labels. Raises StoppedError after SIGTERM or SIGINT, once the step is saved, and InputError.
    """
    folder = Path(folder)
    accelerator = accelerator or make_accelerator(config.mixed_precision)
    known = [sample for sample in samples if sample["image_labels"] is not None]
    if not known:
        raise InputError(
            f"none of {len(samples)} images has image-level labels, which {config.section} is fitted to; give a labels "
            "file (--tags FILE), such as 'carbseg tags guess' writes, or take another engine, such as clip-es"
        )
    if config.batch % accelerator.num_processes:
        raise InputError(
            f"{config.section}.batch ({config.batch}) must be a multiple of the processes ({accelerator.num_processes})"
        )
    made_with = _describe(known, classes, config, accelerator) | about
    made_with = json.loads(json.dumps(made_with))  # tuples and lists compare alike
    if (folder / NETWORK).is_dir():
        network = load_network(folder / NETWORK)
        require_made_with(folder, network.config.fitted, made_with)
        return network
    folder.mkdir(parents=True, exist_ok=True)
    set_seed(config.seed)
    fitted = _run(build(), losses, known, len(classes), folder, config, made_with, accelerator, on_step)
    if accelerator.is_main_process:
        fitted.config.fitted = made_with
        with whole_folder(folder / NETWORK) as partial:
            fitted.save_pretrained(partial)
        remove_checkpoints(folder)
    accelerator.wait_for_everyone()
    return load_network(folder / NETWORK)


def _run(
    network: CamNetwork,
    losses: Losses,
    samples: Sequence[Sample],
    classes: int,
    folder: Path,
    config: FitConfig,
    made_with: dict[str, Any],
    accelerator: Accelerator,
    on_step: Callable[[FitStep], object],
) -> CamNetwork:
    """All steps that are left to do."""
    if accelerator.num_processes > 1 and accelerator.device.type == "cuda":  # there is none for CPU tensors
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    model, optimizer = accelerator.prepare(network, _make_optimizer(config, network))
    start = 0
    if (state := read_checkpoint(folder, made_with)) is not None:
        start = state["step"]
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        if accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(state["scaler"])

    def save(step: int) -> None:
        if accelerator.is_main_process:
            scaler = None if accelerator.scaler is None else accelerator.scaler.state_dict()
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "scaler": scaler}
            write_checkpoint(folder, step, state | {"made_with": made_with}, keep=1)

    steps = config.steps(len(samples))
    order = Order(len(samples), config.batch, config.seed)
    asks = asking(accelerator)
    model.train()
    loader = _batches(samples, classes, order, config, range(start, steps), accelerator)
    with signals() as asked, contextlib.closing(loader) as coming:
        for step, batch in enumerate(coming, start):
            rate = poly_learning_rate(step, steps, config.learning_rate, 0.0, config.poly_power, 0)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            terms = losses(model, FitBatch(*(tensor.to(accelerator.device) for tensor in batch)))
            # The same numbers in all processes, which stop together.
            values = accelerator.reduce(torch.stack([term.detach() for term in terms.values()]), "mean").tolist()
            if not math.isfinite(sum(values)):
                ids = ", ".join(samples[place.row]["image_id"] for place in order.places(step))
                raise InputError(
                    f"the loss is {sum(values)} at step {step}, on {ids}; look at these images, or try "
                    f"{config.section}.mixed_precision=no or a lower learning_rate (now {config.learning_rate})"
                )
            optimizer.zero_grad(set_to_none=True)
            accelerator.backward(sum(terms.values()))
            optimizer.step()
            on_step(FitStep(step + 1, steps, dict(zip(terms, values, strict=True))))
            number, is_last = asks(asked[0] if asked else 0), step + 1 == steps
            if not is_last and (number or (step + 1) % config.checkpoint_every == 0):
                save(step + 1)
            if number and not is_last:
                accelerator.wait_for_everyone()
                raise StoppedError(step + 1, number)
    return network


def _describe(
    samples: Sequence[Sample], classes: ClassSet, config: FitConfig, accelerator: Accelerator
) -> dict[str, Any]:
    """All that a resumed or finished fit must have in common with one that is asked for."""
    settings = {
        name: value for name, value in asdict(config).items() if name not in (*config.speed_only, *config.afterwards)
    }
    images = json.dumps([[sample["image_id"], sorted(sample["image_labels"] or ())] for sample in samples])
    return {
        config.section: settings | {"mixed_precision": accelerator.mixed_precision},
        "classes": list(classes.names),
        "image_labels_sha256": hashlib.sha256(images.encode()).hexdigest()[:16],
    }


def _make_optimizer(config: FitConfig, network: CamNetwork) -> torch.optim.Optimizer:
    parts = ((network.backbone, 1.0), (network.head, config.head_factor))
    groups = [{"params": list(part.parameters()), "factor": factor} for part, factor in parts]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay)
    return torch.optim.AdamW(groups, config.learning_rate, weight_decay=config.weight_decay)


def _batches(
    samples: Sequence[Sample],
    classes: int,
    order: Order,
    config: FitConfig,
    steps: range,
    accelerator: Accelerator,
) -> Generator[FitBatch, None, None]:
    """The share of this process in each step."""
    share = order.batch // accelerator.num_processes
    first = accelerator.process_index * share

    def read(place: Place) -> NDArray[np.float32]:
        rng = np.random.default_rng([config.seed, place.step, place.slot])
        return draw_crop(read_image(samples[place.row]["image_path"]), rng, config.long_side, config.crop)

    with ThreadPoolExecutor(config.readers) as pool:
        ahead: deque[tuple[list[Place], list[Future[NDArray[np.float32]]]]] = deque()

        def begin(step: int) -> None:
            places = order.places(step)[first : first + share]
            ahead.append((places, [pool.submit(read, place) for place in places]))

        for step in steps[:STEPS_AHEAD]:
            begin(step)
        for step in steps:
            places, crops = ahead.popleft()
            pixels_B3YX = torch.from_numpy(np.stack([crop.result() for crop in crops]))
            if step + STEPS_AHEAD in steps:
                begin(step + STEPS_AHEAD)
            labels_BC = torch.zeros(share, classes)
            for labels_C, place in zip(labels_BC, places, strict=True):
                labels_C[samples[place.row]["image_labels"] or []] = 1
            yield FitBatch(pixels_B3YX, labels_BC)


def draw_crop(
    image_HW3: NDArray[np.uint8], rng: np.random.Generator, long_side: tuple[int, int], crop: tuple[int, int]
) -> NDArray[np.float32]:
    """pixels_3YX of a crop of the image, ImageNet-normalised: resized, mirrored or not, cut or padded at random.

    long_side: pixels of the resized image's longer side, drawn from this range, both ends included.
    """
    scale = int(rng.integers(long_side[0], long_side[1] + 1)) / max(image_HW3.shape)
    height, width = (max(1, round(side * scale)) for side in image_HW3.shape[:2])
    image_HW3 = resize_image(image_HW3, height, width)
    if rng.random() < 0.5:
        image_HW3 = image_HW3[:, ::-1]
    there, here = [], []
    for side, wanted in zip((height, width), crop, strict=True):
        start = int(rng.integers(0, abs(side - wanted) + 1))
        size = min(side, wanted)
        there.append(slice(start, start + size) if side > wanted else slice(0, size))
        here.append(slice(0, size) if side > wanted else slice(start, start + size))
    pixels_3YX = np.zeros((3, *crop), np.float32)
    pixels_3YX[:, here[0], here[1]] = normalise(image_HW3[there[0], there[1]], IMAGENET_MEAN, IMAGENET_STD)
    return pixels_3YX
