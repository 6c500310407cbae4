"""The command in a process of its own, struck by a fault at a moment that can be had again.

A moment is the n-th touch: the n-th time that the process opens, lists, makes, renames or removes a file of the round's
folder, as Python's audit events tell. It is there that what lies on the disk changes; a clock would seldom meet it
twice. Files that C++ and Rust write (checkpoints, weights) are no touches: a delay after one meets these.

`python -m tests.faults.child FILE` is `python -m pipeline` with the orders that were pickled into FILE.
"""

import ctypes
import itertools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TOUCHES = {"open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link"}
PATIENCE_S = 300.0  # no command of a round takes a tenth of it, on a machine that is not busy with others

# Loading torch takes longer than a round: processes are forked from one that has loaded everything and run nothing.
FORKS = multiprocessing.get_context("forkserver")
LOADED = [
    *("accelerate", "matplotlib.pyplot", "s3fs", "tensorboard.summary.writer.record_writer"),
    *("transformers.models.clip.modeling_clip", "pipeline.cli", "pipeline.stages.scoring"),
    *("pipeline.stages.students", "segtrain.train", "tests.faults.rounds"),
]


@dataclass(frozen=True)
class Orders:
    """What a process is to do: the words of the command, and what strikes it at its `moment`-th touch of `folder`."""

    words: tuple[str, ...]
    folder: Path
    strike: Callable[[], object] | None = None
    moment: int = 0
    delay_s: float = 0.0
    environment: Mapping[str, str] = field(default_factory=dict)
    count_to: Path | None = None  # file for the number of touches, of a process that comes to its end


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, or minus the signal that killed it, and all that it wrote."""

    code: int
    said: str

    @property
    def is_killed(self) -> bool:
        """Whether a signal ended it: as it is, or once training had saved its step."""
        return self.code in (-signal.SIGKILL, -signal.SIGTERM) or (
            self.code == 128 + signal.SIGTERM and "stopped by SIGTERM after step" in self.said
        )

    @property
    def is_refused(self) -> bool:
        """Whether it said in one line why it could not go on."""
        is_told = self.last_line.startswith("Error: ") and self.last_line != "Error: "
        return self.code == 1 and is_told and "Traceback" not in self.said

    @property
    def last_line(self) -> str:
        """What it said last."""
        return self.said.strip().rpartition("\n")[2]


class Running:
    """A process that was started, forked or fresh."""

    def __init__(self, orders: Orders, *, fresh: bool = False) -> None:
        said, ours = FORKS.Pipe(duplex=False)  # not a file: where a disk is full, the process can still say so
        self._heard: list[bytes] = []
        if fresh:
            self._process: Any = _fresh(orders, ours)
        else:
            self._process = FORKS.Process(target=_obey_forked, args=(orders, ours))
            self._process.start()
        self.pid: int = self._process.pid
        ours.close()
        self._listener = threading.Thread(target=self._listen, args=(said,))
        self._listener.start()

    def _listen(self, said: Connection) -> None:
        while data := os.read(said.fileno(), 2**16):
            self._heard.append(data)
        said.close()

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self._code() is None:
            os.kill(self.pid, number)

    def wait_until_stopped(self) -> None:
        """Wait for SIGSTOP, or the end."""
        self._wait(lambda: self._code() is not None or _state(self.pid) == "T")

    def wait_for(self, seconds: float) -> None:
        """Wait for the end, or so long."""
        until = time.monotonic() + seconds
        self._wait(lambda: self._code() is not None or time.monotonic() > until)

    def wait(self) -> Ended:
        """Wait for the end. Raises TimeoutError for a process that hangs."""
        self._wait(lambda: self._code() is not None)
        self._listener.join()
        code = self._code()
        assert code is not None
        return Ended(code, b"".join(self._heard).decode(errors="replace"))

    def _wait(self, is_time: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not is_time():
            if time.monotonic() > end:
                os.killpg(self.pid, signal.SIGKILL)
                raise TimeoutError(f"a process hangs, {_state(self.pid)}")
            time.sleep(0.005)

    def _code(self) -> int | None:
        return self._process.poll() if isinstance(self._process, subprocess.Popen) else self._process.exitcode


def _state(pid: int) -> str:
    """T: stopped; "" for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _fresh(orders: Orders, said: Connection) -> "subprocess.Popen[bytes]":
    file = orders.folder.with_name(f"{orders.folder.name}.{time.monotonic_ns()}.orders")
    file.write_bytes(pickle.dumps(orders))
    line = [sys.executable, "-m", "tests.faults.child", str(file)]
    return subprocess.Popen(line, cwd=ROOT, stdout=said.fileno(), stderr=said.fileno(), start_new_session=True)


def _obey_forked(orders: Orders, said: Connection) -> None:
    os.setsid()
    for number in (1, 2):
        os.dup2(said.fileno(), number)
    said.close()
    os.chdir(ROOT)
    _obey(orders)


def _obey(orders: Orders) -> None:
    """The command, under orders."""
    _give_up_privileges()
    os.environ.update(orders.environment)
    touches = _arm(orders)
    from pipeline.cli import main

    try:
        main(list(orders.words), prog_name="carbseg")
    finally:
        if orders.count_to is not None:
            orders.count_to.write_text(str(next(touches)))


def _arm(orders: Orders) -> "itertools.count[int]":
    touches, folder = itertools.count(), str(orders.folder)

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in TOUCHES or not arguments or isinstance(arguments[0], int | None):
            return
        if os.fsdecode(arguments[0]).startswith(folder) and next(touches) + 1 == orders.moment:
            _strike(orders)

    sys.addaudithook(hear)
    return touches


def _strike(orders: Orders) -> None:
    assert orders.strike is not None
    if orders.delay_s:
        timer = threading.Timer(orders.delay_s, orders.strike)
        timer.daemon = True
        timer.start()
    else:
        orders.strike()


def _give_up_privileges() -> None:
    """Root may write where nobody may: without its capabilities it is a user like others."""
    version_3, words = 0x20080522, (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset((ctypes.c_uint32 * 2)(version_3, 0), words):
        raise OSError(ctypes.get_errno(), "capset")


if __name__ == "__main__":
    _obey(pickle.loads(Path(sys.argv[1]).read_bytes()))
