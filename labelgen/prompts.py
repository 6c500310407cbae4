"""Sentences about classes: every name put into every template, and which of them speak for a class.

Shapes: C classes, P sentences, D embedding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labelgen.files import TOML_BYTES, read_text, read_toml
from labelgen.samples import ClassSet, InputError

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


@dataclass(frozen=True)
class Sentence:
    """One name of a class (by train id) in one template."""

    class_id: int
    name: str
    template: str

    def __str__(self) -> str:
        return self.template.format(self.name)


def read_templates(path: str | Path) -> tuple[str, ...]:
    """Templates from a text file: one a line, each with one {}; blank lines and # comments are skipped.

    Raises InputError for a file without templates or a line without exactly one {}.
    """
    try:
        lines = [line.strip() for line in read_text(path, TOML_BYTES).splitlines()]
    except FileNotFoundError as error:
        raise InputError(f"no file {path} of templates") from error
    templates = tuple(line for line in lines if line and not line.startswith("#"))
    for template in templates:
        check_template(template, f"{path}: ")
    if not templates:
        raise InputError(f"{path} holds no template; write one a line, such as 'a photo of a {{}}.'")
    return templates


def check_template(template: str, where: str = "") -> None:
    """Raise InputError for what is no template. where: what the message begins with."""
    if template.count("{}") != 1 or template.count("{") + template.count("}") != 2:
        raise InputError(f"{where}a template needs exactly one {{}}, got {template!r}")


def read_prompts(path: str | Path, classes: ClassSet) -> ClassSet:
    """The classes with other names to prompt with, from a TOML file: `sign = ["traffic sign", "sign symbol"]`.

    Classes that the file leaves out keep theirs. Raises InputError for an unknown class or an empty list.
    """
    try:
        tree = read_toml(path)
    except FileNotFoundError as error:
        raise InputError(f"no file {path} of prompts") from error
    for name, synonyms in tree.items():
        if name not in classes.names:
            raise InputError(f"{path}: unknown class {name!r}; known: {', '.join(classes.names)}")
        if not isinstance(synonyms, list) or not synonyms or not all(isinstance(s, str) and s for s in synonyms):
            raise InputError(f"{path}: {name} needs a list of names, such as ['traffic sign'], got {synonyms!r}")
    pairs = zip(classes.names, classes.prompts, strict=True)
    return replace(classes, prompts=tuple(tuple(tree.get(name, given)) for name, given in pairs))


def sentences(names: Sequence[Sequence[str]], templates: Sequence[str] = TEMPLATES) -> list[list[str]]:
    """For each class, every one of its names in every template: what `DenseCLIP.encode_text` takes."""
    return [[template.format(name) for name in synonyms for template in templates] for synonyms in names]


def spell_out(names: Sequence[Sequence[str]], templates: Sequence[str] = TEMPLATES) -> list[Sentence]:
    """The same as one list, where each sentence knows what it is made of."""
    return [
        Sentence(class_id, name, template)
        for class_id, synonyms in enumerate(names)
        for name in synonyms
        for template in templates
    ]


def class_weights(said: Sequence[Sentence], vectors_PD: NDArray[np.float32], classes: int) -> NDArray[np.float32]:
    """weights_CP such that weights @ vectors are the unit text vectors of the classes.

    A class is the normalised mean of its sentences' unit vectors; because that is linear up to its norm, the same
    weights turn logits of sentences into logits of classes. Raises InputError for a class without a sentence.
    """
    weights_CP = np.zeros((classes, len(said)), np.float32)
    weights_CP[[sentence.class_id for sentence in said], np.arange(len(said))] = 1
    if not weights_CP.any(1).all():
        raise InputError(f"no sentence is left for class {int(weights_CP.any(1).argmin())}; choose at least one")
    norm_C1 = np.linalg.norm(weights_CP @ vectors_PD, axis=1, keepdims=True)
    return np.asarray(weights_CP / norm_C1, np.float32)


def choose(
    said: Sequence[Sentence],
    class_names: Sequence[str],
    names: Mapping[str, Sequence[str]] | None = None,
    templates: Sequence[str] | None = None,
) -> list[int]:
    """Which sentences (by place) use the given names for the given classes, and the given templates.

    Raises InputError for a class, name or template that no sentence has.
    """
    names = names or {}
    known_names = {(class_names[s.class_id], s.name) for s in said}
    for class_name, wanted in names.items():
        for name in wanted:
            if (class_name, name) not in known_names:
                cached = sorted(name for of, name in known_names if of == class_name)
                raise InputError(f"{name!r} is not among the cached names of {class_name!r}: {', '.join(cached)}")
    known_templates = {s.template for s in said}
    for template in templates or ():
        if template not in known_templates:
            raise InputError(f"{template!r} is not among the cached templates: {', '.join(sorted(known_templates))}")
    return [
        place
        for place, s in enumerate(said)
        if (class_names[s.class_id] not in names or s.name in names[class_names[s.class_id]])
        and (templates is None or s.template in templates)
    ]
