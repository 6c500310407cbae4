import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr

from labelgen.codec import checksum
from labelgen.layout import StoreLayout
from labelgen.prompts import Sentence, class_weights
from labelgen.samples import InputError
from labelgen.store import ImageLogits, LocalView, PseudoLabelStore
from labelgen.verify import verify
from tests.conftest import ROOT

PROVENANCE = {"classes": {"names": ["sky", "car"]}, "labels": {"variant": "maskclip"}, "versions": {"zarr": "3"}}
SIZES = [(16, 32), (16, 32), (24, 16)]
LABELS: list[list[int]] = [[0, 1], [0], []]
RNG = np.random.default_rng(0)
NAN = np.nan


def layout(ids: tuple[str, ...] = ("a", "b", "c"), local_count: int = 2, **others: Any) -> StoreLayout:
    return StoreLayout(
        image_ids=ids,
        text_vectors_CD=np.eye(2, 4, dtype=np.float32),
        global_grids=[(3, 4)],
        local_grid=(2, 2),
        local_count=local_count,
        images_per_shard=2,
        **others,
    )


def image(row: int) -> ImageLogits:
    height, width = SIZES[row]
    views = [LocalView((0, 0, 8, 8), 1.5, RNG.standard_normal((2, 2, 1)).astype(np.float32))]
    grid = (height // 8, width // 8)
    return ImageLogits("abc"[row], SIZES[row], LABELS[row], [RNG.standard_normal((2, *grid)).astype(np.float32)], views)


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


def test_a_store_may_do_without_local_views_and_leave_pixels_unsaid(tmp_path: Path) -> None:
    store = PseudoLabelStore.create(tmp_path / "s.zarr", layout(("a",), local_count=0), PROVENANCE)
    maps = np.array([[[0.1, np.nan]], [[np.nan, np.nan]]], np.float32)
    store.write_shard(store.shards()[0], [ImageLogits("a", (8, 16), [0, 1], [maps], [])])
    assert store.mask_views == ("global",)
    np.testing.assert_allclose(store.global_logits("a"), maps, rtol=1e-3)
    assert store.mask("a").tolist() == [[0] * 8 + [255] * 8] * 8
    np.testing.assert_array_equal(store.mask("a", "fused"), store.mask("a"))
    with pytest.raises(InputError, match="holds no local views"):
        store.mask("a", "local")
    assert verify(store) == []
    assert "car" in store._repr_html_()


def test_both_kinds_of_views_are_averaged_where_both_speak(tmp_path: Path) -> None:
    store = PseudoLabelStore.create(tmp_path / "s.zarr", layout(("a",)), PROVENANCE)
    whole, local = (
        np.array([[row], [[0.0] * 4]], np.float32) for row in ([0.25, 0.5, NAN, NAN], [0.75, NAN, 0.5, NAN])
    )
    views = [LocalView((0, x, 1, x + 2), 1.0, local[:, :, x : x + 2]) for x in (0, 2)]
    store.write_shard(store.shards()[0], [ImageLogits("a", (1, 4), [0, 1], [whole], views)])
    np.testing.assert_array_equal(store.logits("a", "fused"), [[[0.5, 0.5, 0.5, NAN]], [[0.0] * 4]])


def test_unwritten_images_are_refused_until_they_are_there(tmp_path: Path) -> None:
    writer = PseudoLabelStore.create(tmp_path / "s.zarr", layout(), PROVENANCE)
    writer.write_shard(range(0, 2), [image(0), image(1)])
    reader = PseudoLabelStore.open(tmp_path / "s.zarr")
    assert reader.is_written().tolist() == [True, True, False]
    assert reader.image_labels.tolist() == [[True, True], [True, False], [False, False]]
    with pytest.raises(InputError, match="1 of 3 images have no pseudo-labels .* again to resume"):
        reader.require_complete()
    with pytest.raises(InputError, match="'c' has no pseudo-labels yet"):
        reader.mask("c")
    with pytest.raises(InputError, match="'x' is not in"):
        reader.mask("x")
    last = image(2)
    writer.write_shard(range(2, 3), [ImageLogits("c", last.size, [1], last.global_logits, last.local_views)])
    assert np.unique(reader.mask("c")).tolist() == [1]
    assert reader.size("c") == (24, 16)


def test_what_was_asked_before_the_write_is_not_remembered_after_it(tmp_path: Path) -> None:
    store = PseudoLabelStore.create(tmp_path / "s.zarr", layout(), PROVENANCE)
    assert not store.image_labels.any()
    store.write_shard(range(0, 2), [image(0), image(1)])
    assert store.labels_of("b").tolist() == [True, False]
    assert np.unique(store.mask("b")).tolist() == [0]


def test_a_store_made_otherwise_is_refused_naming_the_difference(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    PseudoLabelStore.create(path, layout(), PROVENANCE)
    PseudoLabelStore.create(path, layout(), PROVENANCE | {"versions": {"zarr": "4"}})  # a newer library may resume
    with pytest.raises(InputError, match=r"labels.variant = 'maskclip', not 'sclip'; delete it, or choose another OUT"):
        PseudoLabelStore.create(path, layout(), PROVENANCE | {"labels": {"variant": "sclip"}})
    with pytest.raises(InputError, match="made of other images"):
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


def written(path: Path | str, **others: Any) -> tuple[PseudoLabelStore, list[ImageLogits]]:
    """A whole store, and what was put into it."""
    store = PseudoLabelStore.create(path, layout(**others), PROVENANCE)
    images = [image(row) for row in range(3)]
    for rows in store.shards():
        store.write_shard(rows, [images[row] for row in rows])
    return PseudoLabelStore.open(path), images


def test_eight_bits_keep_logits_within_half_a_step(tmp_path: Path) -> None:
    store, images = written(tmp_path / "s.zarr", precision="int8")
    for given in images:
        (logits,) = given.global_logits
        half_step = (logits.max() - logits.min()) / 255 / 2
        assert np.abs(store.global_logits(given.image_id) - logits).max() <= half_step + 1e-6
        assert store.local_views(given.image_id)[0].logits.shape == (2, 2, 1)
    flat = ImageLogits("a", (16, 32), [0], [np.full((2, 2, 4), 0.25, np.float32)], images[0].local_views)
    again = PseudoLabelStore.create(tmp_path / "flat.zarr", layout(precision="int8"), PROVENANCE)
    again.write_shard(range(0, 2), [flat, images[1]])
    assert np.unique(again.global_logits("a")).tolist() == [0.25]


@pytest.mark.parametrize("protocol", ["memory", "local", "file"])
def test_a_store_lives_at_a_url(protocol: str, tmp_path: Path) -> None:
    url = f"{protocol}://{tmp_path}/new/s.zarr"
    store, images = written(url)
    store.require_complete()
    np.testing.assert_allclose(store.global_logits("c"), images[2].global_logits[0], rtol=1e-3)
    assert verify(store) == []
    PseudoLabelStore.create(url, layout(), PROVENANCE).require_complete()  # resumed, not begun anew
    with pytest.raises(InputError, match="made of other images"):
        PseudoLabelStore.create(url, layout(("a", "b", "d")), PROVENANCE)


def test_urls_that_cannot_be_used_are_said() -> None:
    with pytest.raises(InputError, match="nope://x cannot be opened as a pseudo-label store: Protocol not known"):
        PseudoLabelStore.open("nope://x")
    with pytest.raises(InputError, match="nope://x cannot be written to: Protocol not known"):
        PseudoLabelStore.create("nope://x", layout(), PROVENANCE)
    with pytest.raises(InputError, match="memory://nobody/s.zarr is no pseudo-label store"):
        PseudoLabelStore.open("memory://nobody/s.zarr")


def test_xarray_opens_a_store_with_its_axes_named(tmp_path: Path) -> None:
    _, images = written(tmp_path / "s.zarr")
    opened = xarray.open_zarr(tmp_path / "s.zarr", consolidated=False)
    assert opened["image_id"].values.tolist() == ["a", "b", "c", ""]  # the last shard is padded
    whole = opened["views"].isel(image=2, view=0)
    assert whole.sel(field=["y1", "x1"]).values.tolist() == [24, 16]
    assert whole.sel(field=["rows", "columns"]).values.tolist() == [3, 2]
    first = opened["global_logits_0"].isel(image=0, text=1)
    assert first.dims == ("row_0", "column_0")
    np.testing.assert_allclose(first[:2, :4], images[0].global_logits[0][1], rtol=1e-3)


SAID = [Sentence(0, "sky", "{}."), Sentence(0, "sky", "a {}."), Sentence(1, "car", "{}."), Sentence(1, "auto", "{}.")]
VECTORS = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], np.float32)


def test_words_can_be_changed_in_a_store_of_single_sentences(tmp_path: Path) -> None:
    weights = class_weights(SAID, VECTORS, 2)
    made = layout(("a",), sentences=SAID, sentence_vectors_PD=VECTORS)
    store = PseudoLabelStore.create(tmp_path / "s.zarr", made, PROVENANCE)
    features = RNG.standard_normal((4, 3, 4)).astype(np.float32)  # of unit vectors along the axes: the logits
    store.write_shard(range(0, 1), [ImageLogits("a", (16, 32), [0, 1], [features], [])])
    np.testing.assert_allclose(store.text_vectors, weights @ VECTORS, atol=1e-6)
    np.testing.assert_allclose(store.global_logits("a")[0], (features[0] + features[1]) / 2**0.5, atol=1e-2)
    other = store.reworded({"car": ["auto"]}, templates=["{}."])
    np.testing.assert_allclose(other.global_logits("a"), features[[0, 3]], atol=1e-2)
    np.testing.assert_array_equal(other.text_vectors, VECTORS[[0, 3]])
    assert store.text_vectors[0].tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 0, 0])  # the store itself is unchanged
    with pytest.raises(InputError, match="'van' is not among the cached names of 'car': auto, car"):
        store.reworded({"car": ["van"]})
    with pytest.raises(InputError, match=r"'the \{\}.' is not among the cached templates: a \{\}., \{\}."):
        store.reworded(templates=["the {}."])
    with pytest.raises(InputError, match="no sentence is left for class 1"):
        store.reworded(templates=["a {}."])


def test_only_a_store_of_single_sentences_can_be_reworded(tmp_path: Path) -> None:
    store, _ = written(tmp_path / "s.zarr")
    with pytest.raises(InputError, match="make one with labels.per_prompt=true"):
        store.reworded({"car": ["auto"]})


def a_file(store: Path, array: str) -> Path:
    """The file of the array's first shard."""
    return min((store / array).glob("c.*"))


@pytest.mark.parametrize(
    "array", ["local_logits", "views", "image_labels", "global_logits_0", "checksum", "is_written"]
)
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_verify_finds_harm_done_to_any_array_and_redo_mends_it(tmp_path: Path, array: str, harm: str) -> None:
    path = tmp_path / "s.zarr"
    store, images = written(path)
    assert verify(store) == []
    file = a_file(path, array)
    data = bytearray(file.read_bytes())
    if harm == "flip":
        data[len(data) // 2] ^= 0xFF
        file.write_bytes(data)
    elif harm == "cut":
        file.write_bytes(data[: len(data) // 2])
    else:
        file.unlink()
    damages = verify(PseudoLabelStore.open(path, writable=True))
    if (array, harm) == ("is_written", "remove"):
        assert damages == []  # without its marker a shard is not there, and is made again anyway
    else:
        assert [damage.rows for damage in damages] == [range(0, 2)]
    mended = PseudoLabelStore.open(path, writable=True)
    for damage in damages:
        mended.forget(damage.rows)
    assert mended.is_written().tolist() == [False, False, True]
    mended.write_shard(range(0, 2), images[:2])
    assert verify(PseudoLabelStore.open(path)) == []


def test_a_shard_that_two_jobs_write_is_whole_wherever_one_of_them_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [image(row) for row in range(2)]
    first, second = (PseudoLabelStore.create(tmp_path / "s.zarr", layout(), PROVENANCE) for _ in range(2))
    plain, looks = PseudoLabelStore._array, list[str]()

    class KilledError(Exception):
        pass

    def array(store: PseudoLabelStore, name: str) -> Any:
        if store is first and name == "checksum":  # its data are there, its marker is not
            with pytest.raises(KilledError):
                second.write_shard(range(0, 2), images)
        if store is second:
            looks.append(name)
            if looks.count("views") == 2:  # at first it asks for the shape
                raise KilledError  # between two arrays
        return plain(store, name)

    monkeypatch.setattr(PseudoLabelStore, "_array", array)
    first.write_shard(range(0, 2), images)
    monkeypatch.undo()
    assert first.is_written().tolist() == [True, True, False]
    assert verify(first) == []


def test_what_another_job_has_written_stays(tmp_path: Path) -> None:
    store, _ = written(tmp_path / "s.zarr")
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "s.zarr").rglob("c.*")}
    PseudoLabelStore.open(tmp_path / "s.zarr", writable=True).write_shard(range(0, 2), [image(0), image(1)])
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert verify(store) == []


def test_what_a_lost_writer_left_of_a_shard_is_written_over(tmp_path: Path) -> None:
    _, images = written(tmp_path / "s.zarr")
    a_file(tmp_path / "s.zarr", "is_written").unlink()
    for array in ("local_logits", "views"):
        file = a_file(tmp_path / "s.zarr", array)
        file.write_bytes(file.read_bytes()[:20])
    store = PseudoLabelStore.open(tmp_path / "s.zarr", writable=True)
    store.write_shard(range(0, 2), images[:2])
    assert verify(store) == []


def test_storage_that_fails_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    written("memory://failing/s.zarr")
    store = PseudoLabelStore.open("memory://failing/s.zarr")

    def fail(*arguments: Any) -> None:
        raise OSError(16, "slow down")

    monkeypatch.setattr(zarr.Array, "__getitem__", fail)
    with pytest.raises(OSError, match="slow down"):
        store.mask("a")
    with pytest.raises(OSError, match="slow down"):
        verify(store)


@pytest.mark.parametrize("array", ["local_logits", "views", "global_logits_0"])
def test_a_file_that_is_gone_is_noticed_when_it_is_read(tmp_path: Path, array: str) -> None:
    written(tmp_path / "s.zarr")
    a_file(tmp_path / "s.zarr", array).unlink()
    with pytest.raises(InputError, match="gone; 'carbseg labels verify' says what to make again"):
        PseudoLabelStore.open(tmp_path / "s.zarr").mask("a", "fused")


def test_reading_damaged_bytes_says_what_to_do(tmp_path: Path) -> None:
    store, _ = written(tmp_path / "s.zarr")
    file = a_file(tmp_path / "s.zarr", "global_logits_0")
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(InputError, match="global_logits_0 in .* is damaged .*'carbseg labels verify'"):
        store.mask("a")


def as_schema_2(path: Path) -> None:
    """Turn a store into one as schema 2 had it: a table for each field, ids among the attributes."""
    group = zarr.open_group(path, mode="r+")
    views = np.asarray(group["views"])
    wholes, crops = np.split(views, [1], axis=1)
    is_view = crops[:, :, :1] >= 0
    old = {
        "image_size": wholes[:, 0, 2:4].astype("int32"),
        "global_grid": wholes[:, :, 5:7].astype("int32"),
        "global_range": wholes[:, :, 7:],
        "local_box": crops[:, :, :4].astype("int32"),
        "local_zoom": np.where(is_view, crops[:, :, 4:5], 0)[:, :, 0],
        "local_grid": np.where(is_view, crops[:, :, 5:7], 0).astype("int32"),
        "local_range": np.where(is_view, crops[:, :, 7:], 0),
        "image_labels": np.asarray(group["image_labels"]),
    }
    attributes = dict(group.attrs) | {"schema": 2, "image_ids": np.asarray(group["image_id"])[:3].tolist()}
    for name in ("views", "field", "image_id", "id_index", "image_labels"):
        del group[name]
    for name, values in old.items():
        fill = -1 if name == "local_box" else 0
        shape = values.shape[1:]
        array = group.create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=(1, *shape), shards=(2, *shape), fill_value=fill
        )
        array[:] = values
    blocks = {name: np.asarray(group[name]) for name in sorted([*old, "global_logits_0", "local_logits"])}
    group["checksum"][:] = [checksum(block[row] for block in blocks.values()) for row in range(3)] + [0]
    for name in ("images", "labels_digest"):
        del attributes[name]
    group.attrs.put(attributes)


def test_a_store_of_schema_2_is_read_but_not_written_to(tmp_path: Path) -> None:
    new, _ = written(tmp_path / "new.zarr")
    shutil.copytree(tmp_path / "new.zarr", tmp_path / "old.zarr")
    as_schema_2(tmp_path / "old.zarr")
    old = PseudoLabelStore.open(tmp_path / "old.zarr")
    assert repr(old).endswith("old.zarr': 3 of 3 images, 2 classes)")
    assert old.image_ids == ["a", "b", "c"]
    assert old.missing(["a", "x"]) == ["x"]
    np.testing.assert_array_equal(old.image_labels, new.image_labels)
    for image_id in new.image_ids:
        assert old.size(image_id) == new.size(image_id)
        np.testing.assert_array_equal(old.labels_of(image_id), new.labels_of(image_id))
        for view in ("global", "local", "fused"):
            np.testing.assert_array_equal(old.logits(image_id, view), new.logits(image_id, view))
            np.testing.assert_array_equal(old.mask(image_id, view), new.mask(image_id, view))
        assert old.local_views(image_id)[0].zoom == new.local_views(image_id)[0].zoom
    with pytest.raises(InputError, match="'x' is not in"):
        old.mask("x")
    assert verify(old) == []
    with pytest.raises(InputError, match="is of schema 2, which this version reads, but does not write; delete it"):
        PseudoLabelStore.create(tmp_path / "old.zarr", layout(), PROVENANCE)
    group = zarr.open_group(tmp_path / "old.zarr", mode="r+")
    group.attrs["schema"] = 1
    with pytest.raises(InputError, match=r"is no pseudo-label store of schema 3 \(but 1\); delete it"):
        PseudoLabelStore.open(tmp_path / "old.zarr")


def test_a_store_opens_without_importing_torch(tmp_path: Path) -> None:
    PseudoLabelStore.create(tmp_path / "s.zarr", layout(), PROVENANCE)
    code = (
        "import sys; from labelgen.store import PseudoLabelStore; "
        f"print(len(PseudoLabelStore.open({str(tmp_path / 's.zarr')!r})), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "False"]
