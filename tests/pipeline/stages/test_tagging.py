"""`carbseg tags guess` and `--tags model`: labels from a tagger, in a file and in a store."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from labelgen.store import PseudoLabelStore
from pipeline.datasets import DATASETS
from pipeline.datasets.tags import presence, read_tags
from tests.conftest import carbseg, refused
from tests.files import contents, own_folder
from tests.models import save_tagger
from tests.pipeline.stages.conftest import SMALL

# The toy preset names the tiny CLIP, which knows the scenes.
SURE = ("--set", "tagger.threshold=0.2")


@pytest.fixture
def toy(toy_root: Path, clip_folder: Path) -> tuple[object, ...]:
    return (*SMALL, "--data-root", toy_root, "--clip", clip_folder, *SURE)


@pytest.fixture
def siglip(tmp_path: Path) -> Path:
    save_tagger(tmp_path / "siglip", "siglip")
    return tmp_path / "siglip"


def test_a_file_of_guesses_says_what_a_store_says_that_was_made_with_them(
    toy: tuple[object, ...], toy_root: Path, tmp_path: Path
) -> None:
    file = tmp_path / "tags.csv"
    val = (*toy, "--split", "val", "--out", tmp_path)
    done = carbseg("tags", "guess", *val, "--to", file)
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["image"] for row in rows] == [f"val/toy_000{i}.png" for i in range(3)]
    spec = DATASETS["toy"]
    guessed = list(read_tags(file, spec.classes).values())
    exact = [sample["image_labels"] for sample in spec.list_samples(toy_root, "val", with_truth=True)]
    said, shown = (presence(labels, len(spec.classes)) for labels in (guessed, exact))
    hits = (said & shown).sum()
    assert f"precision {100 * hits / said.sum():.1f}, recall {100 * hits / shown.sum():.1f}" in done.stdout
    assert hits > 0.5 * shown.sum()
    assert hits > 0.9 * said.sum()
    carbseg("labels", *val, "--tags", "model")
    store = PseudoLabelStore.open(tmp_path / "labels" / "val.zarr")
    assert np.array_equal(store.image_labels, said)
    about, made = store.provenance, json.loads((tmp_path / "tags.csv.provenance.json").read_text())
    assert about["image_labels"]["source"] == "model"
    tagger = about["image_labels"]["tagger"]
    assert tagger == made["tagger"]
    assert (tagger["model"], tagger["threshold"], len(tagger["weights_sha256"])) == ("tiny", 0.2, 16)
    assert "guess_area" not in about["labels"]
    carbseg("labels", *toy, "--split", "val", "--tags", file, "--out", tmp_path / "again")
    again = PseudoLabelStore.open(tmp_path / "again" / "labels" / "val.zarr")
    assert np.array_equal(again.image_labels, said)


def test_parts_give_the_store_of_one_run_and_another_tagger_is_refused(
    toy: tuple[object, ...], siglip: Path, tmp_path: Path
) -> None:
    line = ("labels", *toy, "--split", "val", "--tags", "model")
    carbseg(*line, "--out", tmp_path / "one")
    for part in ("2/2", "1/2"):
        carbseg(*line, "--out", tmp_path / "parts", "--shard", part)
    assert contents(tmp_path / "one" / "labels") == contents(tmp_path / "parts" / "labels")
    said = refused(*line, "--out", tmp_path / "one", "--set", f"tagger.model={siglip}")
    assert "image_labels.tagger" in said


def test_engines_that_need_labels_are_given_the_guesses(
    toy: tuple[object, ...], foundation: tuple[str, ...], siglip: Path, tmp_path: Path
) -> None:
    model = ("--tags", "model", "--set", f"tagger.model={siglip}", "--set", "tagger.threshold=0.999")
    line = (*toy, *foundation, *model, "--split", "val")
    carbseg("labels", *line, "--engine", "sam3", "--out", tmp_path)
    store = PseudoLabelStore.open(tmp_path / "labels" / "val.zarr")
    assert (store.image_labels.sum(1) == 1).all()  # the likeliest
    for row, image_id in enumerate(store.image_ids):
        is_scored_C = ~np.isnan(store.global_logits(image_id)).all((1, 2))
        assert not (is_scored_C & ~store.image_labels[row]).any()
    assert "carbseg tags guess" in refused("labels", *line, "--engine", "cam", "--out", tmp_path / "cam")


def test_classes_that_a_classifier_does_not_know_are_said_and_kept(toy: tuple[object, ...], tmp_path: Path) -> None:
    save_tagger(tmp_path / "vit", "vit", ["car", "horse"])
    file = tmp_path / "tags.csv"
    model = ("--set", f"tagger.model={tmp_path / 'vit'}")
    done = carbseg("tags", "guess", *toy, *model, "--split", "val", "--out", tmp_path, "--to", file)
    assert "has no label for sky, building, pole" in done.stderr
    assert all({0, 1, 2} <= set(present) for present in read_tags(file, DATASETS["toy"].classes).values())


def test_bare_images_need_no_labels_to_be_tagged(siglip: Path, tmp_path: Path) -> None:
    root = own_folder(tmp_path / "mine", "a.png", "b.png")
    line = ("--dataset", "folder", "--data-root", root, "--set", f"tagger.model={siglip}", "--out", tmp_path)
    done = carbseg("tags", "guess", *line, "--to", root / "labels.csv")
    assert done.stdout == f"what 2 images show in {root / 'labels.csv'}\n"
    assert len(read_tags(root / "labels.csv", DATASETS["folder"].at(root).classes)) == 2
    assert "labels.csv exists already; choose another file (--to), or delete it" in refused(
        "tags", "guess", *line, "--to", root / "labels.csv"
    )


def test_a_file_is_whole_or_not_there(siglip: Path, tmp_path: Path) -> None:
    root = own_folder(tmp_path / "mine", "a.png", "b.png", "c.png")
    data = (root / "images" / "c.png").read_bytes()
    (root / "images" / "c.png").write_bytes(data[: len(data) // 2])
    line = ("--dataset", "folder", "--data-root", root, "--set", f"tagger.model={siglip}", "--out", tmp_path)
    before = contents(tmp_path)
    assert "c.png is truncated" in refused("tags", "guess", *line, "--to", tmp_path / "tags.csv")
    assert contents(tmp_path) == before


def test_what_is_missing_is_said_before_anything_is_written(toy: tuple[object, ...], tmp_path: Path) -> None:
    hub = ("--set", "tagger.model=somebody/tagger", "--split", "val", "--out", tmp_path / "out")
    for command in (
        ("labels", *toy, *hub, "--tags", "model"),
        ("tags", "guess", *toy, *hub, "--to", tmp_path / "a.csv"),
    ):
        said = refused(*command)
        assert "no tagger.model weights at 'somebody/tagger': give a local folder" in said
        assert "hub id such as google/siglip2-base-patch16-224" in said
    assert "as a .csv file" in refused("tags", "guess", *toy, "--to", tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []
