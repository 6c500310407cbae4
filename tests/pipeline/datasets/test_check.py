"""`datasets check` finds what would stop or spoil a run, in the files themselves."""

from pathlib import Path

import pytest

from pipeline.datasets import DATASETS
from pipeline.datasets.check import Report, check
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
