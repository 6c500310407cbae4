"""The benchmark of long runs, in small; and that it sees what a command holds and leaves behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import longrun
from benchmarks.longrun import Look, Watched, last_bar, look, of_session, read_bars


def held(session: int) -> Look | None:
    return next(look(session, 0.0), None)


def test_what_all_processes_of_a_command_hold_is_seen_until_they_end() -> None:
    child = "import time; kept = bytearray(2**26); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    run = subprocess.Popen([sys.executable, "-c", parent], start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while ((seen := held(run.pid)) is None or seen.memory_mib < 64) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert seen is not None
        assert 64 <= seen.memory_mib < 200
        assert (seen.processes, seen.threads) == (2, 2)
        assert seen.files >= 6
        run.kill()
        run.wait()
        (left,) = of_session(run.pid)  # the child goes on
        os.kill(left, 9)
    finally:
        for pid in of_session(run.pid):
            os.kill(pid, 9)
    while list(of_session(run.pid)):
        time.sleep(0.02)
    assert held(run.pid) is None


def test_progress_is_read_as_it_is_printed() -> None:
    said = (
        "headers:  50%|#####     | 5/10 [00:10<00:10,  2.0s/ images]\rx: 100%|##| 10/10 [1:00:20<00:00, 1.0 images/s]\n"
    )
    assert list(read_bars(said)) == [(5, 10, 10.0), (10, 10, 0.0)]
    bars = [(0.0, 9, 9, 0.0), (1.0, 0, 100, 0.0), (11.0, 50, 100, 12.0), (21.0, 100, 100, 0.0)]
    run = Watched([Look(20.0, 1.0, 1, 1, 1)], last_bar(bars), [])
    assert run.bars == bars[1:]
    assert run.progress_is_right()
    assert run.time_left_off() == pytest.approx(0.1)  # 11 + 12 s instead of 21, of 20
    assert not Watched(run.looks, bars[1:3], []).progress_is_right()  # ends half-way


@pytest.mark.slow
def test_a_short_long_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "plot.png"
    longrun.main(["--images", "20", "--steps", "4", "--every", "0.1", "--plot", str(plot)])
    said = capsys.readouterr().out
    rows = [line.strip("| ").split(" | ") for line in said.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[1:]] == ["labels, 20 images", "train, 4 steps", "evaluate, 20 images"]
    for row in rows[1:]:
        assert len(row) == len(longrun.TITLES) + 1
        assert row[7:9] == ["nothing", "right"]
    assert "metrics.jsonl" in said
    assert plot.is_file()
