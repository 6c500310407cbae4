"""The command that makes in a terminal what the page shows."""

import json
import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelgen.layout import differences
from labelgen.store import PseudoLabelStore
from pipeline.datasets.tags import GUESSED, as_setting
from pipeline.explorer.words import Words

if TYPE_CHECKING:
    from pipeline.stages.run import Run

MASKCLIP, TINY_CLIP = "maskclip", "tiny"


@dataclass(frozen=True)
class Options:
    """What the explorer was called with: what a Run is made of, once CLIP or a command is asked for."""

    dataset: str
    data_root: str | None
    clip: str | None
    out: str
    stores: str | None = None
    config: str | None = None
    settings: tuple[str, ...] = ()
    tags: str | None = None  # a file, "auto" or "model"

    def run(self, engine: str | None = None) -> "Run":
        """Imports torch. Raises InputError."""
        from pipeline.stages.run import Run

        settings = self.settings if self.tags is None else (*self.settings, as_setting(self.tags))
        return Run.of(self.dataset, self.data_root, self.clip, self.out, self.stores, self.config, settings, engine)


class Reproduction:
    """A run in a new folder, as the explorer was called, beside what a store was made with. Imports torch.

    Raises InputError for a store that was not made of images.
    """

    def __init__(self, options: Options, store: PseudoLabelStore, split: str) -> None:
        self._about, self._split = store.provenance, split
        self.engine = str(self._about.get("engine", {}).get("name", MASKCLIP))
        self._options = replace(options, out=_free(options.out), stores=None)
        self._run = self._options.run(self.engine)
        self._settings = settings_of(store)

    def words(self) -> Words:
        """Those that such a run would use."""
        from labelgen.generate import read_words

        classes, templates = read_words(self._run.spec.classes, self._run.config.labels)
        return Words(classes.prompts, templates)

    def has_same_tags(self) -> bool:
        """Whether such a run would take the same image-level labels, whatever the words are."""
        was, tags = self._about["image_labels"], self._run.config.tags
        now = asdict(tags) | {"file": Path(tags.file).name}
        return bool(was["source"] == "none" or (was == now and not tags.is_guessed))

    def command(self, prompts: Path | None, templates: Path | None, tags: Path | None) -> str:
        """For a shell. Of files that are None, what the explorer was called with is taken."""
        from pipeline.config import as_tree

        given = self._options if tags is None else replace(self._options, tags=str(tags))
        was = as_tree(self._run.config)
        wanted: dict[str, Any] = {name: was[name] | self._settings.get(name, {}) for name in was}
        if prompts is not None:
            wanted["labels"] |= {"prompts": str(prompts), "templates": "" if templates is None else str(templates)}
        if tags is not None and self._run.config.tags.is_guessed and self._options.tags not in GUESSED:
            wanted["tags"]["source"] = "data"
        changed = [f"{key}={_as_toml(value)}" for key, _, value in differences(_plain(was), _plain(wanted))]
        words = ["carbseg", "labels", "--dataset", given.dataset]
        for option, value, default in (
            ("--data-root", given.data_root, None),
            ("--clip", given.clip, TINY_CLIP),
            ("--engine", self.engine, MASKCLIP),
            ("--out", given.out, None),
            ("--split", self._split, "train"),
            ("--config", given.config, None),
            ("--tags", given.tags, None),
        ):
            if value != default:
                words += [option, str(value)]
        for setting in (*given.settings, *changed):
            words += ["--set", setting]
        return shlex.join(words)


def settings_of(store: PseudoLabelStore) -> dict[str, dict[str, Any]]:
    """The settings, by section, that decided what is in a store; but for words and tags, which are files.

    Imports torch. Raises InputError for a student's predictions.
    """
    from labelgen.engines.table import section
    from labelgen.generate import SPEED_ONLY
    from pipeline.explorer.looking import label_config

    about = store.provenance
    files = ("engine", "prompts", "templates")
    known = asdict(label_config(store))
    labels = {name: value for name, value in known.items() if name not in (*SPEED_ONLY, *files)}
    regions = {name: value for name, value in about.get("regions", {}).items() if name != "weights_sha256"}
    sections = {"labels": labels, "regions": regions}
    engine = about.get("engine", {"name": MASKCLIP, "settings": {}})
    is_fused = "+" in engine["name"]
    return sections | (engine["settings"] if is_fused else {section(engine["name"]): engine["settings"]})


def _free(out: str) -> str:
    """A run folder beside OUT that is not there yet."""
    names = (f"{out.rstrip('/')}-explored{number}" for number in ("", *(f"-{n}" for n in range(2, 10_000))))
    return next(name for name in names if not Path(name).exists())


def _plain(tree: Any) -> Any:
    """As JSON gives it back, which knows no tuples."""
    return json.loads(json.dumps(tree))


def _as_toml(value: Any) -> str:
    return "none" if value is None else json.dumps(value)
