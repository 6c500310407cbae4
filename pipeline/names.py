"""Looking up names that people type, and showing those that strangers' files brought."""

import difflib
import unicodedata
from collections.abc import Mapping
from typing import TypeVar

from labelgen.samples import InputError

T = TypeVar("T")
HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control characters, marks of direction, bytes that are no UTF-8, line ends


def look_up(known: Mapping[str, T], name: str, what: str) -> T:
    """known[name]. Raises InputError that names the nearest known one, and lists them all."""
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(f"unknown {what} {name!r}; {hint}known: {', '.join(known)}")


def printable(text: str) -> str:
    """The text with what moves a terminal's cursor, or changes its direction, spelled out as in Python; lines stay."""
    return "".join(_spelled(sign) if unicodedata.category(sign) in HIDDEN else sign for sign in text)


def _spelled(sign: str) -> str:
    return sign if sign == "\n" else sign.encode("unicode_escape").decode()
