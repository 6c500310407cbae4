"""One pixel per class as a user meets it: points in, a store without image-level labels out."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ResNetConfig, ResNetForImageClassification

from labelgen.engines.one_pixel import features
from labelgen.store import PseudoLabelStore
from pipeline.datasets import DATASETS
from tests.conftest import carbseg, kill_when, made_once, refused
from tests.files import contents
from tests.pipeline.stages.conftest import SMALL, TRAINING

NAMES = DATASETS["toy"].classes.names


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ResNet with random weights, that tells seven things apart."""

    def make(folder: Path) -> None:
        torch.manual_seed(0)
        config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=7)
        ResNetForImageClassification(config).save_pretrained(folder)

    return made_once(tmp_path_factory, "classifier", make)


@pytest.fixture(scope="session")
def line(clip_folder: Path, toy_root: Path, toy_points: Path, classifier: Path) -> tuple[object, ...]:
    """Toy scenes, small shards, and a network that sees something."""
    settings = (f"one_pixel.features={classifier}", "one_pixel.representation=both", "one_pixel.superpixels=60")
    words = [word for setting in settings for word in ("--set", setting)]
    toy = (*SMALL, "--data-root", toy_root, "--clip", clip_folder)
    return ("labels", *toy, "--engine", "one-pixel", "--points", toy_points, *words)


@pytest.fixture(scope="session")
def made(line: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has labelled train."""
    return made_once(tmp_path_factory, "one-pixel", lambda folder: carbseg(*line, "--out", folder))


def test_without_image_level_labels_every_class_may_be_in_every_image(made: Path, toy_root: Path) -> None:
    store = PseudoLabelStore.open(made / "labels" / "train.zarr")
    assert store.image_labels.all()
    assert store.provenance["image_labels"] == {"source": "none"}
    assert not (made / "image-labels-train.json").exists()
    said = carbseg("labels", "score", *SMALL, "--data-root", toy_root, "--out", made).stdout
    assert "image-level labels (none given: every class may be in every image): precision" in said


def test_pixels_that_were_labelled_get_that_label_mostly(made: Path, toy_points: Path) -> None:
    store = PseudoLabelStore.open(made / "labels" / "train.zarr")
    rows = [row.split(",") for row in toy_points.read_text().splitlines()[1:]]
    right = [store.mask(image)[int(y), int(x)] == NAMES.index(name) for image, x, y, name in rows]
    assert len(rows) >= 9
    assert np.mean(right) > 0.5


def test_each_class_keeps_to_its_bands(made: Path) -> None:
    """Superpixels reach over the border of a band by half their height at most."""
    store = PseudoLabelStore.open(made / "labels" / "train.zarr")
    for image_id in store.image_ids:
        mask_HW = store.mask(image_id)
        assert not np.isin(mask_HW[:20], [NAMES.index("road"), NAMES.index("sidewalk")]).any()
        assert not (mask_HW[-20:] == NAMES.index("sky")).any()


def test_labels_that_were_cut_go_on_and_features_are_not_computed_again(
    line: tuple[object, ...], made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    store = PseudoLabelStore.open(tmp_path / "labels" / "train.zarr", writable=True)
    for rows in store.shards():
        store.forget(rows)
    kept = next((tmp_path / "engine" / "one-pixel" / "features").rglob("*.npz"))
    kept.write_bytes(kept.read_bytes()[:100])  # cut, as by a full disk
    computed = []
    compute = features.with_edges
    monkeypatch.setattr(features, "with_edges", lambda *given: computed.append(1) or compute(*given))
    carbseg(*line, "--out", tmp_path)
    assert len(computed) == 1
    assert contents(tmp_path / "labels") == contents(made / "labels")
    assert contents(kept.parent) == contents(made / kept.parent.relative_to(tmp_path))


@pytest.mark.slow
def test_labels_that_were_killed_equal_uninterrupted_ones(line: tuple[object, ...], made: Path, tmp_path: Path) -> None:
    written = tmp_path / "labels" / "train.zarr" / "is_written"
    kill_when(lambda: any(written.glob("c.*")), *line, "--out", tmp_path)
    carbseg(*line, "--out", tmp_path)
    assert contents(tmp_path / "labels") == contents(made / "labels")


def test_a_class_without_a_point_is_never_found_and_said_to_be_so(
    line: tuple[object, ...], toy_points: Path, tmp_path: Path
) -> None:
    some = [row for row in toy_points.read_text().splitlines() if not row.endswith((",sky", ",car"))]
    (tmp_path / "points.csv").write_text("\n".join(some))
    done = carbseg(*line, "--points", tmp_path / "points.csv", "--split", "val", "--out", tmp_path)
    assert "no labelled pixel of sky, car: nothing will be labelled so" in done.stderr
    store = PseudoLabelStore.open(tmp_path / "labels" / "val.zarr")
    for image_id in store.image_ids:
        assert np.isnan(store.global_logits(image_id)[[NAMES.index("sky"), NAMES.index("car")]]).all()


def test_image_level_labels_are_a_filter_where_they_are_used(line: tuple[object, ...], tmp_path: Path) -> None:
    carbseg(*line, "--set", "one_pixel.use_labels=true", "--split", "val", "--out", tmp_path)
    store = PseudoLabelStore.open(tmp_path / "labels" / "val.zarr")
    assert not store.image_labels.all()
    for image_id in store.image_ids:
        is_present_C = store.labels_of(image_id)
        assert np.isnan(store.global_logits(image_id)[~is_present_C]).all()
        assert set(np.unique(store.mask(image_id)).tolist()) <= {*np.flatnonzero(is_present_C).tolist(), 255}


def test_clip_may_guess_what_images_show(line: tuple[object, ...], tmp_path: Path) -> None:
    carbseg(*line, "--set", "one_pixel.use_labels=true", "--tags", "auto", "--split", "val", "--out", tmp_path)
    store = PseudoLabelStore.open(tmp_path / "labels" / "val.zarr")
    assert 0 < store.image_labels.sum() < store.image_labels.size


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["one_pixel.points="], "one-pixel starts from one labelled pixel per class: give a CSV file, image,x,y,class"),
        (["one_pixel.points=/no/such.csv"], "/no/such.csv"),
        (["one_pixel.features=/no/such"], "no vision backbone weights at '/no/such': give a local folder"),
        (['one_pixel.objects=["car","boat"]'], "one_pixel.objects: unknown class 'boat'; known: sky, building, pole,"),
        (['one_pixel.bands=[["sky"],["sea"]]'], "one_pixel.bands: unknown class 'sea'; known: sky, building, pole,"),
        (["one_pixel.superpixels=0"], "one_pixel.superpixels must be at least 1, got 0"),
        (["one_pixel.scale=0.0"], "one_pixel.scale must be positive, got 0.0"),
        (["one_pixel.object_margin=-1.0"], "one_pixel.object_margin must not be negative, got -1.0"),
        (["one_pixel.threshold=1.5"], "one_pixel.threshold must be in [0, 1], got 1.5"),
        (["one_pixel.representation=all"], "one_pixel.representation must be one of both, imaging, semantics"),
        (["tags.source=auto"], "one_pixel.use_labels=false leaves unused: set it to true, or drop them"),
    ],
)
def test_what_cannot_be_done_is_said_before_a_store_is_begun(
    settings: list[str], message: str, line: tuple[object, ...], tmp_path: Path
) -> None:
    words = [word for setting in settings for word in ("--set", setting)]
    given = [word for word in line if not settings[0].startswith("one_pixel.points") or word != "--points"]
    if settings[0].startswith("one_pixel.points"):  # --points would come after --set
        given = [word for word in given if not str(word).endswith("points.csv")]
    assert message in refused(*given, *words, "--out", tmp_path)
    assert not (tmp_path / "labels").exists()


def test_other_points_or_settings_than_those_fitted_are_refused(
    line: tuple[object, ...], made: Path, toy_points: Path, tmp_path: Path
) -> None:
    shutil.copytree(made / "engine" / "one-pixel" / "network", tmp_path / "engine" / "one-pixel" / "network")
    fewer = tmp_path / "points.csv"
    fewer.write_text("\n".join(toy_points.read_text().splitlines()[:-1]))
    val = ("--split", "val", "--out", tmp_path)
    assert "points_sha256" in refused(*line, *val, "--points", fewer)
    assert "was trained with one_pixel.groups = 3, not 2; delete that folder to start anew" in refused(
        *line, *val, "--set", "one_pixel.groups=2"
    )
    (tmp_path / "engine" / "one-pixel" / "network" / "fitted.json").write_text("{")
    assert "cannot be read; delete that folder to fit anew" in refused(*line, *val)


def test_further_rounds_are_refined_in_the_superpixels_and_bands_that_the_engine_knows(
    line: tuple[object, ...], made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    kept = sorted((tmp_path / "engine" / "one-pixel" / "features").rglob("*.npz"))
    for file in kept:
        file.touch()
    stamps = [file.stat().st_mtime_ns for file in kept]
    steps = ("train.steps=2", "train.carb=false", "train.warmup_steps=0")
    words = [word for setting in steps for word in ("--set", setting)]
    carbseg("iterate", *line[1:], *TRAINING, *words, "--rounds", 1, "--out", tmp_path)
    store = PseudoLabelStore.open(tmp_path / "round-1" / "labels" / "train.zarr")
    refined = store.provenance["labels"]["refined"]["one-pixel"]
    assert list(refined) == ["features", "context_power", "allowed"]
    assert [file.stat().st_mtime_ns for file in kept] == stamps
    assert not refined["allowed"][0][NAMES.index("road")]
