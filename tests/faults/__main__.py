"""Random rounds of faults: `make chaos ROUNDS=200`; one of them again: `make chaos ROUNDS=1 SEED=...`.

A round is a number, the seed. It decides which fault strikes which command at which moment. Then the fault is over, the
command is given again, and what it has made is compared, to the bit, with what it makes undisturbed.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

from tests.faults.child import Ended
from tests.faults.faults import FAULTS, Cut, Fault
from tests.faults.scene import Scene

OUTCOMES = ("undisturbed", "cut, equal after resume", "refused in one line, then equal", "FAILED")


@dataclass(frozen=True)
class Round:
    """What became of a round."""

    fault: str
    command: str
    outcome: str
    why: str = ""


def play(scene: Scene, seed: int) -> Round:
    """One round."""
    fault, rng = FAULTS[seed % len(FAULTS)], random.Random(seed)
    command = rng.choice(fault.commands)
    try:
        outcome, why = _outcome(scene, fault, Cut(scene, command, rng, fault.at, fault.processes))
    except TimeoutError as error:
        outcome, why = "FAILED", str(error)
    return Round(fault.name, command, outcome, why)


def _outcome(scene: Scene, fault: Fault, cut: Cut) -> tuple[str, str]:
    expected = scene.undisturbed(cut.command, cut.at, cut.processes).made
    scene.reset(cut.command, cut.at)
    ended = fault.inject(cut)
    fault.heal(scene)
    wrong = [one for one in ended if not (one.code == 0 or one.is_killed or one.is_refused)]
    if wrong:
        return "FAILED", f"exit code {wrong[0].code} and said: {wrong[0].said}"
    outcome = OUTCOMES[2 if any(one.is_refused for one in ended) else 1 if any(one.is_killed for one in ended) else 0]
    said = next((one.said.strip().splitlines()[-1] for one in ended if one.is_refused), "")
    # What says that it went through must have: nothing is given again then.
    if ended[0].code != 0:
        for again in scene.run(cut.command, cut.at, cut.processes):
            if again.code != 0:
                return "FAILED", f"resumed: exit code {again.code} and said: {again.said}"
    different = _differences(expected, scene.made(cut.command, cut.at))
    return ("FAILED", f"{different} after: {[one.code for one in ended]}") if different else (outcome, said)


def _differences(expected, made) -> str:
    names = sorted(name for name in expected.keys() | made.keys() if expected.get(name) != made.get(name))
    return f"{len(names)} files differ: {', '.join(names[:5])}" if names else ""


def table(rounds: list[Round]) -> str:
    """Markdown: how often each kind of fault ended how."""
    counts = Counter((played.fault, played.outcome) for played in rounds)
    lines = [["fault", "rounds", *OUTCOMES], ["---"] * (2 + len(OUTCOMES))]
    for fault in [fault.name for fault in FAULTS if any(played.fault == fault.name for played in rounds)]:
        row = [counts[fault, outcome] for outcome in OUTCOMES]
        lines.append([fault, str(sum(row)), *map(str, row)])
    total = [sum(counts[fault.name, outcome] for fault in FAULTS) for outcome in OUTCOMES]
    lines.append(["all", str(sum(total)), *map(str, total)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Play rounds with the seeds SEED, SEED + 1, ...; exit code 1 if one has failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory(prefix="carbseg-chaos-") as folder:
        scene = Scene(Path(folder).resolve())
        for seed in range(options.seed, options.seed + options.rounds):
            start = time.monotonic()
            played = play(scene, seed)
            print(
                f"SEED={seed} {played.fault}, {played.command}: {played.outcome} ({time.monotonic() - start:.1f} s)"
                + (f": {played.why}" if played.why else ""),
                flush=True,
            )
            rounds.append(played)
    print(f"\n{table(rounds)}")
    sys.exit(any(played.outcome == "FAILED" for played in rounds))


if __name__ == "__main__":
    main()
