"""CLIP in the explorer says what it would say in a store."""

from pathlib import Path

import numpy as np
import pytest

from labelgen.generate import load_clip
from labelgen.samples import Sample
from labelgen.store import ImageLogits, PseudoLabelStore
from pipeline.datasets import dataset
from pipeline.explorer.looking import Looker, label_config
from pipeline.explorer.words import Words
from tests.conftest import carbseg


def holds(store: PseudoLabelStore, seen: ImageLogits) -> None:
    """To the bit."""
    (whole_Chw,) = seen.global_logits
    np.testing.assert_array_equal(whole_Chw, store.global_logits(seen.image_id))
    for view, stored in zip(seen.local_views, store.local_views(seen.image_id), strict=True):
        assert (view.box, view.zoom) == (stored.box, stored.zoom)
        np.testing.assert_array_equal(view.logits, stored.logits)


def words_of(store: PseudoLabelStore) -> Words:
    about = store.provenance
    return Words(tuple(map(tuple, about["classes"]["prompts"])), tuple(about["labels"]["templates"]))


@pytest.fixture
def samples(toy_root: Path) -> list[Sample]:
    return dataset("toy").list_samples(toy_root, "train", with_tags=False)


def test_of_the_words_of_a_store_what_the_store_holds(
    toy_stores: Path, clip_folder: Path, samples: list[Sample]
) -> None:
    store = PseudoLabelStore.open(toy_stores / "train.zarr")
    looker = Looker(load_clip(clip_folder, label_config(store)), store)
    for sample in samples:
        holds(store, looker.look(sample, words_of(store)))


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_of_sentences_and_few_levels_too(
    precision: str, toy_root: Path, clip_folder: Path, samples: list[Sample], tmp_path: Path
) -> None:
    templates = tmp_path / "templates.txt"
    templates.write_text("a {}.\nthe {}.\n")
    settings = (f"precision={precision}", "per_prompt=true", f"templates={templates}", "views.global_zooms=[1.0, 1.5]")
    sets = [word for setting in settings for word in ("--set", f"labels.{setting}")]
    carbseg("labels", "--dataset", "toy", "--data-root", toy_root, "--clip", clip_folder, "--out", tmp_path, *sets)
    store = PseudoLabelStore.open(tmp_path / "labels" / "train.zarr")
    looker = Looker(load_clip(clip_folder, label_config(store)), store)
    holds(store, looker.look(samples[0], words_of(store)))


def test_an_image_is_looked_at_once(
    toy_stores: Path, clip_folder: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PseudoLabelStore.open(toy_stores / "train.zarr")
    looker = Looker(load_clip(clip_folder, label_config(store)), store)
    words = words_of(store)
    first = looker.look(samples[0], words)
    monkeypatch.setattr("pipeline.explorer.looking.prepare", None)  # no image can be read
    other = Words((("cloud",), *words.names[1:]), words.templates)
    assert (looker.look(samples[0], other).global_logits[0][0] != first.global_logits[0][0]).any()
    with pytest.raises(TypeError):
        looker.look(samples[1], words)
