"""Random rounds of faults: `make chaos ROUNDS=200`; one of them again: `make chaos ROUNDS=1 SEED=...`."""

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.child import FORKS, LOADED
from tests.faults.rounds import FAILED, play, table
from tests.faults.scene import Scene


def main() -> None:
    """Play the rounds SEED, SEED + 1, ...; the exit code is 1 if one has failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="how many; ten show every kind of fault once")
    parser.add_argument("--seed", type=int, action="append", help="of the first; default: any; may be given again")
    options = parser.parse_args()
    firsts = options.seed or [random.randrange(10**6)]
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}  # before torch is loaded, in other processes only
    FORKS.set_forkserver_preload(LOADED)
    rounds = []
    with tempfile.TemporaryDirectory(prefix="carbseg-chaos-") as folder:
        scene = Scene(Path(folder).resolve())
        for seed in (seed for first in firsts for seed in range(first, first + options.rounds)):
            start = time.monotonic()
            rounds.append(played := play(scene, seed))
            took = f"{time.monotonic() - start:.1f} s"
            print(f"SEED={seed} {played.fault}, {played.command}: {played.outcome} ({took}) {played.why}", flush=True)
    print(f"\n{table(rounds)}")
    sys.exit(any(played.outcome == FAILED for played in rounds))


if __name__ == "__main__":
    main()
