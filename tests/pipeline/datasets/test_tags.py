"""Image-level labels: from pixel labels, from files, or unknown."""

from pathlib import Path

import numpy as np
import pytest

from labelgen.samples import ClassSet, InputError
from pipeline.datasets import DATASETS
from pipeline.datasets.tags import TagConfig, present_classes, read_tags
from tests.files import image, label

CLASSES = ClassSet(("sky", "road", "traffic light"), (("sky",), ("road",), ("traffic light",)), ((0, 0, 0),) * 3)
CAMVID = DATASETS["camvid"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, rows in (("a", [[0, 0, 3], [0, 0, 11]]), ("b", [[8, 8, 8], [8, 8, 8]])):
        image(tmp_path / "train" / f"{name}.png")
        label(tmp_path / "trainannot" / f"{name}.png", rows)
    return tmp_path


def test_a_class_must_cover_its_share_of_the_whole_image_void_included() -> None:
    truth = np.array([[0, 0, 3], [0, 1, 255], [1, 255, 255]], np.uint8)
    assert present_classes(truth) == [0, 1, 3]
    assert present_classes(truth, 1 / 9) == [0, 1, 3]
    assert present_classes(truth, 0.2) == [0, 1]
    assert present_classes(truth, 0.5) == []
    assert present_classes(np.full((2, 2), 255, np.uint8)) == []


def test_tags_come_from_pixel_labels_a_file_or_nowhere(root: Path) -> None:
    def tagged(**settings: object) -> list[list[int] | None]:
        return [s["image_labels"] for s in CAMVID.list_samples(root, "train", tags=TagConfig(**settings))]

    assert tagged() == [[0, 3], [8]]
    assert tagged(min_area=0.5) == [[0], [8]]
    assert tagged(source="auto") == [None, None]
    file = root / "mine.json"
    file.write_text('{"a.png": ["car", "sky"]}')
    assert tagged(file=str(file)) == [[0, 8], None]
    rows = CAMVID.samples(root, "train", tags=TagConfig(source="auto"))
    assert list(rows["image_labels"]) == [None, None]
    with pytest.raises(InputError, match="drop one of the two"):
        TagConfig(source="auto", file="mine.json")
    with pytest.raises(InputError, match="no labels file none.csv"):
        tagged(file="none.csv")


def test_label_files_may_be_missing_where_nobody_reads_them(root: Path) -> None:
    (root / "trainannot" / "a.png").unlink()
    (row, _) = CAMVID.list_samples(root, "train", tags=TagConfig(source="auto"))
    assert (row["label_path"], row["image_labels"]) == (None, None)
    for settings in ({"tags": TagConfig()}, {"tags": TagConfig(source="auto"), "with_truth": True}):
        with pytest.raises(InputError, match="a.png has no label file"):
            CAMVID.list_samples(root, "train", **settings)


def test_csv_and_json_say_the_same(tmp_path: Path) -> None:
    csv, json = tmp_path / "labels.csv", tmp_path / "labels.json"
    csv.write_text('image,labels\na.jpg,road;traffic light\n"ü,1.jpg",sky road\nc.jpg,traffic light\nd.jpg,\n')
    json.write_text(
        '{"a.jpg": ["traffic light", "road"], "ü,1.jpg": ["sky", "road"], "c.jpg": ["traffic light"], "d.jpg": []}'
    )
    assert read_tags(csv, CLASSES) == {"a.jpg": [1, 2], "ü,1.jpg": [0, 1], "c.jpg": [2]}
    assert read_tags(json, CLASSES) == read_tags(csv, CLASSES)


def test_a_spreadsheet_s_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes("image,labels\r\na.jpg,sky\r\n".encode("utf-8-sig"))
    assert read_tags(tmp_path / "labels.csv", CLASSES) == {"a.jpg": [0]}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("labels.csv", "image,labels\na.jpg,raod\n", r"unknown class in .*a.jpg: 'raod'; did you mean 'road'\?"),
        ("labels.csv", "image,labels\na.jpg,sky,road\n", "separate the classes of a.jpg with ';', not with ','"),
        ("labels.csv", "a.jpg,road\n", "must begin with the line 'image,labels'"),
        ("labels.csv", "", "must begin with the line 'image,labels'"),
        ("labels.csv", "image,labels\na.jpg,sky\na.jpg,road\n", "names 'a.jpg' twice"),
        ("labels.json", '{"a.jpg": ["sky"], "a.jpg": ["road"]}', "names 'a.jpg' twice"),
        ("labels.json", '{"a.jpg": "sky"}', "must hold an object such as .* got 'sky' for 'a.jpg'"),
        ("labels.json", '["a.jpg"]', "must hold an object such as"),
        ("labels.json", '{"a.jpg": [', "is no valid JSON"),
    ],
)
def test_broken_files_of_labels_are_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_tags(tmp_path / name, CLASSES)


def test_text_of_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"image,labels\ncaf\xe9.jpg,sky\n")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_tags(tmp_path / "labels.csv", CLASSES)
