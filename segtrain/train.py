"""The training run: data, steps, log, validation, checkpoints; stops at a signal and goes on later."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from transformers import PreTrainedModel

from labelgen.generate import weights_hash
from labelgen.maskclip import DenseCLIP
from labelgen.samples import ClassSet, InputError, Sample
from labelgen.store import PseudoLabelStore
from labelgen.training.order import Order
from labelgen.training.processes import StoppedError, asking, make_accelerator, signals
from labelgen.views import ViewConfig
from segtrain.augment import AugmentConfig
from segtrain.batch import augment as augment_batch
from segtrain.config import TrainConfig
from segtrain.data import PseudoLabelledImages, batches, each
from segtrain.model import StudentConfig, build_student
from segtrain.online import OnlineLabels
from segtrain.trainer import LOG_EVERY, NonFiniteLossError, StepResult, Trainer

T = TypeVar("T")


def train(
    samples: Sequence[Sample],
    classes: ClassSet,
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
    validate: Callable[[PreTrainedModel], float] | None = None,
    diagnose: Callable[[PreTrainedModel], dict[str, Any]] | None = None,
    on_step: Callable[[StepResult], object] = lambda result: None,
    on_best: Callable[[PreTrainedModel, float], object] = lambda student, score: None,
) -> PreTrainedModel:
    """Train a student on the store's pseudo-labels; checkpoints go to `folder`, from where a cut run goes on.

    clip, dual: for dual views, the CLIP that the store was made with and where local views are drawn from.
    read_truth: for the upper bound, the pixel labels of a sample. validate: the score of a student, asked for on the
    main process every config.validate_every steps; on_best hears of the best so far. diagnose: what else to note of a
    student, every config.diagnose_every steps. on_step hears of every step, with numbers
    (StepResult.read) every LOG_EVERY steps, at the last, and where there is a score or a diagnosis. Returns the trained
    student (in evaluation mode, on the CPU). Raises StoppedError after SIGTERM or SIGINT, once the step is saved, and
    InputError.
    """
    accelerator = accelerator or make_accelerator(config.mixed_precision)
    if config.batch % (accelerator.num_processes * config.accumulate):
        raise InputError(
            f"train.batch ({config.batch}) must be a multiple of processes x train.accumulate "
            f"({accelerator.num_processes} x {config.accumulate})"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    store = PseudoLabelStore.open(store_path)
    made_with = {
        "train": asdict(config) | {"mixed_precision": accelerator.mixed_precision},
        "augment": asdict(augment),
        "student": asdict(student_config),
        "pseudo-labels": {name: value for name, value in store.provenance.items() if name != "versions"},
        "images": {"count": len(samples), "ids_sha256": _digest_ids(samples)},
    }
    made_with = json.loads(json.dumps(made_with))  # tuples and lists compare alike
    text_CD = torch.from_numpy(store.text_vectors)
    trainer = Trainer(build_student(student_config, classes, text_CD), config, accelerator, made_with)
    trainer.resume(folder)
    images = PseudoLabelledImages(
        samples,
        store_path,
        augment,
        seed=config.seed,
        views=config.views,
        loss_stride=config.loss_stride,
        local_crops=config.local_loss == "crop",
        filter_labels=config.filter_labels,
        dual=dual,
        read_truth=read_truth,
    )
    engine = store.provenance.get("engine", {}).get("name")
    if config.views == "dual" and engine is not None:
        raise InputError(f"train.views=dual asks MaskCLIP anew, but {engine} made {store.path}; use train.views=base")
    online = OnlineLabels(clip, text_CD, config.loss_stride) if clip is not None else None
    if clip is not None and weights_hash(clip) != store.provenance["clip"]["weights_sha256"]:
        raise InputError(f"{store.path} was made with another CLIP; give the one that made it with --clip")
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
    asks = asking(accelerator)
    trainer.student.train()
    try:
        with signals() as asked, contextlib.closing(each(loader)) as coming:
            for raw in coming:
                batch = augment_batch(raw, accelerator.device)
                result = trainer.train_step(batch if online is None else online.relabel(batch))
                if config.validate_every and validate is not None and trainer.step % config.validate_every == 0:
                    result = replace(result, val_miou=_ask(trainer, validate))
                    if result.val_miou is not None and result.val_miou > trainer.best:
                        trainer.best = result.val_miou
                        on_best(accelerator.unwrap_model(trainer.student), trainer.best)
                is_last = trainer.step == config.steps
                if config.diagnose_every and diagnose is not None and trainer.step % config.diagnose_every == 0:
                    result = replace(result, diagnosis=_ask(trainer, diagnose))
                if trainer.step % LOG_EVERY == 0 or is_last or result.val_miou is not None or result.diagnosis:
                    trainer.check()
                    result = result.read()
                on_step(result)
                number = asks(asked[0] if asked else 0)
                if number or trainer.step % config.checkpoint_every == 0 or is_last:
                    trainer.save(folder)
                if number and not is_last:
                    accelerator.wait_for_everyone()
                    raise StoppedError(trainer.step, number)
    except NonFiniteLossError as error:
        ids = [samples[place.row]["image_id"] for place in order.places(error.step)]
        raise InputError(
            f"{error}, on {', '.join(ids)}; look at these images, or try a lower train.learning_rate (now "
            f"{config.learning_rate}), a longer train.ramp_steps or train.mixed_precision=no"
        ) from error
    student: PreTrainedModel = accelerator.unwrap_model(trainer.student)
    return student.cpu().eval()  # type: ignore[no-any-return, no-untyped-call]


def _digest_ids(samples: Sequence[Sample]) -> str:
    """What tells one list of images from another, in their order, which the order of training follows from."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(f"{sample['image_id']}\0".encode())  # no file name holds a NUL
    return digest.hexdigest()[:16]


def _ask(trainer: Trainer, question: Callable[[PreTrainedModel], T]) -> T | None:
    """The answer about the student on the main process, None on the others, which wait."""
    trainer.check()
    answer = None
    if trainer.accelerator.is_main_process:
        trainer.student.eval()
        answer = question(trainer.accelerator.unwrap_model(trainer.student))
        trainer.student.train()
    trainer.accelerator.wait_for_everyone()
    return answer
