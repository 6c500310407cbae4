"""The file of labelled pixels: what is read, and what is refused."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from labelgen.points import Point, as_csv, locate, read_points
from labelgen.samples import ClassSet, InputError, Sample

CLASSES = ClassSet(("road", "traffic light"), (("road",), ("light",)), ((0, 0, 0), (1, 1, 1)))


def written(folder: Path, *lines: str, head: str = "image,x,y,class") -> Path:
    path = folder / "points.csv"
    path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    (tmp_path / "images").mkdir()
    path = tmp_path / "images" / "a.png"
    cv2.imwrite(str(path), np.zeros((20, 40, 3), np.uint8))
    return [{"image_id": "a", "image_path": str(path), "label_path": None, "image_labels": None}]


def test_points_are_read_and_found_by_id_and_by_file_name(tmp_path: Path, samples: list[Sample]) -> None:
    points = read_points(written(tmp_path, "a,39,19,road", "a.png,0,0,traffic light", "a,1,1,road"), CLASSES)
    assert points == [Point("a", 39, 19, 0), Point("a.png", 0, 0, 1), Point("a", 1, 1, 0)]
    assert locate(points, samples) == {"a": points}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    points = [Point('a "b", c.png', 3, 4, 1), Point("ü.png", 0, 0, 0)]
    (tmp_path / "points.csv").write_text(as_csv(points, CLASSES), encoding="utf-8")
    assert read_points(tmp_path / "points.csv", CLASSES) == points


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((), "holds no point"),
        (("a,1,1,car",), "line 2: unknown class 'car'; known: road, traffic light"),
        (("a,-1,1,road",), "x and y, from 0"),
        (("a,1.5,1,road",), "x and y, from 0"),
        (("a,1",), "x and y, from 0"),
        (("a,1,1,road", "a,1,1,traffic light"), r"pixel \(1, 1\) of a twice"),
    ],
)
def test_what_is_no_point_is_refused(tmp_path: Path, lines: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_points(written(tmp_path, *lines), CLASSES)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no points file"):
        read_points(tmp_path / "none.csv", CLASSES)
    with pytest.raises(InputError, match="must begin with the line 'image,x,y,class'"):
        read_points(written(tmp_path, "a,1,1,road", head="file,x,y,class"), CLASSES)
    broken = tmp_path / "broken.csv"
    broken.write_bytes(b"image,x,y,class\n\xff\xfe,1,1,road\n")
    with pytest.raises(InputError, match="UTF-8"):
        read_points(broken, CLASSES)


@pytest.mark.parametrize(("x", "y"), [(40, 0), (0, 20)])
def test_a_point_outside_its_image_is_refused(samples: list[Sample], x: int, y: int) -> None:
    with pytest.raises(InputError, match="40 x 20 pixels"):
        locate([Point("a", x, y, 0)], samples)


def test_a_point_in_no_image_is_refused(samples: list[Sample]) -> None:
    with pytest.raises(InputError, match="'b', but the split has no such image"):
        locate([Point("b", 0, 0, 0)], samples)
