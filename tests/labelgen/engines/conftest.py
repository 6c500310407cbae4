"""What the engines' tests share, to be read only: toy scenes and their image-level labels."""

from pathlib import Path

import pytest

from labelgen.samples import ClassSet, Sample
from pipeline.datasets import DATASETS


@pytest.fixture(scope="session")
def samples(toy_root: Path) -> list[Sample]:
    return DATASETS["toy"].list_samples(toy_root, "train")


@pytest.fixture(scope="session")
def classes() -> ClassSet:
    return DATASETS["toy"].classes
