"""What noisy image-level labels cost, worked out by hand on one image of 2 x 4 pixels and three classes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelgen.images import image_size
from labelgen.layout import StoreLayout
from labelgen.samples import ClassSet, InputError, Sample
from labelgen.store import ImageLogits, LocalView, PseudoLabelStore
from pipeline.datasets import DATASETS, DatasetSpec
from pipeline.datasets.tag_noise import TAGGINGS, Tagging, draw, noisy_tags
from pipeline.datasets.truth import LabelCode
from pipeline.stages.inspection import ImageLabelScores, score_labels
from pipeline.stages.tag_sweep import TagScores, as_markdown, sweep_tags
from tests.conftest import carbseg, refused
from tests.files import label

NAMES = ("sky", "road", "car")
TRUTH = [[0, 0, 1, 1], [255, 0, 1, 1]]
CLIP_SAYS = [[0, 0, 1, 2], [0, 0, 1, 1]]  # the truth, but for a pixel of road that it takes for a car


@pytest.fixture
def spec() -> DatasetSpec:
    classes = ClassSet(NAMES, tuple((name,) for name in NAMES), ((0, 0, 0),) * 3)
    return replace(DATASETS["folder"], classes=classes, code=LabelCode(ids={0: 0, 1: 1, 2: 2, 255: 255}))


@pytest.fixture
def store(tmp_path: Path) -> PseudoLabelStore:
    """Images "a" and "b" of which CLIP says the same in every view: road for what it takes for a car, second best."""
    layout = StoreLayout(["a", "b"], np.eye(3, 4, dtype=np.float32), [(2, 4)], (2, 4), 1)
    classes = {"names": list(NAMES), "palette": [[0, 0, 0]] * 3}
    store = PseudoLabelStore.create(tmp_path / "s.zarr", layout, {"classes": classes})
    logits = (np.arange(3)[:, None, None] == np.array(CLIP_SAYS)).astype(np.float32)
    logits[1] += 0.5
    images = [ImageLogits(i, (2, 4), [2], [logits], [LocalView((0, 0, 2, 4), 1.0, logits)]) for i in ("a", "b")]
    store.write_shard(range(2), images)
    return store


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    truth = str(label(tmp_path / "truth.png", TRUTH))
    return [{"image_id": i, "image_path": f"{i}.png", "label_path": truth, "image_labels": None} for i in ("a", "b")]


def scores_of(rows: list[TagScores]) -> list[tuple[float | None, float | None, float | None]]:
    """Precision and recall of the tags, and mIoU, which is the same in all views here."""
    said = [row.as_dict() for row in rows]
    assert all(len(set(row["miou"].values())) == 1 for row in said)
    return [(row["precision"], row["recall"], row["miou"]["fused"]) for row in said]


@pytest.mark.parametrize(
    ("tagging", "scores"),
    [
        (Tagging("exact"), (100, 100, 100)),  # the car is out, and road is second best; no IoU of car, so no mean of it
        (Tagging("none"), (66.67, 100, 58.33)),  # sky 3 / 3, road 3 / 4, car 0 / 1
        (Tagging("auto"), (66.67, 100, 58.33)),  # the car wins a patch of eight
        (Tagging("min_area", 0.5), (100, 50, 28.57)),  # sky, 3 pixels of 8, becomes road: 0 / 3, 4 / 7
        (Tagging("dropped", 0.0), (100, 100, 100)),
        (Tagging("dropped", 1.0), (None, 0, 0)),  # every pixel is ignored, and misses the truth
        (Tagging("added", 0.0), (100, 100, 100)),
        (Tagging("added", 1.0), (66.67, 100, 58.33)),
    ],
    ids=lambda value: value.name if isinstance(value, Tagging) else "",
)
def test_each_kind_by_hand(
    tagging: Tagging, scores: tuple[float, ...], spec: DatasetSpec, samples: list[Sample], store: PseudoLabelStore
) -> None:
    assert scores_of(sweep_tags(spec, samples, store, 0.0, taggings=[tagging])) == [scores]


def test_a_class_must_win_its_share_of_the_patches_to_be_guessed(
    spec: DatasetSpec, samples: list[Sample], store: PseudoLabelStore
) -> None:
    assert scores_of(sweep_tags(spec, samples, store, 0.2, taggings=[Tagging("auto")])) == [(100, 100, 100)]


def test_tags_are_fixed_by_seed_and_image_not_by_the_order_of_images(
    spec: DatasetSpec, samples: list[Sample], store: PseudoLabelStore
) -> None:
    rows = [row.as_dict() for row in sweep_tags(spec, samples, store, 0.0)]
    assert [row.as_dict() for row in sweep_tags(spec, samples[::-1], store, 0.0)] == rows
    assert (draw(0, "a", 3) != draw(0, "b", 3)).all()
    assert (draw(0, "a", 3) != draw(1, "a", 3)).all()


def test_a_higher_rate_drops_and_adds_what_a_lower_one_does_and_more() -> None:
    truth_HW, nothing_C = np.arange(50, dtype=np.uint8)[None], np.zeros(100, bool)

    def tags(*tagging: object) -> np.ndarray:
        return noisy_tags(Tagging(*tagging), truth_HW, nothing_C, draw(0, "a", 100))

    few, many = ~tags("dropped", 0.1)[:50], ~tags("dropped", 0.5)[:50]
    assert 0 < few.sum() < many.sum() < 50
    assert not (few & ~many).any()
    assert not tags("dropped", 0.5)[50:].any()
    few, many = tags("added", 0.1)[50:], tags("added", 0.5)[50:]
    assert 0 < few.sum() < many.sum() < 50
    assert not (few & ~many).any()
    assert tags("added", 0.5)[:50].all()


def test_without_images_there_are_no_scores(spec: DatasetSpec, store: PseudoLabelStore) -> None:
    assert set(scores_of(sweep_tags(spec, [], store, 0.0))) == {(None, None, None)}


def test_tags_of_nothing_said_or_nothing_shown_have_no_precision_or_recall() -> None:
    one, none = np.ones((1, 3), bool), np.zeros((1, 3), bool)
    assert ImageLabelScores.of(one, one) == ImageLabelScores(1, 1)
    assert np.isnan(ImageLabelScores.of(none, one).precision)
    assert np.isnan(ImageLabelScores.of(one, none).recall)


def test_names_and_rates() -> None:
    assert [tagging.name for tagging in TAGGINGS[:4]] == [
        "exact",
        "0.1 % of the image or more",
        "1 % of the image or more",
        "10 % dropped",
    ]
    with pytest.raises(InputError, match=r"rate of a kind of tags must be in \[0, 1\], got 30"):
        Tagging("dropped", 30)


def test_the_command_sweeps_a_store_and_writes_table_numbers_and_picture(
    toy_root: Path, clip_folder: Path, tmp_path: Path
) -> None:
    options = ("--dataset", "toy", "--data-root", toy_root, "--out", tmp_path, "--split", "val")
    told = refused("evaluate", "tags", *options)
    assert "val.zarr does not exist; make the pseudo-labels with 'carbseg labels --split val'" in told
    assert "leave out --tags" in refused("evaluate", "tags", *options, "--tags", "auto")
    carbseg("labels", *options, "--clip", clip_folder)
    shown = carbseg("evaluate", "tags", *options).stdout
    assert "3 images of toy val" in shown
    result = json.loads((tmp_path / "tags-val.json").read_text())
    assert [row["name"] for row in result["rows"]] == [tagging.name for tagging in TAGGINGS]
    assert (tmp_path / "tags-val.md").read_text().strip() == as_markdown(result["rows"])
    assert as_markdown(result["rows"]) in shown
    assert image_size(str(tmp_path / "tags-val.png"))[1] > 1000
    # With exact tags the pseudo-labels are those of the store, which was made with them.
    spec = DATASETS["toy"]
    samples = spec.list_samples(toy_root, "val", with_truth=True)
    tallies, _ = score_labels(spec, samples, PseudoLabelStore.open(tmp_path / "labels" / "val.zarr"))
    miou = {view: tally.as_dict(spec.classes.names)["miou"] for view, tally in tallies.items()}
    assert result["rows"][0]["miou"] == miou
