"""What tests of several stages share, to be read only: small shards of pseudo-labels, a run in two processes."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.datasets import DATASETS
from tests.conftest import carbseg, carbseg_process, made_once
from tests.files import points_file
from tests.models import save_detector, save_sam, save_sam3

# Small shards, so that a run can be cut between them.
SMALL = ("--dataset", "toy", "--set", "labels.images_per_shard=2")
STEPS = (
    "train.steps=80 train.warmup_steps=16 train.batch=2 train.checkpoint_every=8 train.validate_every=40 "
    "train.diagnose_every=20 student.width=4 student.aspp_channels=8 augment.crop_height=64 augment.crop_width=96"
)
# Of a run that is long enough to be cut twice, the first time before CARB sets in.
TRAINING = tuple(part for setting in STEPS.split() for part in ("--set", setting))


# Of one that is long enough to save and validate.
SOON = ("train.steps=6", "train.warmup_steps=2", "train.checkpoint_every=2", "train.validate_every=4")
SHORT = (*TRAINING, *(word for setting in (*SOON, "train.workers=0") for word in ("--set", setting)))


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    """Files that are made meanwhile lack these permissions."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture(scope="session")
def whole_run(toy_root: Path, clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stages in one go with one student, local+carb, under the usual umask."""
    options = (*SMALL, *SHORT, "--data-root", toy_root, "--clip", clip_folder, "--students", "local+carb")

    def make(folder: Path) -> None:
        with umask(0o022):
            carbseg("run", *options, "--out", folder)

    return made_once(tmp_path_factory, "whole", make)


@pytest.fixture(scope="session")
def small_stores(clip_folder: Path, toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pseudo-labels of the toy scenes, two images a shard: train.zarr and val.zarr."""

    def make(folder: Path) -> None:
        for split in ("train", "val"):
            options = (*SMALL, "--data-root", toy_root, "--clip", clip_folder, "--split", split)
            carbseg("labels", *options, "--out", folder, "--stores", folder)

    return made_once(tmp_path_factory, "small", make)


@pytest.fixture(scope="session")
def foundation(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Settings that name tiny foundation models with random weights, and take what they say, however unsure."""

    def make(folder: Path) -> None:
        save_detector(folder / "detector")
        save_sam(folder / "sam")
        save_sam3(folder / "sam3")

    folder = made_once(tmp_path_factory, "foundation", make)
    settings = [f"grounded_sam.{name}={folder / name}" for name in ("detector", "sam")]
    settings += [f"sam3.model={folder / 'sam3'}", "grounded_sam.mask_threshold=0.0", "sam3.mask_threshold=0.0"]
    return tuple(part for setting in settings for part in ("--set", setting))


@pytest.fixture(scope="session")
def run_in_two(clip_folder: Path, toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of all stages in two processes; what it said is in said.txt."""
    options = (*SMALL, *TRAINING, "--set", "train.workers=0", "--data-root", toy_root, "--clip", clip_folder)

    def make(folder: Path) -> None:
        done = carbseg_process("run", *options, "--students", "local+carb", "--out", folder, processes=2)
        (folder / "said.txt").write_text(done.stdout)

    return made_once(tmp_path_factory, "two", make)


@pytest.fixture(scope="session")
def toy_points(toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of one labelled pixel per class of the toy scenes."""
    spec = DATASETS["toy"]
    samples = spec.list_samples(toy_root, "train", with_truth=True, with_tags=False)
    folder = tmp_path_factory.mktemp("points")
    return points_file(folder / "points.csv", samples, spec.classes.names)
