"""The training loop: warm-up on plain cross-entropy, then CARB; log, checkpoint, resume."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from labelgen.layout import differences
from labelgen.maskclip import DenseCLIP
from labelgen.samples import InputError, Sample
from labelgen.store import PseudoLabelStore
from labelgen.views import ViewConfig
from segtrain.augment import AugmentConfig
from segtrain.carb import RegionBalancer, RegionLosses, region_losses, warmup_loss
from segtrain.data import Order, PseudoLabelledImages, TrainBatch, Views, batches
from segtrain.model import Student, StudentConfig
from segtrain.online import OnlineLabels
from segtrain.schedule import poly_learning_rate

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the student is trained (CARB, "Implementation Detail")."""

    # base: cached global pseudo-labels; local: cached local views too; dual: CLIP makes both anew for each crop;
    # truth: pixel labels, the upper bound that the method does without
    views: Views = "local"
    local_loss: Literal["slice", "crop"] = "slice"  # on the crop's logits in the view's box (CARB), or the view alone
    carb: bool = True  # False: plain cross-entropy to the end
    fixed_weight: float | None = None  # a constant instead of the adaptive weight w (CARB, Fig. 6b)
    queue: int = 5  # steps that the adaptive weight looks back
    coefficient: float = 1.0  # the adaptive weight is multiplied by this
    steps: int = 30_000
    warmup_steps: int = 16_000  # plain cross-entropy before CARB
    batch: int = 8  # images a step, over all processes
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.005
    min_learning_rate: float = 1e-4
    weight_decay: float = 5e-4
    poly_power: float = 0.9
    ramp_steps: int = 0  # linear ramp of the learning rate
    loss_stride: int = 1  # the loss looks at every n-th pixel
    checkpoint_every: int = 500
    workers: int = 2  # loader processes; 0 loads in the training process
    seed: int = 0

    def __post_init__(self) -> None:
        if self.views not in ("base", "local", "dual", "truth"):
            raise InputError(f"train.views must be base, local, dual or truth, got {self.views!r}")
        if self.views == "truth" and self.carb:
            raise InputError("train.views = truth has no noise to balance: set train.carb=false")
        if self.optimizer not in ("sgd", "adamw"):
            raise InputError(f"train.optimizer must be sgd or adamw, got {self.optimizer!r}")
        for name in ("steps", "batch", "queue", "loss_stride", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InputError(f"train.{name} must be at least 1, got {getattr(self, name)}")
        if not self.warmup_steps >= 0:
            raise InputError(f"train.warmup_steps must not be negative, got {self.warmup_steps}")
        if self.carb and self.warmup_steps >= self.steps:
            raise InputError(
                f"CARB would never set in: train.warmup_steps ({self.warmup_steps}) must be below train.steps "
                f"({self.steps}), or train.carb=false"
            )


@dataclass(frozen=True)
class StepResult:
    """What one step reports; areas and losses are of the global view, and None during the warm-up."""

    step: int
    loss: float
    learning_rate: float
    weight: float | None = None
    consistent_loss: float | None = None
    inconsistent_loss: float | None = None
    agreed: float | None = None


class Trainer:
    """Everything that changes from step to step: the student, the optimizer, the loss queues and the step."""

    def __init__(
        self,
        student: Student,
        config: TrainConfig,
        accelerator: Accelerator,
        made_with: dict[str, Any] | None = None,
    ) -> None:
        self.config, self.accelerator = config, accelerator
        self.made_with = made_with or {}  # all that a resumed run must have in common with this one
        self.balancer = RegionBalancer(config.queue, config.coefficient)
        self.step = 0
        student = student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        parameters = [p for p in student.parameters() if p.requires_grad]
        self.student, self.optimizer = accelerator.prepare(student, make_optimizer(config, parameters))

    def train_step(self, batch: TrainBatch) -> StepResult:
        """One update of the student."""
        learning_rate = poly_learning_rate(
            self.step,
            self.config.steps,
            self.config.learning_rate,
            self.config.min_learning_rate,
            self.config.poly_power,
            self.config.ramp_steps,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        loss, regions, weight = self.loss(batch)
        if not torch.isfinite(loss):
            raise InputError(
                f"the loss is {loss.item()} at step {self.step}; try a lower train.learning_rate "
                f"(now {self.config.learning_rate})"
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        self.optimizer.step()
        self.step += 1
        if regions is None:
            return StepResult(self.step, loss.item(), learning_rate)
        return StepResult(
            self.step,
            loss.item(),
            learning_rate,
            weight,
            regions.consistent.item(),
            regions.inconsistent.item(),
            regions.consistent_area.item(),
        )

    def loss(self, batch: TrainBatch) -> tuple[Tensor, RegionLosses | None, float | None]:
        """The loss of this step, and in the CARB stage the global view's regions and the weight w."""
        logits_BCHW = self._logits(batch.image_B3HW, batch.global_pseudo_BHW)
        local_BCHW = logits_BCHW
        use_local = self.config.views in ("local", "dual")
        if batch.local_image_B3HW is not None:
            with _statistics_kept(self.student):
                local_BCHW = self._logits(batch.local_image_B3HW, batch.local_pseudo_BHW)
        if not self.config.carb or self.step < self.config.warmup_steps:
            loss = warmup_loss(logits_BCHW, batch.global_pseudo_BHW)
            if use_local:
                loss = loss + warmup_loss(local_BCHW, batch.local_pseudo_BHW)
            return loss, None, None
        g = region_losses(logits_BCHW, batch.global_pseudo_BHW, batch.is_present_BC)
        # measured on the global view, used for both (CARB, "Adaptive Region Balancing")
        w = self.balancer.update(self._over_processes(g))
        if self.config.fixed_weight is not None:
            w = self.config.fixed_weight
        loss = g.consistent + w * g.inconsistent
        if use_local:
            l = region_losses(local_BCHW, batch.local_pseudo_BHW, batch.is_present_BC)  # noqa: E741 (the paper's letter)
            loss = loss + l.consistent + w * l.inconsistent
        return loss, g, w

    def _logits(self, image_B3HW: Tensor, pseudo_BHW: Tensor) -> Tensor:
        """The student's logits at the size of the pseudo-labels."""
        logits_BChw = self.student(image_B3HW.contiguous(memory_format=torch.channels_last))
        return F.interpolate(logits_BChw.float(), size=pseudo_BHW.shape[-2:], mode="bilinear")

    def save(self, folder: Path) -> None:
        """Write the checkpoint whole or not at all. The learning rate and the order follow from the step."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "step": self.step,
            "student": self.accelerator.unwrap_model(self.student).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "balancer": self.balancer.state_dict(),
            "made_with": self.made_with,
        }
        partial = folder / (CHECKPOINT + ".partial")
        torch.save(state, partial)
        partial.replace(folder / CHECKPOINT)

    def resume(self, folder: Path) -> None:
        """Go on from the checkpoint in the folder, if there is one. Raises InputError for one of another config."""
        if not (folder / CHECKPOINT).is_file():
            return
        state = _load(folder / CHECKPOINT)
        for key, was, now in differences(state["made_with"], self.made_with):
            raise InputError(
                f"{folder} was trained with {key} = {was!r}, not {now!r}; delete that folder to start anew"
            )
        self.accelerator.unwrap_model(self.student).load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.balancer.load_state_dict(state["balancer"])
        self.step = state["step"]

    def _over_processes(self, losses: RegionLosses) -> RegionLosses:
        """The mean over all processes, so that the queues are the same on each."""
        if self.accelerator.num_processes == 1:
            return losses
        mean = self.accelerator.reduce(torch.stack([x.detach() for x in losses]), reduction="mean")
        return RegionLosses(*mean)


@contextmanager
def _statistics_kept(model: nn.Module) -> Iterator[None]:
    """BatchNorm's running statistics stay as they are: small crops are unlike the images that are predicted later."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def make_optimizer(config: TrainConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """SGD with momentum 0.9 (the paper) or AdamW (small students from scratch)."""
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, config.learning_rate, momentum=0.9, weight_decay=config.weight_decay)
    return torch.optim.AdamW(parameters, config.learning_rate, weight_decay=config.weight_decay)


def saved_step(folder: str | Path) -> int:
    """The step at which a cut run would go on: 0 without a checkpoint."""
    path = Path(folder) / CHECKPOINT
    return int(_load(path)["step"]) if path.is_file() else 0


def _load(path: Path) -> dict[str, Any]:
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a broken file raises zipfile's, pickle's or torch's own errors
        raise InputError(f"{path} cannot be read; delete it to start anew") from error


def train(
    samples: Sequence[Sample],
    store_path: str | Path,
    folder: str | Path,
    config: TrainConfig,
    augment: AugmentConfig,
    student_config: StudentConfig,
    *,
    accelerator: Accelerator | None = None,
    clip: DenseCLIP | None = None,
    dual: ViewConfig | None = None,
    read_truth: Callable[[Sample], NDArray[np.uint8]] | None = None,
    on_step: Callable[[StepResult], object] = lambda result: None,
) -> Student:
    """Train a student on the store's pseudo-labels; checkpoints go to `folder`, from where a cut run goes on.

    clip, dual: for dual views, the CLIP that the store was made with and where local views are drawn from.
    read_truth: for the upper bound, the pixel labels of a sample. Returns the trained student (in evaluation mode,
    on the CPU).
    """
    accelerator = accelerator or Accelerator()
    if config.batch % accelerator.num_processes:
        raise InputError(
            f"train.batch ({config.batch}) must be a multiple of the processes ({accelerator.num_processes})"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    store = PseudoLabelStore.open(store_path)
    made_with = {
        "train": asdict(config),
        "augment": asdict(augment),
        "student": asdict(student_config),
        "pseudo-labels": {name: value for name, value in store.provenance.items() if name != "versions"},
        "images": [sample["image_id"] for sample in samples],
    }
    made_with = json.loads(json.dumps(made_with))  # tuples and lists compare alike
    trainer = Trainer(Student(student_config, torch.from_numpy(store.text_vectors)), config, accelerator, made_with)
    trainer.resume(folder)
    images = PseudoLabelledImages(
        samples,
        store_path,
        augment,
        seed=config.seed,
        views=config.views,
        loss_stride=config.loss_stride,
        local_crops=config.local_loss == "crop",
        dual=dual,
        read_truth=read_truth,
    )
    online = OnlineLabels(clip, torch.from_numpy(store.text_vectors)) if clip is not None else None
    order = Order(len(samples), config.batch, config.seed)
    loader = batches(
        images,
        order,
        trainer.step,
        config.steps,
        workers=config.workers,
        rank=accelerator.process_index,
        ranks=accelerator.num_processes,
    )
    trainer.student.train()
    for batch in loader:
        batch = batch.to(accelerator.device)
        on_step(trainer.train_step(batch if online is None else online.relabel(batch)))
        if trainer.step % config.checkpoint_every == 0 or trainer.step == config.steps:
            trainer.save(folder)
    student: Student = accelerator.unwrap_model(trainer.student)
    return student.cpu().eval()
