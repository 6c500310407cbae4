"""carbseg ablation as a user meets it: its table, what CARB gains, and going on."""

import json
from pathlib import Path

import numpy as np
import pytest

from evaluation.comparison import compare_pairs
from evaluation.tally import load_tallies
from tests.conftest import carbseg, refused
from tests.pipeline.stages.conftest import TRAINING


def test_table_and_gains_over_seeds(toy_root: Path, clip_folder: Path, toy_stores: Path, tmp_path: Path) -> None:
    options = ("--dataset", "toy", "--data-root", toy_root, "--clip", clip_folder, "--stores", toy_stores)
    short = (*TRAINING, "--set", "train.steps=6", "--set", "train.warmup_steps=2")
    line = ("ablation", *options, "--out", tmp_path, *short, "--split", "val", "--seeds", 2)
    said = carbseg(*line, "--students", "base,base+corrected").stdout
    result = json.loads((tmp_path / "ablation.json").read_text())
    base, corrected = (result["rows"][f"student {name}"]["miou"] for name in ("base", "base+corrected"))
    assert len(base) == len(corrected) == 2
    (gain,) = result["carb"]
    assert gain["row"] == "base+corrected"
    assert gain["miou"][0] == pytest.approx(np.mean(corrected) - np.mean(base), abs=0.02)
    counts = [load_tallies(tmp_path / f"seed-{seed}" / "counts-val.npz") for seed in range(2)]
    whole, _ = compare_pairs([(of["student base"], of["student base+corrected"]) for of in counts])
    assert gain["miou"] == [round(whole.value, 2), None, None]  # of three images nothing is sure
    assert "| base+corrected |" in said
    assert said.count("| student base ") == 1
    (checkpoint,) = (tmp_path / "seed-0" / "base").glob("checkpoint-*.pt")
    trained = checkpoint.stat().st_mtime_ns
    assert carbseg(*line, "--students", "base,base+corrected").stdout == said
    assert checkpoint.stat().st_mtime_ns == trained  # not a step again
    assert "What CARB gains" in said
    assert "mean and standard deviation of 2 seeds" in said
    alone = carbseg(*line[:-1], 1, "--students", "base").stdout  # nothing to be held against one another
    assert "IoU in percent on toy val, 1 seed\n" in alone
    assert "gained" not in alone + (tmp_path / "ablation.md").read_text()
    assert "nothing to complain about" in carbseg("doctor", "--run", tmp_path).stdout


def test_a_row_that_is_unknown_is_refused_before_anything_is_made(toy_root: Path, tmp_path: Path) -> None:
    line = ("ablation", "--dataset", "toy", "--data-root", toy_root, "--out", tmp_path / "run")
    assert "base+gated" in refused(*line, "--students", "base+gate")
    assert not (tmp_path / "run").exists()
