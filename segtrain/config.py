"""How a student is trained: every setting, its default and what it may be."""

import math
from dataclasses import dataclass
from typing import Literal

from labelgen.samples import InputError
from segtrain.data import Views


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the student is trained (CARB, "Implementation Detail")."""

    # base: cached global pseudo-labels; local: cached local views too; dual: CLIP makes both anew for each crop;
    # truth: pixel labels, the upper bound that the method does without
    views: Views = "local"
    local_loss: Literal["slice", "crop"] = "slice"  # on the crop's logits in the view's box (CARB), or the view alone
    carb: bool = True  # False: plain cross-entropy to the end
    # weight w of the inconsistent region: adaptive (CARB); fixed (CARB, Fig. 6b); class-wise: one of each class's own;
    # gated: that until the student has learned the class, then CARB's (see ClassBalancer)
    balance: Literal["adaptive", "fixed", "class-wise", "gated"] = "adaptive"
    fixed_weight: float | None = None  # of balance=fixed
    gate: tuple[float, float] = (
        0.3,
        0.6,
    )  # of balance=gated: consistent shares where a class begins and ends to switch
    # of balance=gated: confidence in 0..1 above which the student's own prediction is a target, too, where it disagrees
    # with a pseudo-label and has learned both classes (see Regions.correction_loss); 0 = off
    correction: float = 0.0
    weight_floor: float = 0.0  # no weight falls below this
    teacher: float = 0.0  # momentum of a mean teacher that predicts S in the student's place; 0 = the student itself
    queue: int = 5  # steps that the weights look back
    coefficient: float = 1.0  # the adaptive weight is multiplied by this
    region_mean: Literal["region", "all"] = "region"  # losses are means over their own region (CARB), or all pixels
    filter_labels: bool = True  # False: classes that the image does not show may be pseudo-labels, too
    steps: int = 30_000
    warmup_steps: int = 16_000  # plain cross-entropy before CARB
    batch: int = 8  # images a step, over all processes
    accumulate: int = 1  # parts that a step's batch is cut into, to save memory; each counts in the queues
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.005
    min_learning_rate: float = 1e-4
    weight_decay: float = 5e-4
    poly_power: float = 0.9
    ramp_steps: int = 0  # linear ramp of the learning rate
    loss_stride: int = 1  # the loss looks at every n-th pixel
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"  # auto: bf16 on GPUs that have it
    compile: bool = False  # torch.compile the student: minutes at the start
    checkpoint_every: int = 500
    keep: int = 2  # checkpoints
    validate_every: int = 0  # steps between scores on the val split, which keep the best student; 0 = never
    # steps between looks at how right the pseudo-labels of both regions are, where there is truth; 0 = never
    diagnose_every: int = 500
    workers: int = 2  # loader processes; 0 loads in the training process
    seed: int = 0

    def __post_init__(self) -> None:
        if self.views not in ("base", "local", "dual", "truth"):
            raise InputError(f"train.views must be base, local, dual or truth, got {self.views!r}")
        if self.views == "truth" and self.carb:
            raise InputError("train.views = truth has no noise to balance: set train.carb=false")
        if self.optimizer not in ("sgd", "adamw"):
            raise InputError(f"train.optimizer must be sgd or adamw, got {self.optimizer!r}")
        if self.balance not in ("adaptive", "fixed", "class-wise", "gated"):
            raise InputError(f"train.balance must be adaptive, fixed, class-wise or gated, got {self.balance!r}")
        if (self.balance == "fixed") != (self.fixed_weight is not None):
            raise InputError("train.balance=fixed and train.fixed_weight=W belong together; the paper's best is 0.1")
        if not 0 <= self.gate[0] < self.gate[1] <= 1:
            raise InputError(f"train.gate must be two rising shares in [0, 1], got {self.gate}")
        for name in ("weight_floor", "teacher", "correction"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"train.{name} must be in [0, 1), got {getattr(self, name)}")
        for name in ("steps", "batch", "accumulate", "queue", "loss_stride", "checkpoint_every", "keep"):
            if getattr(self, name) < 1:
                raise InputError(f"train.{name} must be at least 1, got {getattr(self, name)}")
        # "not >=" refuses NaN as well
        for name in (
            *("warmup_steps", "validate_every", "diagnose_every", "workers"),
            *("min_learning_rate", "weight_decay", "ramp_steps"),
        ):
            if not getattr(self, name) >= 0:
                raise InputError(f"train.{name} must not be negative, got {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"train.learning_rate must be a positive number, got {self.learning_rate}")
        if self.carb and self.warmup_steps >= self.steps:
            raise InputError(
                f"CARB would never set in: train.warmup_steps ({self.warmup_steps}) must be below train.steps "
                f"({self.steps}), or train.carb=false"
            )
