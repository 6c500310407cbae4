"""Students held against truth while they train: by truth that training cannot see, and without any."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evaluation.regions import lost_classes
from labelgen.images import write_png
from labelgen.samples import InputError
from labelgen.store import PseudoLabelStore
from pipeline.runs import MetricsLog
from pipeline.stages.diagnosis import Diagnosis
from pipeline.stages.run import Run
from segtrain.model import StudentConfig, build_student
from tests.conftest import carbseg, refused

NAMES = ["sky", "road", "car"]
QUICK = "train.steps=4 train.warmup_steps=1 train.batch=2 student.width=4 student.aspp_channels=8 train.workers=0 "
QUICK += "augment.crop_height=64 augment.crop_width=64"
SETTINGS = [part for setting in QUICK.split() for part in ("--set", setting)]


def a_folder(root: Path) -> Path:
    """Three images whose labels are the user's own."""
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in "abc":
        write_png(root / "images" / f"{name}.png", rng.integers(0, 256, (64, 96, 3), np.uint8))
    (root / "classes.toml").write_text(f"classes = {json.dumps(NAMES)}\n", encoding="utf-8")
    (root / "labels.csv").write_text("image,labels\na,sky;road;car\nb,sky;car\nc,road\n", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def stores(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diagnosis")
    root = a_folder(folder / "mine")
    carbseg("labels", "--dataset", "folder", "--data-root", root, "--clip", clip_folder, "--out", folder)
    return folder / "labels"


@pytest.fixture
def options(stores: Path, tmp_path: Path) -> list[Any]:
    root = a_folder(tmp_path / "mine")
    return ["--dataset", "folder", "--data-root", root, "--stores", stores, "--out", tmp_path / "out"]


def write_truth(root: Path, name: str, content: bytes | np.ndarray[Any, Any]) -> None:
    path = root / "truth" / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write_png(path, content)


def a_run(options: list[Any]) -> Run:
    _, name, _, root, _, stores, _, out = map(str, options)
    return Run.of(name, root, out=out, stores=stores)


def diagnosed(options: list[Any], **others: Any) -> dict[str, Any]:
    """What a student is found to be that takes everything for sky, where it may."""
    run = a_run(options)
    config = StudentConfig(width=4, aspp_channels=8, classifier="linear")
    student = build_student(config, run.spec.classes, torch.ones(3, 1)).eval()
    with torch.no_grad():
        student.classifier.bias[0] += 1000
    return Diagnosis(run, **others)(student)


def test_pseudo_labels_are_held_against_the_truth_that_there_is(options: list[Any]) -> None:
    root, store = Path(options[3]), PseudoLabelStore.open(a_run(options).store_path("train"))
    masks = {name: store.mask(name) for name in "abc"}
    found = diagnosed(options)
    areas = [float(np.mean([mask == k for mask in masks.values()])) for k in range(3)]
    assert [found["classes"][name]["area"] for name in NAMES] == pytest.approx(areas)
    assert found["consistent"] == pytest.approx(areas[0] + 1 / 3)  # c shows nothing but road
    assert (found["right_consistent"], found["right_inconsistent"]) == (None, None)

    write_truth(root, "a", masks["a"])
    write_truth(root, "c", np.zeros((64, 96), np.uint8))
    found = diagnosed(options)
    assert found["classes"]["sky"]["right_consistent"] == 1
    assert found["classes"]["road"]["right_consistent"] == 0
    assert found["right_inconsistent"] == 1
    known = int((masks["a"] == 0).sum())
    assert found["right_consistent"] == pytest.approx(known / (known + 64 * 96))


def test_a_prediction_is_of_the_classes_that_training_lets_through(options: list[Any]) -> None:
    assert diagnosed(options)["classes"]["road"]["consistent"] > 0
    assert diagnosed(options, filter_labels=False)["classes"]["road"]["consistent"] == 0


def test_truth_is_read_only_where_a_diagnosis_is_asked_for(options: list[Any]) -> None:
    write_truth(Path(options[3]), "a", b"no picture")
    carbseg("train", *options, *SETTINGS, "--set", "train.diagnose_every=0")
    carbseg("train", *options, *SETTINGS, "--set", "train.diagnose_every=5", "--set", "train.views=base")  # of 4 steps
    look = ("--set", "train.carb=false", "--set", "train.diagnose_every=2")
    said = refused("train", *options, *SETTINGS, *look)
    assert "a.png" in said
    assert "or leave truth alone with --set train.diagnose_every=0" in said


def test_truth_of_another_shape_is_refused(options: list[Any]) -> None:
    write_truth(Path(options[3]), "b", np.zeros((50, 50), np.uint8))
    with pytest.raises(InputError, match=r"truth/b.png: a class map of 50 x 50 does not fit 64 x 96 pixels"):
        diagnosed(options)


def test_a_class_that_is_being_lost_is_warned_about_once(options: list[Any]) -> None:
    low = ("--set", "train.balance=fixed", "--set", "train.fixed_weight=0.1", "--set", "train.diagnose_every=1")
    low += ("--set", "train.learning_rate=1e-9")  # the student stays at its first guess
    done = carbseg("train", *options, *SETTINGS, *low)
    warned = re.findall(r"(\w+) is being lost: .* --set train.balance=gated leaves it to be learned\n", done.stderr)
    lines = (Path(options[-1]) / "local+carb" / "metrics.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["step"] for row in rows if row["diagnosis"]] == [1, 2, 3, 4]
    assert warned
    assert warned == list(dict.fromkeys(name for row in rows for name in lost_classes(row)))


def test_every_number_of_a_diagnosis_reaches_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = MetricsLog(tmp_path / "metrics.jsonl")
    found = {"consistent": 0.5, "right_consistent": None, "classes": {"car": {"consistent": 0.25}}}
    log.write({"step": 7, "loss": 1.0, "weight": None, "diagnosis": found})
    assert log.read()[0]["diagnosis"] == found
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert sorted(board.Tags()["scalars"]) == ["diagnosis/classes/car/consistent", "diagnosis/consistent", "loss"]
    assert [(e.step, e.value) for e in board.Scalars("diagnosis/classes/car/consistent")] == [(7, 0.25)]
