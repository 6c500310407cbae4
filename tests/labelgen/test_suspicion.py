"""Which tags are likely wrong, worked out by hand on shares of a few images, and on stores of 1 x 4 patches."""

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from labelgen import suspicion as module
from labelgen.layout import StoreLayout
from labelgen.store import ImageLogits, PseudoLabelStore
from labelgen.suspicion import Evidence, kept_evidence, likelihood, suspects, suspicion, won_shares

NAN = np.nan
NAMES = ["sky", "road", "car"]
PROVENANCE = {"classes": {"names": NAMES}}


def winners(*classes: int) -> NDArray[np.float32]:
    """Logits (3, 1, w) in which these classes win, one a patch."""
    return np.eye(3, dtype=np.float32)[:, None, list(classes)]


# What CLIP says of each image, and the tags that were given: c forgets its road, d claims a car that wins nowhere.
IMAGES = {
    "a": (winners(0, 0, 1, 1), [0, 1]),
    "b": (winners(0, 1, 1, 2), [0, 1, 2]),
    "c": (winners(0, 1, 1, 1), [0]),
    "d": (winners(0, 0, 0, 1), [0, 1, 2]),
}


def put(store: PseudoLabelStore, name: str, tags: list[int] | None = None) -> None:
    row = store.image_ids.index(name)
    logits, given = IMAGES[name]
    store.write_shard(range(row, row + 1), [ImageLogits(name, (8, 32), given if tags is None else tags, [logits], [])])


def begun(path: Path | str) -> PseudoLabelStore:
    layout = StoreLayout(tuple(IMAGES), np.eye(3, dtype=np.float32), [(1, 4)], (1, 1), 0, images_per_shard=1)
    return PseudoLabelStore.create(path, layout, PROVENANCE)


@pytest.fixture
def store(tmp_path: Path) -> PseudoLabelStore:
    made = begun(tmp_path / "train.zarr")
    for name in IMAGES:
        put(made, name)
    return made


def test_a_class_wins_the_share_of_the_patches_where_it_is_best() -> None:
    np.testing.assert_array_equal(won_shares(winners(0, 0, 2, 1)), [0.5, 0.25, 0.25])
    flat = np.zeros((3, 2, 2), np.float32)
    np.testing.assert_array_equal(won_shares(flat), [1, 0, 0])  # of equals the first, as in masks


def test_patches_and_classes_of_which_nothing_is_said_are_left_out() -> None:
    logits = winners(0, 1, 1, 1)
    logits[:, :, 3] = NAN
    logits[2] = NAN
    np.testing.assert_allclose(won_shares(logits), [1 / 3, 2 / 3, NAN])
    logits[0, :, 0] = NAN  # class 1 is the only one with a score there
    np.testing.assert_allclose(won_shares(logits), [0, 1, NAN])
    np.testing.assert_array_equal(won_shares(np.full((3, 1, 4), NAN, np.float32)), [NAN] * 3)


def test_how_likely_a_tag_is_follows_from_images_with_it_and_without() -> None:
    shares = np.array([0.4, 0.6, 0.0, 0.2])
    likely = likelihood(np.array([True, True, False, False]), shares)
    # Means 0.5 and 0.1, squares 0.02 + 0.02, variance of all 0.05: (0.04 + 0.05) / 5 within, a slope of 0.4 / 0.018.
    odds = 0.4 / 0.018 * (shares - 0.3)
    np.testing.assert_allclose(likely, 1 / (1 + np.exp(-odds)))


def test_more_images_with_a_tag_make_it_likelier() -> None:
    likely = likelihood(np.array([True, True, True, False]), np.array([0.5, 0.3, 0.4, 0.2]))
    squares, middle = 0.01 + 0.01, (0.4 + 0.2) / 2
    slope = 0.2 / ((squares + 0.0125) / 5)
    assert math.isclose(likely[3], 1 / (1 + 0.5 * math.exp(-slope * (0.2 - middle))))  # prior odds (3 + 1) / (1 + 1)


@pytest.mark.parametrize(
    ("tags", "shares", "likely"),
    [
        ([False, False], [0.0, 0.9], [1 / 4, 1 / 4]),  # nobody carries it
        ([True, True], [0.0, 0.9], [3 / 4, 3 / 4]),  # everybody does
        ([True, False, True], [0.1, 0.9, 0.2], [3 / 5] * 3),  # the wrong way round: shares tell nothing
        ([True, False, True], [0.1, 0.1, 0.1], [3 / 5] * 3),  # all alike
        ([True], [0.5], [2 / 3]),
        ([False], [0.5], [1 / 3]),
        ([], [], []),
    ],
)
def test_where_shares_tell_nothing_what_counts_is_how_many_carry_the_tag(
    tags: list[bool], shares: list[float], likely: list[float]
) -> None:
    np.testing.assert_allclose(likelihood(np.array(tags, bool), np.array(shares)), likely)


def test_shares_that_tell_the_images_apart_without_fail_make_no_certainty() -> None:
    likely = likelihood(np.arange(1000) < 500, np.where(np.arange(1000) < 500, 1.0, 0.0))
    assert (likely[:500] > 0.99).all()
    assert np.isfinite(likely).all()


def test_the_score_is_the_share_at_stake_times_how_unlikely_the_tag_is() -> None:
    tags, shares = np.array([[True, False], *[[False, True]] * 4]), np.array([[0.25, 0.75]] * 5, np.float32)
    # A false tag: 1 - 2/7, times half of the mean share 1/2; a missing one: 5/7 times what it would win. What the
    # other images say is wrong by 2/7 only.
    expected = np.zeros((5, 2))
    expected[0] = 5 / 7 * 0.25, 5 / 7 * 0.75
    np.testing.assert_allclose(suspicion(tags, shares), expected, rtol=1e-6)
    np.testing.assert_array_equal(suspicion(tags, np.full((5, 2), NAN, np.float32)), np.zeros((5, 2)))


def test_a_class_that_every_image_carries_is_not_doubted() -> None:
    tags, shares = np.ones((5, 2), bool), np.array([[0, 0.5]] * 5, np.float32)
    np.testing.assert_array_equal(suspicion(tags, shares), np.zeros((5, 2)))


def test_images_of_which_nothing_is_said_teach_nothing() -> None:
    tags, shares = np.array([[True], [False], [True]]), np.array([[0.5], [0.25], [NAN]], np.float32)
    np.testing.assert_array_equal(suspicion(tags, shares)[:2], suspicion(tags[:2], shares[:2]))


def test_the_forgotten_class_that_wins_most_comes_first_and_a_false_tag_is_found(store: PseudoLabelStore) -> None:
    found = suspects(store)
    assert found[0][:4] == (2, "c", 1, "missing")
    claimed = [(suspect.image_id, suspect.class_index) for suspect in found if suspect.kind == "false"]
    assert claimed[0] == ("d", 2)
    assert ("b", 2) not in claimed  # where a patch looks like a car
    scores = [suspect.score for suspect in found]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > 0
    # Nothing is won by a car that no patch looks like.
    assert {(s.image_id, s.class_index) for s in found if s.kind == "missing"} == {("c", 1)}
    assert suspects(store, top=1) == found[:1]


def test_equals_come_in_the_order_of_images_and_classes(store: PseudoLabelStore) -> None:
    evidence = Evidence(np.eye(4, 3, dtype=bool), np.full((4, 3), 0.25, np.float32))
    places = [(suspect.row, suspect.class_index) for suspect in suspects(store, evidence)]
    missing = [(row, c) for row in range(4) for c in range(3) if row != c]
    assert places == [(c, c) for c in range(3)] + missing


def test_tags_that_are_being_mended_are_judged_instead_of_the_stores(store: PseudoLabelStore) -> None:
    tags = store.image_labels
    tags[2, 1] = True
    assert ("c", 1) not in [(suspect.image_id, suspect.class_index) for suspect in suspects(store, None, tags, 1)]
    assert not store.image_labels[2, 1]


def test_an_image_without_tags_is_asked_for_what_it_likely_shows(tmp_path: Path) -> None:
    store = begun(tmp_path / "train.zarr")
    for name in "ab":
        put(store, name)
    put(store, "c", tags=[])
    put(store, "d")
    found = [suspect for suspect in suspects(store) if suspect.image_id == "c"]
    assert [(suspect.class_index, suspect.kind) for suspect in found] == [(1, "missing"), (0, "missing")]


def test_of_an_incomplete_store_what_is_there_is_judged_and_judged_anew_when_there_is_more(tmp_path: Path) -> None:
    store = begun(tmp_path / "train.zarr")
    assert suspects(store) == []
    for name in "ab":
        put(store, name)
    assert suspects(store) == []
    for name in "cd":
        put(store, name)
    assert suspects(store)[0].image_id == "c"
    store.forget(range(2, 3))
    assert "c" not in {suspect.image_id for suspect in suspects(store)}
    put(store, "c", tags=[0, 1])
    assert suspects(store)[0].image_id != "c"


def test_logits_are_read_once(store: PseudoLabelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    first = suspects(store)
    assert [path.name for path in Path(store.path).parent.iterdir() if path.name != "train.zarr"] == [
        "train.suspicion.npz"
    ]
    counts = list[int]()
    with monkeypatch.context() as patch:
        patch.setattr(PseudoLabelStore, "global_logits", None)
        assert suspects(PseudoLabelStore.open(store.path)) == first
        kept_evidence(store, counts.append)
    assert counts == [4]


@pytest.mark.parametrize("damage", [b"", b"not a zip file", None])
def test_a_broken_file_is_made_again(store: PseudoLabelStore, damage: bytes | None) -> None:
    first, file = suspects(store), Path(store.path).with_suffix(".suspicion.npz")
    whole = file.read_bytes()
    file.write_bytes(whole[:-30] if damage is None else damage)
    assert suspects(store) == first
    assert file.read_bytes() == whole


def test_where_nothing_can_be_kept_the_answer_is_the_same(
    store: PseudoLabelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(module.np, "savez", refuse)
        found = suspects(store)
        assert [path.name for path in Path(store.path).parent.iterdir()] == ["train.zarr"]
    assert suspects(store) == found


def test_a_store_at_a_url_is_judged_too(store: PseudoLabelStore, tmp_path: Path) -> None:
    away = begun(f"memory://{tmp_path}/train.zarr")
    for name in IMAGES:
        put(away, name)
    assert suspects(away) == suspects(store)
