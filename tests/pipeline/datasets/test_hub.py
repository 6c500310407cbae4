"""Hugging Face data sets on disk become files like those of a user's own folder."""

from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from labelgen.images import read_image
from labelgen.samples import InputError
from pipeline.datasets import dataset
from pipeline.datasets.hub import open_source

RED = Image.fromarray(np.full((2, 3, 3), (200, 0, 0), np.uint8))
IDS = Image.fromarray(np.array([[0, 1, 1], [255, 0, 0]], np.uint8))
NAMES = datasets.ClassLabel(names=["sky", "road"])
PICTURE = datasets.Image()


def hub(path: Path, features: dict[str, object], split: str = "train", **columns: list[object]) -> str:
    """A data set of one split, as `save_to_disk` writes it."""
    rows = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    datasets.DatasetDict({split: rows}).save_to_disk(path)
    return f"hf:{path}"


def test_tags_give_classes_and_image_level_labels(tmp_path: Path) -> None:
    tags = datasets.Sequence(NAMES)
    name = hub(tmp_path / "hub", {"image": PICTURE, "tags": tags}, image=[RED, RED], tags=[[1, 0], []])
    spec, root = dataset(name), tmp_path / "files"
    rows = spec.samples(root, "train")
    assert list(rows["image_id"]) == ["train_000000", "train_000001"]
    assert list(rows["image_labels"]) == [[0, 1], None]
    assert read_image(rows[0]["image_path"])[0, 0].tolist() == [200, 0, 0]
    assert dataset(name, root).classes.names == ("sky", "road")


def test_label_maps_are_truth_and_give_tags_where_there_are_none(tmp_path: Path) -> None:
    name = hub(tmp_path / "hub", {"image": PICTURE, "mask": PICTURE}, "validation", image=[RED], mask=[IDS])
    root = tmp_path / "files"
    with pytest.raises(InputError, match=r"does not say what its classes are called; list them in .*classes.toml"):
        dataset(name).samples(root, "val")
    root.mkdir()
    (root / "classes.toml").write_text('classes = ["sky", "road"]')
    (row,) = dataset(name).list_samples(root, "val")
    assert row["image_labels"] == [0, 1]
    assert dataset(name, root).read_truth(row["label_path"] or "").tolist() == [[0, 1, 1], [255, 0, 0]]
    with pytest.raises(InputError, match="has no split 'test'; it has validation"):
        dataset(name).samples(root, "test")


def test_columns_that_could_be_either_must_be_named(tmp_path: Path) -> None:
    features = {"left": PICTURE, "right": PICTURE}
    name = hub(tmp_path / "hub", features, left=[RED], right=[RED])
    with pytest.raises(InputError, match="has the columns left, right: call the pictures 'image', label maps 'label_m"):
        dataset(name).samples(tmp_path / "files", "train")


def test_a_cut_unpacking_goes_on_and_a_finished_one_is_not_repeated(tmp_path: Path) -> None:
    name = hub(tmp_path / "hub", {"image": PICTURE, "tags": datasets.Sequence(NAMES)}, image=[RED], tags=[[0]])
    root = tmp_path / "files"
    (root / "images" / "train.partial").mkdir(parents=True)  # as a killed process leaves it
    (root / "images" / "train.partial" / "train_000000.png").write_bytes(b"half")
    first = dataset(name).list_samples(root, "train")
    assert read_image(first[0]["image_path"]).shape == (2, 3, 3)
    (tmp_path / "hub").rename(tmp_path / "gone")
    assert dataset(name).list_samples(root, "train") == first


def test_parquet_files_are_opened_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features({"image": PICTURE, "tags": datasets.Sequence(datasets.Value("string"))})
    rows = datasets.Dataset.from_dict({"image": [RED], "tags": [["sky"]]}, features=features)
    (tmp_path / "hub").mkdir()
    rows.to_parquet(tmp_path / "hub" / "train.parquet")
    root = tmp_path / "files"
    root.mkdir()
    (root / "classes.toml").write_text('classes = ["road", "sky"]')
    assert dataset(f"hf:{tmp_path / 'hub'}").list_samples(root, "train")[0]["image_labels"] == [1]


def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Hugging Face datasets cannot open 'nobody/such-a-set'"):
        open_source("nobody/such-a-set")
    for name in ("hf", "hf:", "camvid:x"):
        with pytest.raises(InputError, match="is hf:PATH_OR_NAME"):
            dataset(name)
    deep = Image.fromarray(np.array([[0, 700]], np.uint16))
    features = {"image": PICTURE, "label_map": PICTURE}
    for number, label in enumerate((deep, RED)):
        root = tmp_path / f"files{number}"
        root.mkdir()
        (root / "classes.toml").write_text('classes = ["sky"]')
        name = hub(tmp_path / f"hub{number}", features, image=[RED], label_map=[label])
        with pytest.raises(InputError, match=r"row 0 must hold one 8-bit id a pixel \(mode L or P\), got (I;16|RGB)"):
            dataset(name).samples(root, "train")


def test_a_folder_holds_one_source_only(tmp_path: Path) -> None:
    tags = datasets.Sequence(NAMES)
    one, other = (hub(tmp_path / n, {"image": PICTURE, "tags": tags}, image=[RED], tags=[[0]]) for n in ("one", "two"))
    dataset(one).samples(tmp_path / "files", "train")
    with pytest.raises(InputError, match=r"files was unpacked from .*one, not from .*two; give another DATA_ROOT"):
        dataset(other).samples(tmp_path / "files", "train")


def test_rows_without_an_image_and_tags_that_are_no_lists_are_said(tmp_path: Path) -> None:
    tags = datasets.Sequence(NAMES)
    empty = hub(tmp_path / "hub", {"image": PICTURE, "tags": tags}, image=[RED, None], tags=[[0], [1]])
    with pytest.raises(InputError, match="row 1 of .* train has no image; filter such rows out"):
        dataset(empty).samples(tmp_path / "files", "train")
    single = hub(tmp_path / "single", {"image": PICTURE, "tags": NAMES}, image=[RED], tags=[0])
    with pytest.raises(InputError, match="the column 'tags' of .* must hold lists of classes, not single values"):
        dataset(single).samples(tmp_path / "other", "train")
