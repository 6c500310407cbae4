"""What a run leaves in its folder: checkpoints that a cut run goes on from, and finished models, whole or not there."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from labelgen.layout import differences
from labelgen.samples import InputError

CHECKPOINTS = "checkpoint-*.pt"


@contextlib.contextmanager
def _writing(path: Path, kind: type[Exception]) -> Iterator[None]:
    """Raises InputError for errors of this kind: libraries that do not write through Python have their own."""
    try:
        yield
    except kind as error:
        raise InputError(
            f"{path} cannot be written: {error}; its disk may be full or read-only: see to it, and give the same "
            "command again"
        ) from error


def write_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int) -> None:
    """Write a checkpoint whole or not at all, and remove all but the newest `keep`."""
    path = folder / CHECKPOINTS.replace("*", f"{step:08d}")
    partial = path.with_name(path.name + ".partial")
    with _writing(path, RuntimeError):
        torch.save({"step": step} | state, partial)
    partial.replace(path)
    for old in sorted(folder.glob(CHECKPOINTS))[:-keep]:
        old.unlink()


def read_checkpoint(folder: Path, made_with: dict[str, Any]) -> dict[str, Any] | None:
    """The newest checkpoint in the folder, if there is one. Raises InputError for a broken one, or another run's."""
    path = last_checkpoint(folder)
    if path is None:
        return None
    state = load_checkpoint(path)
    require_made_with(folder, state["made_with"], made_with)
    return state


def require_made_with(folder: Path, was: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise InputError where a run differs from the one in the folder in what decides its outcome."""
    for key, before, value in differences(was, now):
        raise InputError(
            f"{folder} was trained with {key} = {before!r}, not {value!r}; delete that folder to start anew"
        )


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints, of a run that has ended."""
    for path in folder.glob(CHECKPOINTS):
        path.unlink()


def last_checkpoint(folder: str | Path) -> Path | None:
    """The newest checkpoint of a run, if there is one."""
    return max(Path(folder).glob(CHECKPOINTS), default=None)


def saved_step(folder: str | Path) -> int:
    """The step at which a cut run would go on: 0 without a checkpoint."""
    path = last_checkpoint(folder)
    return int(load_checkpoint(path)["step"]) if path is not None else 0


def load_checkpoint(path: Path) -> dict[str, Any]:
    """All of a checkpoint, on the CPU. Raises InputError for a broken one."""
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a broken file raises zipfile's, pickle's or torch's own errors
        raise InputError(f"{path} cannot be read; delete it to go on from the one before, or anew") from error


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, under another name: it takes the place of `folder` when all is written.

    Its files may be read by whoever may read the folder: safetensors leaves them to their owner alone.
    """
    partial, old = (folder.with_name(folder.name + end) for end in (".partial", ".old"))
    for left in (partial, old):  # by a run that was cut
        shutil.rmtree(left, ignore_errors=True)
    with _writing(folder, SafetensorError):
        yield partial
        mode = partial.stat().st_mode & 0o666  # as the umask lets a new file be
        for file in partial.iterdir():
            file.chmod(mode)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
