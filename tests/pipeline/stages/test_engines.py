"""Label engines as a user meets them: every one writes the same kind of store, and a run keeps to the one it has."""

import json
import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from labelgen.engines import fit
from labelgen.engines.engine import EngineSpec, ask_each
from labelgen.engines.table import ENGINES
from labelgen.images import image_size
from labelgen.label import Asked, Prepared
from labelgen.store import PseudoLabelStore
from labelgen.training.checkpoints import last_checkpoint
from labelgen.training.processes import StoppedError
from pipeline.datasets import DATASETS
from tests.conftest import carbseg, carbseg_process, kill_when, made_once, refused
from tests.files import contents
from tests.pipeline.stages.conftest import SMALL, TRAINING

SHORT = (*TRAINING, "--set", "train.steps=6", "--set", "train.warmup_steps=2")
FIT = "epochs=2 batch=5 crop=[64,96] long_side=[96,128] scales=[1.0] flip=false readers=1 checkpoint_every=1"
FITTING = tuple(
    part
    for setting in ("cam.width=4", *(f"{name}.{setting}" for name in ("cam", "clims") for setting in FIT.split()))
    for part in ("--set", setting)
)
COMPARED = ("maskclip", "clip-es")
VAL = ("--split", "val")


@pytest.fixture(scope="session")
def toy(clip_folder: Path, toy_root: Path, foundation: tuple[str, ...]) -> tuple[object, ...]:
    """Toy scenes, models with random weights, small shards and networks."""
    return (*SMALL, *FITTING, *foundation, "--data-root", toy_root, "--clip", clip_folder)


@pytest.fixture(scope="session")
def compared(toy: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `engines compare` makes of MaskCLIP and CLIP-ES; what it said is in said.txt."""

    def make(folder: Path) -> None:
        said = carbseg(*comparison(toy, folder)).stdout
        (folder / "said.txt").write_text(said)

    return made_once(tmp_path_factory, "compared", make)


@pytest.fixture(scope="session")
def others(toy: tuple[object, ...], toy_points: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of runs in which the other engines have labelled val."""

    def make(folder: Path) -> None:
        for name in ("proxyclip", "clims", "grounded-sam", "sam3"):
            carbseg("labels", *toy, *VAL, "--engine", name, "--out", folder / name)
        shutil.copytree(folder / "clims" / "engine" / "cam", folder / "cam" / "engine" / "cam")
        carbseg("labels", *toy, *VAL, "--engine", "cam", "--out", folder / "cam")
        with_points = ("--engine", "one-pixel", "--points", toy_points, "--out", folder / "one-pixel")
        carbseg("labels", *toy, *VAL, *with_points)

    return made_once(tmp_path_factory, "engines", make)


@pytest.fixture(scope="session")
def val_stores(compared: Path, others: Path) -> dict[str, PseudoLabelStore]:
    """Of each engine, its pseudo-labels of val."""
    runs = {name: (compared if name in COMPARED else others) / name for name in ENGINES}
    return {name: PseudoLabelStore.open(run / "labels" / "val.zarr") for name, run in runs.items()}


def comparison(toy: tuple[object, ...], out: Path) -> tuple[object, ...]:
    """The command of `compared`: a student on local views, where there are some."""
    return ("engines", "compare", *toy, *SHORT, "--engines", ",".join(COMPARED), "--students", "local", "--out", out)


# ---- Every engine --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_writes_a_whole_store(name: str, val_stores: dict[str, PseudoLabelStore]) -> None:
    store = val_stores[name]
    assert "3 of 3 images, 11 classes): as written" in carbseg("labels", "verify", store.path).stdout
    assert store.mask_views == (("global", "local", "fused") if name in ("maskclip", "proxyclip") else ("global",))
    for image_id in store.image_ids:
        for view in store.mask_views:
            seen = set(np.unique(store.mask(image_id, view)).tolist()) - {255}
            assert seen
            assert seen <= set(np.flatnonzero(store.labels_of(image_id)).tolist())


def test_no_two_engines_say_the_same(val_stores: dict[str, PseudoLabelStore]) -> None:
    assert len({store.mask(store.image_ids[0]).tobytes() for store in val_stores.values()}) == len(ENGINES)


def test_provenance_names_the_engine_its_settings_and_its_weights(val_stores: dict[str, PseudoLabelStore]) -> None:
    about = {name: store.provenance.get("engine") for name, store in val_stores.items()}
    assert about.pop("maskclip") is None  # as in stores that were made before there were others
    assert {name: said["name"] for name, said in about.items()} == {name: name for name in about}
    assert about["proxyclip"]["settings"] == {"proxy": "clip", "layer": 2, "beta": 1.2, "gamma": 10.0}
    assert about["clip-es"]["settings"]["attention_blocks"] == 8
    assert about["cam"]["settings"]["width"] == 4
    assert about["clims"]["settings"]["weights"] is None
    # CLIP's own weights have their hash in any case.
    assert {name: list(said["weights_sha256"]) for name, said in about.items()} == {
        **{"proxyclip": [], "clip-es": []},
        **{"cam": ["network"], "clims": ["network"]},
        "one-pixel": ["vectors", "features"],
        **{"grounded-sam": ["detector", "sam"], "sam3": ["model"]},
    }
    assert about["cam"]["weights_sha256"] != about["clims"]["weights_sha256"]


def test_a_proxy_is_known_by_its_weights_and_not_by_its_folder(toy: tuple[object, ...], tmp_path: Path) -> None:
    from transformers import Dinov2Config, Dinov2Model

    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 14, "image_size": 56}

    def new_proxy() -> None:
        Dinov2Model(Dinov2Config(**size)).save_pretrained(tmp_path / "proxy")

    proxy = ("--set", f"labels.proxy={tmp_path / 'proxy'}", "--set", "proxyclip.layer=-1")
    line = ("labels", *toy, *VAL, "--engine", "proxyclip", *proxy, "--out", tmp_path)
    new_proxy()
    carbseg(*line)
    new_proxy()
    assert "was made with engine.weights_sha256.proxy = " in refused(*line)


def test_labels_that_clip_guesses_for_an_engine_are_those_it_guesses_for_itself(
    toy: tuple[object, ...], tmp_path: Path
) -> None:
    stores = []
    for name in ("maskclip", "clip-es"):
        carbseg("labels", *toy, *VAL, "--tags", "auto", "--engine", name, "--out", tmp_path / name)
        stores.append(PseudoLabelStore.open(tmp_path / name / "labels" / "val.zarr"))
    own, for_other = (store.image_labels for store in stores)
    assert 0 < own.sum() < own.size
    np.testing.assert_array_equal(for_other, own)
    assert {store.provenance["labels"]["guess_area"] for store in stores} == {0.005}


# ---- A new engine --------------------------------------------------------------------------------------------------


class RightHalf:
    """The brighter, the later the class; says nothing of the left half, and of every other image nothing at all."""

    patch_px, needs_labels, weights = 16, False, {"eye": "0123"}

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def ask(self, images: Sequence[Prepared], text_TD: torch.Tensor) -> Asked:
        return ask_each(images, self._maps)

    def _maps(self, image: Prepared, view: int) -> NDArray[np.float32]:
        brightness_hw = image.pixels_HW3[view][::16, ::16].mean(2) / 255
        maps_Chw = -np.abs(brightness_hw - np.linspace(0, 1, self.classes)[:, None, None]).astype(np.float32)
        silent = maps_Chw.shape[2] if int(image.image_id[-1]) % 2 else maps_Chw.shape[2] // 2
        maps_Chw[:, :, :silent] = np.nan
        return maps_Chw


def test_a_new_engine_is_a_file_and_a_row(
    toy: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = EngineSpec(about="a", needs="b", cost="c", begin=lambda inputs: RightHalf(len(inputs.classes)))
    monkeypatch.setitem(ENGINES, "right-half", row)
    out = ("--out", tmp_path)
    carbseg("labels", *toy, *out, "--engine", "right-half")
    store = PseudoLabelStore.open(tmp_path / "labels" / "train.zarr")
    assert store.provenance["engine"] == {"name": "right-half", "settings": {}, "weights_sha256": {"eye": "0123"}}
    assert "pseudo-labels" in carbseg("labels", "score", *toy, *out).stdout.lower()
    carbseg("labels", "sheet", *toy, *out)
    assert (tmp_path / "sheets" / "train.png").is_file()
    carbseg("labels", "export", store.path, tmp_path / "masks")
    for image_id in store.image_ids:
        mask_HW = np.array(Image.open(tmp_path / "masks" / f"{image_id}.png"))
        np.testing.assert_array_equal(mask_HW, store.mask(image_id))
        assert (mask_HW[:, :160] == 255).all()
        assert (mask_HW[:, 176:] == 255).all() == bool(int(image_id[-1]) % 2)
    carbseg("train", *toy, *SHORT, *out, "--set", "train.views=base")
    rows = [json.loads(line) for line in (tmp_path / "base+carb" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 6
    assert all(np.isfinite(row["loss"]) for row in rows)
    assert "student base+carb" in carbseg("evaluate", *toy, *out).stdout
    val = PseudoLabelStore.open(tmp_path / "labels" / "val.zarr")
    assert val.provenance["engine"]["name"] == "right-half"
    assert (val.mask(val.image_ids[0])[:, :160] == 255).all()


# ---- Regions, two engines as one, no labels at all -----------------------------------------------------------------


def test_regions_are_in_the_store_and_in_its_provenance_and_nowhere_where_they_are_off(
    toy: tuple[object, ...], val_stores: dict[str, PseudoLabelStore], tmp_path: Path
) -> None:
    line = ("labels", *toy, *VAL, "--out", tmp_path)
    carbseg(*line, "--set", "labels.regions=slic")
    store, plain = PseudoLabelStore.open(tmp_path / "labels" / "val.zarr"), val_stores["maskclip"]
    assert "as written" in carbseg("labels", "verify", store.path).stdout
    about = {"source": "slic", "size_px": 12, "compactness": 30.0, "patch_px": 2}
    assert store.provenance == plain.provenance | {"regions": about}
    image_id = store.image_ids[0]
    coarse, fine = (one.global_logits(image_id) for one in (plain, store))
    assert (coarse.shape, fine.shape) == ((11, 20, 40), (11, 80, 160))
    np.testing.assert_allclose(fine.mean((1, 2)), coarse.mean((1, 2)), atol=1e-3)
    assert len(np.unique(fine[0])) < fine[0].size / 4
    assert store.mask_views == plain.mask_views
    assert "was made with regions = " in refused(*line)
    assert "was made with regions.size_px = 12, not 20" in refused(
        *line, "--set", "labels.regions=slic", "--set", "regions.size_px=20"
    )


def test_two_engines_write_one_store(toy: tuple[object, ...], tmp_path: Path) -> None:
    carbseg("labels", *toy, *VAL, "--engine", "maskclip+sam3", "--out", tmp_path)
    store = PseudoLabelStore.open(tmp_path / "labels" / "val.zarr")
    assert "as written" in carbseg("labels", "verify", store.path).stdout
    about = store.provenance["engine"]
    assert about["name"] == "maskclip+sam3"
    assert about["settings"]["fusion"]["rule"] == "mean"
    assert list(about["settings"]) == ["fusion", "maskclip", "sam3"]
    assert list(about["weights_sha256"]) == ["second.model"]
    for name, message in (
        ("maskclip+sam4", "unknown label engine 'sam4'"),
        ("maskclip+sam3+cam", "only two engines can be made one"),
        ("maskclip+cam", "an engine that is fitted first cannot be a part of another"),
    ):
        assert message in refused("labels", *toy, "--engine", name, "--out", tmp_path / "other")


def test_a_fitted_engine_without_labels_says_what_to_do(toy: tuple[object, ...], tmp_path: Path) -> None:
    said = refused("labels", *toy, "--engine", "cam", "--tags", "auto", "--out", tmp_path)
    assert "images has image-level labels, which cam is fitted to; give a labels file (--tags FILE)" in said
    assert not (tmp_path / "labels").exists()


@pytest.fixture(scope="module")
def bare(toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: training images about which nothing is known, and a few with truth to score on."""
    root = tmp_path_factory.mktemp("bare")
    names = ", ".join(f'"{name}"' for name in DATASETS["toy"].classes.names)
    (root / "classes.toml").write_text(f"classes = [{names}]\n", encoding="utf-8")
    for split in ("train", "val"):
        shutil.copytree(toy_root / split, root / "images" / split)
    shutil.copytree(toy_root / "valannot", root / "truth" / "val")
    return root


@pytest.mark.parametrize("engine", ["maskclip", "sam3"])
def test_bare_images_become_a_report_in_one_command(
    engine: str, bare: Path, clip_folder: Path, foundation: tuple[str, ...], tmp_path: Path
) -> None:
    folder = ("--dataset", "folder", "--data-root", bare, "--clip", clip_folder, "--tags", "auto", "--engine", engine)
    line = (*folder, *foundation, *SHORT, "--set", "train.queue=2", "--out", tmp_path)
    carbseg("run", *line)
    assert (tmp_path / "report.html").is_file()
    rows = json.loads((tmp_path / "metrics.json").read_text())["rows"]
    second = "local+carb" if engine == "maskclip" else "base+carb"
    assert [name for name in rows if name.startswith("student")] == ["student base", f"student {second}"]
    store = PseudoLabelStore.open(tmp_path / "labels" / "train.zarr")
    assert store.provenance["image_labels"]["source"] == "auto"
    assert store.image_labels.any(1).all()


# ---- A run keeps to its engine -------------------------------------------------------------------------------------


def test_a_run_goes_on_with_the_engine_it_was_begun_with(
    toy: tuple[object, ...], compared: Path, tmp_path: Path
) -> None:
    line = (*toy, *SHORT, "--out", tmp_path)
    shutil.copytree(compared / "clip-es" / "labels" / "train.zarr", tmp_path / "labels" / "train.zarr")
    assert "holds no local views; train on the whole images with train.views=base" in refused("train", *line)
    assert "there are no local views of clip-es to train on; take --students base,base+carb" in refused(
        "run", *line, "--students", "base,local+carb"
    )
    carbseg("train", *line, "--set", "train.views=base", "--set", "train.carb=false")
    carbseg("evaluate", *line)
    carbseg("report", *line)
    made = PseudoLabelStore.open(tmp_path / "labels" / "val.zarr").provenance["engine"]
    assert made == PseudoLabelStore.open(compared / "clip-es" / "labels" / "val.zarr").provenance["engine"]
    ours, theirs = (json.loads((out / "metrics.json").read_text())["rows"] for out in (tmp_path, compared / "clip-es"))
    assert list(ours) == ["pseudo-labels global", "student base"]
    assert ours["pseudo-labels global"]["iou"] == theirs["pseudo-labels global"]["iou"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_another_engine_in_the_same_run_is_refused_and_nothing_is_lost(
    split: str, toy: tuple[object, ...], compared: Path, tmp_path: Path
) -> None:
    shutil.copytree(compared / "clip-es" / "labels" / "train.zarr", tmp_path / "labels" / "train.zarr")
    before = contents(tmp_path / "labels")
    for engine in ("maskclip", "proxyclip"):
        said = refused("labels", *toy, "--split", split, "--engine", engine, "--out", tmp_path)
        assert f"train.zarr was made with engine clip-es, not {engine}; delete it, or choose another OUT" in said
    assert contents(tmp_path / "labels") == before


@pytest.mark.parametrize(
    ("engine", "settings", "message"),
    [
        ("clip-es", ["labels.per_prompt=true"], "labels.per_prompt is for engines that compare patches with words"),
        ("cam", ["labels.precision=int8"], "labels.precision=int8 is for engines that compare patches with words"),
        ("clipes", [], "unknown label engine 'clipes'; did you mean 'clip-es'? known: maskclip, proxyclip, clip-es,"),
        ("proxyclip", ["labels.proxy=/no/such"], "/no/such"),
        ("cam", ["cam.backbone=resnet50", "cam.pretrained=/no/such"], "/no/such"),
        ("grounded-sam", ["grounded_sam.detector=/no/such"], "no grounded_sam.detector weights at '/no/such': give a"),
        ("grounded-sam", ["grounded_sam.sam=/no/such"], "or a hub id such as facebook/sam-vit-base on a connected"),
        ("sam3", ["sam3.model=/no/such"], "or a hub id such as facebook/sam3 on a connected machine"),
    ],
)
def test_what_an_engine_lacks_or_cannot_do_is_said_before_a_store_is_begun(
    engine: str, settings: list[str], message: str, toy: tuple[object, ...], tmp_path: Path
) -> None:
    words = [word for setting in settings for word in ("--set", setting)]
    assert message in refused("labels", *toy, "--engine", engine, *words, "--out", tmp_path)
    assert not (tmp_path / "labels").exists()


def test_only_the_first_of_several_jobs_fits(toy: tuple[object, ...], others: Path, tmp_path: Path) -> None:
    line = ("labels", *toy, *VAL, "--engine", "cam", "--out", tmp_path, "--shard")
    assert "cam is fitted first, by --shard 1/3; begin the others after that" in refused(*line, "2/3")
    assert not (tmp_path / "labels").exists()
    shutil.copytree(others / "cam" / "engine", tmp_path / "engine")
    carbseg(*line, "2/2")
    assert PseudoLabelStore.open(tmp_path / "labels" / "val.zarr").is_written().tolist() == [False, False, True]


def test_a_fit_that_is_stopped_says_how_to_go_on(
    toy: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*_: object) -> None:
        raise StoppedError(3, signal.SIGTERM)

    monkeypatch.setitem(ENGINES, "cam", replace(ENGINES["cam"], fit=fit))
    done = carbseg("labels", *toy, "--engine", "cam", "--out", tmp_path, check=False)
    assert done.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM after step 3, which is saved; give the same command again to go on" in done.stderr


def test_settings_that_only_make_it_faster_may_change(toy: tuple[object, ...], others: Path, tmp_path: Path) -> None:
    shutil.copytree(others / "clims", tmp_path, dirs_exist_ok=True)
    faster = ("cam.readers=2", "clims.readers=2", "clims.clip_batch=8", "clims.checkpoint_every=50")
    line = ("labels", *toy, *VAL, "--engine", "clims", "--out", tmp_path)
    before = contents(tmp_path / "labels")
    carbseg(*line, *(word for setting in faster for word in ("--set", setting)))
    assert contents(tmp_path / "labels") == before
    assert "was made with engine.settings.flip" in refused(*line, "--set", "clims.flip=true")


# ---- Cut, and in two processes -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_fit_and_labels_that_were_killed_equal_uninterrupted_ones(toy: tuple[object, ...], tmp_path: Path) -> None:
    line = ("labels", *toy, "--engine", "cam", "--set", "cam.epochs=8", "--set", "labels.images_per_shard=1")
    cut, network = tmp_path / "cut", tmp_path / "cut" / "engine" / "cam" / "network"
    store = cut / "labels" / "train.zarr"
    kill_when(lambda: last_checkpoint(network.parent) is not None, *line, "--out", cut)
    assert not network.exists()
    kill_when(lambda: any(store.glob("is_written/c.*")), *line, "--out", cut)
    assert 0 < PseudoLabelStore.open(store).is_written().sum() < 10
    for out in (cut, tmp_path / "whole"):
        carbseg(*line, "--out", out)
    assert contents(cut) == contents(tmp_path / "whole")


@pytest.mark.slow
def test_clip_es_labels_that_were_killed_equal_uninterrupted_ones(
    toy: tuple[object, ...], compared: Path, tmp_path: Path
) -> None:
    store = tmp_path / "labels" / "train.zarr"
    line = ("labels", *toy, "--engine", "clip-es", "--out", tmp_path)
    kill_when(lambda: any(store.glob("is_written/c.*")), *line)
    assert 0 < PseudoLabelStore.open(store).is_written().sum() < 10
    carbseg(*line)
    assert contents(store) == contents(compared / "clip-es" / "labels" / "train.zarr")


@pytest.mark.slow
@pytest.mark.xdist_group("two processes")
@pytest.mark.parametrize("name", ["proxyclip", "clip-es", "one-pixel", "grounded-sam"])
def test_two_processes_label_what_one_labels(
    name: str, toy: tuple[object, ...], toy_points: Path, val_stores: dict[str, PseudoLabelStore], tmp_path: Path
) -> None:
    line = ("labels", *toy, *VAL, "--points", toy_points, "--engine", name, "--out", tmp_path)
    carbseg_process(*line, processes=2)
    assert contents(tmp_path / "labels" / "val.zarr") == contents(Path(val_stores[name].path))


# ---- The list and the table ----------------------------------------------------------------------------------------


def test_engines_lists_every_row() -> None:
    said = carbseg("engines").stdout
    for name, row in ENGINES.items():
        assert f"{name} " in said
        assert row.about in said
        assert row.needs in said
        assert row.cost in said


def test_engines_are_compared_in_one_table_that_is_made_once(
    toy: tuple[object, ...], compared: Path, tmp_path: Path
) -> None:
    said = (compared / "said.txt").read_text()
    result = json.loads((compared / "engines.json").read_text())
    assert list(result["rows"]) == list(COMPARED)
    assert [list(row["students"]) for row in result["rows"].values()] == [["local"], ["base"]]
    table = (compared / "engines.md").read_text()
    assert table in said
    assert image_size(compared / "engines.png")[1] > 4 * 96  # image, truth, and two engines
    for name, row in result["rows"].items():
        assert list(row["labels"]) == list(row["seconds"]) == ["train", "val"]
        metrics = json.loads((compared / name / "metrics.json").read_text())["rows"]
        finest = "fused" if name == "maskclip" else "global"
        assert row["labels"]["val"]["miou"] == metrics[f"pseudo-labels {finest}"]["miou"]
        assert f" {row['labels']['train']['precision']:.1f} |" in table
    shutil.copytree(compared, tmp_path, dirs_exist_ok=True)
    made = [*tmp_path.glob("*/*/checkpoint-*.pt"), *tmp_path.glob("*/labels/*/*logits*/*")]
    stamps = [path.stat().st_mtime_ns for path in made]
    assert len(made) > 2
    assert carbseg(*comparison(toy, tmp_path)).stdout == said.replace(str(compared), str(tmp_path))
    assert [path.stat().st_mtime_ns for path in made] == stamps
    assert "nothing to complain about" in carbseg("doctor", "--run", tmp_path).stdout


def test_a_network_that_two_engines_need_is_fitted_once(
    toy: tuple[object, ...], others: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted, run = list[str](), fit._run

    def counted(*arguments: Any) -> Any:
        fitted.append(next(value.section for value in arguments if isinstance(value, fit.FitConfig)))
        return run(*arguments)

    monkeypatch.setattr(fit, "_run", counted)
    shutil.copytree(others / "cam", tmp_path / "cam")
    carbseg("engines", "compare", *toy, "--engines", "cam,clims", "--students", "", "--out", tmp_path)
    assert fitted == ["clims"]
    assert contents(tmp_path / "clims" / "engine" / "cam") == contents(others / "cam" / "engine" / "cam")
