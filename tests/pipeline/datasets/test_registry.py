from pathlib import Path

import numpy as np
import pytest

from labelgen.images import write_png
from labelgen.samples import ClassSet, InputError
from pipeline.datasets import DATASETS, dataset
from pipeline.datasets.tags import present_classes

CAMVID = DATASETS["camvid"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for folder in (split, f"{split}annot"):
            (tmp_path / folder).mkdir()
        for name in ("b", "a"):
            write_png(tmp_path / split / f"{name}.png", np.zeros((4, 6, 3), np.uint8))
            write_png(tmp_path / f"{split}annot" / f"{name}.png", np.array([[0, 3, 11], [8, 8, 255]], np.uint8))
    return tmp_path


def test_void_is_ignored_and_image_labels_leave_it_out(root: Path) -> None:
    truth = CAMVID.read_truth(root / "valannot" / "a.png")
    assert truth.tolist() == [[0, 3, 255], [8, 8, 255]]
    assert present_classes(truth) == [0, 3, 8]


def test_rows_are_samples_and_truth_stays_out_of_training(root: Path) -> None:
    train, val = CAMVID.samples(root, "train"), CAMVID.samples(root, "val")
    assert train.column_names == ["image_id", "image_path", "label_path", "image_labels"]
    assert list(train["image_id"]) == ["a", "b"]
    assert set(train["label_path"]) == {None}
    assert val[0]["label_path"] == str(root / "valannot" / "a.png")
    assert CAMVID.samples(root, "train", with_truth=True)[0]["label_path"] is not None
    assert val[0]["image_labels"] == [0, 3, 8]


def test_missing_things_are_said(root: Path) -> None:
    looked_for = r"no folder .*elsewhere/train \(with trainannot or train_labels\), nor 701_StillsRaw_full with .*"
    with pytest.raises(InputError, match=looked_for + ": get CamVid .* DATA_ROOT"):
        CAMVID.samples(root / "elsewhere", "train")
    with pytest.raises(InputError, match="no split 'trian'; it has train, val, test"):
        CAMVID.samples(root, "trian")
    (root / "valannot" / "b.png").unlink()
    with pytest.raises(InputError, match=r"b.png has no label file .*valannot/b.png"):
        CAMVID.samples(root, "val")
    (root / "test").mkdir()
    with pytest.raises(InputError, match="test holds no .png"):
        CAMVID.samples(root, "test")


def test_unknown_data_set_names_the_nearest() -> None:
    known = "toy, camvid, cityscapes, wilddash2, folder, hf"
    with pytest.raises(InputError, match=rf"unknown data set 'camvd'; did you mean 'camvid'\? known: {known}"):
        dataset("camvd")


def test_class_set_must_be_whole() -> None:
    with pytest.raises(InputError, match="got 1 names, 0 prompts and 1 colours"):
        ClassSet(("a",), (), ((0, 0, 0),))
    with pytest.raises(InputError, match="one category a class or none at all, got 2"):
        ClassSet(("a",), (("a",),), ((0, 0, 0),), ("flat", "sky"))


def test_eleven_camvid_classes_in_order() -> None:
    names = "sky building pole road sidewalk tree sign fence car pedestrian bicyclist"
    assert list(CAMVID.classes.names) == names.split()
    assert len(set(CAMVID.classes.palette)) == 11
