import json
from pathlib import Path

import pytest

from labelgen.samples import InputError
from pipeline.config import PRESETS, RunConfig, as_tree, build, load_config
from pipeline.datasets import DATASETS


def test_later_sources_win_preset_file_setting(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[train]\nsteps = 4007\nbatch = 3\n")
    config = load_config("camvid", tmp_path / "mine.toml", ["train.batch=5", "labels.views.local_zooms=[1, 1.5]"])
    assert (config.train.steps, config.train.batch, config.train.warmup_steps) == (4007, 5, 4000)
    assert config.labels.views.local_zooms == (1.0, 1.5)


@pytest.mark.parametrize(
    ("name", "steps", "warmup", "crop", "scales", "zooms"),
    [
        ("cityscapes", 30_000, 16_000, (512, 1024), (0.5, 2.0), (1.0, 2.0)),
        ("camvid", 12_000, 4_000, (720, 960), (1.0, 4.0), (0.5, 2.5)),
        ("wilddash2", 30_000, 16_000, (512, 1024), (0.5, 2.0), (1.0, 2.0)),
    ],
)
def test_presets_are_the_paper_s(
    name: str, steps: int, warmup: int, crop: object, scales: object, zooms: object
) -> None:
    config = load_config(name)
    assert (config.train.steps, config.train.warmup_steps, config.train.batch) == (steps, warmup, 8)
    assert (config.augment.crop_height, config.augment.crop_width) == crop
    assert (config.augment.scales, config.augment.flip) == (scales, 0.5)
    views = config.labels.views
    assert (views.local_height, views.local_width, views.local_zooms) == (512, 256, zooms)
    train = config.train
    assert (train.optimizer, train.learning_rate, train.min_learning_rate) == ("sgd", 0.005, 1e-4)
    assert (train.weight_decay, train.poly_power, train.queue) == (5e-4, 0.9, 5)


def test_every_data_set_with_classes_of_its_own_has_a_preset_and_all_load() -> None:
    assert {path.stem for path in PRESETS.glob("*.toml")} == {n for n, spec in DATASETS.items() if not spec.is_users}
    for name in (*DATASETS, "hf:somebody/something"):
        load_config(name)


def test_resolved_settings_build_the_same_configuration() -> None:
    config = load_config("toy")
    assert build(RunConfig, json.loads(json.dumps(as_tree(config)))) == config


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.stepps=3", r"unknown setting in \[train\] 'stepps'; did you mean 'steps'\?"),
        ("trian.steps=3", r"unknown setting in \[top level\] 'trian'; did you mean 'train'\?"),
        ("train.steps=many", "train.steps must be of type int, got 'many'"),
        ("train.steps=1.5", "train.steps must be of type int, got 1.5"),
        ("train.views=golbal", "train.views must be one of base, local, dual, truth, got 'golbal'"),
        ("augment.scales=[1]", r"augment.scales needs 2 values, got \[1\]"),
        ("labels.views.overlap=1.5", r"views.overlap must be in \[0, 1\), got 1.5"),
        ("train.steps", "--set takes NAME=VALUE"),
        ("train.steps=500", r"CARB would never set in: train.warmup_steps \(600\) must be below train.steps \(500\)"),
        ("train.steps=0", "train.steps must be at least 1, got 0"),
        ("train.balance=gate", "train.balance must be one of adaptive, fixed, class-wise, gated, got 'gate'"),
        (
            "train.balance=fixed",
            "train.balance=fixed and train.fixed_weight=W belong together; the paper's best is 0.1",
        ),
        ("train.correction=1", r"train.correction must be in \[0, 1\), got 1.0"),
        ("train.fixed_weight=0.1", "train.balance=fixed and train.fixed_weight=W belong together"),
        ("train.gate=[0.6, 0.3]", r"train.gate must be two rising shares in \[0, 1\], got \(0.6, 0.3\)"),
        ("train.teacher=1", r"train.teacher must be in \[0, 1\), got 1.0"),
        ("tags.source=clip", "tags.source must be one of data, auto, model, got 'clip'"),
        ("tags.min_area=1", r"tags.min_area must be in \[0, 1\), got 1.0"),
        ("tags.file=labels.txt", "tags.file must be a .csv or .json file, got 'labels.txt'"),
        ("train=3", "train must be of type TrainConfig, got 3"),
    ],
)
def test_bad_settings_name_the_setting(setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_config("toy", None, [setting])


def test_none_and_words_need_no_quotes() -> None:
    assert load_config("toy", None, ["train.balance=fixed", "train.fixed_weight=0.1"]).train.fixed_weight == 0.1
    assert load_config("toy", None, ["train.fixed_weight=none"]).train.fixed_weight is None
    assert load_config("toy", None, ["labels.variant=sclip"]).labels.variant == "sclip"


def test_missing_and_broken_files_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no configuration file"):
        load_config("toy", tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9")
    with pytest.raises(InputError, match="is not UTF-8"):
        load_config("toy", tmp_path / "latin.toml")
    (tmp_path / "bad.toml").write_text("steps = = 3")
    with pytest.raises(InputError, match="is no valid TOML"):
        load_config("toy", tmp_path / "bad.toml")
