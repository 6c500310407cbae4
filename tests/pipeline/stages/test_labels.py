"""Making pseudo-labels as a user does: whole runs of the command, on a real CLIP folder and real images."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from labelgen.store import PseudoLabelStore
from labelgen.verify import verify
from tests.conftest import LAUNCH, ROOT, carbseg

# Small shards, so that a run can be cut between them.
SMALL = ("--dataset", "toy", "--set", "labels.images_per_shard=2")


def contents(store: Path) -> dict[str, bytes]:
    """Every file of the store."""
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()}


def start(*arguments: object) -> subprocess.Popen[bytes]:
    """A run of the command that goes on in the background."""
    command = [sys.executable, "-m", "pipeline", "labels", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def test_labels_survive_five_kills_and_equal_an_uninterrupted_run(
    clip_folder: Path, toy_root: Path, tmp_path: Path
) -> None:
    options = ("--dataset", "toy", "--set", "labels.images_per_shard=1", "--data-root", toy_root, "--clip", clip_folder)
    carbseg("labels", *options, "--out", tmp_path / "whole")
    cut = tmp_path / "cut" / "labels" / "train.zarr"
    rng = random.Random(0)
    written = 0
    for _ in range(5):
        run = start(*options, "--out", tmp_path / "cut")
        while run.poll() is None and len(list(cut.glob("is_written/c.*"))) <= written:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.03))
        run.kill()
        assert run.wait() == -signal.SIGKILL
        written = int(PseudoLabelStore.open(cut).is_written().sum())
    assert 0 < written < 10
    finished = np.flatnonzero(PseudoLabelStore.open(cut).is_written())
    files = [cut / f"local_logits/c.{row}.0.0.0.0" for row in finished]
    stamps = [file.stat().st_mtime_ns for file in files]
    carbseg("labels", *options, "--out", tmp_path / "cut")
    assert contents(cut) == contents(tmp_path / "whole" / "labels" / "train.zarr")
    assert [file.stat().st_mtime_ns for file in files] == stamps  # what was finished is not made again


def test_two_processes_write_what_one_writes(clip_folder: Path, toy_root: Path, tmp_path: Path) -> None:
    options = [*SMALL, "--data-root", toy_root, "--clip", clip_folder]
    carbseg("labels", *options, "--out", tmp_path / "one")
    command = [sys.executable, *LAUNCH, "-m", "pipeline", "labels", *map(str, options), "--out", str(tmp_path / "two")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("10 of 10 images") == 2  # both waited for the whole
    one, two = (contents(tmp_path / name / "labels" / "train.zarr") for name in ("one", "two"))
    assert one == two


def test_four_jobs_that_start_at_once_lose_no_row(clip_folder: Path, toy_root: Path, tmp_path: Path) -> None:
    options = [*SMALL, "--data-root", toy_root, "--clip", clip_folder, "--out", tmp_path / "four"]
    jobs = [start(*options, "--shard", f"{i}/4") for i in (1, 2, 3, 4)]
    assert [job.wait() for job in jobs] == [0] * 4
    store = PseudoLabelStore.open(tmp_path / "four" / "labels" / "train.zarr")
    store.require_complete()
    assert verify(store) == []
    carbseg("labels", *SMALL, "--data-root", toy_root, "--clip", clip_folder, "--out", tmp_path / "one")
    assert contents(Path(store.path)) == contents(tmp_path / "one" / "labels" / "train.zarr")
    assert list((tmp_path / "four" / "labels").iterdir()) == [Path(store.path)]  # nothing half-begun is left


def test_a_damaged_store_is_verified_and_mended_by_command(clip_folder: Path, toy_root: Path, tmp_path: Path) -> None:
    options = ("labels", *SMALL, "--data-root", toy_root, "--clip", clip_folder, "--out", tmp_path)
    carbseg(*options)
    store = tmp_path / "labels" / "train.zarr"
    whole = contents(store)
    assert "10 of 10 images, 11 classes): as written" in carbseg("labels", "verify", store).stdout
    assert "local_logits       10 x 5 x 11 x 20 x 10" in carbseg("labels", "info", store).stdout
    broken = store / "local_logits" / "c.1.0.0.0.0"
    broken.write_bytes(broken.read_bytes()[:1000])
    found = carbseg("labels", "verify", store, check=False)
    assert found.returncode == 1
    assert "toy_0002 ... toy_0003 (2 images): local_logits" in found.stdout
    assert "1 shards are damaged; 'labels verify --redo', then 'labels', makes them again" in found.stderr
    assert "1 shards to make again" in carbseg("labels", "verify", store, "--redo").stdout
    assert "8 of 10 images" in carbseg("labels", "info", store).stdout
    carbseg(*options)
    assert contents(store) == whole


def test_other_settings_on_an_old_store_are_refused(clip_folder: Path, toy_root: Path, tmp_path: Path) -> None:
    options = ("labels", *SMALL, "--data-root", toy_root, "--clip", clip_folder, "--out", tmp_path, "--split", "val")
    carbseg(*options)
    refused = carbseg(*options, "--set", "labels.variant=sclip", check=False)
    assert refused.returncode == 1
    assert refused.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert "labels.variant = 'maskclip', not 'sclip'" in refused.stderr


def test_masks_are_those_of_the_image_in_one_piece(clip_folder: Path, toy_root: Path, tmp_path: Path) -> None:
    """Logits in the store equal logits of the same view computed alone: batching changes nothing but speed."""
    import torch

    from labelgen.images import read_image
    from labelgen.label import view_pixels
    from labelgen.maskclip import DenseCLIP
    from labelgen.views import View

    carbseg("labels", *SMALL, "--data-root", toy_root, "--clip", clip_folder, "--out", tmp_path, "--split", "val")
    store = PseudoLabelStore.open(tmp_path / "labels" / "val.zarr")
    image_id = store.image_ids[1]
    dense = DenseCLIP.from_pretrained(clip_folder)
    image = read_image(toy_root / "val" / f"{image_id}.png")
    views = [(View((0, 0, 160, 320), 1.0), store.global_logits(image_id))]
    views += [(View(v.box, v.zoom), v.logits) for v in store.local_views(image_id)]
    assert len(views) == 6
    for view, logits in views:
        pixels = torch.from_numpy(view_pixels(image, view, dense.patch_px))[None]
        alone = dense.logits(dense.normalise(pixels), torch.from_numpy(store.text_vectors))[0]
        np.testing.assert_allclose(logits, alone, atol=1e-3)
