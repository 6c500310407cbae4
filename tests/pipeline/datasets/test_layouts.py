"""Where the files of each data set are, and what their labels mean, on tiny copies of each layout."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelgen.samples import InputError
from pipeline.datasets import DATASETS
from pipeline.datasets.classes import CAMVID_COLOURS, CAMVID_GROUPS
from pipeline.datasets.layouts import WILDDASH2, WILDDASH2_COUNTS
from tests.files import image, label

SKY, CHILD, VOID, STRANGE = (128, 128, 128), (192, 128, 64), (0, 0, 0), (1, 2, 3)
COLOURS = [[SKY, SKY, CHILD], [VOID, STRANGE, CHILD]]
AS_TRAIN_IDS = [[0, 0, 9], [255, 255, 9]]


def test_the_camvid_release_is_split_by_lists_and_read_by_colour(tmp_path: Path) -> None:
    for name in ("0001TP_2", "0001TP_1", "Seq05_9"):
        image(tmp_path / "701_StillsRaw_full" / f"{name}.png")
        label(tmp_path / "LabeledApproved_full" / f"{name}_L.png", COLOURS)
    # SegNet's lists name files of another machine, image first.
    lines = [
        f"/SegNet/CamVid/train/{name}.png /SegNet/CamVid/trainannot/{name}.png" for name in ("0001TP_2", "Seq05_9")
    ]
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n")
    camvid = DATASETS["camvid"]
    samples = camvid.list_samples(tmp_path, "train", with_truth=True)
    assert [sample["image_id"] for sample in samples] == ["0001TP_2", "Seq05_9"]
    assert samples[0]["image_labels"] == [0, 9]
    assert camvid.read_truth(samples[0]["label_path"] or "").tolist() == AS_TRAIN_IDS
    with pytest.raises(InputError, match=r"is not split: list the image names of val in .*val.txt"):
        camvid.list_samples(tmp_path, "val")
    (tmp_path / "val.txt").write_text("Seq05_10\n")
    with pytest.raises(InputError, match=r"val.txt names Seq05_10, which is not in .*701_StillsRaw_full"):
        camvid.list_samples(tmp_path, "val")
    (tmp_path / "val.txt").write_text("\n")
    with pytest.raises(InputError, match="must name at least one image"):
        camvid.list_samples(tmp_path, "val")


def test_the_camvid_release_in_split_folders_is_read_too(tmp_path: Path) -> None:
    image(tmp_path / "val" / "a.png")
    label(tmp_path / "val_labels" / "a_L.png", COLOURS)
    assert DATASETS["camvid"].list_samples(tmp_path, "val")[0]["image_labels"] == [0, 9]


def test_camvid_has_32_colours_in_eleven_groups() -> None:
    assert len(CAMVID_COLOURS) == 32
    assert list(CAMVID_GROUPS) == list(DATASETS["camvid"].classes.names)
    own = dict(zip(DATASETS["camvid"].classes.names, DATASETS["camvid"].classes.palette, strict=True))
    assert all(own[name] in group.values() for name, group in CAMVID_GROUPS.items())


def test_a_palette_label_is_read_by_its_colours(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1), 1)
    picture.putpalette([*SKY, *CHILD])
    picture.putpixel((0, 0), 0)
    picture.save(tmp_path / "a_L.png")
    assert DATASETS["camvid"].read_truth(tmp_path / "a_L.png").tolist() == [[0, 9]]


def cityscapes(root: Path, split: str, kind: str, rows: list[list[int]]) -> None:
    image(root / "leftImg8bit" / split / "ulm" / "ulm_000000_000019_leftImg8bit.png")
    label(root / "gtFine" / split / "ulm" / f"ulm_000000_000019_gtFine_{kind}.png", rows)


def test_cityscapes_is_read_by_label_ids_or_train_ids(tmp_path: Path) -> None:
    spec = DATASETS["cityscapes"]
    cityscapes(tmp_path, "train", "labelIds", [[7, 8, 33], [0, 1, 255]])
    cityscapes(tmp_path, "val", "labelTrainIds", [[0, 1, 18], [255, 255, 255]])
    for split in ("train", "val"):
        (sample,) = spec.list_samples(tmp_path, split, with_truth=True)
        assert sample["image_id"] == "ulm_000000_000019"
        assert sample["image_labels"] == [0, 1, 18]
        assert spec.read_truth(sample["label_path"] or "").tolist() == [[0, 1, 18], [255, 255, 255]]


def test_the_cityscapes_test_split_has_no_truth_to_be_seen(tmp_path: Path) -> None:
    cityscapes(tmp_path, "test", "labelIds", [[3, 3, 3], [3, 3, 3]])  # the public files are all void
    (sample,) = DATASETS["cityscapes"].list_samples(tmp_path, "test")
    assert (sample["label_path"], sample["image_labels"]) == (None, None)
    with pytest.raises(InputError, match="pixel labels of cityscapes test are not public"):
        DATASETS["cityscapes"].list_samples(tmp_path, "test", with_truth=True)


def test_cityscapes_has_its_classes_and_the_paper_s_prompts() -> None:
    classes = DATASETS["cityscapes"].classes
    assert len(classes) == 19
    assert {
        name: prompts for name, prompts in zip(classes.names, classes.prompts, strict=True) if prompts != (name,)
    } == {
        "vegetation": ("tree",),
        "terrain": ("grass",),
        "person": ("pedestrian",),
    }
    assert len(set(classes.categories)) == 7
    assert classes.palette[13] == (0, 0, 142)


def test_wilddash2_has_25_classes_in_the_order_of_their_ids(tmp_path: Path) -> None:
    spec = DATASETS["wilddash2"]
    assert len(spec.classes) == 25
    ids = label(tmp_path / "a.png", [[1, 7, 14, 18, 31], [33, 34, 38, 39, 255]])
    assert spec.read_truth(ids).tolist() == [[0, 1, 6, 255, 255], [19, 20, 24, 255, 255]]


def test_wilddash2_is_split_by_lists_else_by_sorted_names(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(sum(WILDDASH2_COUNTS.values())):
        (tmp_path / "images" / f"wd{number:04d}.jpg").touch()  # a layout looks into no file
    train, val = (WILDDASH2.find(tmp_path, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (3618, 638)
    assert (train[-1].image_id, val[0].image_id) == ("wd3617", "wd3618")
    assert val[0].label == tmp_path / "labels" / "wd3618.png"
    (tmp_path / "val.txt").write_text("images/wd0007.jpg\nwd0003\n")
    assert [item.image_id for item in WILDDASH2.find(tmp_path, "val")] == ["wd0003", "wd0007"]
    (tmp_path / "images" / "wd0000.jpg").unlink()
    with pytest.raises(InputError, match=r"holds 4255 images, not the 4256 of wd_public_02; list .* in .*train.txt"):
        WILDDASH2.find(tmp_path, "train")


@pytest.mark.parametrize("name", ["camvid", "cityscapes", "wilddash2"])
def test_a_missing_folder_says_how_to_get_the_data(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"no folder {tmp_path}.*: get .* DATA_ROOT"):
        DATASETS[name].list_samples(tmp_path, "train")


def test_two_images_of_one_name_would_have_one_id(tmp_path: Path) -> None:
    image(tmp_path / "train" / "a.png")
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(tmp_path / "train" / "a.jpg")
    with pytest.raises(InputError, match=r"a.jpg and a.png would have one image id; rename one"):
        DATASETS["camvid"].list_samples(tmp_path, "train")


def test_colours_where_ids_are_expected_and_16_bit_labels_are_refused(tmp_path: Path) -> None:
    coloured = label(tmp_path / "c.png", [[(0, 0, 0), (1, 1, 1)]])
    with pytest.raises(InputError, match="must hold one 8-bit id a pixel"):
        DATASETS["cityscapes"].read_truth(coloured)
    Image.fromarray(np.array([[1, 700]], np.uint16)).save(tmp_path / "deep.png")
    for name in ("camvid", "cityscapes"):
        with pytest.raises(InputError, match="must hold one 8-bit id a pixel, got uint16"):
            DATASETS[name].read_truth(tmp_path / "deep.png")
