"""A user's own images: classes.toml, a file of image-level labels, and truth only if there is some."""

import unicodedata
from pathlib import Path

import pytest

from labelgen.samples import InputError
from pipeline.datasets import DATASETS, dataset
from pipeline.datasets.classes import read_classes
from tests.conftest import carbseg
from tests.files import image, label, own_folder

FOLDER = DATASETS["folder"]


def test_images_and_a_list_of_what_they_show_are_enough(tmp_path: Path) -> None:
    root = own_folder(tmp_path, "b.png", "a.png")
    (root / "images" / "._a.png").write_bytes(b"what macOS leaves behind")
    (root / "labels.csv").write_text("image,labels\na.png,road;traffic light\n")
    rows = FOLDER.samples(root, "train")
    assert list(rows["image_id"]) == ["a", "b"]
    assert list(rows["image_labels"]) == [[1, 2], None]  # of b nobody has said anything
    assert set(rows["label_path"]) == {None}
    assert dataset("folder", root).classes.names == ("sky", "road", "traffic light")


def test_splits_are_folders_and_truth_is_there_to_be_scored(tmp_path: Path) -> None:
    root = own_folder(tmp_path, "train/a.png", "val/a.png")
    label(root / "truth" / "val" / "a.png", [[0, 1, 2], [3, 255, 2]])  # there is no class 3
    (root / "labels.json").write_text('{"train/a.png": ["sky"]}')
    assert FOLDER.list_samples(root, "train")[0]["image_labels"] == [0]
    (val,) = FOLDER.list_samples(root, "val")
    assert val["image_labels"] == [0, 1, 2]  # by the truth, as the paper does it: the file does not list it
    assert val["label_path"] is not None
    assert dataset("folder", root).read_truth(val["label_path"]).tolist() == [[0, 1, 2], [255, 255, 2]]
    (root / "labels.json").write_text('{"a.png": ["sky"]}')
    assert FOLDER.list_samples(root, "val")[0]["image_labels"] == [0]  # a file's word counts more
    with pytest.raises(
        InputError, match=r"no folder .*test: scores need images of test there, and their truth in .*truth"
    ):
        FOLDER.list_samples(root, "test")
    with pytest.raises(InputError, match=r"train/a.png has no pixel labels to score against; they belong in .*truth"):
        FOLDER.list_samples(root, "train", with_truth=True)


def test_an_image_may_be_named_with_its_folder_its_suffix_or_neither(tmp_path: Path) -> None:
    root = own_folder(tmp_path, "train/a.png", "train/b.png", "train/c.png", "val/c.png")
    (root / "labels.json").write_text('{"train/a.png": ["sky"], "b": ["road"], "c.png": ["traffic light"]}')
    assert [s["image_labels"] for s in FOLDER.list_samples(root, "train")] == [[0], [1], [2]]
    assert [s["image_labels"] for s in FOLDER.list_samples(root, "val")] == [[2]]


def test_names_beyond_ascii_are_found_however_the_file_system_spells_them(tmp_path: Path) -> None:
    apart = unicodedata.normalize("NFD", "straße_café.png")
    root = own_folder(tmp_path, apart)
    (root / "labels.csv").write_text("image,labels\nstraße_café.png,road\n", encoding="utf-8")
    assert FOLDER.list_samples(root, "train")[0]["image_labels"] == [1]


@pytest.mark.parametrize("name", ["b.png", "../a.png", "val/a.png", "/etc/passwd"])
def test_a_label_for_an_image_that_is_not_there_is_a_mistake(name: str, tmp_path: Path) -> None:
    root = own_folder(tmp_path, "a.png")
    (root / "labels.json").write_text(f'{{"{name}": ["road"]}}')
    with pytest.raises(InputError, match=rf"labels.json names '{name}', but .* has no such image"):
        FOLDER.list_samples(root, "train")


def test_missing_and_doubled_things_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no .*classes.toml: put your images and a classes.toml into a folder"):
        FOLDER.list_samples(tmp_path, "train")
    root = own_folder(tmp_path)
    with pytest.raises(InputError, match="no folder .*images"):
        FOLDER.list_samples(root, "train")
    image(root / "images" / "a.png")
    image(root / "images" / "a.jpeg")
    with pytest.raises(InputError, match="would have one image id"):
        FOLDER.list_samples(root, "train")
    (root / "images" / "a.jpeg").unlink()
    (root / "labels.csv").write_text("image,labels\n")
    (root / "labels.json").write_text("{}")
    with pytest.raises(InputError, match="labels.csv and labels.json both say what the images show"):
        FOLDER.list_samples(root, "train")


def test_classes_may_have_prompts_and_colours_and_get_colours_that_differ(tmp_path: Path) -> None:
    path = tmp_path / "classes.toml"
    path.write_text('classes = ["sky", {name = "sign", prompts = ["traffic sign", "board"], color = [1, 2, 3]}, "car"]')
    classes = read_classes(path)
    assert classes.names == ("sky", "sign", "car")
    assert classes.prompts == (("sky",), ("traffic sign", "board"), ("car",))
    assert classes.palette[1] == (1, 2, 3)
    path.write_text('[[classes]]\nname = "sky"\n[[classes]]\nname = "car"\ncolor = [0, 0, 0]\n')
    assert read_classes(path).names == ("sky", "car")
    path.write_text(f"classes = {[f'c{i}' for i in range(254)]}")
    assert len(set(read_classes(path).palette)) == 254


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes = [", "is no valid TOML"),
        ("names = ['a']", "must list 1 to 254 classes"),
        ("classes = []", "must list 1 to 254 classes"),
        ("classes = ['a', 'b', 'a']", "lists the class 'a' twice"),
        ("classes = [3]", "each class needs a name, got 3"),
        ("classes = ['a;b']", "';' separates classes"),
        (
            "classes = [{name = 'a', colour = [1, 2, 3]}]",
            "class 'a' has an unknown 'colour'; known: name, prompts, color",
        ),
        ("classes = [{name = 'a', color = [1, 2, 300]}]", r"color of 'a' must be \[red, green, blue\] in 0..255"),
        ("classes = [{name = 'a', prompts = 'b'}]", "prompts of 'a' must be a list of words, got 'b'"),
    ],
)
def test_broken_classes_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "classes.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_classes(tmp_path / "classes.toml")


def test_images_that_nobody_has_described_stop_before_clip_is_loaded(tmp_path: Path) -> None:
    root = own_folder(tmp_path, "a.png")
    done = carbseg("labels", "--dataset", "folder", "--data-root", root, "--out", tmp_path / "out", check=False)
    assert done.returncode == 1
    assert "a has no image-level labels; give a labels file, or let CLIP guess them with --tags auto" in (done.stderr)
