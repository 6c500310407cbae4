"""Sentences about classes: every name put into every template (METHOD: names x templates -> one vector a class)."""

from collections.abc import Sequence
from pathlib import Path

from labelgen.samples import InputError

# Short and plain: what a caption of a photo of a street might say.
TEMPLATES: tuple[str, ...] = (
    "{}.",
    "the {}.",
    "a {}.",
    "a photo of a {}.",
    "a photo of the {}.",
    "a picture of a {}.",
    "an image of the {}.",
    "a good photo of a {}.",
    "a bad photo of a {}.",
    "a blurry photo of a {}.",
    "a dark photo of the {}.",
    "a bright photo of the {}.",
    "a close up of a {}.",
    "a cropped photo of a {}.",
    "a photo of a small {}.",
    "a photo of a large {}.",
    "a photo of one {}.",
    "a photo of many {}.",
    "a {} in the city.",
    "a {} on the street.",
    "a {} seen from a car.",
    "a {} in the distance.",
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
)


def read_templates(path: str | Path) -> tuple[str, ...]:
    """Templates from a text file: one a line, each with one {}; blank lines and # comments are skipped.

    Raises InputError for a file without templates or a line without exactly one {}.
    """
    lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    templates = tuple(line for line in lines if line and not line.startswith("#"))
    for template in templates:
        if template.count("{}") != 1:
            raise InputError(f"{path}: a template needs exactly one {{}}, got {template!r}")
    if not templates:
        raise InputError(f"{path} holds no template; write one a line, such as 'a photo of a {{}}.'")
    return templates


def sentences(names: Sequence[Sequence[str]], templates: Sequence[str] = TEMPLATES) -> list[list[str]]:
    """For each class, every one of its names in every template."""
    return [[template.format(name) for name in synonyms for template in templates] for synonyms in names]
