"""`datasets check` finds what would stop or spoil a run, in the files themselves."""

from pathlib import Path

import pytest

from pipeline.datasets import DATASETS
from pipeline.datasets.check import Report, check
from pipeline.datasets.classes import CAMVID_CLASSES
from pipeline.datasets.tags import TagConfig
from tests.conftest import carbseg
from tests.files import image, label, own_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for grey, name in enumerate("ab"):
        image(tmp_path / "train" / f"{name}.png", grey=grey)
        label(tmp_path / "trainannot" / f"{name}.png", [[0, 0, 3], [8, 8, 11]])
    return tmp_path


def camvid(root: Path) -> Report:
    return check(DATASETS["camvid"], root, "train", TagConfig())


def errors(report: Report) -> list[str]:
    return [finding.what for finding in report.findings if finding.level == "error"]


def test_the_histogram_counts_pixels_and_images(root: Path) -> None:
    label(root / "trainannot" / "b.png", [[0, 0, 0], [0, 0, 0]])
    report = camvid(root)
    assert [(row.value, row.meaning, row.share, row.images) for row in report.histogram] == [
        ("0", "sky", 8 / 12, 2),
        ("3", "road", 1 / 12, 1),
        ("8", "car", 2 / 12, 1),
        ("11", "void", 1 / 12, 1),
    ]
    assert report.sizes == {(2, 3): 2}
    assert (report.shown["sky"], report.shown["car"], report.shown["tree"]) == (2, 1, 0)
    assert not report.has_errors
    assert report.findings[-1].what.startswith("no image shows building, pole, sidewalk,")


def test_ids_and_colours_that_mean_nothing_are_errors(root: Path) -> None:
    label(root / "trainannot" / "a.png", [[0, 0, 12], [8, 200, 12]])
    assert errors(camvid(root)) == ["2 unknown ids on 25.00% of the pixels: 12, 200"]
    for name in "ab":
        label(root / "trainannot" / f"{name}.png", [[(128, 128, 128)] * 3, [(1, 2, 3), (0, 0, 0), (0, 0, 0)]])
    assert errors(camvid(root)) == ["1 unknown colours on 16.67% of the pixels: #010203"]


def test_all_broken_files_are_listed_not_only_the_first(root: Path) -> None:
    whole = (root / "train" / "a.png").read_bytes()
    (root / "train" / "a.png").write_bytes(whole[:-20])
    (root / "trainannot" / "a.png").write_bytes(b"no image")
    label(root / "trainannot" / "b.png", [[0, 0]])
    image(root / "train" / "c.png", grey=9)
    what = errors(camvid(root))
    assert len(what) == 4
    assert "1 of 3 images have no label file, such as" in what[0]
    assert "a.png is truncated" in what[1]
    assert "trainannot/a.png cannot be read" in what[2]
    assert "b.png is (1, 2), but its image is (2, 3)" in what[3]


def test_copies_and_mixed_sizes_are_seen(root: Path) -> None:
    image(root / "train" / "b.png", 2, 3, grey=0)
    image(root / "train" / "c.png", 4, 4)
    label(root / "trainannot" / "c.png", [[0] * 4] * 4)
    report = camvid(root)
    assert report.sizes == {(2, 3): 2, (4, 4): 1}
    assert report.findings[0].what == "1 images are there more than once, such as a.png = b.png"
    assert not report.has_errors


def test_a_user_s_folder_is_checked_by_its_labels_file(tmp_path: Path) -> None:
    root = own_folder(tmp_path, "a.png", "b.png")
    (root / "labels.json").write_text('{"a.png": ["road"]}')
    report = check(DATASETS["folder"], root, "train", TagConfig())
    assert report.shown == {"sky": 0, "road": 1, "traffic light": 0}
    assert [finding.what for finding in report.findings] == [
        "1 of 2 images have no image-level labels",
        "no image shows sky, traffic light",
    ]
    assert report.has_errors  # labelling would stop
    assert not check(DATASETS["folder"], root, "train", TagConfig(source="auto")).findings
    (root / "labels.json").write_text('{"a.png": ["raod"]}')
    assert "did you mean 'road'?" in errors(check(DATASETS["folder"], root, "train", TagConfig()))[0]


def test_files_beside_the_images_that_are_passed_over_are_named(tmp_path: Path) -> None:
    root = own_folder(tmp_path, "a.png", "b.JPEG")
    (root / "labels.csv").write_text("image,labels\na.png,sky;road\nb.JPEG,traffic light\n")
    (root / "images" / "._a.png").touch()  # macOS leaves such
    (root / "images" / "sub").mkdir()
    assert not check(DATASETS["folder"], root, "train", TagConfig()).findings
    for name in ("d.webp", "c.TIF", "e.bmp", "f.gif"):
        (root / "images" / name).touch()
    (found,) = check(DATASETS["folder"], root, "train", TagConfig()).findings
    assert found.level == "warning"
    assert found.what == f"4 files in {root / 'images'} are no .png or .jpg or .jpeg: c.TIF, d.webp, e.bmp, ..."
    (root / "labels.csv").write_text("image,labels\na.png,sky;road\nd.webp,traffic light\n")
    (error,) = errors(check(DATASETS["folder"], root, "train", TagConfig()))
    assert "names 'd.webp', but" in error


def of_points(root: Path, *lines: str) -> list[tuple[str, str]]:
    """What is found in a points file of these lines, after what is found in its images."""
    (root / "points.csv").write_text("\n".join(["image,x,y,class", *lines]) + "\n")
    before = len(camvid(root).findings)
    report = check(DATASETS["camvid"], root, "train", TagConfig(), points=root / "points.csv")
    return [(found.level, found.what.replace(f"{root}/", "")) for found in report.findings[before:]]


ALL = [f"a,{k % 3},{k // 3},{name}" for k, name in enumerate(("sky", "building", "pole", "road", "sidewalk"))]
ALL += [f"b.png,{k % 3},{k // 3},{name}" for k, name in enumerate(("tree", "sign", "fence", "car", "pedestrian"))]


def test_points_without_fault_say_nothing(root: Path) -> None:
    assert of_points(root, *ALL, "b,2,1,bicyclist") == []


def test_all_that_is_wrong_with_points_is_listed_not_only_the_first(root: Path) -> None:
    wrong = ("a,3,0,sky", "z,0,0,sky", "a,0,-1,sky", "a,0,0,raod", "a.png,0,0,car")
    assert of_points(root, *ALL, *wrong) == [
        ("error", "points.csv, line 14: an image and its pixel's x and y, from 0, are needed, got 'a', '0', '-1'"),
        ("error", f"points.csv, line 15: unknown class 'raod'; known: {', '.join(CAMVID_CLASSES.names)}"),
        ("error", "points.csv: point (3, 0) is outside of a, which has 3 x 2 pixels"),
        ("error", "points.csv: a point is in 'z', but the split has no such image; correct the name"),
        ("error", "points.csv names pixel (0, 0) of a 2 times"),  # by id, and by file name
        ("warning", "points.csv has no point for bicyclist"),
    ]


def test_a_points_file_that_cannot_be_read_is_an_error(root: Path) -> None:
    assert of_points(root) == [("error", "points.csv holds no point; give one line a class, such as a.jpg,120,80,sky")]
    options = ("datasets", "check", "--dataset", "camvid", "--data-root", root)
    done = carbseg(*options, "--points", root / "none.csv", check=False)
    assert done.returncode == 1
    assert f"error: no points file {root / 'none.csv'}; 'carbseg points page' helps to make one" in done.stdout


def test_the_command_prints_a_table_and_its_exit_code_says_whether_there_are_errors(root: Path) -> None:
    options = ("datasets", "check", "--dataset", "camvid", "--data-root", root)
    done = carbseg(*options)
    assert "camvid train: 2 images (2 of 2 x 3), 2 with pixel labels" in done.stdout
    assert "       8  car               33.33%       2\n" in done.stdout
    label(root / "trainannot" / "a.png", [[0, 0, 12], [8, 8, 8]])
    done = carbseg(*options, check=False)
    assert done.returncode == 1
    assert "error: 1 unknown ids on 8.33% of the pixels: 12\n    they count as void" in done.stdout
    assert "Traceback" not in done.stderr
