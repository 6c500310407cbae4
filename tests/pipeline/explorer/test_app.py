"""What the explorer answers."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelgen.images import read_image, read_label_map, write_png
from labelgen.store import PseudoLabelStore
from labelgen.views import to_mask
from pipeline.datasets.classes import CAMVID_CLASSES
from tests.conftest import carbseg, refused
from tests.files import own_folder
from tests.pipeline.explorer.conftest import Asker, Client, begun, write

NAMES = CAMVID_CLASSES.names
OTHER_WORDS = {"classes": {"car": ["dog"], "sky": ["cloud", "blue"]}}


@pytest.fixture
def store(toy_stores: Path) -> PseudoLabelStore:
    return PseudoLabelStore.open(toy_stores / "val.zarr")


@pytest.fixture
def client(ask: Asker, toy: tuple[object, ...]) -> Client:
    return ask(*toy)


# ---- Looking -------------------------------------------------------------------------------------------------------


def test_the_page_begins_with_what_there_is(client: Client, toy: tuple[object, ...]) -> None:
    run = client.ok("/api/run")
    assert (run["dataset"], run["split"], run["images"]) == ("toy", "val", 3)
    assert [known["name"] for known in run["classes"]] == list(NAMES)
    assert run["words"]["classes"]["sign"] == ["sign symbol", "traffic sign"]
    assert run["layers"] == ["global", "local", "fused"]
    assert run["stores"] == [{"key": "0", "label": str(toy[0])}]
    assert (run["has_truth"], run["clip"], run["problems"]) == (True, None, [])
    assert run["are_tags_saved"]
    assert run["kept_words"] == run["words"]


def test_masks_are_those_of_the_store(client: Client, store: PseudoLabelStore) -> None:
    for row, image_id in enumerate(store.image_ids):
        for view in store.mask_views:
            shown_HW = client.picture(f"/api/images/{row}/mask?layer={view}")
            np.testing.assert_array_equal(shown_HW, store.mask(image_id, view))


def test_photo_and_truth_are_those_of_the_data_set(client: Client, toy_root: Path, store: PseudoLabelStore) -> None:
    name = f"{store.image_ids[1]}.png"
    image_HW3, truth_HW = read_image(toy_root / "val" / name), read_label_map(toy_root / "valannot" / name)
    shown_HW3 = client.picture("/api/images/1/photo")[..., ::-1]
    assert np.abs(shown_HW3.astype(int) - image_HW3).mean() < 5
    truth_HW = np.where(truth_HW == len(NAMES), 255, truth_HW).astype(np.uint8)
    np.testing.assert_array_equal(client.picture("/api/images/1/mask?layer=truth"), truth_HW)


def test_a_score_is_how_likely_a_class_is_beside_those_that_are_present(
    client: Client, store: PseudoLabelStore
) -> None:
    image_id = store.image_ids[0]
    present = np.flatnonzero(store.labels_of(image_id))
    powers = np.exp(100 * store.logits(image_id, "fused")[present])
    likely = powers[3] / powers.sum(0)
    shown_HW = client.picture(f"/api/images/0/score?class={present[3]}&layer=fused")
    assert np.abs(shown_HW / 255 - likely).max() <= 0.5 / 255 + 1e-6


def test_a_contest_is_hard_where_the_second_class_is_nearly_as_likely(client: Client, store: PseudoLabelStore) -> None:
    image_id = store.image_ids[0]
    present = np.flatnonzero(store.labels_of(image_id))
    logits_CHW = store.logits(image_id, "global")[present]
    second_HW, first_HW = np.sort(logits_CHW, axis=0)[-2:]
    contest_HW = np.exp(100 * (second_HW - first_HW))
    shown_HW = client.picture("/api/images/0/contest?layer=global")
    assert np.abs(shown_HW / 255 - contest_HW).max() <= 0.5 / 255 + 1e-5
    pairs = client.ok("/api/images/0/pairs?layer=global")
    assert sum(pair["share"] for pair in pairs) <= (contest_HW > 0.5).mean() + 1e-9
    two_best = np.sort(present[np.argsort(logits_CHW, axis=0)[-2:]], axis=0)
    for pair in pairs:
        is_pair_HW = (two_best == np.array(pair["classes"])[:, None, None]).all(0) & (contest_HW > 0.5)
        assert pair["share"] == pytest.approx(is_pair_HW.mean(), abs=1e-3)


def test_a_mask_is_scored_where_there_is_truth(client: Client, toy_root: Path, toy_stores: Path, ask: Asker) -> None:
    miou = client.ok("/api/images/0/miou?layer=fused")["miou"]
    assert 0 < miou < 100
    train = ask(toy_stores, "--stores", toy_stores, "--data-root", toy_root, "--split", "train")
    assert train.ok("/api/images/0/miou?layer=fused")["miou"] > 0  # for pictures and scores truth may be seen


def test_lists_come_in_pages_and_can_be_searched(client: Client, store: PseudoLabelStore) -> None:
    page = client.ok("/api/images?offset=1&limit=1")
    assert page["total"] == 3
    (item,) = page["items"]
    image_id = store.image_ids[1]
    assert item == {
        "row": 1,
        "id": image_id,
        "tags": np.flatnonzero(store.labels_of(image_id)).tolist(),
        "suspect": None,
        "is_made": True,
        "changed": False,
    }
    assert [item["row"] for item in client.ok(f"/api/images?query={image_id.upper()}")["items"]] == [1]
    assert client.ok("/api/images?query=nothing")["items"] == []
    assert client.ok("/api/images?offset=99")["items"] == []


def test_suspicious_tags_come_first_once_they_are_known(ask: Asker, forgetful: tuple[object, ...]) -> None:
    client = ask(*forgetful)
    while (page := client.ok("/api/images?sort=suspicion"))["suspicion"]["state"] == "running":
        pass
    assert page["suspicion"]["state"] == "done"
    assert sorted(item["row"] for item in page["items"]) == [0, 1, 2]
    abouts = [client.ok(f"/api/images/{item['row']}") for item in page["items"]]
    for item, about in zip(page["items"], abouts, strict=True):
        assert item["suspect"] == (about["suspects"][0] if about["suspects"] else None)
        for suspect in about["suspects"]:
            assert (suspect["class"] in about["tags"]) == (suspect["kind"] == "false")
    assert [(about["row"], about["suspects"][0]["kind"]) for about in abouts[:1]] == [(0, "missing")]
    sums = [sum(suspect["score"] for suspect in about["suspects"]) for about in abouts]
    assert sums[0] > 0
    assert sums == sorted(sums, reverse=True)


def test_two_stores_are_shown_side_by_side_each_with_its_own_tags(
    ask: Asker, toy: tuple[object, ...], clip_folder: Path, toy_root: Path, tmp_path: Path
) -> None:
    tags = tmp_path / "tags.csv"
    tags.write_text("image,labels\n" + "".join(f"{path.name},road;sky\n" for path in (toy_root / "val").iterdir()))
    options = ("--dataset", "toy", "--data-root", toy_root, "--clip", clip_folder, "--split", "val")
    carbseg("labels", *options, "--out", tmp_path / "other", "--tags", tags)
    client = ask(*toy, "--compare", tmp_path / "other")
    assert [store["key"] for store in client.ok("/api/run")["stores"]] == ["0", "1"]
    shown_HW = client.picture("/api/images/0/mask?layer=fused&store=1")
    assert set(np.unique(shown_HW)) <= {NAMES.index("road"), NAMES.index("sky")}
    assert "no store" in client.error("/api/images/0/mask?store=2")


def test_stores_of_other_classes_cannot_be_compared(toy: tuple[object, ...], tmp_path: Path) -> None:
    begun(tmp_path / "other" / "labels" / "val.zarr", ["a"])
    said = refused("explore", *toy, "--compare", tmp_path / "other", "--no-browser")
    assert "other classes" in said


# ---- Words ---------------------------------------------------------------------------------------------------------


def test_other_words_change_the_mask_and_what_moved_is_said(client: Client, store: PseudoLabelStore) -> None:
    said = client.ok("/api/words", {"row": 0, "layer": "fused", **OTHER_WORDS})
    before_HW = client.picture("/api/images/0/mask?layer=fused")
    after_HW = client.picture(f"/api/images/0/mask?layer=fused&words={said['version']}")
    assert said["source"] == "clip"
    assert said["changed_pixels"] == pytest.approx((before_HW != after_HW).mean())
    assert 0 < said["changed_pixels"] < 1
    for move in said["moves"]:
        share = ((before_HW == move["from"]) & (after_HW == move["to"])).mean()
        assert move["share"] == pytest.approx(share)
    ious = [iou for iou in said["iou_after"] if iou is not None]
    assert said["miou_after"] == pytest.approx(np.mean(ious), abs=0.01)
    assert said["iou_after"][NAMES.index("car")] != said["iou_before"][NAMES.index("car")]
    assert said["miou_before"] == client.ok("/api/images/0/miou?layer=fused")["miou"]
    assert said["miou_after"] == client.ok(f"/api/images/0/miou?layer=fused&words={said['version']}")["miou"]


def test_the_stores_own_words_are_what_is_saved(client: Client) -> None:
    said = client.ok("/api/words", {"row": 0, "classes": {"car": [" car ", "car", ""]}})
    assert (said["version"], said["changed_pixels"], said["moves"]) == ("saved", 0, [])


def test_any_word_can_be_asked(client: Client, store: PseudoLabelStore) -> None:
    said = client.ok("/api/word", {"row": 0, "word": "road", "layer": "global"})
    image_id, road = store.image_ids[0], NAMES.index("road")
    logits_CHW = store.logits(image_id, "global")
    is_present_C = store.labels_of(image_id)
    likely = client.picture(f"/api/images/0/score?class=word&layer=global&words={said['version']}") / 255
    powers = np.exp(100 * logits_CHW[is_present_C])
    # A second road beside the road, and as likely.
    road_HW = np.exp(100 * logits_CHW[road])
    assert np.abs(likely - road_HW / (powers.sum(0) + road_HW)).max() < 0.02
    assert 0 <= said["share"] <= (to_mask(logits_CHW, is_present_C) == road).mean() + 0.01


def test_words_are_tried_on_several_images(client: Client) -> None:
    job = client.ok("/api/try", {"layer": "fused", "images": 20, **OTHER_WORDS})["job"]
    result = client.finished(job)
    each = [client.ok("/api/words", {"row": row, "layer": "fused", **OTHER_WORDS}) for row in range(3)]
    assert result["images"] == 3
    assert result["changed_pixels"] == pytest.approx(np.mean([one["changed_pixels"] for one in each]))
    assert client.error("/api/jobs/j9")
    assert client.error("/api/try", {"images": "many"})


def test_what_moved_is_beside_the_words_and_tags_of_the_store(client: Client) -> None:
    before_HW = client.picture("/api/images/0/mask?layer=fused")
    first = int(np.bincount(before_HW.ravel()).argmax())
    client.ok("/api/tags", {"row": 0, "class": first, "present": False})
    said = client.ok("/api/words", {"row": 0, "layer": "fused"})
    assert said["changed_pixels"] == pytest.approx((before_HW == first).mean()) != 0


def test_words_that_clip_does_not_know_are_said(client: Client) -> None:
    names = {"car": ["vehicle", "zebra crossing"], "sky": ["sky", "zebra"]}
    assert client.ok("/api/words", {"row": 0, "classes": names})["unknown"] == ["zebra", "crossing"]
    assert client.ok("/api/words", {"row": 0, "classes": {"car": ["vehicle"]}})["unknown"] == []
    assert client.ok("/api/word", {"row": 0, "word": "tram"})["unknown"] == ["tram"]


def test_words_come_from_the_cache_where_it_holds_sentences(
    ask: Asker, toy_root: Path, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = tmp_path / "words.toml"
    words.write_text('car = ["car", "van"]\n')
    options = ("--dataset", "toy", "--data-root", toy_root, "--clip", clip_folder, "--split", "val")
    sentences = ("--set", "labels.per_prompt=true", "--set", f"labels.prompts={words}")
    carbseg("labels", *options, "--out", tmp_path / "run", *sentences)
    store = PseudoLabelStore.open(tmp_path / "run" / "labels" / "val.zarr")
    client = ask(tmp_path / "run", "--data-root", toy_root)
    with monkeypatch.context() as patches:
        patches.setattr("pipeline.explorer.looking.Looker.load", None)  # CLIP cannot be had
        said = client.ok("/api/words", {"row": 0, "classes": {"car": ["van"]}, "templates": ["a {}."]})
        shown_HW = client.picture(f"/api/images/0/mask?layer=fused&words={said['version']}")
    expected_HW = store.reworded({"car": ["van"]}, ["a {}."]).mask(store.image_ids[0], "fused")
    assert said["source"] == "cache"
    np.testing.assert_array_equal(shown_HW, expected_HW)
    assert client.ok("/api/words", {"row": 0, "classes": {"car": ["van", "car"]}})["version"] == "saved"  # in any order
    assert client.ok("/api/words", {"row": 0, "classes": {"car": ["bus"]}})["source"] == "clip"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"classes": {"car": []}}, "give at least one"),
        ({"classes": {"car": "car"}}, "list of texts"),
        ({"classes": {"cat": ["cat"]}}, "did you mean 'car'"),
        ({"classes": ["car"]}, "must be an object"),
        ({"classes": {"car": ["a\nb"]}}, "one line"),
        ({"classes": {"car": ["\ud800"]}}, "one line"),
        ({"classes": {"car": ["x" * 300]}}, "at most 200"),
        ({"classes": {"car": [f"word {n}" for n in range(1000)]}}, "more than"),
        ({"templates": []}, "give at least one"),
        ({"templates": ["no place"]}, "exactly one {}"),
        ({"templates": ["# {}"]}, "cannot begin with #"),
        ({"layer": "truth"}, "layer must be one of"),
        ({"row": 3}, "row must be"),
        ({"row": True}, "row must be"),
        ({"row": "0"}, "row must be"),
    ],
)
def test_words_that_cannot_be(client: Client, asked: dict[str, Any], said: str) -> None:
    assert said in client.error("/api/words", {"row": 0} | asked)


def test_another_clip_is_refused(ask: Asker, toy: tuple[object, ...], clip_folder: Path, tmp_path: Path) -> None:
    import torch
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(clip_folder)
    with torch.no_grad():
        model.visual_projection.weight.add_(1)
    shutil.copytree(clip_folder, tmp_path / "clip")
    model.save_pretrained(tmp_path / "clip")
    client = ask(*toy, "--clip", tmp_path / "clip")
    assert "is not the CLIP that made" in client.error("/api/words", {"row": 0, **OTHER_WORDS})


def test_labels_whose_words_are_not_clips_say_so(ask: Asker, toy_root: Path, tmp_path: Path) -> None:
    said = {
        "regions": {"regions": {"source": "slic"}},
        "engine": {"engine": {"name": "cam", "settings": {}}},
        "round": {"labels": {"round_before": {}}},
        "refined": {"labels": {"key_smoothing": 0.5, "templates": ["{}."]}},
    }
    why = {}
    for name, more in said.items():
        begun(tmp_path / name / "labels" / "val.zarr", ["a"], NAMES, **more)
        client = ask(tmp_path / name, "--data-root", toy_root)
        why[name] = client.ok("/api/run")["clip"]
        assert client.error("/api/words", {"row": 0, **OTHER_WORDS})
    assert "regions" in why["regions"]
    assert "cam" in why["engine"]
    assert "student" in why["round"]
    assert "key_smoothing" in why["refined"]


# ---- Tags ----------------------------------------------------------------------------------------------------------


def test_a_change_of_a_tag_shows_at_once_and_can_be_taken_back(client: Client, store: PseudoLabelStore) -> None:
    image_id = store.image_ids[0]
    before = np.flatnonzero(store.labels_of(image_id)).tolist()
    road = NAMES.index("road")
    said = client.ok("/api/tags", {"row": 0, "class": road, "present": False})
    assert said == {
        "row": 0,
        "tags": [tag for tag in before if tag != road],
        "can_undo": True,
        "changes": 1,
        "are_saved": False,
    }
    without = store.labels_of(image_id)
    without[road] = False
    np.testing.assert_array_equal(
        client.picture("/api/images/0/mask?layer=fused"), to_mask(store.logits(image_id, "fused"), without)
    )
    np.testing.assert_array_equal(
        client.picture("/api/images/0/mask?layer=fused&tags=saved"), store.mask(image_id, "fused")
    )
    about = client.ok("/api/images/0")
    assert (about["tags"], about["tags_saved"]) == (said["tags"], before)
    assert client.ok("/api/images")["items"][0]["changed"]
    run = client.ok("/api/run")
    assert (run["changed_tags"], run["can_undo"], run["are_tags_saved"]) == (1, True, False)
    assert client.ok("/api/tags/undo", {}) == {
        "row": 0,
        "tags": before,
        "can_undo": False,
        "changes": 0,
        "are_saved": True,
    }
    assert "no change" in client.error("/api/tags/undo", {})


def test_the_last_tag_of_an_image_stays(client: Client, store: PseudoLabelStore) -> None:
    tags = client.ok("/api/images/0")["tags"]
    for tag in tags[1:]:
        client.ok("/api/tags", {"row": 0, "class": tag, "present": False})
    assert "at least one class" in client.error("/api/tags", {"row": 0, "class": tags[0], "present": False})
    assert client.ok("/api/images/0")["tags"] == tags[:1]


def test_a_change_that_changes_nothing_is_nothing_to_take_back(client: Client) -> None:
    tags = client.ok("/api/images/0")["tags"]
    said = client.ok("/api/tags", {"row": 0, "class": tags[0], "present": True})
    assert (said["tags"], said["can_undo"], said["changes"]) == (tags, False, 0)


@pytest.mark.parametrize("asked", [{"class": 11}, {"class": -1}, {"class": "car"}, {"present": 1}, {"row": None}])
def test_changes_of_tags_that_cannot_be(client: Client, asked: dict[str, Any]) -> None:
    client.error("/api/tags", {"row": 0, "class": 1, "present": True} | asked)
    assert client.ok("/api/run")["changed_tags"] == 0


# ---- Stores that are not as they should be -------------------------------------------------------------------------


def test_an_empty_store_says_what_to_do(ask: Asker, tmp_path: Path) -> None:
    begun(tmp_path / "run" / "labels" / "val.zarr", ["a", "b", "c"])
    client = ask(tmp_path / "run", "--data-root", tmp_path / "nothing")
    empty, no_photos = client.ok("/api/run")["problems"]
    assert "is empty" in empty
    assert "carbseg labels" in empty
    assert "no photos" in no_photos
    assert [item["is_made"] for item in client.ok("/api/images")["items"]] == [False] * 3
    assert not client.ok("/api/images/0")["is_made"]
    assert "no pseudo-labels yet" in client.error("/api/images/0/mask")
    assert "nothing" in client.error("/api/images/0/photo")
    assert "is empty" in client.error("/api/try", {"images": 3})
    assert "no pseudo-labels yet" in client.error("/api/tags", {"row": 0, "class": 1, "present": False})


def test_an_incomplete_store_shows_what_is_there(ask: Asker, tmp_path: Path) -> None:
    store = begun(tmp_path / "run" / "labels" / "val.zarr", ["a", "b", "c"])
    write(store, range(2))
    client = ask(tmp_path / "run", "--data-root", tmp_path / "nothing")
    assert client.ok("/api/run")["problems"][0].startswith("1 of 3 images are not made yet")
    assert client.picture("/api/images/1/mask").tolist() == [[0] * 8] * 8
    assert "no pseudo-labels yet" in client.error("/api/images/2/mask")
    write(store, range(2, 3))  # meanwhile
    assert client.picture("/api/images/2/mask").shape == (8, 8)
    assert client.ok("/api/images")["items"][2]["is_made"]


def test_a_damaged_store_says_what_is_damaged(ask: Asker, toy: tuple[object, ...]) -> None:
    logits = Path(str(toy[0])) / "labels" / "val.zarr" / "global_logits_0"
    for file in (path for path in logits.rglob("*") if path.is_file() and path.name != "zarr.json"):
        file.write_bytes(b"\0" * file.stat().st_size)
    client = ask(*toy)
    assert "labels verify" in client.error("/api/images/0/mask?layer=global")
    assert client.ok("/api/run")["images"] == 3


def test_no_store_and_no_data_set_are_said_before_anything_is_served(tmp_path: Path) -> None:
    assert "is no pseudo-label store" in refused("explore", tmp_path, "--no-browser")
    begun(tmp_path / "labels" / "val.zarr", ["a"], dataset=None)
    assert "--dataset" in refused("explore", tmp_path, "--no-browser")


def test_without_its_libraries_the_command_says_what_to_install(
    toy: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    monkeypatch.delitem(__import__("sys").modules, "pipeline.explorer.server", raising=False)
    assert "pip install 'carbseg[explore]'" in refused("explore", *toy, "--no-browser")


def test_an_image_that_has_changed_since_is_not_mixed_with_its_labels(
    ask: Asker, toy: tuple[object, ...], toy_root: Path, tmp_path: Path, store: PseudoLabelStore
) -> None:
    shutil.copytree(toy_root, tmp_path / "data")
    name = f"{store.image_ids[0]}.png"
    write_png(tmp_path / "data" / "val" / name, np.zeros((100, 90, 3), np.uint8))
    client = ask(toy[0], "--data-root", tmp_path / "data", "--split", "val")
    assert "has changed" in client.error("/api/words", {"row": 0, **OTHER_WORDS})


def test_hostile_names_are_data(ask: Asker, tmp_path: Path) -> None:
    script = "<script>alert(1)</script>"
    root = own_folder(tmp_path / "data", f"{script.replace('/', '')}.png", classes=json.dumps([script, "road"]))
    begun(tmp_path / "run" / "labels" / "train.zarr", [script.replace("/", "")], (script, "road"), dataset="folder")
    client = ask(tmp_path / "run", "--data-root", root)
    for address in ("/api/run", "/api/images", "/api/images/0"):
        answer = client.get(address)
        assert answer.headers["content-type"] == "application/json"
        assert "<script" not in answer.text
    assert client.ok("/api/run")["classes"][0]["name"] == script


def test_nothing_is_done_for_each_image_before_it_is_shown(
    ask: Asker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beginning, a page of the list and one mask read as much of a store of 10,000 images as of one of 100."""
    import sys

    counted: dict[int, int] = {}
    opened: list[str] = []
    sys.addaudithook(lambda event, words: opened.append(str(words[0])) if event == "open" else None)
    for images in (100, 10_000):
        root = own_folder(tmp_path / f"data-{images}", classes='["sky", "car"]')
        (root / "images").mkdir()
        ids = [f"image-{number:05}" for number in range(images)]
        for image_id in ids:
            (root / "images" / f"{image_id}.png").touch()  # never opened
        store = begun(tmp_path / f"run-{images}" / "labels" / "train.zarr", ids, dataset="folder")
        write(store, range(50, 52))
        client = ask(tmp_path / f"run-{images}", "--data-root", root)
        opened.clear()
        client.ok("/api/run")
        page = client.ok("/api/images?offset=40&limit=20")
        assert (page["total"], len(page["items"])) == (images, 20)
        client.picture("/api/images/50/mask?layer=fused")
        counted[images] = len([path for path in opened if str(tmp_path) in path])
    assert counted[10_000] <= counted[100] + 2  # chunks of ids


# ---- Addresses -----------------------------------------------------------------------------------------------------


def test_nothing_outside_is_served(client: Client) -> None:
    assert client.get("/").headers["content-type"].startswith("text/html")
    assert client.get("/static/base.css").headers["content-type"].startswith("text/css")
    for name in ("app.py", "../app.py", "%2e%2e/app.py", "..%2fapp.py", "/etc/passwd", ""):
        assert client.get(f"/static/{name}").status_code == 404
    for row in ("-1", "3", "1.5", "..", "0x1", "999999999999999999999"):
        assert client.get(f"/api/images/{row}/photo").status_code == 404


def test_what_may_be_loaded_is_said_with_every_answer(client: Client) -> None:
    for address in ("/", "/static/base.css", "/api/run", "/api/images/0/mask", "/api/images/99", "/nothing"):
        headers = client.get(address).headers
        assert headers["content-security-policy"] == "default-src 'self'; img-src 'self' blob: data:"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


CHANGES = ("words", "word", "try", "tags", "tags/undo", "save")


@pytest.mark.parametrize("name", CHANGES)
def test_a_get_changes_nothing(client: Client, name: str) -> None:
    assert client.get(f"/api/{name}", params={"row": 0, "class": 1, "present": "true"}).status_code == 405


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_asked_for_in_json(client: Client, name: str) -> None:
    as_json = {"Content-Type": "application/json"}
    assert client.post(f"/api/{name}", data={"row": 0}).status_code == 415  # what a form of another page can send
    assert client.post(f"/api/{name}", content=b"{", headers=as_json).status_code == 400
    assert client.post(f"/api/{name}", content=b"[" * 100_000, headers=as_json).status_code == 400
    assert client.post(f"/api/{name}", content=b"[1]", headers=as_json).status_code == 400
    assert client.post(f"/api/{name}", content=b" " * 1_000_001, headers=as_json).status_code == 413


@pytest.mark.parametrize(
    "address",
    [
        "images?sort=size",
        "images?offset=-1",
        "images?limit=ten",
        "images?offset=%C2%B2",
        "images/0/mask?layer=best",
        "images/0/mask?words=w7",
        "images/0/score?class=99",
        "images/0/score?class=-1",
        "images/0/contest?layer=truth",
        "jobs/j0",
        "jobs/x",
    ],
)
def test_what_there_is_not_is_said_in_one_line(client: Client, address: str) -> None:
    client.error(f"/api/{address}")


def test_an_image_without_truth_has_no_mask_of_it(ask: Asker, tmp_path: Path) -> None:
    root = own_folder(tmp_path / "data", "a.png", classes='["sky", "car"]')
    write(begun(tmp_path / "run" / "labels" / "train.zarr", ["a"], dataset="folder"), range(1))
    client = ask(tmp_path / "run", "--data-root", root)
    assert not client.ok("/api/run")["has_truth"]
    assert "no truth" in client.error("/api/images/0/mask?layer=truth", status=404)
    assert client.ok("/api/images/0/miou") == {"miou": None}
