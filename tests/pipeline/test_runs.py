"""The log of a run, where the disk is full."""

import resource
import threading
from pathlib import Path

import pytest

from pipeline.runs import MetricsLog


def test_a_log_that_cannot_be_cut_to_the_saved_step_is_as_it_was(tmp_path: Path) -> None:
    path, threads = tmp_path / "metrics.jsonl", threading.active_count()
    log = MetricsLog(path)
    for step in range(1, 101):
        log.write({"step": step, "loss": 1 / step})
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            MetricsLog(path, 90)
        with pytest.raises(OSError, match="File too large"):
            log.write({"step": 101, "loss": 0.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [row["step"] for row in MetricsLog(path, 90).read()] == list(range(1, 91))
    assert threading.active_count() == threads  # nobody is left who could tell of it in a traceback
