"""The study of wrong tags: noise as `evaluate tags` draws it, what mending does, and a study in small."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import suspicion
from benchmarks.suspicion import BEST, IMAGES, RULES, Noise, Split, first_images, first_tags, spoilt, study
from labelgen.store import PseudoLabelStore
from labelgen.views import to_mask
from pipeline.datasets import DATASETS
from pipeline.datasets.tag_noise import Tagging, draw, noisy_tags
from pipeline.stages.inspection import read_truth
from tests.conftest import carbseg


@pytest.fixture
def split(toy_root: Path, toy_stores: Path) -> Split:
    samples = DATASETS["toy"].list_samples(toy_root, "train", with_truth=True)
    return Split(DATASETS["toy"], samples, PseudoLabelStore.open(toy_stores / "train.zarr"))


def test_tags_are_spoilt_as_the_sweep_does_it(split: Split) -> None:
    for noise, tagging in ((Noise(0.3, 0), Tagging("dropped", 0.3)), (Noise(0, 0.5), Tagging("added", 0.5))):
        spoilt_NC = spoilt(noise, split.exact_NC, split.ids, seed=1)
        assert not np.array_equal(spoilt_NC, split.exact_NC)
        for sample, spoilt_C in zip(split.samples, spoilt_NC, strict=True):
            C = len(spoilt_C)
            draw_C = draw(1, sample["image_id"], C)
            truth_HW = read_truth(split.spec, sample)
            np.testing.assert_array_equal(spoilt_C, noisy_tags(tagging, truth_HW, np.zeros(C, bool), draw_C))
    assert Noise(0.1, 0.3).name == "10 % dropped, 30 % added"


def test_looked_at_are_the_first_tags_or_all_those_of_the_first_images() -> None:
    scores = np.array([[3.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    np.testing.assert_array_equal(first_tags(scores, 2), [[True, False], [False, False], [True, False]])
    np.testing.assert_array_equal(first_tags(scores, 9), np.ones((3, 2), bool))
    np.testing.assert_array_equal(first_images(scores, 1), [[False, False], [False, False], [True, True]])
    np.testing.assert_array_equal(first_images(scores, 2), [[True, True], [False, False], [True, True]])


def test_masks_under_other_tags_are_those_of_a_store_made_with_them(
    split: Split, toy_root: Path, clip_folder: Path, tmp_path: Path
) -> None:
    noisy_NC = spoilt(Noise(0.3, 0.3), split.exact_NC, split.ids, seed=1)
    names = split.spec.classes.names
    lines = (
        f"{image_id}.png,{';'.join(names[c] for c in np.flatnonzero(tags_C))}"
        for image_id, tags_C in zip(split.ids, noisy_NC, strict=True)
    )
    tags = tmp_path / "tags.csv"
    tags.write_text("\n".join(["image,labels", *lines]))
    where = ("--dataset", "toy", "--data-root", toy_root, "--clip", clip_folder, "--out", tmp_path)
    carbseg("labels", *where, "--tags", tags)
    made = PseudoLabelStore.open(tmp_path / "labels" / "train.zarr")
    np.testing.assert_array_equal(made.image_labels, noisy_NC)
    for image_id, tags_C in zip(split.ids, noisy_NC, strict=True):
        from_cache = to_mask(split.store.logits(image_id, "fused"), tags_C)
        np.testing.assert_array_equal(made.mask(image_id, "fused"), from_cache)


def test_a_study_in_small_comes_to_a_table(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspicion, "TOPS", (3, 110))
    text = study(split, Noise(0.3, 0), [0])
    tags_NC = spoilt(Noise(0.3, 0), split.exact_NC, split.ids, 0)
    wrong = int((tags_NC != split.exact_NC).sum())
    doubted = int((suspicion.RULES[suspicion.TAKEN](tags_NC, split.shares_NC) > 0).sum())
    assert text.startswith(f"30 % dropped: {wrong} wrong tags, {doubted} doubted, mIoU ")
    rows = {cells[1].strip(): cells[2:-1] for line in text.splitlines()[4:] if (cells := line.split("|"))[1:]}
    assert list(rows) == [*RULES, BEST, *IMAGES]
    for rule, cells in rows.items():
        few, all_of_them, _, miou, won = map(float, cells)
        assert 0 <= few <= (33 if rule in IMAGES else 3)
        assert all_of_them == wrong  # 10 images of 11 classes were all looked at
        assert f"instead of {miou:.1f}\n" in text
        assert won == 100
    assert float(rows[BEST][0]) == 3
