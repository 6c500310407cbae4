"""Checkpoints and model folders where the disk is full; tests of training cut runs and go on from them."""

import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from labelgen.samples import InputError
from labelgen.training.checkpoints import read_checkpoint, whole_folder, write_checkpoint


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file grows beyond 1,000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def state(value: float) -> dict[str, object]:
    return {"student": torch.full((1000,), value), "made_with": {}}


def test_a_checkpoint_that_cannot_be_written_is_told_and_the_one_before_stays(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    write_checkpoint(tmp_path, 1, state(1), keep=1)
    request.getfixturevalue("full_disk")
    with pytest.raises(InputError, match="checkpoint-00000002.pt cannot be written: .* disk may be full"):
        write_checkpoint(tmp_path, 2, state(2), keep=1)
    kept = read_checkpoint(tmp_path, {})
    assert kept is not None
    assert (kept["step"], float(kept["student"][0])) == (1, 1.0)


def test_a_model_that_cannot_be_written_is_told_and_the_one_before_stays(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    def write(value: float) -> None:
        with whole_folder(tmp_path / "student") as partial:
            partial.mkdir()
            save_file({"weights": np.full(1000, value)}, partial / "model.safetensors")

    write(1)
    before = (tmp_path / "student" / "model.safetensors").read_bytes()
    request.getfixturevalue("full_disk")
    with pytest.raises(InputError, match=r"student cannot be written: .*File too large.* disk may be full"):
        write(2)
    assert (tmp_path / "student" / "model.safetensors").read_bytes() == before
