"""Making pseudo-labels as a user does: whole runs of the command, on a real CLIP folder and real images."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from labelgen.store import PseudoLabelStore
from tests.conftest import ROOT, carbseg

# Small shards, so that a run can be cut between them.
SMALL = ("--dataset", "toy", "--set", "labels.images_per_shard=2")


def contents(store: Path) -> dict[str, bytes]:
    """Every file of the store."""
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()}


def test_labels_survive_kill_9_and_equal_an_uninterrupted_run(
    clip_folder: Path, toy_root: Path, tmp_path: Path
) -> None:
    options = (*SMALL, "--data-root", toy_root, "--clip", clip_folder)
    carbseg("labels", *options, "--out", tmp_path / "whole")
    whole = tmp_path / "whole" / "labels" / "train.zarr"
    cut = tmp_path / "cut" / "labels" / "train.zarr"
    command = [sys.executable, "-m", "pipeline", "labels", *map(str, options), "--out", str(tmp_path / "cut")]
    run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while run.poll() is None and not list(cut.glob("is_written/c/*")):
        time.sleep(0.005)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    assert run.returncode == -signal.SIGKILL
    before = PseudoLabelStore.open(cut).is_written()
    assert 0 < before.sum() < len(before)
    first_shard = contents(cut)["local_logits/c/0/0/0/0/0"]
    carbseg("labels", *options, "--out", tmp_path / "cut")
    assert contents(cut) == contents(whole)
    assert contents(cut)["local_logits/c/0/0/0/0/0"] == first_shard


def test_two_processes_write_what_one_writes(clip_folder: Path, toy_root: Path, tmp_path: Path) -> None:
    options = [*SMALL, "--data-root", toy_root, "--clip", clip_folder]
    carbseg("labels", *options, "--out", tmp_path / "one")
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--num_processes",
        "2",
        "--cpu",
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command = [*launch, "-m", "pipeline", "labels", *map(str, options), "--out", str(tmp_path / "two")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (contents(tmp_path / name / "labels" / "train.zarr") for name in ("one", "two"))
    assert one == two


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

    from labelgen.label import view_pixels
    from labelgen.images import read_image
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
