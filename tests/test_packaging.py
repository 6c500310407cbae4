"""A wheel built from the tree holds everything: installed without the repository, it runs."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("labelgen", "segtrain", "evaluation", "pipeline")
TINY = "train.steps=20 train.warmup_steps=10 train.batch=2 student.width=4 student.aspp_channels=8 train.workers=0"


def quietly(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def pins(file: str) -> dict[str, tuple[str, bool]]:
    """By package: its version, and whether it is for some platforms only."""
    lines = (ROOT / file).read_text().splitlines()
    found = (re.fullmatch(r"([a-z0-9-]+)==([^ ;]+)( ; .*?)?( \\)?", line) for line in lines)
    return {match[1]: (match[2], match[3] is not None) for match in found if match}


def test_requirements_with_hashes_are_the_versions_that_are_tested() -> None:
    tested, hashed = pins("constraints.txt"), pins("requirements.txt")
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    beginnings = [number for number, line in enumerate(lines) if re.match(r"[a-z0-9]", line)]
    assert len(beginnings) == len(hashed)
    assert all(lines[number + 1].startswith("    --hash=sha256:") for number in beginnings)
    assert {name: version for name, (version, _) in hashed.items() if name in tested} == {
        name: version for name, (version, _) in tested.items() if name in hashed
    }
    # What stands only there is for GPUs, or for other systems than that of the tests.
    assert [name for name, (_, somewhere) in hashed.items() if name not in tested and not somewhere] == []
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {line.partition(">")[0] for line in needed} <= set(hashed)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The bin folder of an environment with the wheel, and what it depends on, but nothing of the repository."""
    tree = tmp_path / "tree"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, tree)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    offline = ("--no-deps", "--no-index", "--no-build-isolation")
    quietly(*pip, "wheel", *offline, "--wheel-dir", tmp_path, tree, cwd=tmp_path)
    venv.create(tmp_path / "env", symlinks=True)
    (wheel,) = tmp_path.glob("carbseg-*.whl")
    python = tmp_path / "env" / "bin" / "python"
    quietly(*pip, "--python", python, "install", *offline[:2], wheel, cwd=tmp_path)
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    # A .pth in there, such as that of an editable install of the repository, is not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python.parent


@pytest.mark.slow
def test_a_wheel_runs_the_toy_demo_without_the_repository(installed: Path, toy_root: Path, tmp_path: Path) -> None:
    where = quietly(installed / "python", "-c", "import labelgen; print(labelgen.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    run = ("run", "--dataset", "toy", "--data-root", toy_root, "--out", "out", "--students", "local+carb")
    settings = [part for setting in TINY.split() for part in ("--set", setting)]
    printed = quietly(installed / "carbseg", *map(str, run), *settings, cwd=tmp_path)
    assert "| student local+carb" in printed
    assert (tmp_path / "out" / "report.html").is_file()
    assert (tmp_path / "out" / "sheets" / "first.png").is_file()
    site = Path(where.strip()).parent.parent
    files = (path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    assert [path for path in files if "__pycache__" not in path.parts and not (site / path).is_file()] == []
