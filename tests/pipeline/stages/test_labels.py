"""Making pseudo-labels as a user does: whole runs of the command, on a real CLIP folder and real images."""

import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from labelgen.store import ImageLogits, PseudoLabelStore
from labelgen.verify import verify
from pipeline.stages.labels import make_labels
from pipeline.stages.run import Run
from tests.conftest import carbseg, forked, fresh_state, refused
from tests.files import contents, own_folder
from tests.pipeline.stages.conftest import SMALL


@pytest.mark.slow
def test_labels_survive_five_kills_and_equal_an_uninterrupted_run(
    clip_folder: Path, toy_root: Path, tmp_path: Path
) -> None:
    options = ("--dataset", "toy", "--set", "labels.images_per_shard=1", "--data-root", toy_root, "--clip", clip_folder)
    carbseg("labels", *options, "--out", tmp_path / "whole")
    cut = tmp_path / "cut" / "labels" / "train.zarr"
    rng = random.Random(0)
    written = 0
    for _ in range(5):
        run = forked("labels", *options, "--out", tmp_path / "cut")
        while run.is_alive() and len(list(cut.glob("is_written/c.*"))) <= written:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.03))
        run.kill()
        run.join()
        assert run.exitcode == -signal.SIGKILL
        written = int(PseudoLabelStore.open(cut).is_written().sum())
    assert 0 < written < 10
    finished = np.flatnonzero(PseudoLabelStore.open(cut).is_written())
    files = [cut / f"local_logits/c.{row}.0.0.0.0" for row in finished]
    stamps = [file.stat().st_mtime_ns for file in files]
    carbseg("labels", *options, "--out", tmp_path / "cut")
    assert contents(cut) == contents(tmp_path / "whole" / "labels" / "train.zarr")
    assert [file.stat().st_mtime_ns for file in files] == stamps  # what was finished is not made again


def test_ctrl_c_says_that_finished_shards_are_saved_and_how_to_go_on(
    clip_folder: Path, toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ("labels", *SMALL, "--data-root", toy_root, "--clip", clip_folder, "--out", tmp_path)
    write = PseudoLabelStore.write_shard

    def press_after_two(store: PseudoLabelStore, rows: range, images: list[ImageLogits]) -> None:
        if rows.start == 4:
            raise KeyboardInterrupt
        write(store, rows, images)

    with monkeypatch.context() as patched:
        patched.setattr(PseudoLabelStore, "write_shard", press_after_two)
        done = carbseg(*line, check=False)
    assert (done.returncode, done.stdout) == (128 + signal.SIGINT, "")
    assert "stopped by SIGINT; finished shards are saved; give the same command again to go on\n" in done.stderr
    assert PseudoLabelStore.open(tmp_path / "labels" / "train.zarr").is_written().sum() == 4
    assert "10 of 10 images" in carbseg(*line).stdout


@pytest.mark.slow
def test_four_jobs_that_start_at_once_lose_no_row(
    clip_folder: Path, toy_root: Path, small_stores: Path, tmp_path: Path
) -> None:
    options = [*SMALL, "--data-root", toy_root, "--clip", clip_folder, "--out", tmp_path / "four"]
    jobs = [forked("labels", *options, "--shard", f"{i}/4") for i in (1, 2, 3, 4)]
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0] * 4
    store = PseudoLabelStore.open(tmp_path / "four" / "labels" / "train.zarr")
    store.require_complete()
    assert verify(store) == []
    assert contents(Path(store.path)) == contents(small_stores / "train.zarr")
    assert list((tmp_path / "four" / "labels").iterdir()) == [Path(store.path)]  # nothing half-begun is left


def test_a_store_whose_beginning_was_cut_is_begun_again(clip_folder: Path, toy_root: Path, tmp_path: Path) -> None:
    """An object store cannot rename: the group is there before the attributes that make it a store of ours."""
    zarr.open_group("memory://cut/train.zarr", mode="w")
    with fresh_state():
        run = Run.of("toy", str(toy_root), str(clip_folder), str(tmp_path), "memory://cut")
        store = make_labels(run, "train")
    store.require_complete()
    assert verify(store) == []


def test_a_damaged_store_is_verified_and_mended_by_command(
    clip_folder: Path, toy_root: Path, small_stores: Path, tmp_path: Path
) -> None:
    store = tmp_path / "labels" / "train.zarr"
    shutil.copytree(small_stores / "train.zarr", store)
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
    carbseg("labels", *SMALL, "--data-root", toy_root, "--clip", clip_folder, "--out", tmp_path)
    assert contents(store) == whole


def test_other_settings_on_an_old_store_are_refused(
    clip_folder: Path, toy_root: Path, small_stores: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_stores / "val.zarr", tmp_path / "labels" / "val.zarr")
    options = ("labels", *SMALL, "--data-root", toy_root, "--clip", clip_folder, "--out", tmp_path, "--split", "val")
    assert "labels.variant = 'maskclip', not 'sclip'" in refused(*options, "--set", "labels.variant=sclip")
    assert contents(tmp_path / "labels" / "val.zarr") == contents(small_stores / "val.zarr")


def test_words_and_photos_that_the_tiny_clip_does_not_know_are_warned_about(tmp_path: Path) -> None:
    root = own_folder(tmp_path / "mine", "a.png", classes='["sky", "zebra", "giraffe"]')
    (root / "labels.csv").write_text("image,labels\na.png,sky;zebra\n")
    said = carbseg("labels", "--dataset", "folder", "--data-root", root, "--out", tmp_path / "run").stderr
    first, second = (line for line in said.splitlines() if line.startswith("Warning: "))
    assert "the CLIP tiny does not know zebra, giraffe, and takes all unknown words for one" in first
    assert "expect poor masks of folder; name a real one with --clip" in second


def test_toy_scenes_are_made_without_a_warning(clip_folder: Path, toy_root: Path, tmp_path: Path) -> None:
    options = ("--dataset", "toy", "--data-root", toy_root, "--split", "val", "--out", tmp_path / "run")
    assert "Warning" not in carbseg("labels", *options).stderr
    assert "Warning" not in carbseg("labels", *options, "--clip", clip_folder, "--out", tmp_path / "again").stderr


def test_masks_are_those_of_the_image_in_one_piece(clip_folder: Path, toy_root: Path, small_stores: Path) -> None:
    """Logits in the store equal logits of the same view computed alone: batching changes nothing but speed."""
    import torch

    from labelgen.images import read_image
    from labelgen.label import view_pixels
    from labelgen.maskclip import DenseCLIP
    from labelgen.views import View

    store = PseudoLabelStore.open(small_stores / "val.zarr")
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
