"""Looking at pseudo-labels: the notebook, scores, sheets, exports, kinds of views."""

import json
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from labelgen.images import read_image, resize_logits
from labelgen.layout import StoreLayout
from labelgen.samples import InputError
from labelgen.store import ImageLogits, LocalView, PseudoLabelStore
from pipeline.datasets.classes import CITYSCAPES_CLASSES, CITYSCAPES_IDS
from pipeline.stages.inspection import export_masks
from tests.conftest import ROOT, carbseg, refused

WORDS = ("--set", "labels.per_prompt=true", "--set", "labels.images_per_shard=2")


@pytest.fixture(scope="module")
def run(clip_folder: Path, toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """Options of a run folder with a store of val, with the logits of every sentence."""
    out = tmp_path_factory.mktemp("words")
    options = ("--dataset", "toy", "--data-root", toy_root, "--clip", clip_folder, "--out", out, "--split", "val")
    carbseg("labels", *options, *WORDS)
    return options


def store_of(run: tuple[object, ...]) -> Path:
    return Path(str(run[run.index("--out") + 1])) / "labels" / "val.zarr"


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(
    run: tuple[object, ...], toy_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARBSEG_STORE", str(store_of(run)))
    monkeypatch.setenv("CARBSEG_DATA_ROOT", str(toy_root))
    notebook = nbformat.read(ROOT / "notebooks" / "inspect_masks.ipynb", 4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 6
    assert "<table>" in outputs[0]["data"]["text/html"]
    assert "one template instead of all changes" in outputs[-1]["data"]["text/plain"]
    assert [output["text"] for output in outputs if output["output_type"] == "stream"] == []  # no warning either


def test_words_of_the_default_are_those_of_a_plain_store(run: tuple[object, ...], tmp_path: Path) -> None:
    """Logits of sentences, put together, are the logits of classes that CLIP gives."""
    here = [tmp_path if option == store_of(run).parent.parent else option for option in run]
    carbseg("labels", *here, "--set", "labels.images_per_shard=2")
    words, plain = PseudoLabelStore.open(store_of(run)), PseudoLabelStore.open(tmp_path / "labels" / "val.zarr")
    assert len(words.sentences) == 12 * 27
    np.testing.assert_allclose(words.text_vectors, plain.text_vectors, atol=1e-6)
    image_id = plain.image_ids[0]
    np.testing.assert_allclose(words.global_logits(image_id), plain.global_logits(image_id), atol=1e-3)


def test_score_prints_iou_precision_and_recall_of_pseudo_labels(run: tuple[object, ...]) -> None:
    shown = carbseg("labels", "score", *run).stdout
    assert "global IoU | precision | recall | local IoU" in shown
    assert "image-level labels: precision 100.0, recall 100.0" in shown
    written = json.loads((store_of(run).parent.parent / "labels-val.json").read_text())
    assert set(written["rows"]) == {"global", "local", "fused"}


def test_sheet_shows_images_beside_their_masks(run: tuple[object, ...]) -> None:
    carbseg("labels", "sheet", *run, "--images", 2)
    sheet = read_image(store_of(run).parent.parent / "sheets" / "val.png")
    assert sheet.shape[1] == 5 * 320 + 4 * 4  # image, truth, global, local, fused
    assert sheet.shape[0] > 2 * 160


def test_exported_masks_hold_train_ids_and_show_the_palette(run: tuple[object, ...], tmp_path: Path) -> None:
    carbseg("labels", "export", store_of(run), tmp_path / "masks", "--view", "local")
    store = PseudoLabelStore.open(store_of(run))
    with Image.open(tmp_path / "masks" / f"{store.image_ids[0]}.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.array(image), store.mask(store.image_ids[0], "local"))
        assert image.getpalette()[3:6] == list(store.provenance["classes"]["palette"][1])


def test_masks_for_cityscapes_tools_have_its_names_and_ids(run: tuple[object, ...], tmp_path: Path) -> None:
    carbseg("labels", "export", store_of(run), tmp_path, "--layout", "cityscapes")
    store = PseudoLabelStore.open(store_of(run))
    mask = store.mask("toy_0001", "fused")
    with Image.open(tmp_path / "toy" / "toy_0001_gtFine_labelIds.png") as image:
        exported = np.array(image)
    assert set(exported[mask == store.class_names.index("road")]) == {7}
    assert set(exported[mask == store.class_names.index("tree")]) == {21}
    assert (CITYSCAPES_IDS[7], CITYSCAPES_CLASSES.names[CITYSCAPES_IDS[21]]) == (0, "vegetation")


def test_an_image_id_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    layout = StoreLayout(["../a"], np.eye(1, 4, dtype=np.float32), [(1, 1)], (1, 1), 1)
    store = PseudoLabelStore.create(
        tmp_path / "s.zarr", layout, {"classes": {"names": ["sky"], "palette": [[0, 0, 0]]}}
    )
    whole = np.zeros((1, 1, 1), np.float32)
    store.write_shard(range(1), [ImageLogits("../a", (4, 4), [0], [whole], [LocalView((0, 0, 4, 4), 1.0, whole)])])
    with pytest.raises(InputError, match=r"'../a' leads out of .*; rename the image"):
        export_masks(store, tmp_path / "masks", "global")


def test_views_of_one_image_side_by_side(toy_root: Path, clip_folder: Path, tmp_path: Path) -> None:
    image = next((toy_root / "val").iterdir())
    options = ("labels", "views", image, "--dataset", "toy", "--clip", clip_folder, "--to", tmp_path / "views.png")
    carbseg(*options, "--show", "road,sky")
    assert read_image(tmp_path / "views.png").shape[1] == 5 * 320 + 4 * 4
    assert "unknown class 'rod'; did you mean 'road'?" in refused(*options, "--show", "rod")


def test_several_global_zooms_are_kept_apart_and_averaged_when_read(run: tuple[object, ...], tmp_path: Path) -> None:
    folder = store_of(run).parent.parent
    here = [tmp_path if option == folder else option for option in run]
    carbseg("labels", *here, "--set", "labels.views.global_zooms=[1.0, 1.5]", "--set", "labels.images_per_shard=2")
    both = PseudoLabelStore.open(tmp_path / "labels" / "val.zarr")
    image_id = both.image_ids[0]
    assert both.read("views", 0)[:2, 5:7].tolist() == [[20, 40], [30, 60]]
    fine = both.global_logits(image_id)
    assert fine.shape == (11, 30, 60)
    single = PseudoLabelStore.open(store_of(run)).global_logits(image_id)
    other = both.read("global_logits_1", 0).astype(np.float32)
    np.testing.assert_allclose(fine, (resize_logits(single, 30, 60) + other) / 2, atol=2e-3)
