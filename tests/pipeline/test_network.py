"""Nothing is asked of the network unless a command is told to: every connection of a run from nothing is counted."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REACHED, ROOT
from tests.test_packaging import TINY

# Events of Python's sockets in this process and in those that it forks, noted by a hook that nothing can take away.
COUNTED = """
import os, runpy, sys

heard = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
events = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")

def note(event, arguments):
    if event in events:
        os.write(heard, f"{event} {arguments[-1] if event.endswith('connect') else arguments}\\n".encode())

sys.addaudithook(note)
runpy.run_module("pipeline", run_name="__main__", alter_sys=True)
"""


def connections(heard: Path, *words: object) -> list[str]:
    """What a command tries to look up or to connect to, started as a user starts it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    line = [sys.executable, "-c", COUNTED, heard, *words]
    done = subprocess.run(list(map(str, line)), cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    return heard.read_text().splitlines()


@pytest.mark.slow
def test_a_run_from_nothing_opens_no_connection(toy_root: Path, tmp_path: Path) -> None:
    settings = (word for setting in TINY.split() for word in ("--set", setting))
    run = ("run", "--dataset", "toy", "--data-root", toy_root, "--out", tmp_path / "out", *settings)
    assert connections(tmp_path / "heard", *run) == []
    assert (tmp_path / "out" / "report.html").is_file()


def test_connections_are_counted(tmp_path: Path) -> None:
    """Where a command is told to fetch something; there is no server behind the address."""
    line = ("datasets", "fetch", "camvid", tmp_path / "camvid", "--url", "http://127.0.0.1:9/camvid.zip")
    looked_up, *connected = connections(tmp_path / "heard", *line)
    assert looked_up.startswith("socket.getaddrinfo ('127.0.0.1', 9")
    assert "socket.connect ('127.0.0.1', 9)" in connected


def test_tests_reach_no_other_machine() -> None:
    for host in ("example.org", "192.0.2.1"):
        with pytest.raises(ConnectionRefusedError, match=f"not even {host}"):
            socket.create_connection((host, 80), timeout=1)
    assert REACHED == ["example.org", "192.0.2.1"]
    REACHED.clear()
