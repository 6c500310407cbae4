"""What is saved, and that a terminal makes of it what the page showed."""

import csv
import shlex
import shutil
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelgen.store import PseudoLabelStore
from pipeline.datasets.classes import CAMVID_CLASSES
from pipeline.datasets.tags import read_tags
from tests.conftest import carbseg, refused
from tests.files import own_folder
from tests.pipeline.explorer.conftest import Asker, Client, begun, write

NAMES = CAMVID_CLASSES.names
WORDS = {"classes": {"car": ["dog"], "sky": ["cloud", "blue"]}}


def made_by(command: str) -> PseudoLabelStore:
    """The store that a command makes."""
    program, *words = shlex.split(command)
    assert program == "carbseg"
    carbseg(*words)
    out, split = (words[words.index(option) + 1] if option in words else "train" for option in ("--out", "--split"))
    return PseudoLabelStore.open(f"{out}/labels/{split}.zarr")


def shows_the_same(client: Client, store: PseudoLabelStore, version: str) -> None:
    """To the pixel, in all layers of all images."""
    for row, image_id in enumerate(store.image_ids):
        for view in store.mask_views:
            shown_HW = client.picture(f"/api/images/{row}/mask?layer={view}&words={version}")
            np.testing.assert_array_equal(store.mask(image_id, view), shown_HW)


def test_two_files_and_a_command_make_what_the_page_showed(ask: Asker, toy: tuple[object, ...]) -> None:
    client, out = ask(*toy), Path(str(toy[0]))
    for row, tag in ((0, "road"), (2, "sky")):
        client.ok("/api/tags", {"row": row, "class": NAMES.index(tag), "present": False})
    version = client.ok("/api/words", {"row": 0, **WORDS})["version"]
    said = client.ok("/api/save", WORDS)
    assert said["files"] == [str(out / "prompts.toml"), str(out / "tags.csv")]
    assert client.ok("/api/run")["are_tags_saved"]
    assert tomllib.loads((out / "prompts.toml").read_text())["sky"] == ["cloud", "blue"]
    assert len(read_tags(out / "tags.csv", CAMVID_CLASSES)) == 3
    before = client.picture(f"/api/images/0/mask?layer=fused&words={version}")
    assert (before != client.picture("/api/images/0/mask?layer=fused&tags=saved")).any()
    shows_the_same(client, made_by(said["command"]), version)


def test_the_next_session_goes_on_with_what_was_saved(ask: Asker, toy: tuple[object, ...]) -> None:
    client, out = ask(*toy), Path(str(toy[0]))
    client.ok("/api/tags", {"row": 1, "class": NAMES.index("road"), "present": False})
    client.ok("/api/save", WORDS | {"templates": ["a {}."]})
    again = ask(*toy)
    run = again.ok("/api/run")
    assert (run["changed_tags"], run["are_tags_saved"], run["can_undo"]) == (1, True, False)
    assert run["kept_words"]["classes"] == run["words"]["classes"] | WORDS["classes"]
    assert run["kept_words"]["templates"] == ["a {}."]
    assert NAMES.index("road") not in again.ok("/api/images/1")["tags"]
    again.ok("/api/tags", {"row": 0, "class": NAMES.index("road"), "present": False})
    assert not again.ok("/api/run")["are_tags_saved"]
    again.ok("/api/save", run["words"])  # asks nobody: the files are the explorer's; the words are the store's again
    third = ask(*toy).ok("/api/run")
    assert third["kept_words"] == third["words"]
    assert third["changed_tags"] == 2
    (out / "prompts.toml").write_text("sky = 3\n")
    assert "what was saved before is left alone" in ask(*toy).ok("/api/run")["problems"][0]


def test_tags_of_images_that_the_data_lack_are_not_thrown_away(
    ask: Asker, toy: tuple[object, ...], toy_root: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(toy_root, tmp_path / "data")
    next((root / "val").iterdir()).unlink()
    client = ask(toy[0], "--data-root", root, "--split", "val")
    assert any("1 of 3 images are not in" in problem for problem in client.ok("/api/run")["problems"])
    client.ok("/api/tags", {"row": 1, "class": NAMES.index("road"), "present": False})
    assert "lacks 1 of the 3 images" in client.error("/api/save", {})
    assert not (Path(str(toy[0])) / "tags.csv").exists()


def test_another_data_set_than_the_stores_is_refused(toy: tuple[object, ...]) -> None:
    assert "was made of toy, not of camvid: leave out --dataset" in refused("explore", *toy, "--dataset", "camvid")


def test_templates_and_the_settings_of_the_store_are_in_the_command(
    ask: Asker, toy_root: Path, clip_folder: Path, tmp_path: Path
) -> None:
    """The explorer was not called with them: the store says them."""
    options = ("--dataset", "toy", "--data-root", toy_root, "--clip", clip_folder, "--split", "val")
    (tmp_path / "mine.txt").write_text("a {}.\n")
    (tmp_path / "mine.toml").write_text('road = ["street"]\n')
    tags = tmp_path / "given.csv"
    tags.write_text("image,labels\n" + "".join(f"{path.name},road;sky;car\n" for path in (toy_root / "val").iterdir()))
    settings = ("variant=naclip", f"templates={tmp_path}/mine.txt", f"prompts={tmp_path}/mine.toml")
    settings += ("views.global_zooms=[1.0, 1.5]", "per_prompt=true")
    sets = [word for setting in settings for word in ("--set", f"labels.{setting}")]
    carbseg("labels", *options, "--out", tmp_path / "run", "--tags", tags, *sets)
    client = ask(tmp_path / "run", "--data-root", toy_root)
    version = client.ok("/api/words", {"row": 0, "classes": {"car": ["dog"]}})["version"]
    said = client.ok("/api/save", {"classes": {"car": ["dog"]}})
    assert {Path(file).name for file in said["files"]} == {"prompts.toml", "templates.txt", "tags.csv"}
    shows_the_same(client, made_by(said["command"]), version)


def test_only_the_tags_are_saved_where_the_words_are_the_data_sets(ask: Asker, toy: tuple[object, ...]) -> None:
    client, out = ask(*toy), Path(str(toy[0]))
    client.ok("/api/tags", {"row": 1, "class": NAMES.index("road"), "present": False})
    said = client.ok("/api/save", {})
    assert said["files"] == [str(out / "tags.csv")]
    assert "prompts" not in said["command"]
    with (out / "tags.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"].partition("/")[0] for row in rows] == ["val"] * 3
    assert "road" not in rows[1]["labels"].split(";")


def test_a_file_that_is_not_ours_is_not_overwritten_unasked(client: Client, toy: tuple[object, ...]) -> None:
    file = Path(str(toy[0])) / "prompts.toml"
    file.write_text("# mine\n")
    answer = client.post("/api/save", json=WORDS)
    assert answer.status_code == 409
    assert answer.json()["file"] == str(file)
    assert file.read_text() == "# mine\n"
    client.ok("/api/save", WORDS | {"replace": True})
    client.ok("/api/save", {"classes": {"car": ["cat"]}})  # ours now
    assert tomllib.loads(file.read_text())["car"] == ["cat"]
    file.write_text(file.read_text() + "# mine again\n")
    client.error("/api/save", WORDS, status=409)
    assert sorted(path.name for path in file.parent.iterdir()) == ["labels", "prompts.toml"]  # and no draft


@pytest.fixture
def client(ask: Asker, toy: tuple[object, ...]) -> Client:
    return ask(*toy)


def test_a_folder_that_cannot_be_written_to_is_said(client: Client, toy: tuple[object, ...]) -> None:
    (Path(str(toy[0])) / "prompts.toml").mkdir()
    assert "prompts.toml" in client.error("/api/save", WORDS | {"replace": True})
    assert client.ok("/api/run")["images"] == 3


def test_words_of_any_script_are_kept(ask: Asker, toy: tuple[object, ...]) -> None:
    client, out = ask(*toy), Path(str(toy[0]))
    words = ['say "car"', "a\\b", "Straße", "車", "🚗", "{}", "# not a comment"]
    client.ok("/api/save", {"classes": {"car": words}, "templates": ['"{}"', "é {}"]})
    assert tomllib.loads((out / "prompts.toml").read_text(encoding="utf-8"))["car"] == words


def test_tags_of_a_users_own_images_with_unusual_names(ask: Asker, clip_folder: Path, tmp_path: Path) -> None:
    names = ["a,b.png", 'say "b".png', "é.png", " blank.png"]
    classes = ["traffic light", "road", 'sky "blue"']
    root = own_folder(tmp_path / "data", *names, classes=str(classes))
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "labels"), *((name, "road;traffic light") for name in names)])
    options = ("--dataset", "folder", "--data-root", root, "--clip", clip_folder, "--out", tmp_path / "run")
    carbseg("labels", *options)
    client = ask(tmp_path / "run", "--data-root", root)
    client.ok("/api/tags", {"row": 0, "class": 2, "present": True})
    client.ok("/api/tags", {"row": 1, "class": 1, "present": False})
    shows_the_same(client, made_by(client.ok("/api/save", {})["command"]), "saved")


def test_tags_of_images_that_are_not_made_yet_are_saved_as_they_were_given(
    ask: Asker, toy_root: Path, clip_folder: Path, tmp_path: Path
) -> None:
    options = ("--dataset", "toy", "--data-root", toy_root, "--clip", clip_folder, "--split", "val")
    carbseg("labels", *options, "--out", tmp_path / "run", "--set", "labels.images_per_shard=1")
    store = PseudoLabelStore.open(tmp_path / "run" / "labels" / "val.zarr", writable=True)
    expected = {f"val/{i}.png": np.flatnonzero(store.labels_of(i)).tolist() for i in store.image_ids}
    store.forget(range(2, 3))
    client = ask(tmp_path / "run", *options)
    road = NAMES.index("road")
    client.ok("/api/tags", {"row": 0, "class": road, "present": False})
    client.ok("/api/save", {})
    expected[f"val/{store.image_ids[0]}.png"].remove(road)
    assert read_tags(tmp_path / "run" / "tags.csv", CAMVID_CLASSES) == expected


def test_a_student_is_not_asked_again(ask: Asker, toy: tuple[object, ...]) -> None:
    import json

    file = Path(str(toy[0])) / "labels" / "val.zarr" / "zarr.json"
    about: dict[str, Any] = json.loads(file.read_text())
    about["attributes"]["provenance"]["labels"] = {"round_before": {}}
    file.write_text(json.dumps(about))
    client = ask(*toy)
    assert "explore the run that they were made from" in client.error("/api/save", {})
    assert not (Path(str(toy[0])) / "tags.csv").exists()


def test_the_engine_of_the_store_and_its_settings_are_in_the_command(ask: Asker, tmp_path: Path) -> None:
    root = own_folder(tmp_path / "data", "a.png", classes='["sky", "car"]')
    engine = {"engine": {"name": "clip-es", "settings": {"confidence": 0.9}, "weights_sha256": {}}}
    write(begun(tmp_path / "run" / "labels" / "train.zarr", ["a"], dataset="folder", **engine), range(1))
    client = ask(tmp_path / "run", "--data-root", root, "--set", "tags.source=auto")
    client.ok("/api/tags", {"row": 0, "class": 1, "present": False})
    said = client.ok("/api/save", {})
    words = shlex.split(said["command"])
    for option, value in (("--engine", "clip-es"), ("--tags", said["files"][-1]), ("--dataset", "folder")):
        assert words[words.index(option) + 1] == value
    settings = [value for option, value in pairwise(words) if option == "--set"]
    assert {"clip_es.confidence=0.9", 'labels.dtype="float32"', 'tags.source="data"'} <= set(settings)
    assert "clip-es looks at the tags" in said["note"]
