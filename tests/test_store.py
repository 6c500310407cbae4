import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from labelgen.samples import InputError
from labelgen.store import ImageLogits, LocalView, PseudoLabelStore, StoreLayout
from tests.conftest import ROOT

PROVENANCE = {"classes": {"names": ["sky", "car"]}, "labels": {"variant": "maskclip"}, "versions": {"zarr": "3"}}
SIZES = [(16, 32), (16, 32), (24, 16)]
RNG = np.random.default_rng(0)


def layout(ids: tuple[str, ...] = ("a", "b", "c")) -> StoreLayout:
    return StoreLayout(
        image_ids=ids,
        image_labels_NC=np.array([[True, True], [True, False], [False, False]]),
        text_vectors_CD=np.eye(2, 4, dtype=np.float32),
        global_grids=[(3, 4)],
        local_grid=(2, 2),
        local_count=2,
        images_per_shard=2,
    )


def image(row: int) -> ImageLogits:
    height, width = SIZES[row]
    views = [LocalView((0, 0, 8, 8), 1.5, RNG.standard_normal((2, 2, 1)).astype(np.float32))]
    grid = (height // 8, width // 8)
    return ImageLogits("abc"[row], SIZES[row], [RNG.standard_normal((2, *grid)).astype(np.float32)], views)


def test_what_is_written_is_read_back_with_its_own_extent(tmp_path: Path) -> None:
    store = PseudoLabelStore.create(tmp_path / "s.zarr", layout(), PROVENANCE)
    images = [image(row) for row in range(3)]
    for rows in store.shards():
        store.write_shard(rows, [images[row] for row in rows])
    store = PseudoLabelStore.open(tmp_path / "s.zarr")
    store.require_complete()
    assert store.class_names == ["sky", "car"]
    assert store.provenance == PROVENANCE
    for given in images:
        (given_view,) = given.local_views
        (view,) = store.local_views(given.image_id)
        assert store.size(given.image_id) == given.size
        np.testing.assert_allclose(store.global_logits(given.image_id), given.global_logits[0], rtol=1e-3)
        assert (view.box, view.zoom) == (given_view.box, given_view.zoom)
        np.testing.assert_allclose(view.logits, given_view.logits, rtol=1e-3)


def test_masks_have_the_size_of_the_image_and_only_classes_present(tmp_path: Path) -> None:
    store = PseudoLabelStore.create(tmp_path / "s.zarr", layout(), PROVENANCE)
    for rows in store.shards():
        store.write_shard(rows, [image(row) for row in rows])
    assert store.mask("a").shape == (16, 32)
    assert store.mask("a", size=(5, 6)).shape == (5, 6)
    assert np.unique(store.mask("b")).tolist() == [0]
    assert np.unique(store.mask("c", "fused")).tolist() == [255]  # no labels at all
    local = store.mask("b", "local")
    assert np.unique(local[:8, :8]).tolist() == [0]
    assert np.unique(local[:, 8:]).tolist() == [255]  # no view looked there
    assert np.unique(store.mask("b", "fused")).tolist() == [0]
    assert "_repr_html_" in dir(store)
    assert "car" in store._repr_html_()


def test_unwritten_images_are_refused_until_they_are_there(tmp_path: Path) -> None:
    writer = PseudoLabelStore.create(tmp_path / "s.zarr", layout(), PROVENANCE)
    writer.write_shard(range(0, 2), [image(0), image(1)])
    reader = PseudoLabelStore.open(tmp_path / "s.zarr")
    assert reader.is_written().tolist() == [True, True, False]
    with pytest.raises(InputError, match="1 of 3 images have no pseudo-labels .* again to resume"):
        reader.require_complete()
    with pytest.raises(InputError, match="'c' has no pseudo-labels yet"):
        reader.mask("c")
    with pytest.raises(InputError, match="'x' is not in"):
        reader.mask("x")
    writer.write_shard(range(2, 3), [image(2)])
    assert reader.size("c") == (24, 16)


def test_a_store_made_otherwise_is_refused_naming_the_difference(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    PseudoLabelStore.create(path, layout(), PROVENANCE)
    PseudoLabelStore.create(path, layout(), PROVENANCE | {"versions": {"zarr": "4"}})  # a newer library may resume
    with pytest.raises(InputError, match=r"labels.variant = 'maskclip', not 'sclip'; delete it, or choose another OUT"):
        PseudoLabelStore.create(path, layout(), PROVENANCE | {"labels": {"variant": "sclip"}})
    with pytest.raises(InputError, match="other images or image-level labels"):
        PseudoLabelStore.create(path, layout(("a", "b", "d")), PROVENANCE)


def test_a_folder_that_is_no_store_is_neither_opened_nor_overwritten(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no pseudo-label store"):
        PseudoLabelStore.open(tmp_path / "nothing")
    (tmp_path / "thesis.tex").write_text("years of work")
    for attempt in (
        lambda: PseudoLabelStore.open(tmp_path),
        lambda: PseudoLabelStore.create(tmp_path, layout(), PROVENANCE),
    ):
        with pytest.raises(InputError, match="no pseudo-label store"):
            attempt()
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_store_opens_without_importing_torch(tmp_path: Path) -> None:
    PseudoLabelStore.create(tmp_path / "s.zarr", layout(), PROVENANCE)
    code = (
        "import sys; from labelgen.store import PseudoLabelStore; "
        f"print(len(PseudoLabelStore.open({str(tmp_path / 's.zarr')!r})), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "False"]
