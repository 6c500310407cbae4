"""What happens to a process at its moment: each is called inside of it, in whatever thread has touched a file."""

import os
import resource
import signal
import time
from pathlib import Path


def send(number: signal.Signals) -> None:
    """A signal from outside."""
    os.kill(os.getpid(), number)


def fill_disk(room: int) -> None:
    """From now on no file grows beyond so many bytes.

    What a full disk is to a process, without a file system that one needs privileges for: writes fail in the kernel,
    those of C++ and Rust too, after some bytes or none. They fail with EFBIG in place of ENOSPC.
    """
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))


def make_read_only(folder: Path) -> None:
    """Nothing in the folder can be made, changed or removed any more."""
    set_writable(folder, False)


def set_writable(folder: Path, allowed: bool) -> None:
    """Give or take the permission to write, in the folder and all below."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200 if allowed else path.stat().st_mode & ~0o222)


def vanish(path: Path) -> None:
    """The file or folder is gone; `come_back` brings it back."""
    path.rename(_away(path))


def come_back(path: Path) -> None:
    """Undo `vanish`, if it came to that."""
    if _away(path).exists():
        _away(path).rename(path)


def _away(path: Path) -> Path:
    return path.with_name(f"{path.name}.away")


def jump_clock(seconds: float, folders: tuple[Path, ...], *, is_last: bool) -> None:
    """The clock is set, forward or back; so are the times of all files, as if the clock had been wrong before.

    is_last: and the process has to end, so that another one goes on under another clock.
    """
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + seconds
    time.time_ns = lambda: now_ns() + int(seconds * 1e9)
    for folder in folders:
        for path in folder.rglob("*"):
            status = path.stat()
            os.utime(path, (status.st_atime + seconds, status.st_mtime + seconds))
    if is_last:
        send(signal.SIGTERM)
