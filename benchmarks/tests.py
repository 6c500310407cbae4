"""How long the tests take, beside what importing torch and CLIP takes here, which every process of the command pays.

Prints Markdown. Run by `make bench`, with the options of `make test`; arguments go to pytest.
"""

import re
import subprocess
import sys
import time

IMPORTS = "import torch, transformers.models.clip.modeling_clip"
TARGET = 60  # times the imports
SLOWEST = 8


def timed(*arguments: str) -> tuple[float, str]:
    """Seconds of a Python process, and what it said. Ends the benchmark if that fails."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return time.perf_counter() - started, done.stdout


def main() -> None:
    """Print the table."""
    timed("-c", IMPORTS)  # the files are in the cache now
    imports = min(timed("-c", IMPORTS)[0] for _ in range(3))
    seconds, said = timed("-m", "pytest", f"--durations={SLOWEST}", *sys.argv[1:])
    print(f"\nThe tests ({said.strip().splitlines()[-1]}); `{IMPORTS}`: the fastest of three\n")
    print("| tests, seconds | imports, seconds | ratio | target |\n|---|---|---|---|")
    print(f"| {seconds:.0f} | {imports:.1f} | {seconds / imports:.0f} | {TARGET} or less |\n")
    print("| seconds | slowest |\n|---|---|")
    for took, phase, test in re.findall(r"^([\d.]+)s (call|setup|teardown) +(\S+)$", said, re.MULTILINE):
        print(f"| {took} | {test}{'' if phase == 'call' else f' ({phase})'} |")


if __name__ == "__main__":
    main()
