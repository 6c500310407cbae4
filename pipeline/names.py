"""Looking up names that people type."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

from labelgen.samples import InputError

T = TypeVar("T")


def look_up(known: Mapping[str, T], name: str, what: str) -> T:
    """known[name]. Raises InputError that names the nearest known one, and lists them all."""
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(f"unknown {what} {name!r}; {hint}known: {', '.join(known)}")
