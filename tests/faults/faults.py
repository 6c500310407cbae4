"""The kinds of faults: one named thing each, that injects itself into a command and says how its processes ended."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from random import Random

from tests.faults import strikes
from tests.faults.child import Ended, Orders, Running
from tests.faults.objects import BUCKET, Trouble
from tests.faults.scene import COMMANDS, IMAGES, Scene, Undisturbed

FRESH_SHARE = 0.1  # of the struck processes that are started as a user does, and not forked from a warm one
AT_ONCE = 0.5  # of the strikes that come with the touch itself, before the file is touched
LATER_S = 0.05
LAUNCHER_S = 20.0
GONE_SHARE = 0.25  # of the rounds in which the object store is gone for good after some requests


@dataclass(frozen=True)
class Cut:
    """A command that is to be disturbed, somewhere where the dice say."""

    scene: Scene
    command: str
    rng: Random
    stores: str = ""  # their URL, if they are not in the run folder
    processes: int = 1

    @property
    def undisturbed(self) -> Undisturbed:
        """What the command makes where nothing happens."""
        return self.scene.undisturbed(self.command, self.stores, self.processes)

    def orders(self, strike: Callable[[], object], rank: int = 0) -> Orders:
        """The command, struck at some moment."""
        return Orders(
            self.scene.words(self.command, self.stores),
            self.scene.place,
            strike,
            moment=self.rng.randint(1, self.undisturbed.touches[rank]),
            delay_s=0.0 if self.rng.random() < AT_ONCE else self.rng.uniform(0, LATER_S),
        )

    def start(self, strike: Callable[[], object]) -> Running:
        """Start it, to be struck."""
        orders = self.orders(strike)
        return Running(orders, fresh=self.rng.random() < FRESH_SHARE)


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    inject: runs the command under it, and says how its processes ended. heal: ends what outlasts them. stores,
    processes: as `Cut` has them.
    """

    name: str
    inject: Callable[[Cut], list[Ended]]
    heal: Callable[[Scene], object] = lambda scene: None
    commands: tuple[str, ...] = tuple(COMMANDS)
    stores: str = ""
    processes: int = 1


def _kill(cut: Cut) -> list[Ended]:
    return [cut.start(partial(strikes.send, signal.SIGKILL)).wait()]


def _terminate(cut: Cut) -> list[Ended]:
    return [cut.start(partial(strikes.send, signal.SIGTERM)).wait()]


def _stopped(cut: Cut) -> Running:
    running = cut.start(partial(strikes.send, signal.SIGSTOP))
    running.wait_until_stopped()
    return running


def _pause(cut: Cut) -> list[Ended]:
    running = _stopped(cut)
    time.sleep(cut.rng.uniform(0, 0.5))
    running.signal(signal.SIGCONT)
    return [running.wait()]


def _fill_disk(cut: Cut) -> list[Ended]:
    room = cut.rng.choice([0, 0, cut.rng.randint(1, 1000), cut.rng.randint(1000, 30_000)])
    return [cut.start(partial(strikes.fill_disk, room)).wait()]


def _make_read_only(cut: Cut) -> list[Ended]:
    cut.scene.out.mkdir(exist_ok=True)
    return [cut.start(partial(strikes.make_read_only, cut.scene.out)).wait()]


def _lose_images(cut: Cut) -> list[Ended]:
    return [cut.start(partial(strikes.vanish, cut.scene.data / _some_images(cut))).wait()]


def _some_images(cut: Cut) -> str:
    """One, or the folder of all."""
    split = COMMANDS[cut.command]
    return cut.rng.choice([split, f"{split}/toy_{cut.rng.randrange(IMAGES[split]):04d}.png"])


def _find_images(scene: Scene) -> None:
    for split in IMAGES:
        folder = scene.data / split
        strikes.come_back(folder)
        for away in folder.glob("*.away"):
            strikes.come_back(away.with_suffix(""))


def _jump_clock(cut: Cut) -> list[Ended]:
    seconds = cut.rng.choice([-1, 1]) * 10 ** cut.rng.uniform(0, 8)  # up to three years
    folders, is_last = (cut.scene.data, cut.scene.out), cut.rng.random() < 0.5
    return [cut.start(partial(strikes.jump_clock, seconds, folders, is_last=is_last)).wait()]


def _run_twice(cut: Cut) -> list[Ended]:
    """Two jobs with one part: both are stopped somewhere, the first goes on to its end, the second too or is killed."""
    first, second = (_stopped(cut) for _ in range(2))
    first.signal(signal.SIGCONT)
    ended = first.wait()
    second.signal(cut.rng.choice([signal.SIGCONT, signal.SIGKILL]))
    return [ended, second.wait()]


def _lose_rank(cut: Cut) -> list[Ended]:
    lost = cut.rng.randrange(cut.processes)
    struck = cut.orders(partial(strikes.send, signal.SIGKILL), lost)
    started = [
        Running(replace(struck, environment=environment, moment=struck.moment if rank == lost else 0))
        for rank, environment in enumerate(cut.scene.environments(cut.stores, cut.processes))
    ]
    ended = [started.pop(lost).wait()]
    for running in started:
        running.wait_for(LAUNCHER_S)
        running.signal(signal.SIGTERM)  # as launchers do: who waits for the lost one to begin would wait for long
    return [*ended, *(running.wait() for running in started)]


def _trouble_objects(cut: Cut) -> list[Ended]:
    gone_after = cut.rng.randrange(200) if cut.rng.random() < GONE_SHARE else None
    cut.scene.objects.set_trouble(Trouble(gone_after=gone_after, seed=cut.rng.randrange(2**32)))
    return cut.scene.run(cut.command, cut.stores)


FAULTS = (
    Fault("kill -9", _kill),
    Fault("SIGTERM", _terminate),
    Fault("SIGSTOP, SIGCONT", _pause),
    Fault("full disk", _fill_disk),
    Fault("read-only target", _make_read_only, lambda scene: strikes.set_writable(scene.out, True)),
    Fault("images vanish", _lose_images, _find_images),
    Fault("clock jumps", _jump_clock),
    Fault("two jobs, one part", _run_twice, commands=("labels",)),
    Fault("a rank dies", _lose_rank, commands=("train",), processes=2),
    Fault(
        "slow, failing object store",
        _trouble_objects,
        lambda scene: scene.objects.set_trouble(None),
        stores=f"s3://{BUCKET}/stores",
    ),
)
