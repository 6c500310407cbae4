"""Training cut by signals, as the command, with one and with two processes: it goes on as if nothing had happened."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import LAUNCH, ROOT, carbseg

SETTINGS = (
    "train.steps=200 train.warmup_steps=40 train.batch=2 train.checkpoint_every=20 train.validate_every=100 "
    "train.diagnose_every=30 student.width=4 student.aspp_channels=8 augment.crop_height=64 augment.crop_width=96"
)


@pytest.fixture(scope="module")
def stores(clip_folder: Path, toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    carbseg("labels", "--dataset", "toy", "--data-root", toy_root, "--clip", clip_folder, "--stores", folder)
    return folder


def command(toy_root: Path, stores: Path, out: Path, processes: int) -> list[str]:
    launch = LAUNCH if processes > 1 else []
    options = ["--dataset", "toy", "--data-root", str(toy_root), "--stores", str(stores), "--out", str(out)]
    # Loader processes have to be stopped, too.
    every = [*SETTINGS.split(), f"train.workers={1 if processes == 1 else 0}"]
    settings = [part for setting in every for part in ("--set", setting)]
    return [sys.executable, *launch, "-m", "pipeline", "train", *options, *settings]


def finish(arguments: list[str]) -> None:
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def results(out: Path) -> dict[str, bytes]:
    folder = out / "local+carb"
    names = ("student/model.safetensors", "metrics.jsonl")
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_that_was_stopped_and_killed_ends_as_an_uninterrupted_one(
    processes: int, toy_root: Path, stores: Path, tmp_path: Path
) -> None:
    finish(command(toy_root, stores, tmp_path / "whole", processes))
    cut = command(toy_root, stores, tmp_path / "cut", processes)
    folder = tmp_path / "cut" / "local+carb"
    for number, after in ((signal.SIGTERM, 20), (signal.SIGKILL, 80)):
        # A group of its own, so that the kill reaches every process.
        run = subprocess.Popen(cut, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        while run.poll() is None and not (folder / f"checkpoint-{after:08d}.pt").exists():
            time.sleep(0.002)
        steps_before = {path.name for path in folder.glob("checkpoint-*.pt")}
        if number == signal.SIGKILL:
            subprocess.run(["pkill", "-KILL", "-s", str(run.pid)], check=True)
        else:
            run.terminate()
        _, errors = run.communicate()
        assert run.returncode not in (0, None)
        if number == signal.SIGTERM:
            assert b"stopped by SIGTERM after step" in errors
            assert b"terminate called" not in errors
            assert b"Traceback" not in errors or processes > 1  # the launcher tells of its workers with one
            assert {path.name for path in folder.glob("checkpoint-*.pt")} != steps_before  # saved first
    finish(cut)
    assert results(tmp_path / "cut") == results(tmp_path / "whole")
    assert (folder / "best" / "model.safetensors").is_file()
    assert (folder / "regions.png").is_file()
    assert list((folder / "tensorboard").iterdir())
