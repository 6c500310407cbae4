"""The benchmark of the explorer runs: a real server, a real browser."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks import explorer

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def test_every_wait_is_measured(
    browser: "Browser", toy_stores: Path, toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explorer, "WORDS", ("house", "post"))
    (tmp_path / "labels").symlink_to(toy_stores)
    took = explorer.measure(browser, str(tmp_path), "--split", "val", "--data-root", str(toy_root))
    assert explorer.ASKED_S.keys() < took.keys()
    assert min(took.values()) > 0.01  # nothing is shown before it is asked for
