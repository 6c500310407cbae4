"""Words and tags as the files that `carbseg labels` takes.

OUT/prompts.toml      names for the classes
OUT/templates.txt     templates, where they are not carbseg's own
OUT/tags.csv          image-level labels of all images
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np

from labelgen.prompts import TEMPLATES, read_prompts, read_templates
from labelgen.samples import ClassSet, InputError
from labelgen.store import PseudoLabelStore
from pipeline.datasets.tags import TagConfig
from pipeline.explorer.images import Images
from pipeline.explorer.reproduction import MASKCLIP, Options, Reproduction
from pipeline.explorer.tags import Tags, as_csv
from pipeline.explorer.words import Words
from pipeline.runs import write_text

PROMPTS, TEMPLATES_FILE, TAGS = "prompts.toml", "templates.txt", "tags.csv"


T = TypeVar("T")


class ConflictError(InputError):
    """A file is there that the explorer has not written."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is there already and was not written by the explorer; replace it, or move it away")
        self.path = path


class Files:
    """The files in a folder. One that the explorer has not written as it is now is not overwritten unasked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._written: dict[Path, bytes] = {}

    def read(self, name: str, parse: Callable[[Path], T], spell: Callable[[T], str]) -> T | None:
        """What a file says that the explorer wrote in an earlier session: spelled again, it is the same text.

        None where there is none, or somebody else's. Raises InputError for a broken one.
        """
        path = self.folder / name
        if not path.is_file():
            return None
        text, said = path.read_bytes(), parse(path)
        if spell(said).encode(errors="backslashreplace") != text:
            return None
        self._written[path] = text
        return said

    def has_written(self, name: str) -> bool:
        """Whether a file is the explorer's."""
        return self.folder / name in self._written

    def write(self, name: str, text: str, keeps: Callable[[Path], bool], *, replace: bool) -> Path:
        """Write a file whole. keeps: whether a draft of it says what it should. Raises ConflictError, InputError."""
        path = self.folder / name
        with TemporaryDirectory() as folder:
            draft = Path(folder) / name
            write_text(draft, text)
            if not keeps(draft):
                raise InputError(f"{path} would not say what the page shows: a name holds what the file cannot")
            fresh = draft.read_bytes()
        if path.exists() and not replace and path.read_bytes() not in (fresh, self._written.get(path)):
            raise ConflictError(path)
        try:
            write_text(path, text)
        except OSError as error:
            raise InputError(f"cannot write {path} ({error.strerror}); see to it, and save again") from error
        self._written[path] = fresh
        return path


class Keeper:
    """Writes into OUT what was changed, and whatever else the command needs that the explorer was not called with."""

    def __init__(
        self, options: Options, store: PseudoLabelStore, split: str, images: Images, classes: ClassSet
    ) -> None:
        self._options, self._store, self._split = options, store, split
        self._images, self._classes = images, classes
        self._files = Files(Path(options.out))

    def kept_words(self, words: Words) -> Words:
        """Those of an earlier session; as given where there are none. Raises InputError for a broken file."""
        kept = self._files.read(
            PROMPTS,
            lambda path: dataclasses.replace(words, names=read_prompts(path, self._classes).prompts),
            lambda said: said.as_toml(self._classes.names),
        )
        if kept is None:
            return words
        given = kept
        whole = self._files.read(
            TEMPLATES_FILE,
            lambda path: dataclasses.replace(given, templates=read_templates(path)),
            Words.templates_text,
        )
        return whole or kept

    def kept_tags(self) -> dict[int, list[int]]:
        """Those of an earlier session, by row; none where there are none. Raises InputError for a broken file."""
        kept = self._files.read(TAGS, self._read_tags, self._spell_tags) or {}
        rows = {image_id: row for row, image_id in enumerate(self._store.image_ids)}
        return {rows[image_id]: tags for image_id, tags in kept.items() if image_id in rows}

    def save(self, words: Words, tags: Tags, *, replace: bool) -> dict[str, Any]:
        """Write words and tags, where a run as the explorer was called would have others; say the command with them.

        Raises ConflictError, InputError.
        """
        again = Reproduction(self._options, self._store, self._split)
        prompts = templates = tags_file = None
        notes = []
        if words != again.words() or self._files.has_written(PROMPTS):
            prompts = self._files.write(
                PROMPTS,
                words.as_toml(self._classes.names),
                lambda draft: read_prompts(draft, self._classes).prompts == words.names,
                replace=replace,
            )
            if words.templates != TEMPLATES or self._files.has_written(TEMPLATES_FILE):
                templates = self._files.write(
                    TEMPLATES_FILE,
                    words.templates_text(),
                    lambda draft: read_templates(draft) == words.templates,
                    replace=replace,
                )
        if tags.changed or not again.has_same_tags() or self._files.has_written(TAGS):
            known = self._known_tags(tags)
            tags_file = self._files.write(
                TAGS, self._spell_tags(known), lambda draft: self._read_tags(draft) == known, replace=replace
            )
            unknown = len(self._images.all) - len(known)
            if unknown:
                notes.append(f"nobody knows the tags of {unknown} images: add them to {tags_file}")
            if again.engine != MASKCLIP:
                notes.append(f"{again.engine} looks at the tags, too: its scores will not be those that the page shows")
        tags.mark_saved()
        return {
            "files": [str(file) for file in (prompts, templates, tags_file) if file],
            "command": again.command(prompts, templates, tags_file),
            "note": "; ".join(notes),
        }

    def _known_tags(self, tags: Tags) -> dict[str, list[int]]:
        """Of the images of the store as they are now, of those that are not made yet as they are given; by id."""
        samples, is_made_N = self._images.all, self._store.is_written()
        self._images.require_all()
        known = {}
        if not is_made_N.all():
            given = self._options.run().samples(self._split, with_tags=True)
            known = {sample["image_id"]: sample["image_labels"] or [] for sample in given}
        for row in np.flatnonzero(is_made_N).tolist():
            known[self._store.image_ids[row]] = tags.of(row)
        return {image_id: present for image_id, present in known.items() if present and image_id in samples}

    def _spell_tags(self, tags: dict[str, list[int]]) -> str:
        return as_csv(list(self._images.all.values()), tags, self._classes.names)

    def _read_tags(self, file: Path) -> dict[str, list[int]]:
        """What a file of tags says, by image id."""
        read = self._images.spec.list_samples(self._images.root, self._split, tags=TagConfig(file=str(file)))
        return {sample["image_id"]: sample["image_labels"] for sample in read if sample["image_labels"]}
