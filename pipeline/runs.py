"""The folder of a run: what it was made with, its log, and files that are whole or not there."""

import contextlib
import getpass
import json
import os
import platform
import re
import shlex
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from labelgen.samples import InputError

# From where an absolute path or an address begins to its last slash.
PLACE = re.compile(r"""(?<![^\s=:"'(\[,])(?:[a-z0-9]+:/)?[/~][^"']*/""")
TELL_NOTHING = {"", "root", "localhost"}  # names of users and machines that nobody is known by
PACKAGES = ("carbseg", "torch", "transformers", "accelerate", "datasets", "numpy", "opencv-python", "zarr")


def require_folder(path: Path) -> None:
    """Raise InputError where no folder can be made: a file, or a link that leads nowhere, is there or above it."""
    there = next((place for place in (path, *path.parents) if os.path.lexists(place)), None)
    if there is not None and not there.is_dir():
        what = "a file" if there.is_file() else "no folder"
        raise InputError(f"{there} is {what}; choose another OUT (--out), for a folder")


def folder_name(dataset: str) -> str:
    """What a folder of a data set is called by default: its name, without what is special in hf:PATH_OR_NAME."""
    return re.sub(r"[^\w.-]+", "-", dataset)


def write_text(path: Path, text: str) -> None:
    """Write under a temporary name of one's own (jobs of an array may write at once), then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.partial")
    # File names may hold bytes that are no UTF-8.
    partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    partial.replace(path)


def write_json(path: Path, data: Any) -> None:
    """Write under a temporary name, then rename."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def provenance(settings: dict[str, Any]) -> dict[str, Any]:
    """The resolved settings, the command, the versions and the time."""
    return {
        "command": _command(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "settings": settings,
    }


def _command() -> str:
    """As it was typed; carbseg by its name, wherever it is installed."""
    program, *arguments = sys.argv
    ours = Path(program).name in ("carbseg", "__main__.py")
    return shlex.join(["carbseg" if ours else program, *arguments])


def anonymous(about: dict[str, Any]) -> dict[str, Any]:
    """Provenance as `provenance` gives it, of several trainings too, each of its strings `without_places`."""
    return dict(_everywhere(about))


def without_places(text: str) -> str:
    """A path, a setting or one word of a command, without where and by whom it was made.

    Of absolute paths and addresses the last part is left; names of the user and of the machine become "...".
    """
    short = PLACE.sub("", text)
    names = sorted(_own_names(), key=len, reverse=True)
    pattern = rf"(?<![A-Za-z0-9])(?:{'|'.join(map(re.escape, names))})(?![A-Za-z0-9])"
    return re.sub(pattern, "...", short) if names else short


def _everywhere(data: Any) -> Any:
    """The same for all strings in nested data."""
    if isinstance(data, dict):
        return {key: (_typed_anywhere if key == "command" else _everywhere)(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_everywhere(value) for value in data]
    return without_places(data) if isinstance(data, str) else data


def _typed_anywhere(command: str) -> str:
    """A command, word by word: a place ends at its last slash, which the next word may hold."""
    return shlex.join(without_places(word) for word in shlex.split(command))


def _own_names() -> set[str]:
    """Of the user and of the machine, long and short."""
    host = socket.gethostname()
    names = {host, host.partition(".")[0], Path.home().name}
    with contextlib.suppress(OSError, KeyError):  # a user id without a name
        names.add(getpass.getuser())
    return names - TELL_NOTHING


class MetricsLog:
    """metrics.jsonl, one JSON object a line, and the same for TensorBoard in the folder tensorboard/.

    What comes after `step` is dropped when a cut run goes on from there.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        kept = []
        if path.is_file() and step:
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        write_text(path, "".join(kept))
        self._path, self._board = path, _Board(path.parent / "tensorboard", step + 1)

    def write(self, values: dict[str, Any]) -> None:
        """Append one line. A value is a number, None, or a dict of such values."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
        self._board.write(values["step"], {name: value for name, value in _scalars(values) if name != "step"})

    def read(self) -> list[dict[str, Any]]:
        """All lines."""
        return [json.loads(line) for line in self._path.read_text(encoding="utf-8").splitlines()]


class _Board:
    """An event file of TensorBoard's. Its own writer has a thread, which tells of a full disk in a traceback."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        folder.mkdir(exist_ok=True)
        self._file = folder / f"events.out.tfevents.{int(time.time()):010}.{uuid.uuid4().hex[:8]}"
        self._append(Event(file_version="brain.Event:2"))
        # What other files of the folder say of this step and later ones is to be forgotten.
        self._append(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, numbers: dict[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=number) for name, number in numbers.items()]
        self._append(Event(step=step, summary=Summary(value=values)))

    def _append(self, event: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        event.wall_time = time.time()
        with self._file.open("ab") as file:
            RecordWriter(file).write(event.SerializeToString())


def _scalars(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """All numbers of nested dicts, as TensorBoard names them: diagnosis/classes/fence/consistent."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _scalars(value, f"{prefix}{name}/")
        elif value is not None:
            yield prefix + name, value
