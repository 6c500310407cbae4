"""The command in this process and in fresh ones; a tiny CLIP folder with random weights, toy scenes, a browser."""

import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from click.testing import CliRunner
from filelock import FileLock

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

ROOT = Path(__file__).parent.parent

# One thread each, here and in the processes that tests start: there are as many workers as cores.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"


# On a machine without GPUs accelerate starts one process only, unless it is told otherwise.
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]

# Only other people's packages: this process has another sys.path.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["accelerate", "transformers.models.clip.modeling_clip", "zarr"])

# Without what a browser does on its own: no sandbox (tests may run as root), no talk to the network.
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
CHROMIUM += ["--disable-sync", "--no-first-run", "--disable-quic"]


# Addresses beyond this machine that anything has tried to reach: tests need none, and reach none.
REACHED: list[str] = []
LOCAL = ("", "127.0.0.1", "0.0.0.0", "::1", "localhost")


def _stay_here(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: refuses to look up or connect to another machine, and notes it for who swallows the error."""
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else ""  # else a Unix socket's path
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if isinstance(host, str) and host not in LOCAL:
        REACHED.append(host)
        raise ConnectionRefusedError(f"tests reach no other machine, not even {host}")


sys.addaudithook(_stay_here)


@pytest.fixture(autouse=True)
def _reaches_no_other_machine() -> Iterator[None]:
    yield
    reached, REACHED[:] = list(REACHED), []
    assert reached == []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests come first: what is left then is short enough to keep every worker busy to the end."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")
            item.add_marker(pytest.mark.xdist_group("browser"))
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch  # not above: the process that only hands out tests to workers would wait for it

    torch.set_num_threads(1)


# ---- The command ---------------------------------------------------------------------------------------------------


def carbseg(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """The command in this process: it finds the state of a fresh one, and leaves none behind."""
    from pipeline.cli import main

    words = list(map(str, arguments))
    with fresh_state(), TemporaryDirectory() as folder, contextlib.chdir(folder):
        with patch.object(sys, "argv", ["carbseg", *words]):
            done = CliRunner(catch_exceptions=False).invoke(main, words, prog_name="carbseg")
        assert os.listdir() == []  # defaults such as data/ and runs/ are relative: a test names its own folders
    if check:
        assert done.exit_code == 0, done.stderr
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)


@contextlib.contextmanager
def fresh_state() -> Iterator[None]:
    """What a run changes for its whole process is put back: environment, accelerate's state, quiet libraries."""
    from accelerate.state import AcceleratorState
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    with patch.dict(os.environ):
        AcceleratorState._reset_state(reset_partial_state=True)
        try:
            yield
        finally:
            AcceleratorState._reset_state(reset_partial_state=True)
            logging.set_verbosity(verbosity)
            logging.enable_progress_bar()


def carbseg_process(*arguments: object, check: bool = True, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as a user starts it, or in two. It takes seconds until torch is loaded."""
    line = command(*arguments, processes=processes)
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    if check:
        assert done.returncode == 0, done.stderr
    return done


def command(*arguments: object, processes: int = 1) -> list[str]:
    """The command line of a process of its own, or of two, to be started in ROOT."""
    return [sys.executable, *(LAUNCH if processes > 1 else []), "-m", "pipeline", *map(str, arguments)]


def forked(*arguments: object) -> BaseProcess:
    """The command, started in a process of its own that has torch loaded already, to be killed or to run beside others.

    It is forked from a process that has run nothing yet, and ends without the clean-up of an interpreter.
    """
    run = FORKS.Process(target=_run_command, args=(list(map(str, arguments)),))
    run.start()
    return run


def kill_when(is_time: Callable[[], bool], *arguments: object) -> None:
    """Start the command and kill it as soon as it is time."""
    run = forked(*arguments)
    while run.is_alive() and not is_time():
        time.sleep(0.002)
    run.kill()
    run.join()
    assert run.exitcode == -signal.SIGKILL


def _run_command(words: list[str]) -> None:
    from pipeline.cli import main

    main(words, prog_name="carbseg")


def refused(*arguments: object, run: Callable[..., subprocess.CompletedProcess[str]] = carbseg) -> str:
    """The one line of an error; checks that it is one line, without a traceback, and that the exit code says so."""
    done = run(*arguments, check=False)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    return last


# ---- What tests share, to be read only -----------------------------------------------------------------------------


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that all workers share: the first that asks makes it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not folder.with_suffix(".made").exists():
            shutil.rmtree(folder, ignore_errors=True)  # half made by a test that failed
            make(folder)
            folder.with_suffix(".made").touch()
    return folder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from pipeline.toy.pretrain import build_model, build_tokenizer, save_pretrained

    def make(folder: Path) -> None:
        torch.manual_seed(0)
        tokenizer = build_tokenizer()
        save_pretrained(build_model(len(tokenizer)), tokenizer, folder)

    return made_once(tmp_path_factory, "clip", make)


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipeline.toy.scenes import write_scenes

    return made_once(tmp_path_factory, "toy", lambda folder: write_scenes(folder, {"train": 10, "val": 3}))


@pytest.fixture(scope="session")
def toy_stores(clip_folder: Path, toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pseudo-labels of the toy scenes with the default settings: train.zarr and val.zarr."""

    def make(folder: Path) -> None:
        for split in ("train", "val"):
            options = ("--dataset", "toy", "--data-root", toy_root, "--clip", clip_folder, "--split", split)
            carbseg("labels", *options, "--out", folder, "--stores", folder)

    return made_once(tmp_path_factory, "stores", make)


# ---- A browser -----------------------------------------------------------------------------------------------------


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


@pytest.fixture
def open_page(browser: "Browser") -> Iterator[Callable[..., "Page"]]:
    """Opens a file from disk, or an address. At the end: no dialog, no error, and no request beyond what was opened.

    expected: what the console may say.
    """
    trouble: list[str] = []
    contexts = []

    def watch_request(url: str, home: str) -> None:
        if not url.startswith((home, "data:")):
            trouble.append(f"request of {url}")

    def watch_console(text: str, expected: str | None) -> None:
        if expected is None or expected not in text:
            trouble.append(text)

    def refuse(dialog: "Dialog") -> None:
        trouble.append(dialog.message)
        dialog.dismiss()

    def opened(place: Path | str, expected: str | None = None, **context: Any) -> "Page":
        home = place if isinstance(place, str) else place.as_uri()
        contexts.append(browser.new_context(**context))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda request: watch_request(request.url, home))
        page.on("console", lambda message: watch_console(message.text, expected))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("dialog", refuse)
        page.goto(home)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert trouble == []
