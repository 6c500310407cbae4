"""Statistics of image-level labels, worked out by hand on four images and three classes."""

import json
from pathlib import Path

import numpy as np
import pytest

from evaluation.plots import plot_statistics
from evaluation.statistics import LabelStatistics
from labelgen.images import image_size
from labelgen.samples import ClassSet, Sample
from pipeline.datasets.tags import presence
from pipeline.stages.statistics import count_labels
from tests.conftest import carbseg, refused
from tests.files import image, label, own_folder

NAMES = ("sky", "road", "car")
FOUR = LabelStatistics(NAMES, np.array([[0, 1, 1], [0, 1, 0], [0, 1, 1], [0, 1, 0]], bool))


def test_four_images_by_hand() -> None:
    assert FOUR.as_dict() == {
        "images": 4,
        "classes": ["sky", "road", "car"],
        "classes_per_image": [[1, 2], [2, 2]],
        "mean_classes_per_image": 1.5,
        "positives": {"sky": 0, "road": 4, "car": 2},
        "negatives": {"sky": 4, "road": 0, "car": 2},
        "always": ["road"],
        "nearly_always": [],
        "never": ["sky"],
        "co_occurrence": [[None, None, None], [0, 1, 0.5], [0, 1, 1]],
        "ruled_out": 0.5,
    }


def test_co_occurrence_is_a_share_of_the_images_of_the_first_class() -> None:
    """Every car has a road, but only every second road has a car; the class that is never shown is in no pair."""
    assert FOUR.co_occurrence[2, 1] == 1
    assert FOUR.co_occurrence[1, 2] == 0.5
    assert FOUR.ratios.tolist() == [0.5, 1]


def test_nearly_always_is_95_percent_or_more_but_not_all() -> None:
    is_present_NC = np.arange(100)[:, None] < [100, 95, 94]
    statistics = LabelStatistics(NAMES, is_present_NC)
    assert (statistics.always, statistics.nearly_always) == (["sky"], ["road"])


def test_without_images_nothing_is_always_there_and_means_have_no_value() -> None:
    statistics = LabelStatistics(NAMES, presence([], 3))
    said = statistics.as_dict()
    assert (said["images"], said["always"], said["never"]) == (0, [], list(NAMES))
    assert said["mean_classes_per_image"] is None
    assert said["ruled_out"] is None
    assert said["co_occurrence"] == [[None] * 3] * 3
    assert "classes per image" not in str(statistics)


def test_an_image_of_void_alone_shows_no_class_and_rules_out_all() -> None:
    statistics = LabelStatistics(NAMES, presence([[]], 3))
    assert statistics.as_dict()["classes_per_image"] == [[0, 1]]
    assert statistics.ruled_out == 1


def test_a_table_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"is_present_NC is \(1, 2\), but there are 3 names"):
        LabelStatistics(NAMES, np.zeros((1, 2), bool))


def test_images_of_unknown_labels_are_counted_and_left_out() -> None:
    classes = ClassSet(NAMES, ((), (), ()), ((0, 0, 0),) * 3)

    def sample(labels: list[int] | None) -> Sample:
        return {"image_id": "a", "image_path": "a.png", "label_path": None, "image_labels": labels}

    statistics, unknown = count_labels([sample([1]), sample(None), sample([])], classes)
    assert (statistics.images, unknown) == (2, 1)


@pytest.mark.parametrize("statistics", [FOUR, LabelStatistics(NAMES, presence([], 3))], ids=["four images", "none"])
def test_the_picture_is_written_also_for_no_images(statistics: LabelStatistics, tmp_path: Path) -> None:
    plot_statistics(statistics, "mine train", tmp_path / "statistics.png")
    height, width = image_size(str(tmp_path / "statistics.png"))
    assert width > 2 * height > 0


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """Two training images: sky and pole; sky, pole and a single pixel of car."""
    for name, rows in (("a", [[0, 0, 2], [0, 0, 11]]), ("b", [[0, 0, 0], [2, 2, 8]])):
        image(tmp_path / "train" / f"{name}.png")
        label(tmp_path / "trainannot" / f"{name}.png", rows)
    return tmp_path


def test_the_command_prints_a_table_and_writes_numbers_and_a_picture(camvid: Path, tmp_path: Path) -> None:
    options = ("--dataset", "camvid", "--data-root", camvid, "--out", tmp_path / "out")
    shown = carbseg("datasets", "statistics", *options).stdout
    assert "camvid train: 2 images" in shown
    assert "car              1       1   50.00%" in shown
    assert "always there: sky, pole\nnearly always (95 % or more): none\nnever: building, road," in shown
    assert "classes per image: 2 to 3, mean 2.50" in shown
    written = json.loads((tmp_path / "out" / "statistics-train.json").read_text())
    assert (written["dataset"], written["split"], written["images"], written["unknown"]) == ("camvid", "train", 2, 0)
    assert written["positives"]["car"] == 1
    assert (tmp_path / "out" / "statistics-train.png").is_file()
    # A sixth of the image is not enough for the car's one pixel now, nor for the pole of the first image.
    carbseg("datasets", "statistics", *options, "--set", "tags.min_area=0.2")
    written = json.loads((tmp_path / "out" / "statistics-train.json").read_text())
    assert written["classes_per_image"] == [[1, 1], [2, 1]]
    assert written["image_labels"]["min_area"] == 0.2


def test_without_a_single_label_the_command_says_what_to_do(tmp_path: Path) -> None:
    root = own_folder(tmp_path / "mine", "a.png", "b.png")
    options = ("datasets", "statistics", "--dataset", "folder", "--data-root", root, "--out", tmp_path / "out")
    told = refused(*options)
    assert "none of the 2 images of folder train has image-level labels; give a labels file with --tags" in told
    assert "--tags auto is not possible here" in refused(*options, "--tags", "auto")
    (root / "labels.csv").write_text("image,labels\na.png,road\n")
    assert "folder train: 1 images (1 more have no image-level labels and are left out)" in carbseg(*options).stdout


def test_a_list_of_labels_becomes_a_table() -> None:
    assert presence([[0, 2], []], 3).tolist() == [[True, False, True], [False, False, False]]
