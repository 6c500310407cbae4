"""labels.dtype=auto in runs of the command: the first store decides, and one process for all. Speeds are made up."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from labelgen import probe
from labelgen.store import PseudoLabelStore
from tests.conftest import FORKS, carbseg, refused

AUTO = ("--dataset", "toy", "--set", "labels.dtype=auto")
BFLOAT16 = {torch.bfloat16: 3.0}


def dtype_of(out: Path, split: str) -> str:
    store = PseudoLabelStore.open(out / "labels" / f"{split}.zarr")
    store.require_complete()
    return str(store.provenance["labels"]["dtype"])


def forbidden(dense: object) -> dict[torch.dtype, float]:
    raise AssertionError("a store has decided")


def test_what_the_training_labels_were_made_in_decides_for_all_that_follows(
    toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (*AUTO, "--data-root", toy_root, "--out", tmp_path)
    monkeypatch.setattr(probe, "times_as_fast", lambda dense: BFLOAT16)
    said = carbseg("labels", *options).stderr
    assert said.count("labels.dtype=bfloat16: bfloat16 is 3.00 times as fast as float32, 9") == 1
    assert dtype_of(tmp_path, "train") == "bfloat16"
    monkeypatch.setattr(probe, "times_as_fast", forbidden)
    carbseg("labels", *options)
    carbseg("labels", *options, "--split", "val")
    assert dtype_of(tmp_path, "val") == "bfloat16"
    assert "labels.dtype = 'bfloat16', not 'float32'; set it to that or to auto, and run again" in refused(
        "labels", "--dataset", "toy", "--data-root", toy_root, "--out", tmp_path
    )
    image = next((toy_root / "val").iterdir())
    carbseg("labels", "views", image, *options, "--to", tmp_path / "views.png")
    small = "train.steps=1 train.warmup_steps=0 train.batch=1 student.width=4 student.aspp_channels=8 train.views=dual"
    training = [part for setting in small.split() for part in ("--set", setting)]
    carbseg("train", *options, *training)  # refuses a CLIP of other weights
    assert (tmp_path / "dual+carb" / "student").is_dir()


def test_without_a_faster_type_labels_are_made_in_float32(
    toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "times_as_fast", lambda dense: {torch.bfloat16: 0.6})
    said = carbseg("labels", *AUTO, "--split", "val", "--data-root", toy_root, "--out", tmp_path).stderr
    assert "labels.dtype=float32: bfloat16 is 0.60 times as fast as float32" in said
    assert dtype_of(tmp_path, "val") == "float32"


@pytest.mark.slow
def test_two_processes_that_find_different_types_take_that_of_the_first(toy_root: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["labels", *AUTO, "--split", "val", "--set", "labels.images_per_shard=1"]
    words += ["--data-root", str(toy_root), "--out", str(tmp_path)]
    runs = [FORKS.Process(target=label_as, args=(rank, port, words)) for rank in (0, 1)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0, 0]
    assert dtype_of(tmp_path, "val") == "bfloat16"


def label_as(rank: int, port: int, words: Sequence[str]) -> None:
    """The command as one of two processes of a launcher, of which the second would choose float32."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= address | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    probe.times_as_fast = lambda dense: {torch.bfloat16: (3.0, 0.5)[rank]}
    from pipeline.cli import main

    main(words, prog_name="carbseg")
