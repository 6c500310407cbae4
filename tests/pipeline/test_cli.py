"""The command as a user meets it: speed to answer, errors in one line, the whole path on a few images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from botocore.exceptions import EndpointConnectionError
from click.testing import CliRunner
from PIL import Image

from labelgen.images import read_image, write_png
from pipeline.cli import Commands, main
from tests.conftest import ROOT, carbseg, carbseg_process, command, refused

QUICK = ("--set", "train.batch=2", "--set", "student.width=4", "--set", "student.aspp_channels=8")


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """Four images of two sizes in the SegNet layout, with void."""
    rng = np.random.default_rng(0)
    for split, sizes in (("train", [(64, 96), (64, 96), (56, 100)]), ("val", [(64, 96)])):
        for folder in (split, f"{split}annot"):
            (tmp_path / "camvid" / folder).mkdir(parents=True)
        for i, size in enumerate(sizes):
            pixels = rng.integers(0, 256, (*size, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "camvid" / split / f"i{i}.jpg")
            label = rng.integers(0, 12, size).astype(np.uint8)
            write_png(tmp_path / "camvid" / f"{split}annot" / f"i{i}.png", label)
    return tmp_path / "camvid"


def test_help_and_typos_answer_without_loading_torch() -> None:
    code = """if True:
        import atexit, sys
        atexit.register(lambda: print('torch' in sys.modules, 'transformers' in sys.modules))
        from pipeline.cli import main
        main()
    """
    for words in (["--help"], ["labels", "--dataset", "camvd"], ["labels", "--datset", "camvid"]):
        line = [sys.executable, "-c", code, *words]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.stdout.splitlines()[-1] == "False False"
    assert "labels" in carbseg_process("--help").stdout


def test_no_line_of_a_list_of_commands_is_cut_at_an_abbreviation() -> None:
    def lines(group: click.Group) -> list[str]:
        groups = [command for command in group.commands.values() if isinstance(command, click.Group)]
        own = [command.get_short_help_str(limit=200) for command in group.commands.values()]
        return own + [line for group in groups for line in lines(group)]

    found = lines(main)
    assert "Count what the image-level labels of a split say." in found
    assert [line for line in found if line.count("(") != line.count(")")] == []  # "(CARB, Fig."


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device; make room, and give the same"),
        (BrokenPipeError(32, "Broken pipe"), "[Errno 32] Broken pipe"),  # not of standard output
        (
            RuntimeError("[/pytorch/gloo/transport/tcp/pair.cc:553] Connection closed by peer"),
            "another process of this run has died, and says why itself; give the same command again to go on",
        ),
        (
            EndpointConnectionError(endpoint_url="http://localhost:1"),
            'the storage cannot be reached, or fails: Could not connect to the endpoint URL: "http://localhost:1";',
        ),
    ],
)
def test_what_the_world_does_is_said_in_one_line(error: Exception, said: str) -> None:
    done = CliRunner().invoke(_failing(error), ["fail"])
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: {said}")
    assert len(done.stderr.splitlines()) == 1


def test_a_command_whose_output_nobody_reads_any_more_ends_in_silence() -> None:
    reading, writing = os.pipe()
    os.close(reading)  # as head does, once it has its lines
    done = subprocess.run(command("datasets", "list"), cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_errors_of_ours_keep_their_tracebacks() -> None:
    error = RuntimeError("shapes do not match")
    assert CliRunner().invoke(_failing(error), ["fail"]).exception is error


def _failing(error: Exception) -> Commands:
    def fail() -> None:
        raise error

    return Commands(commands={"fail": click.Command("fail", callback=fail)})


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("labels", "--dataset", "camvd"), 1, "Error: unknown data set 'camvd'; did you mean 'camvid'?"),
        (("labels", "info", "no.zarr"), 1, "Error: no.zarr is no pseudo-label store; write one with"),
        (("labels", "--datset", "toy"), 2, "Error: No such option '--datset'."),
    ],
)
def test_a_process_ends_with_one_line_and_an_exit_code(words: tuple[str, ...], code: int, said: str) -> None:
    done = carbseg_process(*words, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.splitlines()[-1].startswith(said)
    assert len(done.stderr.splitlines()) == 1 or code == 2  # usage errors show the usage, too


@pytest.mark.slow
def test_a_process_keeps_results_and_progress_apart(camvid: Path, clip_folder: Path, tmp_path: Path) -> None:
    done = carbseg_process(
        "labels", "--dataset", "camvid", "--data-root", camvid, "--clip", clip_folder, "--out", tmp_path
    )
    assert done.stdout == f"PseudoLabelStore({str(tmp_path / 'labels' / 'train.zarr')!r}: 3 of 3 images, 11 classes)\n"
    assert "pseudo-labels of train: 100%" in done.stderr


def test_labels_train_evaluate_predict_from_end_to_end(camvid: Path, clip_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--dataset", "camvid", "--data-root", camvid, "--clip", clip_folder, "--out", out, *QUICK)
    crop = ("--set", "augment.crop_height=64", "--set", "augment.crop_width=64", "--set", "train.workers=0")
    assert "3 of 3 images" in carbseg("labels", *options).stdout
    carbseg("train", *options, *crop, "--steps", 4)
    # evaluate needs no --clip: the run folder remembers it
    scoring = [o for o in options if o not in ("--clip", clip_folder)]
    shown = carbseg("evaluate", *scoring).stdout
    assert "| student local+carb" in shown
    assert "on 1 images of camvid val" in shown
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics["rows"]) == [
        "pseudo-labels global",
        "pseudo-labels local",
        "pseudo-labels fused",
        "student local+carb",
    ]
    assert len(metrics["rows"]["student local+carb"]["iou"]) == 11
    assert len((out / "local+carb" / "metrics.jsonl").read_text().splitlines()) == 1
    provenance = json.loads((out / "local+carb" / "run.json").read_text())
    assert provenance["settings"]["train"]["steps"] == 4
    assert "torch" in provenance["versions"]
    assert read_image(out / "panels" / "val.png").shape == (22 + 64 + 4, 6 * 96 + 5 * 4, 3)
    image = camvid / "val" / "i0.jpg"
    carbseg("predict", out / "local+carb" / "student", image, "--out", tmp_path / "maps")
    assert read_image(tmp_path / "maps" / "i0.png").shape == (64, 96, 3)
    carbseg("predict", out / "local+carb", image, "--out", tmp_path / "same")
    assert (tmp_path / "same" / "i0.png").read_bytes() == (tmp_path / "maps" / "i0.png").read_bytes()
    # All done: a second call of each stage finds nothing left to do, and says the same.
    carbseg("labels", *options)
    carbseg("train", *options, *crop, "--steps", 4)
    assert carbseg("evaluate", *options).stdout == shown


def test_missing_things_are_said_in_one_line(camvid: Path, tmp_path: Path, clip_folder: Path) -> None:
    assert "camvid needs DATA_ROOT" in refused("labels", "--dataset", "camvid")
    assert "did you mean 'camvid'?" in refused("labels", "--dataset", "camvd", "--data-root", camvid)
    assert "No such option '--datset'" in refused("labels", "--datset", "toy")
    here = ("--dataset", "camvid", "--data-root", camvid, "--out", tmp_path / "out")
    assert "no folder" in refused("labels", *here[:3], tmp_path / "elsewhere", "--out", tmp_path / "out")
    assert "no CLIP weights at" in refused("labels", *here, "--clip", "nobody/such-a-model")
    assert "is no CLIP model folder" in refused("labels", *here, "--clip", camvid)
    assert "unknown setting in [train] 'stepps'" in refused("labels", *here, "--set", "train.stepps=3")
    assert "is no pseudo-label store" in refused("train", *here)
    assert "camvid has no split 'tset'" in refused("labels", *here, "--split", "tset")
    assert "no trained student in" in refused("predict", tmp_path, camvid / "val" / "i0.jpg", "--out", tmp_path / "m")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "m").exists()


def test_a_truncated_image_stops_the_run_and_what_was_written_stays(
    camvid: Path, clip_folder: Path, tmp_path: Path
) -> None:
    broken = camvid / "train" / "i2.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    options = ("--dataset", "camvid", "--data-root", camvid, "--clip", clip_folder, "--out", tmp_path / "out")
    options += ("--set", "labels.images_per_shard=1")
    assert f"{broken} is truncated" in refused("labels", *options)
    assert "1 of 3 images have no pseudo-labels" in refused("train", *options)
    broken.write_bytes(whole)
    assert "3 of 3 images" in carbseg("labels", *options).stdout


def test_label_of_another_size_is_said(camvid: Path, clip_folder: Path, tmp_path: Path) -> None:
    write_png(camvid / "valannot" / "i0.png", np.zeros((10, 10), np.uint8))
    options = ("--dataset", "camvid", "--data-root", camvid, "--clip", clip_folder, "--out", tmp_path / "out")
    said = refused("evaluate", *options)
    assert "i0: a class map of 64 x 96 does not fit 10 x 10 pixels" in said
    assert str(camvid / "valannot" / "i0.png") in said


def test_toy_scenes_are_not_drawn_over_something(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    assert "exists already" in refused("datasets", "draw-toy", tmp_path)
    assert "exists already" in refused("datasets", "fetch", "toy", tmp_path)


def test_doctor_and_list_say_what_there_is() -> None:
    assert "torch" in carbseg("doctor").stdout
    listed = carbseg("datasets", "list").stdout.splitlines()
    assert [line.split()[:2] for line in listed[:3]] == [["toy", "11"], ["camvid", "11"], ["cityscapes", "19"]]
