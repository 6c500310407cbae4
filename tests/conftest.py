"""Real things for the tests: a tiny CLIP folder with random weights, a few toy scenes on disk, a browser."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parent.parent

# Two cores are shared with the processes that tests start.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"


# On a machine without GPUs accelerate starts one process only, unless it is told otherwise.
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]

# Without what a browser does on its own: no sandbox (tests may run as root), no talk to the network.
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
CHROMIUM += ["--disable-sync", "--no-first-run", "--disable-quic"]


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipeline.toy.pretrain import build_model, build_tokenizer, save_pretrained

    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    folder = tmp_path_factory.mktemp("clip")
    save_pretrained(build_model(len(tokenizer)), tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipeline.toy.scenes import write_scenes

    root = tmp_path_factory.mktemp("data") / "toy"
    write_scenes(root, {"train": 10, "val": 3})
    return root


def carbseg(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would."""
    command = [sys.executable, "-m", "pipeline", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if check:
        assert done.returncode == 0, done.stderr
    return done


def refused(*arguments: object) -> str:
    """The one line of an error; checks that it is one line, without a traceback, and that the exit code says so."""
    done = carbseg(*arguments, check=False)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    return last


@pytest.fixture(scope="module")  # not session: while it is open, no other test can run an asyncio loop
def browser() -> Iterator["Browser"]:
    """Headless Chromium: the one that CARBSEG_CHROMIUM names, or that of the machine."""
    program = os.environ.get("CARBSEG_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        missing = "needs chromium: install it, or name it in CARBSEG_CHROMIUM"
        if os.environ.get("CARBSEG_NEEDS_BROWSER"):
            pytest.fail(missing)
        pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=CHROMIUM)
        yield chromium
        chromium.close()
