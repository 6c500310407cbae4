"""Training cut by signals, as the command, with one and with two processes: it goes on as if nothing had happened."""

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from labelgen.training.checkpoints import last_checkpoint
from pipeline.progress import progress
from pipeline.stages import students
from segtrain.trainer import Trainer
from tests.conftest import ROOT, carbseg, carbseg_process, command
from tests.pipeline.stages.conftest import SHORT, TRAINING


def options(toy_root: Path, stores: Path, out: Path, workers: int) -> list[object]:
    return [
        *("train", "--dataset", "toy", "--data-root", toy_root, "--stores", stores, "--out", out),
        *(*TRAINING, "--set", f"train.workers={workers}"),
    ]


def results(out: Path) -> dict[str, bytes]:
    folder = out / "local+carb"
    names = ("student/model.safetensors", "metrics.jsonl")
    return {name: (folder / name).read_bytes() for name in names}


def cut(folder: Path, line: list[str], number: signal.Signals, after: int) -> bytes:
    """Start a run and send it a signal after so many steps; returns what it said."""
    # A group of its own, so that the kill reaches every process.
    run = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    while run.poll() is None and str(last_checkpoint(folder) or "") < str(folder / f"checkpoint-{after:08d}.pt"):
        time.sleep(0.002)
    steps_before = {path.name for path in folder.glob("checkpoint-*.pt")}
    if number == signal.SIGKILL:
        subprocess.run(["pkill", "-KILL", "-s", str(run.pid)], check=True)
    else:
        run.terminate()
    _, errors = run.communicate()
    assert run.returncode not in (0, None)
    if number == signal.SIGTERM:
        assert {path.name for path in folder.glob("checkpoint-*.pt")} != steps_before  # saved first
    return errors


def cut_twice(out: Path, line: list[str], processes: int) -> None:
    folder = out / "local+carb"
    errors = cut(folder, line, signal.SIGTERM, 8)
    assert b"stopped by SIGTERM after step" in errors
    assert b"terminate called" not in errors
    assert b"Traceback" not in errors or processes > 1  # the launcher tells of its workers with one
    cut(folder, line, signal.SIGKILL, 32)


def require_equal(out: Path, whole: Path) -> None:
    assert results(out) == results(whole)
    assert (out / "local+carb" / "best" / "model.safetensors").is_file()
    assert (out / "local+carb" / "regions.png").is_file()
    assert list((out / "local+carb" / "tensorboard").iterdir())


@pytest.mark.slow
def test_a_run_that_was_stopped_and_killed_ends_as_an_uninterrupted_one(
    toy_root: Path, toy_stores: Path, tmp_path: Path
) -> None:
    # Loader processes have to be stopped, too.
    words = options(toy_root, toy_stores, tmp_path / "cut", workers=1)
    cut_twice(tmp_path / "cut", command(*words), processes=1)
    carbseg(*words)
    carbseg(*options(toy_root, toy_stores, tmp_path / "whole", workers=0))
    require_equal(tmp_path / "cut", tmp_path / "whole")


def test_a_cut_run_says_from_where_it_goes_on_and_its_bar_counts_only_steps_of_now(
    toy_root: Path, toy_stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*options(toy_root, toy_stores, tmp_path, workers=0), *SHORT]
    save, bars = Trainer.save, list[Any]()

    def save_and_stop(trainer: Trainer, folder: Path) -> None:
        save(trainer, folder)
        signal.raise_signal(signal.SIGTERM)  # heard after the next step

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "save", save_and_stop)
        stopped = carbseg(*words, check=False)
    assert "stopped by SIGTERM after step 3, which is saved" in stopped.stderr
    assert "goes on from step" not in stopped.stderr

    def kept(*arguments: Any, **options: Any) -> Any:
        bars.append(progress(*arguments, **options))
        return bars[-1]

    monkeypatch.setattr(students, "progress", kept)
    said = carbseg(*words).stderr
    assert said.count("training local+carb goes on from step 3\n") == 1
    assert (bars[0].initial, bars[0].n, bars[0].total) == (3, 6, 6)
    assert "goes on from step" not in carbseg(*words).stderr  # it is done


@pytest.mark.slow
@pytest.mark.xdist_group("two processes")
def test_two_processes_that_were_stopped_and_killed_end_as_uninterrupted_ones(
    toy_root: Path, run_in_two: Path, tmp_path: Path
) -> None:
    words = options(toy_root, run_in_two / "labels", tmp_path, workers=0)
    cut_twice(tmp_path, command(*words, processes=2), processes=2)
    carbseg_process(*words, processes=2)
    require_equal(tmp_path, run_in_two)
