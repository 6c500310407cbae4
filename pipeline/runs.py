"""The folder of a run: what it was made with, its log, and files that are whole or not there."""

import json
import platform
import re
import shlex
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("carbseg", "torch", "transformers", "accelerate", "datasets", "numpy", "opencv-python", "zarr")


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


class MetricsLog:
    """metrics.jsonl, one JSON object a line, and the same for TensorBoard in the folder tensorboard/.

    What comes after `step` is dropped when a cut run goes on from there.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        kept = []
        if path.is_file() and step:
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(kept), encoding="utf-8")
        self._path = path
        from torch.utils.tensorboard import SummaryWriter

        self._board: Any = SummaryWriter(path.parent / "tensorboard", purge_step=step + 1)

    def write(self, values: dict[str, Any]) -> None:
        """Append one line. A value is a number, None, or a dict of such values."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
        for name, number in _scalars(values):
            if name != "step":
                self._board.add_scalar(name, number, values["step"])

    def read(self) -> list[dict[str, Any]]:
        """All lines; what TensorBoard should know is on disk then."""
        self._board.flush()
        return [json.loads(line) for line in self._path.read_text(encoding="utf-8").splitlines()]


def _scalars(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """All numbers of nested dicts, as TensorBoard names them: diagnosis/classes/fence/consistent."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _scalars(value, f"{prefix}{name}/")
        elif value is not None:
            yield prefix + name, value
