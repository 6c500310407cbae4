"""Words: the names and templates that speak for the classes, as the page sends them and as files keep them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labelgen.prompts import Sentence, check_template
from labelgen.samples import InputError
from pipeline.names import look_up

SAVED = "saved"  # the version that the store was made in
MOST_SENTENCES, LONGEST = 5000, 200
HEADER = "# Made with 'carbseg explore'.\n"


@dataclass(frozen=True)
class Words:
    """names: for each class those that are put into the templates. One class more is a word that is only asked."""

    names: tuple[tuple[str, ...], ...]
    templates: tuple[str, ...]

    @classmethod
    def read(cls, data: Mapping[str, Any], classes: Sequence[str], before: "Words") -> "Words":
        """From {"classes": {NAME: [word, ...]}, "templates": [...]}; what is left out is as before.

        Raises InputError for an unknown class, no word, a broken template, and what a text file would not keep.
        """
        asked, templates = data.get("classes", {}), data.get("templates", list(before.templates))
        if not isinstance(asked, Mapping):
            raise InputError('classes must be an object such as {"car": ["car", "van"]}')
        names = list(before.names)
        for name, words in asked.items():
            place = look_up({known: place for place, known in enumerate(classes)}, name, "class")
            names[place] = _texts(words, f"words for {name!r}")
        chosen = before.templates if templates == [*before.templates] else _texts(templates, "templates")
        for template in chosen:
            check_template(template)
            if template.startswith("#"):
                raise InputError(f"a template cannot begin with #, got {template!r}")
        if sum(map(len, names)) * len(chosen) > MOST_SENTENCES:
            raise InputError(f"these are more than {MOST_SENTENCES} sentences; use fewer words or templates")
        return cls(tuple(names), chosen)

    def in_order_of(self, said: Sequence[Sentence]) -> "Words":
        """The same, names and templates in the order of those sentences; what they do not hold comes last."""
        names = [[sentence.name for sentence in said if sentence.class_id == c] for c in range(len(self.names))]
        templates = [sentence.template for sentence in said]
        ordered = tuple(_in_order_of(known, some) for known, some in zip(names, self.names, strict=True))
        return Words(ordered, _in_order_of(templates, self.templates))

    def asking(self, word: object) -> "Words":
        """The same, and one class more of that word. Raises InputError for no word."""
        return Words((*self.names, _texts([word], "word")), self.templates)

    def as_toml(self, classes: Sequence[str]) -> str:
        """For labels.prompts."""
        rows = zip(classes, self.names, strict=True)
        lines = [f"{_quoted(name)} = [{', '.join(map(_quoted, words))}]\n" for name, words in rows]
        return HEADER + "".join(lines)

    def templates_text(self) -> str:
        """For labels.templates."""
        return HEADER + "".join(f"{template}\n" for template in self.templates)


def _texts(texts: object, what: str) -> tuple[str, ...]:
    """What was typed, without blanks around it, each once."""
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{what} must be a list of texts")
    typed = tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))
    if not typed:
        raise InputError(f"{what}: give at least one")
    bad = next((text for text in typed if not text.isprintable() or len(text) > LONGEST), None)
    if bad is not None:
        raise InputError(f"{what}: {bad[:20]!r}... must be one line of at most {LONGEST} characters")
    return typed


def _in_order_of(known: Sequence[str], texts: Sequence[str]) -> tuple[str, ...]:
    first = {text: place for place, text in reversed([*enumerate(known)])}
    return tuple(sorted(texts, key=lambda text: first.get(text, len(known))))


def _quoted(text: str) -> str:
    """As TOML has it, which differs from JSON in one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


class Versions:
    """Words that were typed, by a short name each; the same words have the same one, the oldest are forgotten."""

    def __init__(self, saved: Words, most: int = 64) -> None:
        self._known, self._most = {SAVED: saved}, most
        self._count = 0

    def add(self, words: Words) -> str:
        """Its name: "saved" for the store's own words."""
        name = next((name for name, known in self._known.items() if known == words), "")
        if not name:
            self._count += 1
            name = f"w{self._count}"
            self._known[name] = words
            if len(self._known) > self._most:
                del self._known[next(known for known in self._known if known != SAVED)]
        return name

    def __getitem__(self, name: str) -> Words:
        if name not in self._known:
            raise InputError(f"words {name!r} are not remembered; change them once more")
        return self._known[name]
