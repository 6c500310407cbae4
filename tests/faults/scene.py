"""Where rounds take place: a few toy images, a run folder, and what each command makes of them undisturbed."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path

from pipeline.toy.scenes import write_scenes
from tests.faults.child import Ended, Orders, Running
from tests.faults.objects import ObjectStore
from tests.files import contents

SETTINGS = (
    *("labels.images_per_shard=2", "labels.views.local_height=80"),
    *("train.steps=16", "train.warmup_steps=4", "train.batch=2", "train.checkpoint_every=4", "train.validate_every=8"),
    *("train.diagnose_every=8", "augment.crop_height=64", "augment.crop_width=96"),
    *("student.width=4", "student.aspp_channels=8"),
)
IMAGES = {"train": 5, "val": 2}
COMMANDS = {"labels": "train", "train": "train", "evaluate": "val"}  # and the split whose files each reads
STUDENT = "local+carb"


@dataclass(frozen=True)
class Undisturbed:
    """A command that nothing happened to: what it made, file by file, and how often each process touched a file."""

    made: Mapping[str, bytes]
    touches: list[int]


class Scene:
    """A folder for rounds, one after the other. Paths stay the same, for they stand in what is compared."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.place = folder / "place"  # all that a command touches
        self.data, self.out = self.place / "data", self.place / "out"
        self._kept = folder / "kept"
        self._undisturbed: dict[tuple[str, ...], Undisturbed] = {}
        (folder / "templates.txt").write_text("a photo of a {}.\n")
        write_scenes(self._kept / "data", IMAGES)

    @cached_property
    def objects(self) -> ObjectStore:
        """The object store, started when it is first asked for."""
        return ObjectStore()

    def words(self, command: str, at: str = "") -> tuple[str, ...]:
        """The command line. at: the URL of the stores, if they are not in the run folder."""
        settings = (*SETTINGS, f"labels.templates={self.folder / 'templates.txt'}")
        options = ["--dataset", "toy", "--data-root", self.data, "--clip", "tiny", "--out", self.out]
        options += ["--stores", at] if at else []
        return (command, *map(str, options), *(word for setting in settings for word in ("--set", setting)))

    def reset(self, command: str, at: str = "") -> None:
        """As it is before the command: what the commands before it make is there."""
        before = self._before(command)
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self._kept / "data", self.data)
        if before is not None:
            shutil.copytree(before, self.out)
        if at:
            self.objects.empty()
            self.objects.put(at, self.out / "labels")
            shutil.rmtree(self.out / "labels", ignore_errors=True)

    def _before(self, command: str) -> Path | None:
        names = list(COMMANDS)
        if command == names[0]:
            return None
        last = names[names.index(command) - 1]
        folder = self._kept / last
        if not folder.exists():
            self.undisturbed(last)
        return folder

    def undisturbed(self, command: str, at: str = "", processes: int = 1) -> Undisturbed:
        """What the command makes where nothing happens; run once."""
        key = (command, at, str(processes))
        if key not in self._undisturbed:
            self.reset(command, at)
            counts = [self.folder / f"touches-{rank}" for rank in range(processes)]
            for ended in self.run(command, at, processes, counts):
                assert ended.code == 0, ended.said
            touches = [int(count.read_text()) for count in counts]
            self._undisturbed[key] = Undisturbed(self.made(command, at), touches)
            if not at and processes == 1:
                shutil.copytree(self.out, self._kept / command)
        return self._undisturbed[key]

    def run(self, command: str, at: str = "", processes: int = 1, counts: Sequence[Path] = ()) -> list[Ended]:
        """The command, with nothing in its way. counts: files for the touches of each process."""
        words = self.words(command, at)
        started = [
            Running(Orders(words, self.place, environment=environment, count_to=count_to))
            for environment, count_to in zip_longest(self.environments(at, processes), counts)
        ]
        return [running.wait() for running in started]

    def environments(self, at: str, processes: int) -> list[dict[str, str]]:
        """Of the processes of a run: where the object store is, and which of several each is."""
        common = self.objects.environment if at else {}
        return [common] if processes == 1 else [common | rank for rank in ranks(processes)]

    def made(self, command: str, at: str = "") -> dict[str, bytes]:
        """What the command has made, file by file."""
        return MADE[command](self.out, self.objects.get(at) if at else contents(self.out / "labels"))


def _labels(out: Path, stores: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in stores.items() if name.startswith("train.zarr/")}


def _train(out: Path, stores: Mapping[str, bytes]) -> dict[str, bytes]:
    names = ["metrics.jsonl", *(f"{kind}/{file}" for kind in ("best", "student") for file in WEIGHTS)]
    files = [out / STUDENT / name for name in names]
    return {file.name: file.read_bytes() for file in files if file.exists()}


def _evaluate(out: Path, stores: Mapping[str, bytes]) -> dict[str, bytes]:
    scores = [*out.glob("metrics.*"), out / "counts-val.npz", *(out / "maps").rglob("*.png")]
    scores += (out / "panels").rglob("*.png")
    made = {str(file.relative_to(out)): file.read_bytes() for file in scores if file.exists()}
    return made | {name: data for name, data in stores.items() if name.startswith("val.zarr/")}


WEIGHTS = ("model.safetensors", "config.json")
MADE: dict[str, Callable[[Path, Mapping[str, bytes]], dict[str, bytes]]] = {
    "labels": _labels,
    "train": _train,
    "evaluate": _evaluate,
}


def ranks(count: int) -> list[dict[str, str]]:
    """What a launcher tells the processes of a run, one after the other."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    common |= {"LOCAL_WORLD_SIZE": str(count)}
    return [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
