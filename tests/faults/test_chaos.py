"""A few rounds that every change plays, and that a round finds what is lost. `make chaos` plays many more."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, cast

import pytest

from tests.conftest import ROOT
from tests.faults.child import Ended
from tests.faults.faults import Cut, Fault
from tests.faults.rounds import FAILED, REFUSED, RESUMED, WENT_ON, Round, outcome, table
from tests.faults.scene import Scene, Undisturbed

# Found, when they were first played: a traceback of TensorBoard's on a full disk, one of who had lost another process,
# and a store in an object store that would not be begun again.
SEEDS = (13, 18, 39)
WHOLE = {"scores": b"1", "student": b"2"}
KILLED, DONE, TOLD = Ended(-9, ""), Ended(0, ""), Ended(1, "10 of 20 steps\nError: no room\n")


@pytest.mark.slow
def test_what_once_went_wrong_ends_well() -> None:
    line = [sys.executable, "-m", "tests.faults", "--rounds=1", *(f"--seed={seed}" for seed in SEEDS)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [f"SEED={seed}" in done.stdout for seed in SEEDS] == [True] * 3
    assert "| all | 3 |" in done.stdout


@dataclass
class Stand:
    """In a scene's place: what the struck command left, and what the next one ends with and makes of it."""

    left: Mapping[str, bytes]
    resumed: Ended = DONE
    makes: Mapping[str, bytes] = field(default_factory=lambda: WHOLE)

    def undisturbed(self, *which: Any) -> Undisturbed:
        return Undisturbed(WHOLE, [1])

    def reset(self, *which: Any) -> None:
        pass

    def run(self, *which: Any) -> list[Ended]:
        self.left = self.makes
        return [self.resumed]

    def made(self, *which: Any) -> Mapping[str, bytes]:
        return self.left


@pytest.mark.parametrize(
    ("ended", "scene", "how", "why"),
    [
        ([DONE], Stand(WHOLE), WENT_ON, ""),
        ([KILLED], Stand({}), RESUMED, ""),
        ([TOLD], Stand({}), REFUSED, "Error: no room"),
        ([DONE, KILLED], Stand(WHOLE), RESUMED, ""),
        ([Ended(143, "stopped by SIGTERM after step 3, which is saved")], Stand({}), RESUMED, ""),
        # What a round is there to find.
        ([DONE], Stand({"scores": b"1"}), FAILED, "1 files differ, such as student; exit codes were [0] "),
        ([DONE, KILLED], Stand({}), FAILED, "2 files differ, such as scores, student; exit codes were [0, -9] "),
        ([KILLED], Stand({}, makes={**WHOLE, "more": b""}), FAILED, "1 files differ, such as more; exit codes"),
        ([KILLED], Stand({}, resumed=TOLD), FAILED, "when resumed, exit code 1, and said: 10 of 20 steps"),
        ([Ended(1, "Traceback (most recent call last):\nError: x")], Stand({}), FAILED, "exit code 1, and said"),
        ([Ended(1, "Error: ")], Stand({}), FAILED, "exit code 1, and said"),
        ([Ended(-11, "")], Stand({}), FAILED, "exit code -11"),
        ([Ended(143, "")], Stand({}), FAILED, "exit code 143"),
    ],
)
def test_a_round_believes_no_one(ended: list[Ended], scene: Stand, how: str, why: str) -> None:
    found = outcome(Fault("any", lambda cut: ended), Cut(cast(Scene, scene), "train", Random(0)))
    assert found[0] == how
    assert found[1].startswith(why)


def test_the_table_counts_by_kind() -> None:
    rounds = [
        Round("kill -9", "train", RESUMED),
        Round("kill -9", "labels", WENT_ON),
        Round("SIGTERM", "train", FAILED),
    ]
    assert table(rounds).splitlines()[2:] == [
        "| kill -9 | 2 | 1 | 1 | 0 | 0 |",
        "| SIGTERM | 1 | 0 | 0 | 0 | 1 |",
        "| all | 3 | 1 | 1 | 0 | 1 |",
    ]
