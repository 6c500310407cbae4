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
from tests.faults.scene import COMMANDS, IMAGES, Scene

FRESH_SHARE = 0.1  # of the struck processes that are started as a user does, and not forked from a warm one
AT_ONCE = 0.5  # of the strikes that come with the touch itself, before the file is touched
LATER_S = 0.05
LAUNCHER_S = 20.0


@dataclass(frozen=True)
class Cut:
    """A command that is to be disturbed, somewhere where the dice say."""

    scene: Scene
    command: str
    rng: Random
    at: str = ""  # URL of the stores
    processes: int = 1

    def orders(self, strike: Callable[[], object], rank: int = 0) -> Orders:
        """The command, struck at some moment."""
        touches = self.scene.undisturbed(self.command, self.at, self.processes).touches[rank]
        return Orders(
            self.scene.words(self.command, self.at),
            self.scene.place,
            strike,
            moment=self.rng.randint(1, touches),
            delay_s=0.0 if self.rng.random() < AT_ONCE else self.rng.uniform(0, LATER_S),
            environment=self.scene.environments(self.at, self.processes)[rank],
        )

    def start(self, strike: Callable[[], object]) -> Running:
        """Start it, to be struck."""
        orders = self.orders(strike)
        return Running(orders, fresh=self.rng.random() < FRESH_SHARE)


@dataclass(frozen=True)
class Fault:
    """A kind of fault. inject runs the command under it; heal ends what outlasts the process."""

    name: str
    inject: Callable[[Cut], list[Ended]]
    heal: Callable[[Scene], object] = lambda scene: None
    commands: tuple[str, ...] = tuple(COMMANDS)
    at: str = ""
    processes: int = 1


def _kill(cut: Cut) -> list[Ended]:
    return [cut.start(partial(strikes.send, signal.SIGKILL)).wait()]


def _terminate(cut: Cut) -> list[Ended]:
    return [cut.start(partial(strikes.send, signal.SIGTERM)).wait()]


def _pause(cut: Cut) -> list[Ended]:
    running = cut.start(partial(strikes.send, signal.SIGSTOP))
    running.wait_until_stopped()
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
    split = COMMANDS[cut.command]
    one = f"{split}/toy_{cut.rng.randrange(IMAGES[split]):04d}.png"
    return cut.rng.choice([one, split])


def _find_images(scene: Scene) -> None:
    for split in IMAGES:
        folder = scene.data / split
        strikes.come_back(folder)
        for away in folder.glob("*.away"):
            strikes.come_back(away.with_suffix(""))


def _jump_clock(cut: Cut) -> list[Ended]:
    """And cut it short by chance, so that the next one goes on under another clock."""
    seconds = cut.rng.choice([-1, 1]) * 10 ** cut.rng.uniform(0, 8)  # up to three years
    folders = (cut.scene.data, cut.scene.out)
    last = signal.SIGTERM if cut.rng.random() < 0.5 else None
    return [cut.start(partial(_jump_and_end, seconds, folders, last)).wait()]


def _jump_and_end(seconds: float, folders: tuple, last: signal.Signals | None) -> None:
    strikes.jump_clock(seconds, folders)
    if last is not None:
        strikes.send(last)


def _run_twice(cut: Cut) -> list[Ended]:
    """Two jobs with the same part: each is stopped somewhere, then the first ends, then the second ends or is killed."""
    first = cut.start(partial(strikes.send, signal.SIGSTOP))
    first.wait_until_stopped()
    second = cut.start(partial(strikes.send, signal.SIGSTOP))
    second.wait_until_stopped()
    first.signal(signal.SIGCONT)
    ended = first.wait()
    second.signal(cut.rng.choice([signal.SIGCONT, signal.SIGKILL]))
    return [ended, second.wait()]


def _lose_rank(cut: Cut) -> list[Ended]:
    struck = cut.rng.randrange(cut.processes)
    environments = cut.scene.environments(cut.at, cut.processes)
    orders = cut.orders(partial(strikes.send, signal.SIGKILL), struck)
    quiet = replace(orders, strike=None, moment=0)
    started = [
        Running(replace(orders if rank == struck else quiet, environment=environment))
        for rank, environment in enumerate(environments)
    ]
    ended = [started.pop(struck).wait()]
    for running in started:
        running.wait_for(LAUNCHER_S)
        running.signal(signal.SIGTERM)  # as launchers do; who waits for the lost one to begin would wait for long
    return [*ended, *(running.wait() for running in started)]


def _trouble_objects(cut: Cut) -> list[Ended]:
    gone_after = cut.rng.randrange(200) if cut.rng.random() < 0.25 else None
    cut.scene.objects.set_trouble(Trouble(gone_after=gone_after, seed=cut.rng.randrange(2**32)))
    return cut.scene.run(cut.command, cut.at)


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
        at=f"s3://{BUCKET}/stores",
    ),
)
