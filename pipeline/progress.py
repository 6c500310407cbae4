"""Progress bars with rate and time left, on standard error."""

import sys
from collections.abc import Callable
from typing import NoReturn

from tqdm import tqdm

from pipeline.names import printable


def progress(total: int, what: str, unit: str, *, shown: bool = True) -> "tqdm[NoReturn]":
    """A bar that counts `unit`s. Where nobody watches (a log file), it prints a line now and then."""
    watched = sys.stderr.isatty()
    return tqdm(
        total=total,
        disable=not shown,
        desc=what,
        unit=f" {unit}",
        mininterval=0.2 if watched else 10,
        dynamic_ncols=watched,
        ascii=not watched,
    )


def follow(bar: "tqdm[NoReturn]") -> Callable[[int], None]:
    """Moves a bar to a count; what was there at the first call does not count for the rate."""
    seen: list[int] = []

    def move(count: int) -> None:
        if not seen:
            bar.initial = bar.n = count
        seen[:] = [count]
        bar.update(count - bar.n)

    return move


def say(text: str) -> None:
    """A line on standard output that does not tear a bar apart."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


def warn(text: str) -> None:
    """A line on standard error: nothing is wrong, but what comes out may not be what is wanted."""
    tqdm.write(f"Warning: {printable(text)}", file=sys.stderr)


def duration(seconds: float) -> str:
    """A time that somebody waits: "45 s", "3 min", "2.5 h"."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
