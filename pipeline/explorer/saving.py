"""Words and tags as the files that `carbseg labels` takes.

OUT/prompts.toml      names for the classes
OUT/templates.txt     templates, where they are not carbseg's own
OUT/tags.csv          image-level labels of all images
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from labelgen.prompts import TEMPLATES, read_prompts, read_templates
from labelgen.samples import ClassSet, InputError, Sample
from labelgen.store import PseudoLabelStore
from pipeline.datasets.tags import TagConfig
from pipeline.explorer.images import Images
from pipeline.explorer.reproduction import MASKCLIP, Options, Reproduction
from pipeline.explorer.tags import Tags, as_csv
from pipeline.explorer.words import Words
from pipeline.runs import write_text

PROMPTS, TEMPLATES_FILE, TAGS = "prompts.toml", "templates.txt", "tags.csv"


class ConflictError(InputError):
    """A file is there that this session has not written."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is there already and was not written here; replace it, or move it away")
        self.path = path


class Files:
    """The files of a session in a folder. One that it has not written as it is now is not overwritten unasked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._written: dict[Path, bytes] = {}

    def write_words(self, words: Words, classes: ClassSet, *, replace: bool) -> list[Path]:
        """prompts.toml; templates.txt, too, where the templates are not carbseg's own. Raises ConflictError."""

        def keeps_names(draft: Path) -> bool:
            return read_prompts(draft, classes).prompts == words.names

        def keeps_templates(draft: Path) -> bool:
            return read_templates(draft) == words.templates

        files = [self._write(PROMPTS, words.as_toml(classes.names), keeps_names, replace)]
        if words.templates != TEMPLATES:
            files.append(self._write(TEMPLATES_FILE, words.templates_text(), keeps_templates, replace))
        return files

    def write_tags(
        self,
        samples: Sequence[Sample],
        tags: Mapping[str, Sequence[int]],
        classes: ClassSet,
        reread: Callable[[Path], Mapping[str, Sequence[int]]],
        *,
        replace: bool,
    ) -> Path:
        """tags.csv of the images whose tags are known. reread: what a file of tags says, by image id."""
        text = as_csv(samples, tags, classes.names)
        return self._write(TAGS, text, lambda draft: reread(draft) == tags, replace)

    def _write(self, name: str, text: str, keeps: Callable[[Path], bool], replace: bool) -> Path:
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
        write_text(path, text)
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
        self._tags_file: Path | None = None
        self.saved_tags: dict[int, list[int]] = {}  # of the rows that were changed when they were saved

    def save(
        self, words: Words, tags: Tags, *, wants_words: bool = False, wants_tags: bool = False, replace: bool
    ) -> dict[str, Any]:
        """Write the words or the tags, and say the command that takes them. Raises ConflictError, InputError."""
        again = Reproduction(self._options, self._store, self._split)
        files, notes = [], []
        prompts, templates = None, None
        if wants_words or words != again.words():
            prompts, *rest = self._files.write_words(words, self._classes, replace=replace)
            templates = rest[0] if rest else None
            files += [prompts, *rest]
        if wants_tags or (self._tags_file is None and not again.has_same_tags()):
            known = self._known_tags(tags)
            samples = list(self._images.all.values())
            self._tags_file = self._files.write_tags(samples, known, self._classes, self._reread, replace=replace)
            self.saved_tags = dict(tags.changed)
            files.append(self._tags_file)
            if len(known) < len(samples):
                notes.append(
                    f"nobody knows the tags of {len(samples) - len(known)} images: add them to {self._tags_file}"
                )
        elif tags.changed != self.saved_tags:
            notes.append("tags that were changed since they were saved are not in it")
        if wants_tags and again.engine != MASKCLIP:
            notes.append(f"{again.engine} looks at the tags, too: its scores will not be those that the page shows")
        return {
            "file": str(files[-1] if wants_tags else prompts),
            "files": [str(file) for file in files],
            "command": again.command(prompts, templates, self._tags_file),
            "note": "; ".join(notes),
        }

    def _known_tags(self, tags: Tags) -> dict[str, list[int]]:
        """Of the images of the store as they are now, of those that are not made yet as they are given; by id."""
        samples, is_made_N = self._images.all, self._store.is_written()
        known = {}
        if not is_made_N.all():
            given = self._options.run().samples(self._split, with_tags=True)
            known = {sample["image_id"]: sample["image_labels"] or [] for sample in given}
        for row in np.flatnonzero(is_made_N).tolist():
            known[self._store.image_ids[row]] = tags.of(row)
        return {image_id: present for image_id, present in known.items() if present and image_id in samples}

    def _reread(self, draft: Path) -> dict[str, list[int]]:
        """What a file of tags says."""
        read = self._images.spec.list_samples(self._images.root, self._split, tags=TagConfig(file=str(draft)))
        return {sample["image_id"]: sample["image_labels"] for sample in read if sample["image_labels"]}
