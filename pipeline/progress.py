"""Progress bars with rate and time left, on standard error."""

import sys
from typing import NoReturn

from tqdm import tqdm


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
