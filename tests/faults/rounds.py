"""A round: a number decides which fault strikes which command at which moment; then what came of it is looked at.

When the fault is over the command is given again, unless it said that it had gone through; and what it has made is
compared, to the bit, with what it makes undisturbed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from tests.faults.faults import FAULTS, Cut, Fault
from tests.faults.scene import Scene

WENT_ON, RESUMED, REFUSED, FAILED = OUTCOMES = (
    "went through, equal",
    "cut, equal after resume",
    "refused in one line, equal after resume",
    "FAILED",
)


@dataclass(frozen=True)
class Round:
    """What became of a round; why: what was said, or went wrong."""

    fault: str
    command: str
    outcome: str
    why: str = ""


def play(scene: Scene, seed: int) -> Round:
    """The round of this number. The kinds of faults take turns."""
    rng = Random(seed)
    fault = FAULTS[seed % len(FAULTS)]
    cut = Cut(scene, rng.choice(fault.commands), rng, fault.stores, fault.processes)
    try:
        return Round(fault.name, cut.command, *outcome(fault, cut))
    except TimeoutError as error:
        return Round(fault.name, cut.command, FAILED, str(error))


def outcome(fault: Fault, cut: Cut) -> tuple[str, str]:
    """How a fault ends for a command, and why."""
    scene, whole = cut.scene, cut.undisturbed.made
    scene.reset(cut.command, cut.stores)
    ended = fault.inject(cut)
    fault.heal(scene)
    for process in ended:
        if not (process.code == 0 or process.is_killed or process.is_refused):
            return FAILED, f"exit code {process.code}, and said: {process.said}"
    refusal = next((process.last_line for process in ended if process.is_refused), "")
    how = REFUSED if refusal else RESUMED if any(process.is_killed for process in ended) else WENT_ON
    # Who says that the work is done is believed: nothing is given again then. Of two jobs, the first has to end it.
    if ended[0].code != 0:
        for process in scene.run(cut.command, cut.stores, cut.processes):
            if process.code != 0:
                return FAILED, f"when resumed, exit code {process.code}, and said: {process.said}"
    different = _differences(whole, scene.made(cut.command, cut.stores))
    if different:
        return FAILED, f"{different}; exit codes were {[process.code for process in ended]} {refusal}"
    return how, refusal


def _differences(whole: Mapping[str, bytes], made: Mapping[str, bytes]) -> str:
    names = sorted(name for name in whole.keys() | made.keys() if whole.get(name) != made.get(name))
    return f"{len(names)} files differ, such as {', '.join(names[:3])}" if names else ""


def table(rounds: Sequence[Round]) -> str:
    """Markdown: how often each kind of fault ended how."""
    names = [fault.name for fault in FAULTS if any(played.fault == fault.name for played in rounds)]
    counts = Counter((name, played.outcome) for played in rounds for name in (played.fault, "all"))
    rows = [["fault", "rounds", *OUTCOMES], ["---", *["---:"] * (1 + len(OUTCOMES))]]
    for name in (*names, "all"):
        row = [counts[name, outcome] for outcome in OUTCOMES]
        rows.append([name, *map(str, (sum(row), *row))])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
