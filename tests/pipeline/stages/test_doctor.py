"""carbseg doctor --run as a user meets it: nothing to say of a whole run, one line for whatever is wrong."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from labelgen.engines.one_pixel.representation import ClassVectors
from pipeline.stages import doctor
from tests.conftest import carbseg, refused
from tests.pipeline.stages.conftest import SHORT, SMALL

STUDENT = Path("local+carb")


@pytest.fixture
def run(whole_run: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt; times are kept."""
    return shutil.copytree(whole_run, tmp_path / "run")


def findings(run: Path) -> list[str]:
    """The lines about a run; checks that the exit code says whether there are any."""
    done = carbseg("doctor", "--run", run, check=False)
    about, *lines = done.stdout.splitlines()
    assert about.startswith(f"{run}: ")
    assert done.returncode == (lines != ["nothing to complain about"])
    return lines if done.returncode else []


def cut(path: Path) -> None:
    """Leave half of a file, as old as it was."""
    status = path.stat()
    path.write_bytes(path.read_bytes()[: status.st_size // 2])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def edit(path: Path, change: Callable[[Any], object]) -> None:
    """Change what a JSON file holds, and not its time."""
    status, data = path.stat(), json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_nothing_is_wrong_at_any_stage_of_a_whole_run(run: Path) -> None:
    said = carbseg("doctor", "--run", run).stdout
    assert f"{run}: 2 stores, 2 models, 1 tables of scores; " in said
    assert said.endswith("nothing to complain about\n")
    for later in (run / "metrics.json", run / STUDENT, run / "labels" / "val.zarr", run / "maps"):
        later.unlink() if later.is_file() else shutil.rmtree(later)
        assert findings(run) == []


def test_a_folder_of_no_run_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert f"{folder} is no run folder: no labels, students or scores" in refused("doctor", "--run", folder)


def test_a_damaged_shard_and_the_commands_that_mend_it(run: Path, toy_root: Path, clip_folder: Path) -> None:
    store = run / "labels" / "train.zarr"
    cut(next((store / "local_logits").glob("c.1.*")))
    (line,) = findings(run)
    assert line.startswith(f"{store}: 1 of 5 shards are damaged (local_logits in {store} is damaged")
    redo, again = (part.split("'")[0].split()[1:] for part in line.split("run '")[1:])
    carbseg(*redo)
    (missing,) = findings(run)
    assert missing.startswith(f"{store}: 2 of 10 images are still to be made; run 'carbseg labels --split train --out")
    carbseg(*again, *SMALL, "--data-root", toy_root, "--clip", clip_folder)
    assert findings(run) == []  # what was scored, the labels of val, is as it was


def test_a_store_that_is_none_and_labels_that_are_gone(run: Path) -> None:
    (run / "labels" / "val.zarr" / "zarr.json").unlink()
    shutil.rmtree(run / "labels" / "train.zarr" / "views")
    none, damaged = findings(run)
    assert none.startswith(
        f"{run / 'labels' / 'val.zarr'} is no pseudo-label store that can be read; delete it, and run "
    )
    assert damaged.startswith(f"{run / 'labels' / 'train.zarr'}: 5 of 5 shards are damaged (2 of 2 images are not as ")


def test_a_truncated_checkpoint(run: Path) -> None:
    checkpoint = run / STUDENT / "checkpoint-00000006.pt"
    cut(checkpoint)
    assert findings(run) == [f"{checkpoint} cannot be read; delete it to go on from the one before, or anew"]


def test_a_training_that_was_cut_says_where(run: Path) -> None:
    for name in ("student", "metrics.json"):
        shutil.rmtree(run / STUDENT / name, ignore_errors=True)
    (run / "metrics.json").unlink()
    (run / STUDENT / "checkpoint-00000006.pt").unlink()
    (line,) = findings(run)
    assert line == f"{run / STUDENT}: cut at step 4; give the command that began it again, and it goes on from there"


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_cut_student_is_written_anew_by_the_command_that_trained_it(
    file: str, run: Path, toy_root: Path, clip_folder: Path
) -> None:
    cut(run / STUDENT / "student" / file)
    (line,) = findings(run)
    assert line.startswith(f"{run / STUDENT / 'student'} cannot be read; give the command that trained it again")
    carbseg("train", *SMALL, *SHORT, "--data-root", toy_root, "--clip", clip_folder, "--out", run)
    (stale,) = findings(run)  # as the scores may be those of another one
    assert f"{run / 'metrics.json'} is older than {run / STUDENT / 'student'}, which it scores" in stale


def test_files_of_a_model_that_are_missing(run: Path) -> None:
    (run / STUDENT / "best" / "model.safetensors").unlink()
    best = run / STUDENT / "best"
    assert findings(run) == [f"{best} cannot be read; delete {best}, and give the command that made it again"]


def test_scores_that_are_older_than_what_they_score(run: Path) -> None:
    os.utime(run / STUDENT / "student" / "model.safetensors")
    (line,) = findings(run)
    assert line == (
        f"{run / 'metrics.json'} is older than {run / STUDENT / 'student'}, which it scores; "
        f"run 'carbseg evaluate --out {run}' with the options of the first time"
    )
    os.utime(run / "metrics.json")
    (line,) = findings(run)
    assert line.startswith(
        f"{run / 'report.html'} is older than metrics.json beside it; run 'carbseg report --out {run}'"
    )
    os.utime(run / "report.html")
    assert findings(run) == []
    os.utime(run / "labels" / "val.zarr" / "is_written" / "c.0")
    assert [f"older than {run / 'labels' / 'val.zarr' / 'is_written'}" in line for line in findings(run)] == [True]


def test_scores_of_a_student_that_is_gone_or_without_their_counts(run: Path) -> None:
    shutil.rmtree(run / STUDENT)
    (line,) = findings(run)
    assert line.startswith(f"{run / 'metrics.json'} has scores of {run / STUDENT / 'student'}, which is gone; run ")
    (run / "counts-val.npz").unlink()
    (line,) = findings(run)
    assert f"the scores in {run} cannot be read" in line
    assert line.endswith("run 'carbseg evaluate' again")
    (run / "metrics.json").unlink()
    (run / "ablation.json").write_text('{"seeds": 2, "rows"')
    (line,) = findings(run)
    assert line.startswith(f"{run / 'ablation.json'} cannot be read; run 'carbseg ablation --out")


def test_settings_that_contradict_each_other(run: Path) -> None:
    val = run / "labels" / "val.zarr"
    edit(run / STUDENT / "run.json", lambda about: about["settings"].update(clip="another"))
    edit(val / "zarr.json", lambda group: group["attributes"]["provenance"]["labels"].update(variant="clip"))
    checkpoint = run / STUDENT / "checkpoint-00000006.pt"
    state = torch.load(checkpoint, weights_only=True)
    state["made_with"]["pseudo-labels"]["labels"]["faithful"] = True
    torch.save(state, checkpoint)
    (run / "suggested.toml").write_text("[labels")
    lines = findings(run)
    assert [line.partition(", ")[0] for line in lines if "run.json" in line] == [
        f"{run / STUDENT / 'run.json'} says clip = 'another'"
    ]
    assert any(f"{val} was made with labels.variant = 'clip', " in line for line in lines)
    assert any(f"{run / STUDENT} was trained on pseudo-labels with labels.faithful = True, " in line for line in lines)
    assert any(f"{run / 'suggested.toml'} cannot be read" in line for line in lines)
    assert len(lines) == 4


def test_a_full_disk_matters_where_something_is_still_to_be_made(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    assert findings(run) == []
    checkpoint = run / STUDENT / "checkpoint-00000006.pt"
    (run / "metrics.json").unlink()
    shutil.rmtree(run / STUDENT / "student")
    cut_training, line = findings(run)
    assert "cut at step 6" in cut_training
    needed = 2 * checkpoint.stat().st_size / 1e9
    assert line == f"{run} needs {needed:.3g} GB more for what is still to be made, 1e-06 GB are free; make room there"
    shutil.rmtree(run / STUDENT)
    (run / "labels" / "val.zarr" / "is_written" / "c.0").unlink()
    missing, line = findings(run)
    assert "2 of 3 images are still to be made" in missing
    assert " needs " in line


def test_the_class_vectors_of_one_pixel_are_looked_at_too(tmp_path: Path) -> None:
    folder = tmp_path / "engine" / "one-pixel" / "network"
    folder.mkdir(parents=True)
    save_file({name: np.zeros(1, np.float32) for name in ClassVectors._fields}, folder / "vectors.safetensors")
    (folder / "fitted.json").write_text("{}")
    assert not list(doctor.check_models(doctor.RunFolder(tmp_path)))
    (folder / "vectors.safetensors").write_bytes(b"cut")
    (said,) = doctor.check_models(doctor.RunFolder(tmp_path))
    assert f"{folder} cannot be read; delete {folder}" in said
