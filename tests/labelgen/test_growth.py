"""What may not grow with the number of images, told by counting: reads of the store, images opened. Not by time."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zarr.storage import FsspecStore, LocalStore

import labelgen.generate
from labelgen import layout as layout_module
from labelgen import store as store_module
from labelgen.chunks import Chunks
from labelgen.generate import LabelConfig, generate, load_clip
from labelgen.images import image_size
from labelgen.layout import StoreLayout, index_ids
from labelgen.maskclip import DenseCLIP
from labelgen.samples import InputError, Sample
from labelgen.store import ImageLogits, LocalView, PseudoLabelStore
from labelgen.verify import verify
from labelgen.views import ViewConfig
from pipeline.datasets.classes import CAMVID_CLASSES
from pipeline.toy.scenes import write_scenes

PROVENANCE = {"classes": {"names": ["sky", "car"]}}
FEW, MANY = 3, 3000


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each array was asked for, through zarr or around it, and listings of each."""
    counts: Counter[str] = Counter()
    for kind in (LocalStore, FsspecStore):
        get, list_dir = kind.get, kind.list_dir

        async def counted_get(self: Any, key: str, *args: Any, get: Any = get, **others: Any) -> Any:
            counts[key.partition("/")[0]] += 1
            return await get(self, key, *args, **others)

        async def counted_listing(self: Any, prefix: str, list_dir: Any = list_dir) -> Any:
            counts[f"list {prefix.partition('/')[0]}"] += 1
            async for name in list_dir(self, prefix):
                yield name

        monkeypatch.setattr(kind, "get", counted_get)
        monkeypatch.setattr(kind, "list_dir", counted_listing)
    read_bytes = Chunks._bytes

    def counted_bytes(self: Chunks, shard: int, place: int) -> bytes | None:
        counts[self._array.basename] += 1
        return read_bytes(self, shard, place)

    monkeypatch.setattr(Chunks, "_bytes", counted_bytes)
    return counts


def begun(path: Path | str, images: int) -> PseudoLabelStore:
    """An empty store of images "0", "1", ..., two a shard."""
    vectors = np.eye(2, 4, dtype=np.float32)
    layout = StoreLayout([str(i) for i in range(images)], vectors, [(3, 4)], (2, 2), 1, images_per_shard=2)
    return PseudoLabelStore.create(path, layout, PROVENANCE)


def image(row: int) -> ImageLogits:
    logits = np.full((2, 2, 2), row + 1, np.float32)
    return ImageLogits(str(row), (8, 8), [row % 2], [logits], [LocalView((0, 0, 8, 8), 1.0, logits)])


def write(store: PseudoLabelStore, rows: range) -> None:
    store.write_shard(rows, [image(row) for row in rows])


@pytest.fixture(params=["folder", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    return lambda name: f"{tmp_path}/{name}" if request.param == "folder" else f"memory://{tmp_path}/{name}"


def test_opening_and_reading_one_image_costs_the_same_in_a_large_store(
    place: Callable[[str], str], asked: Counter[str]
) -> None:
    costs = []
    for images in (FEW, MANY):
        write(begun(place(str(images)), images), range(0, 2))
        asked.clear()
        store = PseudoLabelStore.open(place(str(images)))
        assert store.size("1") == (8, 8)
        assert store.labels_of("1").tolist() == [False, True]
        assert store.mask("1", "fused").shape == (8, 8)
        costs.append(dict(asked))
        asked.clear()
        store.mask("0", "fused")  # of the same shard: what is known of its images is remembered
        assert set(asked) == {"global_logits_0", "local_logits"}
    assert costs[0] == costs[1]
    assert costs[0]["views"] <= 2  # its description, and one chunk
    assert not any(key.startswith("list") for key in costs[0])


def test_writing_a_shard_costs_the_same_in_a_large_store(place: Callable[[str], str], asked: Counter[str]) -> None:
    costs = []
    for images in (FEW, MANY):
        store = begun(place(str(images)), images)
        asked.clear()
        write(store, range(0, 2))
        costs.append(dict(asked))
    assert costs[0] == costs[1]


def test_missing_images_are_found_by_one_listing_or_one_marker(
    place: Callable[[str], str], asked: Counter[str]
) -> None:
    store = begun(place("s"), MANY)
    write(store, range(0, 2))
    write(store, range(8, 10))
    asked.clear()
    assert store.missing(["0", "9", "10", "x"]) == ["10", "x"]
    assert len(store.missing(map(str, range(MANY)))) == MANY - 4
    assert store.is_written().nonzero()[0].tolist() == [0, 1, 8, 9]
    assert (asked["list is_written"], asked["is_written"]) == (3, 0)
    assert store.missing(["8"]) == []
    assert (asked["list is_written"], asked["is_written"]) == (3, 1)


def test_what_a_killed_writer_left_behind_is_no_marker(tmp_path: Path) -> None:
    store = begun(tmp_path / "s.zarr", FEW)
    write(store, range(0, 2))
    (tmp_path / "s.zarr" / "is_written" / "c.0123abcd.partial").write_bytes(b"half")
    assert store.is_written().tolist() == [True, True, False]


def test_verifying_reads_each_shard_once(tmp_path: Path, asked: Counter[str]) -> None:
    for shards in (2, 4):
        store = begun(tmp_path / str(shards), 2 * shards)
        for rows in store.shards():
            write(store, rows)
        asked.clear()
        assert verify(store) == []
        assert {asked[name] for name in ("views", "global_logits_0", "checksum", "is_written")} == {shards}


def test_every_id_is_found_wherever_its_hash_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (layout_module, store_module):
        monkeypatch.setattr(module, "IDS_A_CHUNK", 4)
    for images in (1, 4, 5, 100):
        store = begun(tmp_path / str(images), images)
        assert [store._find(str(i)) for i in range(images)] == list(range(images))
        assert [store._find(f"x{i}") for i in range(200)] == [None] * 200
        assert store.image_ids == [str(i) for i in range(images)]


def test_ids_that_stand_twice_or_share_a_hash_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="image id 'b' stands twice in the split; ids must be unique"):
        index_ids(["a", "b", "c", "b"])
    monkeypatch.setattr(layout_module, "id_hash", lambda image_id: 7)
    with pytest.raises(InputError, match="'a' and 'b' have one hash; rename one of the two images"):
        index_ids(["a", "b"])


def test_ids_that_are_gone_are_noticed(tmp_path: Path) -> None:
    write(begun(tmp_path / "s.zarr", FEW), range(0, 2))
    for name in ("image_id", "id_index"):
        for file in (tmp_path / "s.zarr" / name).glob("c.*"):
            file.unlink()
    with pytest.raises(InputError, match="id_index in .* is gone"):
        PseudoLabelStore.open(tmp_path / "s.zarr").mask("0")
    with pytest.raises(InputError, match="image_id in .* is gone"):
        _ = PseudoLabelStore.open(tmp_path / "s.zarr").image_ids


VIEWS = ViewConfig(local_height=160, local_width=160, local_zooms=(1.0, 1.0), zoom_levels=1)
CONFIG = LabelConfig(images_per_shard=1, batch=8, readers=1, views=VIEWS)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    root = tmp_path_factory.mktemp("growth")
    write_scenes(root, {"train": 6})
    paths = sorted((root / "train").iterdir())
    return [
        {"image_id": path.stem, "image_path": str(path), "label_path": None, "image_labels": [0, 3]} for path in paths
    ]


@pytest.fixture(scope="module")
def dense(clip_folder: Path) -> DenseCLIP:
    return load_clip(clip_folder, CONFIG, "cpu")


def test_labelling_asks_for_markers_as_often_for_many_shards_as_for_few(
    samples: list[Sample], dense: DenseCLIP, tmp_path: Path, asked: Counter[str]
) -> None:
    costs = []
    for shards in (2, 6):
        heard: list[int] = []
        path = tmp_path / str(shards)
        generate(samples[:shards], CAMVID_CLASSES, dense, path, CONFIG, about={}, on_images=heard.append)
        costs.append((asked["list is_written"], asked["is_written"] / shards))
        assert heard == sorted(heard)
        assert heard[-1] == shards
        asked.clear()
    assert costs[0][0] == costs[1][0]  # at the beginning, and at the end
    assert costs[1][1] <= 2  # marking a shard


def test_a_resumed_part_opens_no_image_and_reads_no_table(
    samples: list[Sample], dense: DenseCLIP, tmp_path: Path, asked: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Counter[str]()

    def counted(path: str | Path) -> tuple[int, int]:
        opened[str(path)] += 1
        return image_size(path)

    monkeypatch.setattr(labelgen.generate, "image_size", counted)

    def label(part: int) -> PseudoLabelStore:
        asked.clear()
        return generate(samples, CAMVID_CLASSES, dense, tmp_path / "s", CONFIG, about={}, part=part, parts=3)

    store = label(part=1)
    assert opened == {sample["image_path"]: 1 for sample in samples}  # to know how large the arrays must be
    assert store.is_written().nonzero()[0].tolist() == [1, 4]
    assert label(part=1).is_written().sum() == 2
    assert asked["list is_written"] == 3  # before, after, and just now
    assert [asked[name] for name in ("image_labels", "views", "global_logits_0", "local_logits")] == [0, 0, 0, 0]
    assert asked["is_written"] <= 1  # its description
    assert sum(opened.values()) == len(samples)
    label(part=0)
    assert sum(opened.values()) == len(samples)
    other = [sample | {"image_labels": [1]} for sample in samples]
    with pytest.raises(InputError, match="was made with other image-level labels of 'toy_0000'"):
        generate(other, CAMVID_CLASSES, dense, tmp_path / "s", CONFIG, about={})  # type: ignore[arg-type]
    other = [sample | ({"image_labels": [1]} if row % 3 == 2 else {}) for row, sample in enumerate(samples)]
    generate(other, CAMVID_CLASSES, dense, tmp_path / "s", CONFIG, about={}).require_complete()  # type: ignore[arg-type]


def test_what_others_write_is_counted_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, heard = begun(tmp_path / "s", 8), list[int]()
    progress = labelgen.generate._Progress(store, 0, heard.append)
    for rows in store.shards()[1:]:
        write(store, rows)
    progress.of_shard(2)(0.5)
    progress.of_shard(2)(0.5)
    assert heard == [1, 3]  # our own
    monkeypatch.setattr(labelgen.generate, "LOOK_S", 0.0)
    labelgen.generate._Progress(store, 0, heard.append).of_shard(2)(0.5)
    assert heard[2:] == [7]
