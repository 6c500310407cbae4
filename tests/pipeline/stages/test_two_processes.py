"""All stages in two processes: each does its share, one speaks, and the results are those of one process."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import carbseg
from tests.files import contents

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("two processes")]


def test_two_processes_label_what_one_labels(run_in_two: Path, small_stores: Path) -> None:
    """Training began in both, so both had waited for the whole."""
    for store in ("train.zarr", "val.zarr"):
        assert contents(run_in_two / "labels" / store) == contents(small_stores / store)


def test_two_processes_score_what_one_scores(run_in_two: Path, toy_root: Path, tmp_path: Path) -> None:
    """Three images: one process has more to do than the other."""
    in_two = json.loads((run_in_two / "metrics.json").read_text().replace(str(run_in_two), str(tmp_path)))
    for part in ("labels", "local+carb"):
        shutil.copytree(run_in_two / part, tmp_path / part)
    carbseg("evaluate", "--dataset", "toy", "--data-root", toy_root, "--out", tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text()) == in_two


def test_two_processes_give_one_table_and_one_report(run_in_two: Path) -> None:
    said = (run_in_two / "said.txt").read_text()
    assert said.count("IoU in percent on 3 images") == 1
    assert said.count("| student local+carb   |") == 2  # scores and means, once each
    assert said.count("s in all") == 1
    assert (run_in_two / "report.html").is_file()
    assert len((run_in_two / "local+carb" / "metrics.jsonl").read_text().splitlines()) == 8
