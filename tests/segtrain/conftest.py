"""What the trainer's tests share, to be read only: toy scenes and their pseudo-labels."""

from pathlib import Path

import pytest

from labelgen.samples import Sample
from pipeline.datasets import DATASETS


@pytest.fixture(scope="session")
def store_path(toy_stores: Path) -> Path:
    return toy_stores / "train.zarr"


@pytest.fixture(scope="session")
def samples(toy_root: Path) -> list[Sample]:
    return DATASETS["toy"].list_samples(toy_root, "train")
