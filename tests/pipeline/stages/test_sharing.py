"""What others may see of a run: who may read its files, and what a page to be shared says of its maker."""

import json
import os
import shutil
import socket
from pathlib import Path

import pytest

from pipeline.runs import without_places
from tests.conftest import carbseg
from tests.pipeline.stages.conftest import SHORT, SMALL, umask


def modes(folder: Path) -> dict[str, set[str]]:
    """Permissions of all files and of all folders."""
    found: dict[str, set[str]] = {"files": set(), "folders": set()}
    for path in folder.rglob("*"):
        found["folders" if path.is_dir() else "files"].add(f"{path.stat().st_mode & 0o777:o}")
    return found


def test_files_may_be_read_by_whom_the_umask_lets(
    whole_run: Path, toy_root: Path, clip_folder: Path, tmp_path: Path
) -> None:
    assert modes(whole_run) == {"files": {"644"}, "folders": {"755"}}
    options = (*SMALL, *SHORT, "--data-root", toy_root, "--clip", clip_folder, "--students", "local+carb")
    with umask(0o077):
        carbseg("run", *options, "--out", tmp_path / "run")
    assert modes(tmp_path / "run") == {"files": {"600"}, "folders": {"700"}}


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("/home/zelda/my data/camvid", "camvid"),
        ("--data-root=/home/zelda/camvid", "--data-root=camvid"),
        ('tags.file="/srv/zelda/tags.csv"', 'tags.file="tags.csv"'),
        ("s3://zelda/labels/val.zarr", "val.zarr"),
        ("hf:/home/zelda/streets", "hf:streets"),
        ("/home/zelda", "..."),
        ("../zelda/runs/a-zelda_1", "../.../runs/a-..._1"),
        ("/scratch/castle.example.org/x", "x"),
        ("castle:runs", "...:runs"),
        ("runs/toy/labels/val.zarr", "runs/toy/labels/val.zarr"),
        ("openai/clip-vit-base-patch16", "openai/clip-vit-base-patch16"),
        ("train.steps=100", "train.steps=100"),
        ("local+carb", "local+carb"),
    ],
)
def test_paths_are_shortened_and_names_left_out(text: str, short: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "castle.example.org")
    monkeypatch.setenv("LOGNAME", "zelda")
    assert without_places(text) == short


def test_an_anonymous_report_names_neither_user_nor_machine_nor_places(
    whole_run: Path, toy_root: Path, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "zelda"
    monkeypatch.setattr(socket, "gethostname", lambda: "castle")
    monkeypatch.setenv("LOGNAME", "zelda")
    monkeypatch.setenv("HOME", str(home))
    out, root, clip = home / "out", home / "castle" / "toy", home / "clip"
    for here, there in ((whole_run, out), (toy_root, root), (clip_folder, clip)):
        shutil.copytree(here, there)
    shutil.copytree(out / "maps" / "val" / "student-local+carb", home / "theirs")
    shutil.copytree(out / "local+carb" / "student", home / "model")
    (home / "mine.toml").write_text("[labels]\nbatch = 2\n")
    about = json.loads((out / "local+carb" / "run.json").read_text())
    about["settings"]["student"]["pretrained"] = str(home / "weights" / "resnet50")
    (out / "local+carb" / "run.json").write_text(json.dumps(about))
    others = ("--predictions", home / "theirs", "--model", home / "model", "--config", home / "mine.toml")
    shutil.rmtree(out / "labels")  # made with a CLIP of another path
    line = ("report", "--dataset", "toy", "--data-root", root, "--clip", clip, "--out", out, *others)
    carbseg(*line)
    page = (out / "report.html").read_text()
    assert {name for name in ("zelda", "castle", str(tmp_path), os.sep + "out") if name in page}
    assert str(home) in page
    assert str(toy_root) in page  # of the command that trained the student
    carbseg(*line, "--anonymous")
    page = (out / "report.html").read_text()
    assert [name for name in ("zelda", "castle", str(tmp_path), str(toy_root.parent)) if name in page] == []
    assert all(word in page for word in ("--data-root toy", "--clip clip", "resnet50", '"source":"val.zarr"'))
