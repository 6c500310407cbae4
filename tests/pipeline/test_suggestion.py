"""Settings that fit a user's images and machine: the rules, and what a run keeps of them."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from labelgen.samples import InputError
from pipeline.config import RunConfig, build, load_config
from pipeline.datasets import DATASETS
from pipeline.suggestion import KEPT, Situation, as_toml, look, suggest
from tests.conftest import carbseg, refused
from tests.files import image, own_folder

CITYSCAPES = Situation(height=1024, width=2048, images=2975, has_gpu=True, gpu_gb=80, cores=16)
CAMVID = Situation(height=720, width=960, images=367, has_gpu=True, gpu_gb=24, cores=8)
TOY = Situation(height=160, width=320, images=300, has_gpu=False, cores=2, tiny_clip=True)


def settings(situation: Situation) -> RunConfig:
    return build(RunConfig, suggest(situation))


def test_on_the_paper_s_data_sets_and_a_gpu_they_are_the_paper_s() -> None:
    ours, paper = settings(CITYSCAPES), load_config("cityscapes")
    assert ours.augment == paper.augment
    assert ours.labels == paper.labels
    assert (ours.train.steps, ours.train.batch) == (paper.train.steps, paper.train.batch)
    ours, paper = settings(CAMVID), load_config("camvid")
    assert (ours.augment.crop_height, ours.augment.crop_width) == (720, 960)
    assert (ours.labels.views.local_height, ours.labels.views.local_width) == (512, 256)
    assert ours.train.steps == pytest.approx(paper.train.steps, rel=0.05)


def test_on_toy_scenes_without_a_gpu_they_are_the_toy_preset_s() -> None:
    ours, preset = settings(TOY), load_config("toy")
    assert replace(ours.labels.views, global_zooms=(1.0,)) == preset.labels.views
    assert (ours.augment.crop_height, ours.augment.crop_width) == (160, 320)
    assert (ours.train.batch, ours.train.optimizer) == (preset.train.batch, "adamw")
    assert ours.student.backbone == "light"


@pytest.mark.parametrize("has_gpu", [False, True])
@pytest.mark.parametrize("images", [1, 12, 1_000_000])
@pytest.mark.parametrize("size", [(1, 1), (20, 300), (160, 320), (360, 480), (1080, 1920), (2160, 3840), (4000, 200)])
def test_any_situation_gives_settings_that_hold(size: tuple[int, int], images: int, has_gpu: bool) -> None:
    height, width = size
    situation = Situation(height=height, width=width, images=images, has_gpu=has_gpu, gpu_gb=8, cores=4)
    config = settings(situation)
    views, augment, train = config.labels.views, config.augment, config.train
    assert 1 <= views.local_height <= height
    assert 1 <= views.local_width <= width
    assert 1 <= augment.crop_height <= height
    assert 1 <= augment.crop_width <= width
    assert height * width * views.global_zooms[0] ** 2 <= 1.01 * 1024 * 2048
    assert 300 <= train.steps <= 30_000
    assert 0 < train.warmup_steps < train.steps
    assert config.labels.images_per_shard <= max(1, images)
    assert build(RunConfig, tomllib.loads(as_toml(suggest(situation), situation))) == config


def test_the_median_size_is_looked_at(tmp_path: Path) -> None:
    root = own_folder(tmp_path, "a.png", "b.png", "c.png")
    for name, height in (("a", 10), ("b", 30), ("c", 500)):
        image(root / "images" / f"{name}.png", height, 40)
    seen = look(DATASETS["folder"], root, tiny_clip=True)
    assert (seen.height, seen.width, seen.images) == (30, 40, 3)
    with pytest.raises(InputError, match="no folder"):
        look(DATASETS["folder"], tmp_path / "elsewhere", tiny_clip=True)


def test_a_run_keeps_what_it_was_begun_with(tmp_path: Path, clip_folder: Path) -> None:
    root = own_folder(tmp_path / "mine", "a.png", "b.png")
    for name in ("a", "b"):
        image(root / "images" / f"{name}.png", 48, 64)
    (root / "labels.csv").write_text("image,labels\na.png,sky;road\nb.png,road\n")
    out = tmp_path / "out"
    options = ("--dataset", "folder", "--data-root", root, "--out", out)
    done = carbseg("labels", *options, "--clip", clip_folder)
    kept = (out / KEPT).read_text()
    assert "# For 2 images of about 48 x 64" in kept
    assert kept in done.stderr
    # What it holds counts, not what would be suggested now; --set counts more.
    (out / KEPT).write_text(kept.replace("crop_width = 64", "crop_width = 40"))
    small = ("--set", "train.batch=2", "--set", "student.width=4", "--set", "student.aspp_channels=8")
    again = carbseg("train", *options, *small, "--set", "augment.crop_height=32", "--steps", 2)
    assert "For 2 images" not in again.stderr
    made_with = json.loads((out / "local+carb" / "run.json").read_text())["settings"]
    assert (made_with["augment"]["crop_height"], made_with["augment"]["crop_width"]) == (32, 40)
    (out / KEPT).write_text("[labels")
    assert f"{out / KEPT} cannot be read" in refused("train", *options)


def test_suggest_prints_settings_for_config_and_how_long_they_take(
    tmp_path: Path, clip_folder: Path, toy_root: Path
) -> None:
    options = ("--data-root", toy_root, "--out", tmp_path / "out", "--clip", clip_folder)
    printed = carbseg("datasets", "suggest", "--dataset", "toy", *options).stdout
    (tmp_path / "mine.toml").write_text(printed)
    assert load_config("toy", tmp_path / "mine.toml").train.steps == 300
    assert "for 1800 steps" in printed.splitlines()[-1]  # those of the preset, which is what the run would take
    assert not (tmp_path / "out").exists()
    assert "classes.toml" in refused("datasets", "suggest", "--dataset", "folder", "--data-root", tmp_path / "nothing")
