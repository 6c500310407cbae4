"""No label map is read twice for image-level labels, and none at all for training."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelgen.layout import StoreLayout
from labelgen.store import ImageLogits, LocalView, PseudoLabelStore
from pipeline.datasets import DATASETS
from pipeline.datasets.truth import LabelCode, RawLabel
from pipeline.stages.run import Run
from pipeline.stages.students import train_student
from tests.files import image, label

IMAGES = 2975  # of Cityscapes
SIZE = (2, 3)
ROAD, CAR = 7, 26  # Cityscapes' label ids; train ids 0 and 13
TINY = "augment.crop_height=2 augment.crop_width=3 train.batch=2 train.steps=2 train.warmup_steps=1 train.workers=0"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the label files that are read."""
    files: list[str] = []
    read = LabelCode.read_raw

    def counted(code: LabelCode, path: str | Path) -> RawLabel:
        files.append(Path(path).name)
        return read(code, path)

    monkeypatch.setattr(LabelCode, "read_raw", counted)
    return files


def cityscapes(root: Path, count: int) -> list[Path]:
    """Label maps of a training split; all are one file, and so are the images, under many names."""
    one = image(root / "one.png", *SIZE)
    two = label(root / "two.png", [[ROAD] * 3, [CAR] * 3])
    images, truth = root / "leftImg8bit" / "train" / "ulm", root / "gtFine" / "train" / "ulm"
    images.mkdir(parents=True)
    truth.mkdir(parents=True)
    for number in range(count):
        os.link(one, images / f"ulm_{number:06d}_leftImg8bit.png")
        os.link(two, truth / f"ulm_{number:06d}_gtFine_labelIds.png")
    return sorted(truth.iterdir())


def a_run(root: Path, out: Path, *settings: str) -> Run:
    return Run.of("cityscapes", str(root), out=str(out), settings=settings)


def shown(run: Run) -> list[list[int] | None]:
    return [sample["image_labels"] for sample in run.samples("train", with_tags=True)]


def test_a_second_run_reads_only_label_maps_that_have_changed(tmp_path: Path, reads: list[str]) -> None:
    maps = cityscapes(tmp_path / "data", 5)
    run = a_run(tmp_path / "data", tmp_path / "out")
    assert shown(run) == [[0, 13]] * 5
    assert sorted(reads) == [path.name for path in maps]
    reads.clear()
    assert shown(run) == [[0, 13]] * 5
    assert reads == []
    maps[2].unlink()
    label(maps[2], [[ROAD] * 3, [0] * 3])
    assert shown(run) == [[0, 13], [0, 13], [0], [0, 13], [0, 13]]
    assert reads == [maps[2].name]


def test_what_decides_the_labels_decides_whether_they_are_still_good(tmp_path: Path, reads: list[str]) -> None:
    cityscapes(tmp_path / "data", 3)
    run = a_run(tmp_path / "data", tmp_path / "out")
    shown(run)
    reads.clear()
    assert shown(a_run(tmp_path / "data", tmp_path / "out", "tags.min_area=0.6")) == [[]] * 3
    assert len(reads) == 3
    other = replace(run.spec, code=LabelCode(ids={ROAD: 4, CAR: 5}))
    assert shown(replace(run, spec=other)) == [[4, 5]] * 3
    assert len(reads) == 6


@pytest.mark.parametrize("kept", ["", "{", "[]", '{"decided_by": {}}', "null", "\x00"])
def test_a_damaged_file_of_kept_labels_is_made_again(tmp_path: Path, reads: list[str], kept: str) -> None:
    cityscapes(tmp_path / "data", 2)
    run = a_run(tmp_path / "data", tmp_path / "out")
    file = tmp_path / "out" / "image-labels-train.json"
    file.parent.mkdir()
    file.write_text(kept)
    assert shown(run) == [[0, 13]] * 2
    assert len(json.loads(file.read_text())["labels"]) == len(reads) == 2


def test_training_on_cityscapes_reads_no_label_map(tmp_path: Path, reads: list[str]) -> None:
    cityscapes(tmp_path / "data", IMAGES)
    run = a_run(tmp_path / "data", tmp_path / "out", *TINY.split(), "student.width=4", "student.aspp_channels=8")
    samples = run.samples("train", with_tags=True)
    assert len(samples) == len(reads) == IMAGES
    reads.clear()
    assert run.samples("train", with_tags=True) == samples
    classes = DATASETS["cityscapes"].classes
    ids = [sample["image_id"] for sample in samples]
    layout = StoreLayout(ids, np.eye(19, 32, dtype=np.float32), [(1, 1)], (1, 1), 1, images_per_shard=IMAGES)
    about = {"classes": {"names": list(classes.names)}, "clip": {"patch_px": 16}}
    store = PseudoLabelStore.create(run.store_path("train"), layout, about)
    logits = np.zeros((19, 1, 1), np.float32)
    logits[0] = 1
    views = [LocalView((0, 0, *SIZE), 1.0, logits)]
    store.write_shard(range(IMAGES), [ImageLogits(i, SIZE, [0, 13], [logits], views) for i in ids])
    for out in ("first", "second"):
        student = train_student(replace(run, out=tmp_path / out), run.config.train)
        assert (student / "student" / "model.safetensors").is_file()
    assert reads == []
