"""carbseg doctor --run: whether the folder of a run is whole and agrees with itself, and what to do where it does not.

A check is a function from the folder to its findings, each one line: what is wrong; what to do. **Add a check here**,
to CHECKS. Nothing in the folder is changed, and a run may be at any stage: what is not there yet is no finding, what
was begun and not ended is one.
"""

import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from labelgen.engines.fit import NETWORK
from labelgen.engines.network import load_network
from labelgen.engines.one_pixel.engine import NAME as ONE_PIXEL
from labelgen.engines.one_pixel.fit import load_vectors
from labelgen.generate import made_differently
from labelgen.layout import MARKER, differences
from labelgen.samples import InputError
from labelgen.store import PseudoLabelStore
from labelgen.training.checkpoints import CHECKPOINTS, load_checkpoint
from labelgen.verify import verify
from pipeline.datasets.layouts import TRAIN_SPLIT
from pipeline.progress import progress
from pipeline.stages.comparing import read_scores
from pipeline.stages.labels import MASKCLIP
from pipeline.suggestion import read_kept
from segtrain.model import load_student

STUDENT, BEST, STORE = "student", "best", ".zarr"
UNREAD = ("maps", "panels", "sheets", "tensorboard")  # only pictures and logs
AS_BEFORE = "with the options of the first time"


class RunFolder:
    """What lies in the folder of a run and in the runs within it (rounds, seeds, engines)."""

    def __init__(self, out: Path) -> None:
        """Raises InputError where there is nothing of a run."""
        self.out = out
        self.folders: list[Path] = []  # `out` and all below, but stores and models
        self.store_paths: list[Path] = []
        self.models: list[Path] = []  # students, the best of them, fitted networks
        for name, below, _ in os.walk(out):
            folder = Path(name)
            self.folders.append(folder)
            self.store_paths += [folder / one for one in below if one.endswith(STORE) and not one.startswith(".")]
            self.models += [folder / one for one in below if one in (STUDENT, BEST, NETWORK)]
            left_out = (*UNREAD, STUDENT, BEST, NETWORK)
            below[:] = [one for one in sorted(below) if one not in left_out and not one.endswith((STORE, ".partial"))]
        if not (self.store_paths or self.models or self.trainings or self.tables):
            raise InputError(f"{out} is no run folder: no labels, students or scores in it; give the --out of a run")

    @cached_property
    def stores(self) -> dict[Path, PseudoLabelStore]:
        """Those that can be opened."""
        opened = {}
        for path in self.store_paths:
            try:
                opened[path] = PseudoLabelStore.open(path)
            except InputError:  # said by `check_stores`
                continue
        return opened

    @cached_property
    def trainings(self) -> list[Path]:
        """Folders with checkpoints."""
        return [folder for folder in self.folders if any(folder.glob(CHECKPOINTS))]

    @cached_property
    def checkpoints(self) -> dict[Path, tuple[int, dict[str, Any]] | InputError]:
        """Of each, in order of steps: its step and what its training was begun with, or why it cannot be read."""
        found: dict[Path, tuple[int, dict[str, Any]] | InputError] = {}
        for path in (path for folder in self.trainings for path in sorted(folder.glob(CHECKPOINTS))):
            try:
                state = load_checkpoint(path)
                found[path] = int(state["step"]), state["made_with"]
            except InputError as error:
                found[path] = error
        return found

    @property
    def made_with(self) -> dict[Path, tuple[int, dict[str, Any]]]:
        """By training: what its newest checkpoint says that can be read."""
        return {path.parent: about for path, about in self.checkpoints.items() if not isinstance(about, InputError)}

    @property
    def tables(self) -> list[Path]:
        """Files of scores."""
        return [path for folder in self.folders for name in TABLES if (path := folder / name).is_file()]

    @property
    def unfinished(self) -> list[Path]:
        """Trainings that have left no model yet."""
        return [folder for folder in self.trainings if not any((folder / end).is_dir() for end in (STUDENT, NETWORK))]

    def store_of(self, folder: Path, split: str = TRAIN_SPLIT) -> PseudoLabelStore | None:
        """The pseudo-labels that what is in a folder was made of: its own, or those of a folder above."""
        while folder.is_relative_to(self.out):
            if (store := self.stores.get(folder / "labels" / f"{split}{STORE}")) is not None:
                return store
            folder = folder.parent
        return None

    def __str__(self) -> str:
        free = _gb(shutil.disk_usage(self.out).free)
        counts = f"{len(self.store_paths)} stores, {len(self.models)} models, {len(self.tables)} tables of scores"
        return f"{self.out}: {counts}; {free} free"


Check = Callable[[RunFolder], Iterator[str]]


def examine(run: RunFolder) -> list[str]:
    """The findings of all checks, in their order."""
    return [finding for check in CHECKS for finding in check(run)]


def check_stores(run: RunFolder) -> Iterator[str]:
    """Stores are complete, and hold what was written."""
    for path in run.store_paths:
        if path not in run.stores:
            yield f"{path} is no pseudo-label store that can be read; delete it, and {_labels_again(path)}"
    for path, store in run.stores.items():
        try:
            with progress(len(store), f"verifying {path.name}", "images") as bar:
                damages = verify(store, bar.update)
            missing = int((~store.is_written()).sum())
        except InputError as error:
            yield str(error)
            continue
        if damages:
            redo = shlex.join(["carbseg", "labels", "verify", str(path), "--redo"])
            yield (
                f"{path}: {len(damages)} of {len(store.shards())} shards are damaged ({damages[0].reason}); "
                f"run '{redo}', then {_labels_again(path, store)}"
            )
        if missing:
            yield f"{path}: {missing} of {len(store)} images are still to be made; {_labels_again(path, store)}"


def check_checkpoints(run: RunFolder) -> Iterator[str]:
    """Checkpoints can be read, and trainings have ended."""
    yield from (str(error) for error in run.checkpoints.values() if isinstance(error, InputError))
    for folder in run.unfinished:
        step, _ = run.made_with.get(folder, (0, {}))
        yield f"{folder}: cut at step {step}; give the command that began it again, and it goes on from there"


def check_models(run: RunFolder) -> Iterator[str]:
    """Students and fitted networks are whole."""
    for folder in run.models:
        try:
            if folder.parent.name == ONE_PIXEL:
                load_vectors(folder)
            else:
                load_network(folder) if folder.name == NETWORK else load_student(folder)
        except InputError:
            remedy = f"delete {folder}, and give the command that made it again"
            if folder.name == STUDENT and folder.parent in run.made_with:
                remedy = "give the command that trained it again: it is written anew from the last checkpoint"
            yield f"{folder} cannot be read; {remedy}"


def check_settings(run: RunFolder) -> Iterator[str]:
    """Students, scores and the labels of other splits were made with what the training labels were made with."""
    for folder in run.folders:
        try:
            read_kept(folder)
        except InputError as error:
            yield str(error)
        store = run.store_of(folder)
        if store is None:
            continue
        for about, was, now in _told_otherwise(folder / "run.json", store):
            yield f"{folder / 'run.json'} says {about} = {now!r}, {store.path} was made with {was!r}; {_anew(folder)}"
    for path, store in run.stores.items():
        trained_on = run.store_of(path.parent.parent)
        if trained_on is not None and trained_on is not store:
            for key, was, now in made_differently(trained_on, store.provenance):
                yield (
                    f"{path} was made with {key} = {now!r}, {trained_on.path} with {was!r}; "
                    f"delete {path}, and {_labels_again(path, store)}"
                )
                break  # one line a store
    for folder, (_, made_with) in run.made_with.items():
        store, labels = run.store_of(folder), made_with.get("pseudo-labels")
        if store is None or labels is None:  # an engine's network is not trained on pseudo-labels
            continue
        for key, was, now in differences(labels, _plain(store.provenance)):
            if not key.startswith("versions"):
                yield (
                    f"{folder} was trained on pseudo-labels with {key} = {was!r}, {store.path} has {now!r}; "
                    f"{_anew(folder)}"
                )
                break


def check_scores(run: RunFolder) -> Iterator[str]:
    """Scores can be read, and are newer than what they score; the page is newer than the scores."""
    for path in run.tables:
        command, names = TABLES[path.name]
        again = _again(command, path.parent)
        try:
            scores = read_scores(path.parent)[0] if path.name == METRICS else json.loads(path.read_text("utf-8"))
            students = [path.parent / name / STUDENT for name in names(scores)]
            store = run.store_of(path.parent, scores["split"])
        except InputError as error:
            yield str(error)
            continue
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            yield f"{path} cannot be read; {again}"
            continue
        gone = [folder for folder in students if not folder.is_dir()]
        scored = [*students, *([] if store is None else [Path(store.path) / MARKER])]
        newer = [thing for thing in scored if _changed(thing) > path.stat().st_mtime]
        if gone:
            yield f"{path} has scores of {gone[0]}, which is gone; {again}"
        elif newer:
            yield f"{path} is older than {newer[0]}, which it scores; {again}"
        page = path.with_name("report.html")
        if path.name == METRICS and page.is_file() and page.stat().st_mtime < path.stat().st_mtime:
            yield f"{page} is older than {path.name} beside it; {_again('report', path.parent)}"


def check_disk(run: RunFolder) -> Iterator[str]:
    """There is room for what is still to be made."""
    needed = sum(_bytes_missing(store) for store in run.stores.values())
    for folder in run.unfinished:
        # The next checkpoint is written before the oldest goes, and the model comes last.
        needed += 2 * max(path.stat().st_size for path in folder.glob(CHECKPOINTS))
    free = shutil.disk_usage(run.out).free
    if needed > free:
        yield f"{run.out} needs {_gb(needed)} more for what is still to be made, {_gb(free)} are free; make room there"


CHECKS: tuple[Check, ...] = (
    check_stores,
    check_checkpoints,
    check_models,
    check_settings,
    check_scores,
    check_disk,
)


def _names(rows: Mapping[str, Any]) -> list[str]:
    """Of the students among the rows of a table."""
    return [row.removeprefix("student ") for row in rows if row.startswith("student ")]


METRICS = "metrics.json"
# Files of scores: the command that writes each, and the folders of the students in it.
TABLES: dict[str, tuple[str, Callable[[Any], list[str]]]] = {
    METRICS: ("evaluate", lambda table: _names(table["rows"])),
    "ablation.json": (
        "ablation",
        lambda table: [f"seed-{seed}/{name}" for seed in range(table["seeds"]) for name in _names(table["rows"])],
    ),
    "engines.json": (
        "engines compare",
        lambda table: [f"{engine}/{name}" for engine, row in table["rows"].items() for name in row["students"]],
    ),
    "iterations.json": (
        "iterate",
        lambda table: [
            name if row == "round 0" else f"{row.replace(' ', '-')}/{name}"
            for row, scores in table["rows"].items()
            for name in scores["students"]
        ],
    ),
}


def _told_otherwise(path: Path, store: PseudoLabelStore) -> Iterator[tuple[str, Any, Any]]:
    """What run.json says of data set, CLIP and engine otherwise than the store does: (name, store's, run.json's)."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
        now = {"dataset": settings["dataset"], "clip": settings["clip"], "engine": settings["labels"]["engine"]}
    except (OSError, ValueError, LookupError, TypeError):  # not there, or of another kind
        return
    about = store.provenance
    was = {"dataset": about["dataset"], "clip": about["clip_id"], "engine": about.get("engine", MASKCLIP)["name"]}
    yield from differences(was, now)


def _anew(folder: Path) -> str:
    return f"delete what is not meant, {folder} or the labels, and make it anew"


def _labels_again(path: Path, store: PseudoLabelStore | None = None) -> str:
    """The command that makes or completes a store."""
    about, out = {} if store is None else store.provenance, path.parent.parent
    if "round_before" in about.get("labels", {}):
        return "give the 'carbseg iterate' or 'carbseg predict' command that made it again"
    return _again(f"labels --split {about.get('split', path.stem)}", out)


def _again(command: str, out: Path) -> str:
    return f"run 'carbseg {command} --out {shlex.quote(str(out))}' {AS_BEFORE}"


def _changed(path: Path) -> float:
    """When a file of a folder was last written, in seconds since 1970; 0 for none."""
    return max((file.stat().st_mtime for file in path.glob("*")), default=0.0)


def _bytes_missing(store: PseudoLabelStore) -> int:
    """What the images that are not written will take: as those that are, or, where none is, at most."""
    written = store.is_written()
    if not written.any():
        shapes = {name: (shape, dtype) for name, shape, dtype, _ in store.arrays() if name in store.data_arrays}
        an_image = sum(int(np.prod(shape[1:])) * np.dtype(dtype).itemsize for shape, dtype in shapes.values())
        return an_image * len(store)
    files = (file for name in store.data_arrays for file in (Path(store.path) / name).glob("c.*"))
    return int(sum(file.stat().st_size for file in files) / written.sum() * (~written).sum())


def _plain(data: Any) -> Any:
    """As JSON gives it back: tuples and lists compare alike."""
    return json.loads(json.dumps(data))


def _gb(count: int) -> str:
    return f"{count / 1e9:.3g} GB"
