"""Where rounds take place: a few toy images, a run folder, and what each command makes of them undisturbed."""

import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path

from PIL import Image

from pipeline.toy.scenes import write_scenes
from tests.faults.child import Ended, Orders, Running
from tests.faults.objects import ObjectStore
from tests.files import contents

IMAGES = {"train": 5, "val": 2}
COMMANDS = {"labels": "train", "train": "train", "evaluate": "val"}  # and the split whose images each reads
SETTINGS = (
    *("labels.images_per_shard=2", "labels.views.local_height=80"),
    *("train.steps=16", "train.warmup_steps=4", "train.batch=2", "train.checkpoint_every=4", "train.validate_every=8"),
    *("train.diagnose_every=0", "student.width=4", "student.aspp_channels=8"),
    *("augment.crop_height=64", "augment.crop_width=96"),
)
STUDENT_FILES = [f"{kind}/{file}" for kind in ("best", "student") for file in ("model.safetensors", "config.json")]


@dataclass(frozen=True)
class Undisturbed:
    """A command that nothing happened to: what it made, file by file, and how often each process touched a file."""

    made: Mapping[str, bytes]
    touches: Sequence[int]


class Scene:
    """A folder for rounds, one after the other. Paths stay the same, for they stand in what is compared.

    stores, below: the URL of the stores, "" if they are in the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.place = folder / "place"  # all that a command touches
        self.data, self.out = self.place / "data", self.place / "out"
        self._kept = folder / "kept"  # the run folder after each command, as the next one finds it
        self._known: dict[tuple[str, str, int], Undisturbed] = {}
        folder.joinpath("templates.txt").write_text("a photo of a {}.\n")
        write_scenes(self._kept / "data", IMAGES)
        for path in (self._kept / "data").rglob("*.png"):  # quicker in small
            Image.open(path).crop((80, 40, 240, 120)).save(path)

    @cached_property
    def objects(self) -> ObjectStore:
        """The object store, started when it is first asked for."""
        return ObjectStore()

    def words(self, command: str, stores: str = "") -> tuple[str, ...]:
        """The command line."""
        options = ["--dataset", "toy", "--data-root", self.data, "--clip", "tiny", "--out", self.out]
        options += ["--stores", stores] if stores else []
        settings = (*SETTINGS, f"labels.templates={self.folder / 'templates.txt'}")
        return (command, *map(str, options), *(word for setting in settings for word in ("--set", setting)))

    def environments(self, stores: str = "", processes: int = 1) -> list[dict[str, str]]:
        """What each process is told of the object store, and as a launcher tells it, of the others."""
        told = dict(self.objects.environment) if stores else {}
        if processes == 1:
            return [told]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        told |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        return [told | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]

    def run(self, command: str, stores: str = "", processes: int = 1, counts: Sequence[Path] = ()) -> list[Ended]:
        """The command, with nothing in its way. counts: files for the touches of each process."""
        words = self.words(command, stores)
        started = [
            Running(Orders(words, self.place, environment=environment, count_to=count_to))
            for environment, count_to in zip_longest(self.environments(stores, processes), counts)
        ]
        return [running.wait() for running in started]

    def reset(self, command: str, stores: str = "") -> None:
        """As it is before the command: what the commands before it make is there."""
        before = list(COMMANDS)[: list(COMMANDS).index(command)]
        if before:
            self.undisturbed(before[-1])
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self._kept / "data", self.data)
        if before:
            shutil.copytree(self._kept / before[-1], self.out)
        if stores:
            self.objects.fill(stores, self.out / "labels")
            shutil.rmtree(self.out / "labels", ignore_errors=True)

    def undisturbed(self, command: str, stores: str = "", processes: int = 1) -> Undisturbed:
        """What the command makes where nothing happens; run once."""
        key = (command, stores, processes)
        if key not in self._known:
            self.reset(command, stores)
            counts = [self.folder / f"touches-{rank}" for rank in range(processes)]
            for ended in self.run(command, stores, processes, counts):
                assert ended.code == 0, ended.said
            touches = [int(count.read_text()) for count in counts]
            self._known[key] = Undisturbed(self.made(command, stores), touches)
            if key == (command, "", 1):
                shutil.copytree(self.out, self._kept / command)
        return self._known[key]

    def made(self, command: str, stores: str = "") -> dict[str, bytes]:
        """What the command has made, file by file; without times, logs and what a cut run leaves beside."""
        labels = self.objects.contents(stores) if stores else contents(self.out / "labels")
        written = {name: data for name, data in labels.items() if name.startswith(f"{COMMANDS[command]}.zarr/")}
        if command == "labels":
            return written
        if command == "train":
            student = self.out / "local+carb"
            files = [student / name for name in ("metrics.jsonl", "regions.png", *STUDENT_FILES)]
        else:
            files = [*self.out.glob("metrics.*"), self.out / "counts-val.npz"]
            files += [file for folder in ("maps", "panels") for file in (self.out / folder).rglob("*.png")]
        return {str(file.relative_to(self.out)): file.read_bytes() for file in files if file.exists()} | written
