"""Reading files that others wrote: of a limited size, as bytes, text, TOML, JSON or CSV; a broken one is an InputError.

All raise FileNotFoundError (or another OSError) for a file that cannot be opened.
"""

import csv
import io
import json
import os
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from labelgen.samples import InputError

TOML_BYTES = 1 << 18  # settings, classes, prompts; time grows with the square of dots in a key, to 14 s for so many
LIST_BYTES = 1 << 28  # lines about images: some 250 bytes for each of a million


def read_bytes(path: str | Path, most: int) -> bytes:
    """All of a file. Raises InputError for one of more than `most` bytes."""
    with Path(path).open("rb") as file:
        # A pipe has no size, and a file may grow.
        if os.fstat(file.fileno()).st_size > most or len(data := file.read(most + 1)) > most:
            raise InputError(f"{path} is larger than {most:,} bytes, the most that is read of such a file")
    return data


def read_text(path: str | Path, most: int = LIST_BYTES) -> str:
    """The text of a UTF-8 file, with or without its mark. Raises InputError for other bytes."""
    try:
        return read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; save it as UTF-8") from error


def read_toml(path: str | Path) -> dict[str, Any]:
    """A file of settings. Raises InputError."""
    text = read_text(path, TOML_BYTES)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # of numbers of 5,000 digits, and brackets in brackets
        raise InputError(f"{path} is no valid TOML: {error}") from error


def read_json(path: str | Path, **options: Any) -> Any:
    """What a JSON file holds. options: of json.loads. Raises InputError."""
    text = read_text(path)
    try:
        return json.loads(text, **options)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no valid JSON: {error}") from error


def read_csv(path: str | Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Number and fields of each line of a CSV file that begins with the names of its columns. Raises InputError."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        if not set(columns) <= set(reader.fieldnames or ()):
            raise InputError(f"{path} must begin with the line '{','.join(columns)}'")
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:  # a field of more than 131,072 characters, as an open quote makes one
        raise InputError(f"{path}, line {reader.line_num}: {error}") from error
