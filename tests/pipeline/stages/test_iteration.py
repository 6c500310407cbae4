"""carbseg iterate as a user meets it: rounds, their table, silence, going on, and what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from labelgen.clr import IterateConfig, Refinement, SlicRefiner
from labelgen.store import PseudoLabelStore
from labelgen.training.checkpoints import last_checkpoint
from pipeline.datasets import DATASETS
from segtrain.model import load_student
from segtrain.relabel import relabel
from tests.conftest import carbseg, carbseg_process, kill_when, made_once, refused
from tests.files import contents
from tests.pipeline.stages.conftest import SMALL, TRAINING

SETTINGS = ("train.steps=6", "train.warmup_steps=2", "train.checkpoint_every=2", "train.workers=0")
SHORT = (*TRAINING, *(word for setting in (*SETTINGS, "iterate.superpixels=60") for word in ("--set", setting)))


@pytest.fixture(scope="session")
def line(toy_root: Path, clip_folder: Path, small_stores: Path) -> tuple[object, ...]:
    """The command without rounds and OUT, on labels that are there."""
    return ("iterate", *SMALL, *SHORT, "--data-root", toy_root, "--clip", clip_folder, "--stores", small_stores)


@pytest.fixture(scope="session")
def iterated(line: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds of base; what the command said is in said.txt."""

    def make(folder: Path) -> None:
        (folder / "said.txt").write_text(carbseg(*line, "--rounds", 2, "--out", folder).stdout)

    return made_once(tmp_path_factory, "iterated", make)


def test_every_round_has_labels_a_student_and_a_line(iterated: Path) -> None:
    result = json.loads((iterated / "iterations.json").read_text())
    assert list(result["rows"]) == ["round 0", "round 1", "round 2"]
    scored = json.loads((iterated / "metrics.json").read_text())["rows"]
    for number, row in enumerate(result["rows"].values()):
        name = f"round-{number}/base" if number else "base"
        assert row["students"] == {"base": scored[f"student {name}"]["miou"]}
        assert list(row["labels"]) == ["miou", "precision", "recall", "labelled"]
        assert (iterated / name / "student" / "model.safetensors").is_file()
    assert result["rows"]["round 0"]["labels"]["labelled"] == 100
    table = (iterated / "iterations.md").read_text()
    assert table in (iterated / "said.txt").read_text()
    assert table.count(f"{result['rows']['round 1']['labels']['labelled']:.1f} |") >= 1
    assert "nothing to complain about" in carbseg("doctor", "--run", iterated).stdout


def test_labels_are_what_the_student_before_says_refined(
    iterated: Path, small_stores: Path, toy_root: Path, tmp_path: Path
) -> None:
    store = PseudoLabelStore.open(iterated / "round-2" / "labels" / "train.zarr")
    labels = store.provenance["labels"]
    assert labels["refined"] == {"threshold": 0.5, "slic": {"superpixels": 60, "colour": 5.0, "reach": 2.0}}
    assert labels["round_before"]["refined"] == labels["refined"]
    first = PseudoLabelStore.open(small_stores / "train.zarr")
    assert labels["round_before"]["round_before"] == first.provenance["labels"]
    assert store.image_ids == first.image_ids
    np.testing.assert_array_equal(store.image_labels, first.image_labels)
    student = load_student(iterated / "round-1" / "base" / "student")
    samples = DATASETS["toy"].list_samples(toy_root, "train")
    refinement = Refinement(SlicRefiner(IterateConfig(superpixels=60), 11), 0.5)
    again = relabel(student, samples, first, tmp_path / "again.zarr", refinement=refinement)
    for image_id in store.image_ids:
        np.testing.assert_array_equal(again.mask(image_id), store.mask(image_id))


def test_without_refinement_labels_are_what_predict_writes(
    line: tuple[object, ...], iterated: Path, small_stores: Path, toy_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(iterated / "base", tmp_path / "base")
    carbseg(*line, "--rounds", 1, "--out", tmp_path, "--set", "iterate.refine=false")
    student, source = tmp_path / "base" / "student", small_stores / "train.zarr"
    carbseg("predict", student, toy_root / "train", "--as-pseudo-labels", source, "--out", tmp_path / "again.zarr")
    assert contents(tmp_path / "round-1" / "labels" / "train.zarr") == contents(tmp_path / "again.zarr")


def test_finished_rounds_are_not_made_again_and_more_may_follow(
    line: tuple[object, ...], iterated: Path, tmp_path: Path
) -> None:
    shutil.copytree(iterated, tmp_path, dirs_exist_ok=True)
    made = [*tmp_path.glob("**/checkpoint-*.pt"), *tmp_path.glob("round-*/labels/*/*logits*/*")]
    stamps = [path.stat().st_mtime_ns for path in made]
    assert len(made) > 6
    said = carbseg(*line, "--rounds", 2, "--out", tmp_path).stdout
    assert said == (iterated / "said.txt").read_text().replace(str(iterated), str(tmp_path))
    shutil.rmtree(tmp_path / "round-2")
    carbseg(*line, "--rounds", 2, "--out", tmp_path)
    assert [path.stat().st_mtime_ns for path in made if "round-2" not in path.parts] == [
        stamp for path, stamp in zip(made, stamps, strict=True) if "round-2" not in path.parts
    ]
    require_same_rounds(tmp_path, iterated)


def test_all_rounds_are_scored_and_in_the_report(line: tuple[object, ...], iterated: Path, tmp_path: Path) -> None:
    shutil.copytree(iterated, tmp_path, dirs_exist_ok=True)
    said = carbseg("report", *line[1:], "--out", tmp_path).stdout
    for row in ("student base", "student round-1/base", "student round-2/base"):
        assert f"| {row} " in said
    page = (tmp_path / "report.html").read_text()
    assert '"round 2"' in page


def test_several_students_are_trained_and_the_first_one_is_asked(
    line: tuple[object, ...], iterated: Path, tmp_path: Path
) -> None:
    shutil.copytree(iterated / "base", tmp_path / "base")
    said = carbseg(*line, "--rounds", 1, "--out", tmp_path, "--students", "base,local+carb").stdout
    assert "| student base | student local+carb |" in said
    ours, theirs = (contents(out / "round-1" / "labels" / "train.zarr") for out in (tmp_path, iterated))
    assert ours == theirs


# ---- Refused -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "iterate.threshold=0.6"], "made with labels.refined.threshold = 0.5, not 0.6; delete it, or choose"),
        (["--set", "iterate.reach=3.0"], "made with labels.refined.slic.reach = 2.0, not 3.0"),
        (["--set", "iterate.refine=false"], "made with labels.refined = {"),
        (["--set", "train.steps=8"], "was trained with train.steps = 6, not 8"),
    ],
)
def test_rounds_that_were_made_otherwise_are_refused(
    options: list[str], message: str, line: tuple[object, ...], iterated: Path, tmp_path: Path
) -> None:
    shutil.copytree(iterated, tmp_path, dirs_exist_ok=True)
    assert message in refused(*line, "--rounds", 2, "--out", tmp_path, *options)
    require_same_rounds(tmp_path, iterated)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--students", "base,dual"], "student dual does not learn from cached pseudo-labels; take base or local ones"),
        (["--students", "truth"], "student truth does not learn from cached pseudo-labels"),
        (["--students", "bse"], "did you mean 'base'?"),
        (["--students", "local", "--engine", "cam"], "there are no local views of cam to train on"),
        (["--split", "test"], "test"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_made(
    options: list[str], message: str, toy_root: Path, tmp_path: Path
) -> None:
    assert message in refused("iterate", *SMALL, "--data-root", toy_root, "--out", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


# ---- Cut, and in two processes -------------------------------------------------------------------------------------


def require_same_rounds(out: Path, whole: Path) -> None:
    for folder in ("round-1", "round-2"):
        ours, theirs = (contents(root / folder / "labels" / "train.zarr") for root in (out, whole))
        assert ours == theirs
        for name in ("student/model.safetensors", "metrics.jsonl"):
            assert (out / folder / "base" / name).read_bytes() == (whole / folder / "base" / name).read_bytes()


@pytest.mark.slow
def test_rounds_that_were_killed_equal_uninterrupted_ones(
    line: tuple[object, ...], iterated: Path, tmp_path: Path
) -> None:
    again, store = (*line, "--rounds", 2, "--out", tmp_path), tmp_path / "round-1" / "labels" / "train.zarr"
    kill_when(lambda: last_checkpoint(tmp_path / "base") is not None, *again)
    assert not store.exists()
    kill_when(lambda: any(store.glob("is_written/c.*")), *again)
    assert 0 < PseudoLabelStore.open(store).is_written().sum() < 10
    kill_when(lambda: last_checkpoint(tmp_path / "round-1" / "base") is not None, *again)
    assert not (tmp_path / "round-2").exists()
    carbseg(*again)
    require_same_rounds(tmp_path, iterated)


@pytest.mark.slow
@pytest.mark.xdist_group("two processes")
def test_two_processes_look_again_as_one_does(line: tuple[object, ...], iterated: Path, tmp_path: Path) -> None:
    shutil.copytree(iterated / "base", tmp_path / "base")
    said = carbseg_process(*line, "--rounds", 1, "--out", tmp_path, processes=2).stdout
    ours, theirs = (contents(out / "round-1" / "labels" / "train.zarr") for out in (tmp_path, iterated))
    assert ours == theirs
    assert said.count("| round 1 ") == 1
