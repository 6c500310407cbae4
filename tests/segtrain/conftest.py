"""What the trainer's tests share, to be read only: toy scenes and their pseudo-labels."""

from pathlib import Path

import pytest

from labelgen.samples import Sample
from pipeline.datasets import DATASETS
from tests.conftest import carbseg


@pytest.fixture(scope="session")
def store_path(clip_folder: Path, toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    carbseg("labels", "--dataset", "toy", "--data-root", toy_root, "--clip", clip_folder, "--out", out)
    return out / "labels" / "train.zarr"


@pytest.fixture(scope="session")
def samples(toy_root: Path) -> list[Sample]:
    return DATASETS["toy"].list_samples(toy_root, "train")
