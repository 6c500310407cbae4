"""Training samples, the training loop, resuming."""

import shutil
import threading
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from accelerate import Accelerator
from numpy.typing import NDArray
from transformers import PreTrainedModel

from labelgen.maskclip import DenseCLIP
from labelgen.samples import InputError, Sample
from labelgen.store import PseudoLabelStore
from labelgen.training.checkpoints import saved_step
from labelgen.training.order import Order, Place
from labelgen.views import ViewConfig
from pipeline.datasets import DATASETS
from segtrain.augment import AugmentConfig
from segtrain.batch import TrainBatch, augment
from segtrain.config import TrainConfig
from segtrain.data import PseudoLabelledImages, RawBatch, Views, batches, collate, each
from segtrain.model import StudentConfig, build_student
from segtrain.online import OnlineLabels
from segtrain.train import train
from segtrain.trainer import LOG_EVERY, StepResult, Trainer, memory_format

AUGMENT = AugmentConfig(crop_height=64, crop_width=96, scales=(0.5, 1.0))
STUDENT = StudentConfig(width=4, aspp_channels=8)
CLASSES = DATASETS["toy"].classes
CONFIG = TrainConfig(
    steps=8,
    warmup_steps=4,
    batch=2,
    optimizer="adamw",
    learning_rate=3e-3,
    loss_stride=2,
    workers=0,
    checkpoint_every=3,
)


def student(config: StudentConfig = STUDENT) -> PreTrainedModel:
    return build_student(config, CLASSES, torch.randn(11, 8))


def images(samples: list[Sample], store_path: Path, *, views: Views = "local", **others: Any) -> PseudoLabelledImages:
    return PseudoLabelledImages(samples, store_path, AUGMENT, seed=0, views=views, loss_stride=2, **others)


def loaded(data: PseudoLabelledImages, places: Sequence[Place]) -> TrainBatch:
    return augment(collate([data[place] for place in places]), torch.device("cpu"))


def test_the_next_batch_is_loaded_while_this_one_is_in_use(samples: list[Sample], store_path: Path) -> None:
    data, order = images(samples, store_path), Order(len(samples), 2, 0)
    asked: list[Place] = []
    second = threading.Event()

    class Watched(PseudoLabelledImages):
        def __getitem__(self, place: Place) -> RawBatch:
            asked.append(place)
            if place.step == 1:
                second.set()
            return data[place]

    watched = Watched(samples, store_path, AUGMENT, seed=0, views="local")
    coming = each(batches(watched, order, 0, 8, workers=0, rank=0, ranks=1))
    next(coming)
    assert second.wait(30)  # nobody has asked for it
    coming.close()
    assert max(place.step for place in asked) <= 2  # nothing more is loaded for who has left


def test_two_processes_see_together_what_one_sees(samples: list[Sample], store_path: Path) -> None:
    def run(rank: int, ranks: int, start: int = 0) -> list[torch.Tensor]:
        loader = batches(
            images(samples, store_path), Order(len(samples), 2, 0), start, 3, workers=0, rank=rank, ranks=ranks
        )
        return [augment(raw, torch.device("cpu")).image_B3HW for raw in loader]

    one, first, second = run(0, 1), run(0, 2), run(1, 2)
    for whole, a, b in zip(one, first, second, strict=True):
        assert torch.equal(whole, torch.cat([a, b]))
    assert torch.equal(run(0, 1, start=2)[0], one[2])  # a resumed run goes on where it was cut


def test_worker_processes_load_the_same_samples(samples: list[Sample], store_path: Path) -> None:
    order = Order(len(samples), 2, 0)
    PseudoLabelStore.open(store_path).mask(samples[0]["image_id"])  # the parent has read: a forked worker could hang
    runs = [list(each(batches(images(samples, store_path), order, 0, 2, workers=w, rank=0, ranks=1))) for w in (0, 1)]
    for raw_here, raw_there in zip(*runs, strict=True):
        here, there = (augment(raw, torch.device("cpu")) for raw in (raw_here, raw_there))
        for name, a, b in zip(TrainBatch._fields, here, there, strict=True):
            assert (a is None) == (b is None), name
            assert a is None or torch.equal(a, b), name


def test_a_loader_process_says_in_one_line_what_it_cannot_read(
    samples: list[Sample], store_path: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.png"
    cut.write_bytes(Path(samples[0]["image_path"]).read_bytes()[:500])
    broken = [Sample(**sample | {"image_path": str(cut)}) for sample in samples]
    loader = batches(images(broken, store_path), Order(10, 2, 0), 0, 2, workers=1, rank=0, ranks=1)
    with pytest.raises(InputError) as raised:
        list(each(loader))
    assert str(raised.value) == f"{cut} is truncated; copy it again or take it out of the split"


def test_pseudo_labels_hold_only_present_classes_and_the_local_view_only_its_box(
    samples: list[Sample], store_path: Path
) -> None:
    data = images(samples, store_path)
    for place in Order(len(samples), 10, 0).places(0):
        sample = loaded(data, [place])
        present = set(np.flatnonzero(sample.is_present_BC[0])) | {255}
        assert set(sample.global_pseudo_BHW.unique().tolist()) <= present
        assert set(sample.local_pseudo_BHW.unique().tolist()) <= present
        assert sample.image_B3HW.shape == (1, 3, 64, 96)
        assert sample.global_pseudo_BHW.shape == (1, 32, 48)
        visible = sample.local_pseudo_BHW != 255
        assert visible.any()
        assert visible.sum() < visible.numel()
    base = loaded(images(samples, store_path, views="base"), [place])
    assert (base.local_pseudo_BHW == 255).all()


PLAIN = AugmentConfig(crop_height=160, crop_width=320, scales=(1.0, 1.0), flip=0.0, photometric=0.0)
SMALL_VIEWS = ViewConfig(local_height=64, local_width=48, local_zooms=(1.0, 1.5))


def dual_images(samples: list[Sample], store_path: Path, augment: AugmentConfig) -> PseudoLabelledImages:
    return PseudoLabelledImages(samples, store_path, augment, seed=0, views="dual", dual=SMALL_VIEWS)


def test_clip_in_the_training_process_says_what_it_said_in_the_cache(
    samples: list[Sample], store_path: Path, clip_folder: Path
) -> None:
    """On a crop that is the whole image, dual views' global pseudo-labels are the cached ones."""
    store = PseudoLabelStore.open(store_path)
    online = OnlineLabels(DenseCLIP.from_pretrained(clip_folder), torch.from_numpy(store.text_vectors))
    data = dual_images(samples, store_path, PLAIN)
    batch = online.relabel(loaded(data, [Place(0, slot, slot) for slot in range(2)]))
    for pseudo_HW, sample in zip(batch.global_pseudo_BHW, samples, strict=False):
        same = pseudo_HW.numpy() == store.mask(sample["image_id"])
        assert same.mean() > 0.99  # float16 in the store


def test_dual_views_stay_in_their_box_and_off_the_void(
    samples: list[Sample], store_path: Path, clip_folder: Path
) -> None:
    online = OnlineLabels(DenseCLIP.from_pretrained(clip_folder), torch.randn(11, 128))
    half = replace(PLAIN, scales=(0.5, 0.5))  # the image fills a quarter of the crop
    data = dual_images(samples, store_path, half)
    batch = online.relabel(loaded(data, [Place(3, slot, slot) for slot in range(2)]))
    assert batch.local_box_B4 is not None
    for global_HW, local_HW, box in zip(
        batch.global_pseudo_BHW, batch.local_pseudo_BHW, batch.local_box_B4.tolist(), strict=True
    ):
        assert (global_HW[:80, :160] != 255).all()
        assert (global_HW[80:] == 255).all()
        y0, x0, y1, x1 = box
        assert (y1 - y0, x1 - x0) == (64, 48)
        inside = torch.zeros_like(local_HW, dtype=torch.bool)
        inside[y0:y1, x0:x1] = True
        inside &= global_HW != 255
        assert torch.equal(local_HW != 255, inside)


def test_dual_views_train_and_refuse_another_clip_or_engine(
    samples: list[Sample], store_path: Path, clip_folder: Path, tmp_path: Path
) -> None:
    config = replace(CONFIG, views="dual", steps=3, warmup_steps=1)
    clip = DenseCLIP.from_pretrained(clip_folder)
    results: list[StepResult] = []

    def dual(folder: Path, store: Path = store_path) -> None:
        train(
            samples,
            CLASSES,
            store,
            folder,
            config,
            AUGMENT,
            STUDENT,
            clip=clip,
            dual=SMALL_VIEWS,
            on_step=results.append,
        )

    dual(tmp_path / "a")
    assert [result.agreed is None for result in results] == [True, False, False]
    with torch.no_grad():
        next(iter(clip.model.parameters())).add_(1)
    with pytest.raises(InputError, match="was made with another CLIP; give the one that made it with --clip"):
        dual(tmp_path / "b")
    others = tmp_path / "others.zarr"
    shutil.copytree(store_path, others)
    group = zarr.open_group(str(others), mode="r+")
    group.attrs["provenance"] = group.attrs["provenance"] | {"engine": {"name": "clip-es"}}
    with pytest.raises(InputError, match="dual asks MaskCLIP anew, but clip-es made .* use train.views=base"):
        dual(tmp_path / "c", others)


def test_truth_as_upper_bound_is_warped_with_the_image(store_path: Path, toy_root: Path) -> None:
    with_truth = DATASETS["toy"].list_samples(toy_root, "train", with_truth=True)

    def read(sample: Sample) -> NDArray[np.uint8]:
        return DATASETS["toy"].read_truth(str(sample["label_path"]))

    data = PseudoLabelledImages(with_truth, store_path, PLAIN, seed=0, views="truth", read_truth=read)
    np.testing.assert_array_equal(loaded(data, [Place(0, 0, 4)]).global_pseudo_BHW[0], read(with_truth[4]))
    turned = replace(PLAIN, flip=1.0)
    data = PseudoLabelledImages(with_truth, store_path, turned, seed=0, views="truth", read_truth=read)
    np.testing.assert_array_equal(loaded(data, [Place(0, 0, 4)]).global_pseudo_BHW[0], read(with_truth[4])[:, ::-1])


def test_local_views_as_images_of_their_own_leave_the_statistics_alone(samples: list[Sample], store_path: Path) -> None:
    data = images(samples, store_path, local_crops=True)
    batch = loaded(data, [Place(0, slot, slot) for slot in range(2)])
    assert batch.local_image_B3HW is not None
    assert batch.local_image_B3HW.shape[2:] == tuple(2 * side for side in batch.local_pseudo_BHW.shape[1:])
    trainer = Trainer(student(), CONFIG, Accelerator())
    start = {name: value.clone() for name, value in trainer.student.state_dict().items()}

    def statistics_after(some: TrainBatch) -> dict[str, torch.Tensor]:
        trainer.student.load_state_dict(start)
        trainer.loss(some)
        return {name: b.clone() for name, b in trainer.student.named_buffers() if "running" in name}

    alone = batch._replace(local_image_B3HW=None, local_pseudo_BHW=batch.global_pseudo_BHW)
    with_view, without = statistics_after(batch), statistics_after(alone)
    assert all(torch.equal(with_view[name], without[name]) for name in without)
    assert not torch.equal(without["backbone.stem.0.1.running_mean"], start["backbone.stem.0.1.running_mean"])


def test_images_without_pseudo_labels_stop_the_run(samples: list[Sample], store_path: Path) -> None:
    stranger: Sample = {**samples[0], "image_id": "stranger"}
    with pytest.raises(InputError, match="1 of 11 images have no pseudo-labels"):
        images([*samples, stranger], store_path)


def run(
    samples: list[Sample], store_path: Path, folder: Path, config: TrainConfig = CONFIG
) -> tuple[PreTrainedModel, list[StepResult]]:
    results: list[StepResult] = []
    student = train(samples, CLASSES, store_path, folder, config, AUGMENT, STUDENT, on_step=results.append)
    return student, results


@pytest.mark.parametrize(
    "others", [{}, {"balance": "gated", "teacher": 0.9, "correction": 0.5}], ids=["carb", "gated, corrected"]
)
def test_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    samples: list[Sample], store_path: Path, tmp_path: Path, others: dict[str, Any]
) -> None:
    config = replace(CONFIG, **others)
    whole, all_results = run(samples, store_path, tmp_path / "whole", config)

    class Cut(Exception):
        pass

    def cut_at_7(result: StepResult) -> None:
        if result.step == 7:  # after the checkpoint of step 6, within the CARB stage
            raise Cut

    with pytest.raises(Cut):
        train(samples, CLASSES, store_path, tmp_path / "cut", config, AUGMENT, STUDENT, on_step=cut_at_7)
    assert saved_step(tmp_path / "cut") == 6
    resumed, later_results = run(samples, store_path, tmp_path / "cut", config)
    assert [r.step for r in later_results] == [7, 8]
    assert [r.read() for r in later_results] == [r.read() for r in all_results[6:]]
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_student_that_is_looked_at_on_the_way_ends_as_another(
    samples: list[Sample], store_path: Path, tmp_path: Path
) -> None:
    looks: list[bool] = []
    results: list[StepResult] = []

    def look(student: PreTrainedModel) -> dict[str, Any]:
        looks.append(student.training)
        student(torch.rand(1, 3, 64, 96))
        return {"consistent": 0.5}

    config = replace(CONFIG, diagnose_every=3)
    seen = train(
        samples, CLASSES, store_path, tmp_path / "a", config, AUGMENT, STUDENT, diagnose=look, on_step=results.append
    )
    assert [r.step for r in results if r.diagnosis] == [3, 6]
    assert [type(r.loss) for r in results if r.diagnosis] == [float] * 2
    assert looks == [False] * 2
    train(
        samples,
        CLASSES,
        store_path,
        tmp_path / "b",
        replace(CONFIG, diagnose_every=0),
        AUGMENT,
        STUDENT,
        diagnose=look,
    )
    assert len(looks) == 2
    unseen, _ = run(samples, store_path, tmp_path / "c")
    for (name, a), b in zip(seen.state_dict().items(), unseen.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_warmup_ends_where_it_should_and_carb_reports_its_regions(
    samples: list[Sample], store_path: Path, tmp_path: Path
) -> None:
    _, results = run(samples, store_path, tmp_path)
    assert [r.weight is None for r in results] == [True] * 4 + [False] * 4
    assert all(0 < r.weight < 10 for r in results[4:] if r.weight is not None)
    assert all(0 <= r.agreed <= 1 for r in results[4:] if r.agreed is not None)


def test_base_never_uses_local_labels_and_fixed_weight_stays(
    samples: list[Sample], store_path: Path, tmp_path: Path
) -> None:
    trainer = Trainer(student(), replace(CONFIG, views="base", carb=False), Accelerator())
    batch = loaded(images(samples, store_path), Order(10, 2, 0).places(0))
    loss, *others = trainer.loss(batch)
    assert others == [None] * 3
    nothing_local = batch._replace(local_pseudo_BHW=torch.full_like(batch.local_pseudo_BHW, 255))
    assert torch.equal(loss, trainer.loss(nothing_local)[0])
    _, results = run(samples, store_path, tmp_path, replace(CONFIG, balance="fixed", fixed_weight=0.25))
    assert [float(r.weight or 0) for r in results[4:]] == [0.25] * 4


def test_every_kind_of_weight_trains_and_reports_what_it_used(
    samples: list[Sample], store_path: Path, tmp_path: Path
) -> None:
    for balance, others in (("class-wise", {}), ("gated", {}), ("adaptive", {"teacher": 0.5})):
        config = replace(CONFIG, balance=balance, weight_floor=0.2, **others)
        _, results = run(samples, store_path, tmp_path / balance, config)
        last = results[-1]
        assert isinstance(last.weight, float)
        assert last.weight >= 0.2
        if balance == "adaptive":
            assert last.class_weights is None
        else:
            assert isinstance(last.class_weights, tuple)
            assert len(last.class_weights) == 11
            assert all(0.2 <= w <= 1.5 for w in last.class_weights)


def test_a_mean_teacher_follows_the_student_slowly(samples: list[Sample], store_path: Path) -> None:
    batch = loaded(images(samples, store_path), Order(10, 2, 0).places(0))
    trainer = Trainer(student(), replace(CONFIG, warmup_steps=1, teacher=0.9), Accelerator())
    assert trainer.teacher is not None
    for _ in range(3):
        before = [p.clone() for p in trainer.teacher.parameters()]
        trainer.train_step(batch)
        now = zip(before, trainer.teacher.parameters(), trainer.student.parameters(), strict=True)
        for old, new, newest in now:
            # the first step copies the student
            torch.testing.assert_close(new, newest if trainer.step == 1 else 0.9 * old + 0.1 * newest)


def test_a_step_far_into_a_long_run_is_a_step(samples: list[Sample], store_path: Path) -> None:
    trainer = Trainer(student(), replace(CONFIG, steps=1_000_000), Accelerator())
    trainer.step = 999_998
    places = [Place(row, 0, row) for row in range(2)]
    trainer.train_step(loaded(images(samples, store_path), places))
    trainer.check()
    assert trainer.step == 999_999


def test_a_batch_without_any_valid_pixel_trains_on(samples: list[Sample], store_path: Path) -> None:
    batch = loaded(images(samples, store_path), Order(10, 2, 0).places(0))
    batch = batch._replace(
        global_pseudo_BHW=torch.full_like(batch.global_pseudo_BHW, 255),
        local_pseudo_BHW=torch.full_like(batch.local_pseudo_BHW, 255),
        is_present_BC=torch.zeros_like(batch.is_present_BC),
    )
    trainer = Trainer(student(), replace(CONFIG, warmup_steps=1), Accelerator())
    results = [trainer.train_step(batch) for _ in range(3)]
    assert [r.loss for r in results] == [0.0, 0.0, 0.0]
    assert all(torch.isfinite(p).all() for p in trainer.student.parameters())


def test_images_of_one_class_and_without_labels_train_on_and_stay_finite(
    samples: list[Sample], store_path: Path
) -> None:
    batch = loaded(images(samples, store_path), Order(10, 2, 0).places(0))
    one_class, nothing = torch.eye(11)[3].bool(), torch.zeros(11).bool()
    for labels in ([one_class, one_class], [one_class, nothing]):
        is_present_BC = torch.stack(labels)
        void_B11 = ~is_present_BC.any(1)[:, None, None]
        pseudo_BHW = torch.full_like(batch.global_pseudo_BHW, 3).masked_fill(void_B11, 255)
        local_BHW = torch.full_like(batch.local_pseudo_BHW, 3).masked_fill(void_B11, 255)
        strange = batch._replace(global_pseudo_BHW=pseudo_BHW, local_pseudo_BHW=local_BHW, is_present_BC=is_present_BC)
        trainer = Trainer(student(), replace(CONFIG, warmup_steps=1), Accelerator())
        results = [trainer.train_step(strange) for _ in range(4)]
        assert all(np.isfinite(float(r.loss)) for r in results)
        assert results[-1].agreed == 1
        assert all(torch.isfinite(p).all() for p in trainer.student.parameters())


def test_a_loss_that_is_not_finite_stops_and_says_what_to_try(samples: list[Sample], store_path: Path) -> None:
    batch = loaded(images(samples, store_path), Order(10, 2, 0).places(0))
    trainer = Trainer(student(), CONFIG, Accelerator())
    with torch.no_grad():
        next(iter(trainer.student.parameters())).fill_(float("nan"))
    trainer.train_step(batch)
    with pytest.raises(InputError, match="the loss is nan at step 0"):
        trainer.train_step(batch)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_loss_that_is_not_finite_reaches_neither_weights_nor_a_checkpoint(
    optimizer: str, samples: list[Sample], store_path: Path, tmp_path: Path
) -> None:
    batch = loaded(images(samples, store_path), Order(10, 2, 0).places(0))
    broken = batch._replace(image_B3HW=torch.full_like(batch.image_B3HW, torch.inf))
    trainer = Trainer(student(), replace(CONFIG, optimizer=optimizer), Accelerator())
    trainer.train_step(batch)

    def state() -> dict[str, torch.Tensor]:
        moments = trainer.optimizer.state_dict()["state"]
        tensors = {f"{i}.{name}": value for i, values in moments.items() for name, value in values.items()}
        return {name: value.clone() for name, value in [*trainer.student.named_parameters(), *tensors.items()]}

    before = state()
    trainer.train_step(broken)
    after = state()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
    with pytest.raises(InputError, match="the loss is nan at step 1"):
        trainer.save(tmp_path)
    assert not list(tmp_path.iterdir())
    trainer.train_step(batch)
    assert not torch.equal(next(iter(before.values())), next(iter(state().values())))


def test_a_loss_that_breaks_on_another_process_is_no_update_here(
    samples: list[Sample], store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(student(), CONFIG, Accelerator())
    monkeypatch.setattr(trainer, "_over_processes", lambda mine: mine * torch.nan)
    before = [p.clone() for p in trainer.student.parameters()]
    trainer.train_step(loaded(images(samples, store_path), Order(10, 2, 0).places(0)))
    assert all(map(torch.equal, before, trainer.student.parameters()))
    with pytest.raises(InputError, match="the loss is nan at step 0"):
        trainer.check()


def test_results_are_numbers_where_a_line_is_logged(samples: list[Sample], store_path: Path, tmp_path: Path) -> None:
    _, results = run(samples, store_path, tmp_path, replace(CONFIG, steps=13))
    read = [r.step for r in results if isinstance(r.loss, float)]
    assert read == [LOG_EVERY, 13]
    assert {type(value) for value in asdict(results[-1]).values()} <= {int, float, type(None)}


def test_the_run_says_on_which_images_the_loss_broke(samples: list[Sample], store_path: Path, tmp_path: Path) -> None:
    steep = replace(CONFIG, learning_rate=1e30, optimizer="sgd", carb=False)
    with pytest.raises(
        InputError, match=r"the loss is (nan|inf) at step \d, on toy_\d+, toy_\d+; look at .* lower train.lear"
    ):
        run(samples, store_path, tmp_path, steep)


def test_a_batch_in_parts_gives_the_gradient_of_the_whole(samples: list[Sample], store_path: Path) -> None:
    """BatchNorm sees each part alone, so it is frozen here."""
    batch = loaded(images(samples, store_path), Order(10, 2, 0).places(0))
    batch = batch._replace(  # equal numbers of valid pixels in both parts
        global_pseudo_BHW=torch.zeros_like(batch.global_pseudo_BHW),
        local_pseudo_BHW=torch.zeros_like(batch.local_pseudo_BHW),
    )
    torch.manual_seed(0)
    start = student().state_dict()
    gradients = []
    for parts in (1, 2):
        trainer = Trainer(student(), replace(CONFIG, accumulate=parts), Accelerator())
        trainer.student.load_state_dict(start)
        trainer.student.eval()
        trainer.train_step(batch)
        gradients.append([p.grad.clone() for p in trainer.student.parameters() if p.grad is not None])
    for whole, parts_sum in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, parts_sum, atol=1e-6, rtol=1e-4)


def test_without_label_filtering_absent_classes_may_win(samples: list[Sample], store_path: Path) -> None:
    absent = ~PseudoLabelStore.open(store_path).image_labels
    places = [Place(0, slot, slot) for slot in range(10)]
    free = images(samples, store_path, filter_labels=False)
    masks = [loaded(free, [place]).global_pseudo_BHW.unique().tolist() for place in places]
    assert any(absent[row, c] for row, mask in enumerate(masks) for c in mask if c != 255)
    assert free[places[0]].is_present_BC.all()


def test_old_checkpoints_are_removed_and_the_best_student_is_kept(
    samples: list[Sample], store_path: Path, tmp_path: Path
) -> None:
    scores = iter([10.0, 30.0, 20.0, 25.0])
    best: list[float] = []
    config = replace(CONFIG, checkpoint_every=2, validate_every=2)
    results: list[StepResult] = []
    train(
        samples,
        CLASSES,
        store_path,
        tmp_path,
        config,
        AUGMENT,
        STUDENT,
        validate=lambda some: next(scores),
        on_step=results.append,
        on_best=lambda some, score: best.append(score),
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-00000006.pt", "checkpoint-00000008.pt"]
    assert best == [10.0, 30.0]
    assert [r.val_miou for r in results] == [None, 10.0, None, 30.0, None, 20.0, None, 25.0]


def test_checkpoint_of_other_settings_is_refused(samples: list[Sample], store_path: Path, tmp_path: Path) -> None:
    short = replace(CONFIG, steps=2, warmup_steps=1)
    run(samples, store_path, tmp_path, short)
    with pytest.raises(InputError, match="trained with train.steps = 2, not 3; delete that folder to start anew"):
        run(samples, store_path, tmp_path, replace(short, steps=3))
    with pytest.raises(InputError, match="trained with student.width = 4, not 5"):
        train(samples, CLASSES, store_path, tmp_path, short, AUGMENT, replace(STUDENT, width=5))
    (tmp_path / "checkpoint-00000002.pt").write_bytes(b"cut")
    with pytest.raises(InputError, match=r"checkpoint-00000002.pt cannot be read; delete it"):
        run(samples, store_path, tmp_path, short)


def test_checkpoint_of_other_images_is_refused_without_holding_a_list_of_them(
    samples: list[Sample], store_path: Path, tmp_path: Path
) -> None:
    short = replace(CONFIG, steps=2, warmup_steps=1)
    run(samples, store_path, tmp_path, short)
    with pytest.raises(InputError, match="trained with images.count = 10, not 9; delete that folder to start anew"):
        run(samples[1:], store_path, tmp_path, short)
    with pytest.raises(InputError, match="trained with images.ids_sha256 = '[0-9a-f]{16}', not '[0-9a-f]{16}'; del"):
        run(samples[::-1], store_path, tmp_path, short)
    assert samples[0]["image_id"].encode() not in (tmp_path / "checkpoint-00000002.pt").read_bytes()


def test_a_compiled_student_learns_the_same_and_goes_by_the_same_names(
    samples: list[Sample], store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[object] = []

    def traced(model: torch.nn.Module) -> object:  # without the minutes that generating code takes
        compiled.append(model)
        return compile_of_torch(model, backend="eager")

    compile_of_torch = torch.compile
    monkeypatch.setattr(torch, "compile", traced)
    config = replace(CONFIG, steps=2, warmup_steps=1)
    plain, _ = run(samples, store_path, tmp_path / "plain", config)
    assert not compiled
    fast, _ = run(samples, store_path, tmp_path / "compiled", replace(config, compile=True))
    assert len(compiled) == 1
    for (name, a), (other, b) in zip(plain.state_dict().items(), fast.state_dict().items(), strict=True):
        assert name == other
        torch.testing.assert_close(a, b)


def test_narrow_students_avoid_the_layout_that_crashes_on_a_cpu() -> None:
    cpu = torch.device("cpu")
    assert memory_format(student(), cpu) == torch.contiguous_format
    assert memory_format(student(StudentConfig()), cpu) == torch.channels_last
    assert memory_format(student(), torch.device("cuda")) == torch.channels_last
