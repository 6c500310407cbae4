"""One training step, and checkpoints that a cut run goes on from.

A step hands its work to the device and waits for nothing. Its numbers stay there until somebody reads them, and whether
its loss was finite is asked one step later.

Shapes: B batch, C classes, H W pixels.
"""

import contextlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from labelgen.samples import InputError
from labelgen.training.checkpoints import read_checkpoint, write_checkpoint
from labelgen.training.schedule import poly_learning_rate
from segtrain.batch import TrainBatch
from segtrain.config import TrainConfig
from segtrain.objective import Objective, StepLoss

LOG_EVERY = 10  # steps whose results are read, which waits for the device


class NonFiniteLossError(InputError):
    """The loss of a step was NaN or infinite."""

    def __init__(self, loss: float, step: int) -> None:
        super().__init__(f"the loss is {loss} at step {step}")
        self.step = step


@dataclass(frozen=True)
class StepResult:
    """What one step reports; areas and losses are of the global view, and None during the warm-up.

    Tensors are scalars on the device: who looks at one waits for the step.
    """

    step: int
    loss: float | Tensor
    learning_rate: float
    weight: float | Tensor | None = None
    class_weights: tuple[float, ...] | Tensor | None = None  # of the pseudo-label classes, where each has its own
    consistent_loss: float | Tensor | None = None
    inconsistent_loss: float | Tensor | None = None
    agreed: float | Tensor | None = None
    val_miou: float | None = None
    diagnosis: dict[str, Any] | None = None  # what `train` was told to ask of the student; nothing that trains it

    def read(self) -> "StepResult":
        """The same with numbers, fetched in one go."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        if not tensors:
            return self
        values = iter(torch.cat([tensor.flatten() for tensor in tensors.values()]).tolist())
        numbers: dict[str, Any] = {name: tuple(itertools.islice(values, t.numel())) for name, t in tensors.items()}
        return replace(self, **{name: some if tensors[name].ndim else some[0] for name, some in numbers.items()})


class Trainer:
    """Everything that changes from step to step: the student, the optimizer, the objective's queues and the step."""

    def __init__(
        self,
        student: nn.Module,
        config: TrainConfig,
        accelerator: Accelerator,
        made_with: dict[str, Any] | None = None,
    ) -> None:
        self.config, self.accelerator = config, accelerator
        self.made_with = made_with or {}  # all that a resumed run must have in common with this one
        self.objective = Objective(config, self._over_processes)
        self.teacher: AveragedModel | None = None
        if config.teacher:
            average = get_ema_multi_avg_fn(config.teacher)  # type: ignore[no-untyped-call]
            self.teacher = AveragedModel(student, accelerator.device, multi_avg_fn=average, use_buffers=True).eval()
        self.step = 0
        self.best = -math.inf  # score on the val split
        self.memory_format = memory_format(student, accelerator.device)
        student = student.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":  # there is none for CPU tensors
            student = nn.SyncBatchNorm.convert_sync_batchnorm(student)  # type: ignore[no-untyped-call]
        parameters = [p for p in student.parameters() if p.requires_grad]
        self.student, self.optimizer = accelerator.prepare(student, make_optimizer(config, parameters))
        self._forward = torch.compile(self.student) if config.compile else self.student
        self._unchecked: _Loss | None = None

    def train_step(self, batch: TrainBatch) -> StepResult:
        """One update of the student. Raises NonFiniteLossError for the step before: neither was an update."""
        # Dropout, should the student have any, is replayed by a resumed run.
        seed = self.config.seed + 1_000_003 * self.step + 7919 * self.accelerator.process_index
        set_seed(seed % 2**32)  # numpy takes no larger one
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
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        parts = batch.split(self.config.accumulate)
        for place, part in enumerate(parts):
            # Gradients travel between processes with the last part only.
            waits = contextlib.nullcontext() if place == len(parts) - 1 else self.accelerator.no_sync(self.student)
            with waits, _tf32(self.accelerator.device):
                last = self.loss(part)
                self.accelerator.backward(last.loss / len(parts))
            losses.append(last.loss.detach())
        loss = self._over_processes(torch.stack(losses).mean())
        # What gradient scalers tell fused optimizers: they leave the weights and their own state as they are.
        self.optimizer.optimizer.found_inf = (~loss.isfinite()).float()
        self.optimizer.step()
        self.check()  # the step before: by now its loss is known, and the device is busy with this one
        self._unchecked = _Loss(loss, self.step)
        self.step += 1
        if self.teacher is not None:
            self.teacher.update_parameters(self.accelerator.unwrap_model(self.student))
        result = StepResult(self.step, loss, learning_rate)
        if last.regions is None:
            return result
        c, i, area, _ = last.regions
        return replace(
            result,
            weight=last.weight,
            class_weights=last.class_weights_C,
            consistent_loss=c,
            inconsistent_loss=i,
            agreed=area,
        )

    def check(self) -> None:
        """Raise NonFiniteLossError if the last loss was not finite."""
        last, self._unchecked = self._unchecked, None
        if last is not None and not math.isfinite(value := last.read()):
            raise NonFiniteLossError(value, last.step)

    def loss(self, batch: TrainBatch) -> StepLoss:
        """The loss of this step."""
        logits_BCHW = self._logits(batch.image_B3HW, batch.global_pseudo_BHW)
        local_BCHW = logits_BCHW
        if batch.local_image_B3HW is not None:
            with _statistics_kept(self.student):
                local_BCHW = self._logits(batch.local_image_B3HW, batch.local_pseudo_BHW)
        if not self.config.carb or self.step < self.config.warmup_steps:
            return self.objective.warmup(batch, logits_BCHW, local_BCHW)
        return self.objective.carb(batch, logits_BCHW, local_BCHW, self._judged(batch))

    def _judged(self, batch: TrainBatch) -> Tensor | None:
        """The mean teacher's logits, if there is one."""
        if self.teacher is None:
            return None
        with torch.no_grad():
            logits_BChw = self.teacher(batch.image_B3HW.contiguous(memory_format=self.memory_format)).logits
            return F.interpolate(logits_BChw.float(), size=batch.global_pseudo_BHW.shape[-2:], mode="bilinear")

    def _logits(self, image_B3HW: Tensor, pseudo_BHW: Tensor) -> Tensor:
        """The student's logits at the size of the pseudo-labels."""
        logits_BChw = self._forward(image_B3HW.contiguous(memory_format=self.memory_format)).logits
        return F.interpolate(logits_BChw.float(), size=pseudo_BHW.shape[-2:], mode="bilinear")

    def save(self, folder: Path) -> None:
        """Write the checkpoint whole or not at all, and remove old ones. Raises NonFiniteLossError as `check` does.

        The learning rate, the order of images and all randomness follow from the seed and the step.
        """
        self.check()
        if not self.accelerator.is_main_process:
            return
        state = {
            "student": self.accelerator.unwrap_model(self.student).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "teacher": None if self.teacher is None else self.teacher.state_dict(),
            "best": self.best,
            "scaler": None if self.accelerator.scaler is None else self.accelerator.scaler.state_dict(),
            "made_with": self.made_with,
        } | self.objective.state_dict()
        write_checkpoint(folder, self.step, state, self.config.keep)

    def resume(self, folder: Path) -> None:
        """Go on from the last checkpoint in the folder, if there is one. Raises InputError for one of another run."""
        state = read_checkpoint(folder, self.made_with)
        if state is None:
            return
        self.accelerator.unwrap_model(self.student).load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.objective.load_state_dict(state)
        if self.teacher is not None:
            self.teacher.load_state_dict(state["teacher"])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.best = state["step"], state["best"]

    def _over_processes(self, values: Tensor) -> Tensor:
        """The mean over all processes: the queues are the same on each, and so is what they think of a loss."""
        if self.accelerator.num_processes == 1:
            return values
        return self.accelerator.reduce(values, reduction="mean")  # type: ignore[no-any-return]


class _Loss:
    """The loss of a step on its way to the CPU."""

    def __init__(self, loss: Tensor, step: int) -> None:
        self.step, self.event = step, None
        self.value = loss.to("cpu", non_blocking=loss.is_cuda)
        if loss.is_cuda:
            self.event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.event.record()

    def read(self) -> float:
        if self.event is not None:
            self.event.synchronize()
        return self.value.item()


@contextlib.contextmanager
def _tf32(device: torch.device) -> Iterator[None]:
    """The student's matrix products in TF32, as cuDNN's convolutions are anyway; what warps logits stays exact."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
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


def memory_format(model: nn.Module, device: torch.device) -> torch.memory_format:
    """channels_last, which convolutions are faster in, but where it crashes.

    On a CPU, the backward pass of a strided 1x1 convolution with fewer than 16 input channels corrupts memory in
    channels_last (torch 2.13, oneDNN).
    """
    narrow = any(
        isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and m.stride != (1, 1) and m.in_channels < 16
        for m in model.modules()
    )
    return torch.contiguous_format if narrow and device.type == "cpu" else torch.channels_last


def make_optimizer(config: TrainConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """SGD with momentum 0.9 (the paper) or AdamW (small students from scratch).

    Fused: one kernel, which can leave out an update without anybody waiting to decide it.
    """
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=0.9, weight_decay=decay, fused=True)
    return torch.optim.AdamW(parameters, rate, weight_decay=decay, fused=True)
