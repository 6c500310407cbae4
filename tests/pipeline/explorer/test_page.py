"""The explorer's page in a browser, on real stores that a real server shows."""

import re
import shutil
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from playwright.sync_api import Page, Route, expect

from labelgen.store import PseudoLabelStore
from pipeline.datasets.classes import CAMVID_CLASSES
from pipeline.datasets.tags import read_tags
from pipeline.explorer.app import build_app
from pipeline.explorer.looking import Looker
from tests.conftest import carbseg
from tests.files import image, own_folder
from tests.pipeline.explorer.conftest import run_folder, session_of
from tests.pipeline.explorer.pages import DESKTOP, Opener, add_word, drawn_classes, picture, press, shows, tab_to

REFUSED = "Failed to load resource"  # what the console says of an answer that is an error
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture
def explore(open_page: Opener) -> Iterator[Opener]:
    """Serves what `carbseg explore` would, and opens its page."""
    running = []

    def opened(*arguments: object, expected: str | None = None, **context: object) -> Page:
        session = session_of(*arguments)
        config = uvicorn.Config(build_app(session), port=0, log_level="warning", ws="none", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            thread.join(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        page = open_page(f"http://127.0.0.1:{port}/", expected, **{**DESKTOP, **context})
        running.append((page, server, thread, session))
        return page

    yield opened
    for page, server, thread, session in running:
        page.context.close()  # before it misses the server
        server.should_exit = True
        thread.join()
        session.close()


# ---- Looking -------------------------------------------------------------------------------------------------------


def test_masks_are_shown_in_the_colours_of_their_classes(explore: Opener, toy: tuple[object, ...]) -> None:
    page = explore(*toy)
    shows(page, "fused")
    store = PseudoLabelStore.open(f"{toy[0]}/labels/val.zarr")
    mask_HW = store.mask(page.locator("#image-name").inner_text(), "fused")
    page.locator("#opacity").fill("1")
    drawn_HW3 = picture(page)
    np.testing.assert_array_equal(drawn_classes(drawn_HW3, mask_HW.shape, CAMVID_CLASSES.palette), mask_HW)

    press(page, "a")  # sky, the first class, alone
    chosen = np.array(CAMVID_CLASSES.palette[0])
    are_chosen, were_chosen = ((drawn == chosen).all(2) for drawn in (picture(page), drawn_HW3))
    assert 0 < were_chosen.mean() < 1
    assert (are_chosen == were_chosen).mean() > 0.999  # a pixel of the photo may have this colour


def test_panes_zoom_and_move_in_step(explore: Opener, toy: tuple[object, ...]) -> None:
    page = explore(*toy)
    shows(page, "fused")
    press(page, "1", "s", "1")
    shows(page, "photo", "photo")
    whole = picture(page, 0)
    box = page.locator("canvas").nth(1).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -800)
    page.mouse.move(5, 5)
    zoomed = picture(page, 0)
    assert not np.array_equal(zoomed, whole)
    assert np.array_equal(zoomed, picture(page, 1))
    press(page, "Shift+ArrowRight")
    assert not np.array_equal(picture(page, 0), zoomed)
    assert np.array_equal(picture(page, 0), picture(page, 1))
    page.locator("canvas").nth(0).dblclick()
    page.mouse.move(5, 5)
    assert np.array_equal(picture(page, 1), whole)


def test_two_stores_stand_side_by_side(explore: Opener, toy: tuple[object, ...], toy_stores: Path) -> None:
    other = run_folder(Path(str(toy[0])).parent / "other", toy_stores)
    page = explore(*toy, "--compare", other)
    shows(page, "fused", "fused")
    assert np.array_equal(picture(page, 0), picture(page, 1))
    selects = page.get_by_label("whose masks this pane shows")
    assert selects.nth(0).input_value() != selects.nth(1).input_value()
    press(page, "c")
    shows(page, "fused")


def test_of_ten_thousand_images_only_what_is_seen_is_asked_for(explore: Opener, toy: tuple[object, ...]) -> None:
    asked: list[int] = []

    def many(route: Route) -> None:
        offset = int(re.findall(r"offset=(\d+)", route.request.url)[0])
        asked.append(offset)
        item = {"tags": [0], "suspect": None, "is_made": True, "changed": False}
        items = [{**item, "row": row, "id": f"image {row}"} for row in range(offset, offset + 50)]
        done = {"state": "done", "done": 1, "total": 1, "error": None}
        route.fulfill(json={"total": 10_000, "items": items, "suspicion": done})

    page = explore(*toy)
    shows(page, "fused")
    photos: list[str] = []
    page.on("request", lambda request: photos.append(request.url) if request.url.endswith("/photo") else None)
    page.route(re.compile(r"/api/images\?.*offset="), many)
    page.locator("#sort").select_option("order")
    expect(page.locator("#count")).to_contain_text("10000")
    page.locator("#list").evaluate("list => { list.scrollTop = 200_000 }")
    expect(page.get_by_text("image 4350", exact=True)).to_be_visible()
    page.locator("#list").evaluate("list => { list.scrollTop = list.scrollHeight }")
    expect(page.get_by_text("image 9999", exact=True)).to_be_visible()
    assert len(asked) <= 5
    assert page.locator("[role=option]").count() < 40
    assert photos == []


# ---- Words ---------------------------------------------------------------------------------------------------------


def test_words_from_the_start_to_the_saved_file(explore: Opener, toy: tuple[object, ...]) -> None:
    page = explore(*toy)
    shows(page, "fused")
    before = picture(page)
    page.get_by_role("tab", name="Words").click()
    page.locator("#word-class").select_option(label="road")
    page.get_by_label("a word to add").fill("blue sky")
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_role("button", name="remove road").click()
    expect(page.locator("#words")).to_contain_text("blue sky")
    expect(page.locator("#moved .change")).to_have_text(re.compile(r"[1-9].* % of the pixels changed class"))
    expect(page.locator("#moved")).to_contain_text("mIoU")
    expect(page.locator("#moved")).to_contain_text("IoU of road")
    shows(page, "fused")
    assert not np.array_equal(picture(page), before)
    press(page, "Escape", "b")  # out of the field for another word
    shows(page, "fused")
    assert np.array_equal(picture(page), before)
    press(page, "b")
    page.get_by_role("button", name="Show what changed").click()
    shows(page, "changed")
    page.get_by_role("button", name="Try on 20 images").click()
    expect(page.locator("#tried .change")).to_contain_text("in 3 images")  # all that there are
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#saved")).to_contain_text("carbseg labels")
    assert tomllib.loads((Path(str(toy[0])) / "prompts.toml").read_text())["road"] == ["blue sky"]

    page.get_by_role("button", name="Reset all").click()
    expect(page.locator("#moved")).to_contain_text("Nothing")
    press(page, *"5")
    shows(page, "fused")
    assert np.array_equal(picture(page), before)


def test_a_word_is_asked_beside_those_that_are_edited_now(explore: Opener, toy: tuple[object, ...]) -> None:
    page = explore(*toy)
    shows(page, "fused")
    press(page, "w")

    def ask() -> str:
        page.get_by_label("a word to ask this image").fill("vegetation")
        press(page, "Enter")
        expect(page.locator("#asked")).to_contain_text("would win")
        said: str = page.locator("#asked").inner_text()
        return said

    first = ask()
    page.get_by_label("a word to add").fill("house, street,")
    press(page, "Enter")
    expect(page.locator("#words li")).to_have_count(3)
    expect(page.locator("#moved .change")).to_be_visible()
    expect(page.locator("#asked")).to_contain_text("would win")
    assert ask() != first
    page.get_by_role("button", name="Reset all").click()
    expect(page.locator("#moved")).to_contain_text("Nothing")
    assert ask() == first
    page.get_by_label("a word to ask this image").fill("tree")
    press(page, "Enter")
    expect(page.locator("#asked")).to_have_text("“tree” is a word of tree already.")


def test_words_outlive_a_reload_of_the_page(explore: Opener, toy: tuple[object, ...]) -> None:
    page = explore(*toy)
    shows(page, "fused")
    add_word(page, "azure")
    page.get_by_role("button", name="Save", exact=True).click()  # else the browser asks whether to leave
    expect(page.locator("#saved")).to_contain_text("Saved")
    page.reload()
    shows(page, "fused")
    press(page, "w")
    expect(page.locator("#words")).to_contain_text("azure")
    expect(page.locator("#moved .change")).to_be_visible()
    page.get_by_role("button", name="Reset all").click()
    page.locator("#save").click()
    expect(page.locator("#changes")).to_have_text("no changes")
    page.reload()
    shows(page, "fused")
    press(page, "w")
    expect(page.locator("#words")).not_to_contain_text("azure")


def test_the_next_session_goes_on_with_saved_words_which_can_be_taken_back(
    explore: Opener, toy: tuple[object, ...]
) -> None:
    page = explore(*toy)
    shows(page, "fused")
    add_word(page, "street")
    expect(page.locator("#changes")).to_have_text("words of sky: not saved")
    page.locator("#save").click()
    expect(page.locator("#changes")).to_have_text("words of sky: saved")
    again = explore(*toy)
    shows(again, "fused")
    expect(again.locator("#changes")).to_have_text("words of sky: saved")
    press(again, "w")
    again.get_by_role("button", name="Reset all").click()
    expect(again.locator("#changes")).to_have_text("words as in the store: not saved")
    again.locator("#save").click()
    expect(again.locator("#changes")).to_have_text("no changes")
    assert tomllib.loads((Path(str(toy[0])) / "prompts.toml").read_text())["sky"] == ["sky"]


def test_while_clip_is_being_loaded_that_is_said(
    explore: Opener, toy: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    load, may_load = Looker.load, threading.Event()

    def load_late(*arguments: Any) -> Looker:
        assert may_load.wait(60)
        return load(*arguments)

    monkeypatch.setattr(Looker, "load", load_late)
    page = explore(*toy)
    shows(page, "fused")
    press(page, "w")
    page.get_by_label("a word to add").fill("azure")
    press(page, "Enter")
    expect(page.locator("#moved")).to_have_text("CLIP is being loaded …")
    may_load.set()
    expect(page.locator("#moved .change")).to_contain_text("of the pixels changed class")


def test_a_file_of_somebody_else_is_replaced_only_if_that_is_wanted_and_the_command_copied(
    explore: Opener, toy: tuple[object, ...]
) -> None:
    file = Path(str(toy[0])) / "prompts.toml"
    file.write_text("# mine\n")
    page = explore(*toy, expected=REFUSED, permissions=["clipboard-read", "clipboard-write"])
    shows(page, "fused")
    add_word(page, "azure")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#saved")).to_contain_text("prompts.toml is there already")
    assert file.read_text() == "# mine\n"
    page.get_by_role("button", name="Replace it").click()
    expect(page.locator("#saved")).to_contain_text("Saved")
    assert "azure" in tomllib.loads(file.read_text())["sky"]
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("() => navigator.clipboard.readText()")
    assert copied == page.locator("#saved .command code").inner_text()
    assert copied.startswith("carbseg labels ")


def test_any_word_is_asked_and_its_map_shown(explore: Opener, toy: tuple[object, ...]) -> None:
    page = explore(*toy)
    shows(page, "fused")
    press(page, "w")
    page.get_by_label("a word to ask this image").fill("tram")
    press(page, "Enter")
    shows(page, "word")
    expect(page.locator("#asked")).to_contain_text(re.compile(r"“tram” would win [\d.]+ % of this image\."))
    expect(page.locator("#asked")).to_contain_text("CLIP does not know “tram”")
    press(page, "Escape", "6", ".", ".")
    shows(page, "score")
    expect(page.locator(".caption strong")).to_have_text("score of pole")
    press(page, "7")
    shows(page, "contest")
    expect(page.locator(".note")).to_contain_text("%")


# ---- Tags ----------------------------------------------------------------------------------------------------------


def test_tags_from_the_start_to_the_saved_file(explore: Opener, toy: tuple[object, ...]) -> None:
    page = explore(*toy)
    shows(page, "fused")
    image_id = page.locator("#image-name").inner_text()
    store = PseudoLabelStore.open(f"{toy[0]}/labels/val.zarr")
    train_id, name = next((k, name) for k, name in enumerate(store.class_names) if not store.labels_of(image_id)[k])
    before = picture(page)
    there = page.locator("#tags").get_by_role("button", name=name)
    there.click()
    expect(there).to_have_attribute("aria-pressed", "true")
    expect(there).to_contain_text("added")
    expect(page.locator("#changes")).to_have_text("tags of 1 image: not saved")
    expect(page.locator("[role=option][aria-selected=true]")).to_contain_text("changed")
    page.get_by_role("button", name="Undo").click()
    expect(there).to_have_attribute("aria-pressed", "false")
    shows(page, "fused")
    assert np.array_equal(picture(page), before)
    there.click()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#saved")).to_contain_text("carbseg labels")
    expect(page.locator("#changes")).to_have_text("tags of 1 image: saved")
    saved = read_tags(Path(str(toy[0])) / "tags.csv", CAMVID_CLASSES)
    assert any(train_id in labels for key, labels in saved.items() if image_id in key)


def test_what_is_agreed_to_is_seen_first(explore: Opener, forgetful: tuple[object, ...]) -> None:
    page = explore(*forgetful)
    shows(page, "fused")
    press(page, "w", "y")
    expect(page.locator("#panel-tags")).to_be_visible()
    expect(page.locator("#changes")).to_have_text("no changes")
    press(page, "y")
    expect(page.locator("#changes")).to_have_text("tags of 1 image: not saved")
    press(page, "t", "ArrowRight")  # still goes to the next image
    expect(page.locator("#place")).to_have_text("2 of 3")


def test_the_place_in_the_list_is_kept_and_a_search_ends(explore: Opener, toy: tuple[object, ...]) -> None:
    page = explore(*toy)
    shows(page, "fused")
    press(page, "ArrowRight", "ArrowRight")
    expect(page.locator("#place")).to_have_text("3 of 3")
    name = page.locator("[role=option][aria-selected=true] .clip").first.inner_text()
    expect(page.locator("#image-name")).to_have_text(name)  # the list is ahead of the image
    page.reload()
    expect(page.locator("#place")).to_have_text("3 of 3")
    page.locator("#sort").select_option("order")
    expect(page.locator("[role=option][aria-selected=true]")).to_contain_text(name)
    page.locator("#query").fill("no such name")
    expect(page.locator("#count")).to_have_text("0 of 3 images")
    page.locator("#query").press("Escape")
    expect(page.locator("#count")).to_have_text("3 images")
    expect(page.locator("#image-name")).to_have_text(name)


def test_everything_is_done_with_the_keyboard_alone(explore: Opener, toy: tuple[object, ...]) -> None:
    page = explore(*toy)
    shows(page, "fused")
    press(page, "ArrowRight", "2")
    expect(page.locator("#place")).to_have_text("2 of 3")
    shows(page, "truth")
    press(page, "?")
    expect(page.get_by_role("dialog")).to_be_visible()
    press(page, "Escape", "ArrowDown", "s")
    shows(page, "global", "photo")
    press(page, "c")
    tab_to(page, "#layers button:nth-child(5)")
    press(page, "Enter")
    shows(page, "fused")
    assert page.evaluate("() => document.activeElement.matches('#layers [aria-pressed=true]')")  # the focus is kept
    press(page, "w", ".")
    tab_to(page, "#add-word input")
    page.keyboard.type("tower")  # no key of the page while one writes
    press(page, "Enter")
    expect(page.locator("#moved .change")).to_contain_text("of the pixels changed class")
    tab_to(page, "#save")
    press(page, "Enter")
    expect(page.locator("#saved")).to_contain_text("prompts.toml")
    assert "tower" in tomllib.loads((Path(str(toy[0])) / "prompts.toml").read_text())["building"]
    press(page, "t")
    tab_to(page, "#tags button")
    press(page, " ")
    expect(page.locator("#changes")).to_have_text("words of building: saved; tags of 1 image: not saved")
    press(page, "Control+z")
    expect(page.locator("#changes")).to_have_text("words of building: saved")
    press(page, " ")
    expect(page.locator("#changes")).to_have_text("words of building: saved; tags of 1 image: not saved")
    tab_to(page, "#save")
    press(page, "Enter")
    expect(page.locator("#saved")).to_contain_text("tags.csv")
    assert (Path(str(toy[0])) / "tags.csv").is_file()


def test_a_suspicion_is_believed_with_one_key(explore: Opener, forgetful: tuple[object, ...]) -> None:
    page = explore(*forgetful)
    shows(page, "fused")
    doubt = page.locator("#suspects .suspect").first
    name, is_missing = doubt.locator("strong").inner_text(), "forgotten" in doubt.inner_text()
    press(page, "y")
    there = page.locator("#tags").get_by_role("button", name=name)
    expect(there).to_have_attribute("aria-pressed", "true" if is_missing else "false")
    expect(there).to_contain_text("added" if is_missing else "removed")


# ---- Other screens, hostile names, what is broken ------------------------------------------------------------------


def test_the_page_fits_a_phone(explore: Opener, toy: tuple[object, ...]) -> None:
    page = explore(*toy, **PHONE, color_scheme="dark")
    shows(page, "fused")
    assert picture(page).mean() > 0  # it has a size
    page.get_by_role("button", name="split").tap()
    shows(page, "fused", "photo")
    page.get_by_role("tab", name="Words").tap()
    page.get_by_text("Templates (").tap()
    assert page.evaluate("() => document.documentElement.scrollWidth") == 390
    assert page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor") == "rgb(17, 21, 27)"
    page.get_by_role("button", name="next image").tap()
    expect(page.locator("#place")).to_have_text("2 of 3")


def test_two_fingers_zoom_and_one_moves(explore: Opener, toy: tuple[object, ...]) -> None:
    page = explore(*toy, **PHONE)
    shows(page, "fused")
    whole = picture(page)
    fingers = page.context.new_cdp_session(page)
    box = page.locator("canvas").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": across, "y": down, "id": k} for k, (across, down) in enumerate(places)]
        fingers.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})

    touch("Start", (x - 20, y), (x + 20, y))
    for reach in range(30, 80, 10):
        touch("Move", (x - reach, y), (x + reach, y))
    touch("End")
    zoomed = picture(page)
    assert not np.array_equal(zoomed, whole)
    touch("Start", (x, y))
    touch("Move", (x - 30, y))
    touch("Move", (x - 60, y))
    touch("End")
    moved = picture(page)
    assert not np.array_equal(moved, zoomed)
    # What stood at some place stands 60 CSS pixels farther left.
    shift = round(60 * page.evaluate("() => devicePixelRatio"))
    assert np.abs(moved[:, 40:-shift].astype(int) - zoomed[:, 40 + shift :]).mean() < 3


def test_names_are_text_wherever_they_stand(explore: Opener, clip_folder: Path, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    root = own_folder(tmp_path / "mine", classes=f'["<b>bold</b>", "{evil}", "{{{{x}}}}"]')
    image(root / "images" / f"{evil}.png", 40, 60, 90)
    (root / "labels.csv").write_text(f"image,labels\n{evil}.png,<b>bold</b>;{evil}\n")
    data = ("--dataset", "folder", "--data-root", root)
    carbseg("labels", *data, "--out", tmp_path / "run", "--clip", clip_folder)
    page = explore(tmp_path / "run", *data)
    page.wait_for_selector(".pane[aria-busy=false]")
    expect(page.locator("#image-name")).to_have_text(evil)
    assert page.locator("#tags .clip").all_inner_texts() == ["<b>bold</b>", evil, "{{x}}"]
    press(page, "w")
    page.get_by_label("a word to add").fill(evil)
    press(page, "Enter")
    page.get_by_label("a word to ask this image").fill("<b>")
    press(page, "Enter")
    expect(page.locator("#asked")).to_contain_text("“<b>” would win")
    expect(page.locator("#words li").last).to_contain_text(evil)
    assert page.locator("b, img").count() == 0


def test_an_image_that_is_gone_is_said_and_the_masks_are_there(
    explore: Opener, toy: tuple[object, ...], toy_root: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(toy_root, tmp_path / "data")
    page = explore(toy[0], "--data-root", root, "--split", "val", expected=REFUSED)
    shows(page, "fused")
    name = page.locator("#image-name").inner_text()
    next((root / "val").glob(f"{Path(name).stem}.*")).unlink()
    page.reload()
    shows(page, "fused")
    expect(page.locator(".note")).to_contain_text(Path(name).stem)
    assert picture(page).mean() > 0


def test_a_server_that_has_ended_is_said_in_one_line(explore: Opener, toy: tuple[object, ...]) -> None:
    page = explore(*toy, expected=REFUSED)
    shows(page, "fused")
    page.route("**/api/**", lambda route: route.abort())
    press(page, "ArrowRight")
    expect(page.get_by_role("alert")).to_contain_text("Is “carbseg explore” still running?")
    page.unroute_all()
    press(page, "ArrowRight")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_store_without_images_says_what_to_do(explore: Opener, toy: tuple[object, ...]) -> None:
    def empty(route: Route) -> None:
        route.fulfill(json={**route.fetch().json(), "images": 0, "problems": ["no image: run it"]})

    page = explore(*toy)
    page.route("**/api/run", empty)
    page.reload()
    expect(page.get_by_role("heading", name="Nothing to look at yet")).to_be_visible()
    expect(page.locator("#problems")).to_have_text("no image: run it")
    expect(page.locator("#panes")).to_be_hidden()
