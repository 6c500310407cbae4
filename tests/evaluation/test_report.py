"""The report page, opened from disk in a browser. Every page is also watched for requests, dialogs and errors."""

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, Locator, Page, expect

from evaluation.report import Report, ReportImage, write_report
from evaluation.scores import percent
from evaluation.tally import Tally

SKY, ROAD, CAR, NONE = 0, 1, 2, 255
NAMES = ["sky", "road", "car"]
PALETTE = [[70, 130, 180], [128, 64, 128], [0, 0, 142]]
GREY = [100, 100, 100]
GREEN, ORANGE = [60, 160, 90], [230, 90, 40]
GLOBAL, STUDENT = "pseudo-labels global", "student base"
NO_VALUE = "\N{EN DASH}"
CELL = 8  # pixels that an entry of the little maps below is wide and high

Opener = Callable[..., Page]
Cells = Sequence[Sequence[int]]


def tally(images: Sequence[tuple[str, Mapping[str, NDArray[np.uint8]]]], row: str) -> Tally:
    """What a row counts in (name, maps) pairs."""
    counted = Tally(len(NAMES))
    for name, maps in images:
        counted.update(name, maps["truth"], maps[row])
    return counted


def an_image(name: str, truth: Cells, **rows: Cells) -> ReportImage:
    """A grey photo; rows are named as Python can: pseudo_labels_global, student_base."""
    named = {"truth": truth} | {
        re.sub("_", " ", row.replace("pseudo_", "pseudo-")): cells for row, cells in rows.items()
    }
    maps = {row: np.kron(np.array(cells, np.uint8), np.ones((CELL, CELL), np.uint8)) for row, cells in named.items()}
    iou = {row: [percent(v) for v in tally([(name, maps)], row).image_iou()[0]] for row in maps if row != "truth"}
    photo = np.full((*maps["truth"].shape, 3), GREY, np.uint8)
    return ReportImage(image_id=name, image_HW3=photo, maps=maps, iou=iou)


def a_report(images: Sequence[ReportImage], **sections: Any) -> Report:
    """Scores of these images; the other sections are empty unless they are given."""
    pairs = [(image.image_id, image.maps) for image in images]
    rows = {row: tally(pairs, row).as_dict(NAMES) | {"source": "nowhere"} for row in images[0].iou}
    metrics = {
        "schema": 1,
        "dataset": "tiny",
        "split": "val",
        "images": len(images),
        "rules": ["Pixels without truth count for nothing."],
        "classes": {"names": NAMES, "palette": PALETTE, "categories": []},
        "rows": rows,
    }
    about = {
        "command": "carbseg report",
        "time": "2026-01-02T03:04:05+00:00",
        "versions": {"numpy": "2"},
        "settings": {},
    }
    return Report(**{"metrics": metrics, "curves": {}, "about": about} | sections)


# By prediction c is worst, then b, then a; by pseudo-labels a, c, b; the student gains most on a, then c, then b.
THREE = [
    an_image("a.png", [[ROAD, CAR]], pseudo_labels_global=[[CAR, ROAD]], student_base=[[ROAD, CAR]]),
    an_image("b.png", [[ROAD, CAR]], pseudo_labels_global=[[ROAD, CAR]], student_base=[[ROAD, ROAD]]),
    an_image("c.png", [[ROAD, CAR]], pseudo_labels_global=[[ROAD, ROAD]], student_base=[[CAR, ROAD]]),
]


@pytest.fixture
def opened(open_page: Opener, tmp_path: Path) -> Opener:
    """Writes a report and opens it."""

    def open_report(images: Sequence[ReportImage] = THREE, report: Report | None = None, **context: Any) -> Page:
        write_report(tmp_path / "report.html", report or a_report(images), iter(images))
        return open_page(tmp_path / "report.html", **context)

    return open_report


def press(page: Page, name: str) -> None:
    page.locator("#images").get_by_role("button", name=name, exact=True).click()


def set_opacity(page: Page, opacity: float) -> None:
    page.locator("#images .opacity").fill(str(opacity))


def card(page: Page, name: str) -> Locator:
    return page.locator(".card", has_text=name)


def listed(page: Page) -> list[str]:
    return page.locator(".card span:nth-of-type(1)").all_inner_texts()


def expect_pixels(page: Page, canvas: Locator, layer: str, expected: Sequence[Sequence[float]], off: int = 0) -> None:
    """The canvas comes to show the layer in these colours, in the middle of each cell of its first line."""
    expect(canvas).to_have_attribute("aria-label", re.compile(f"^{re.escape(layer)} of "))
    read = """(canvas, cell) => Array.from({ length: canvas.width / cell }, (_, k) =>
        [...canvas.getContext("2d").getImageData((k + 0.5) * cell, cell / 2, 1, 1).data.slice(0, 3)])"""
    seen: Any = None
    for _ in range(100):  # drawing takes a moment
        seen = canvas.evaluate(read, CELL)
        if len(seen) == len(expected) and np.abs(np.subtract(seen, expected)).max() <= off:
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{layer} shows {seen}, expected {expected}")


# ---- Pictures ------------------------------------------------------------------------------------------------------


def test_a_layer_at_full_opacity_shows_exactly_the_colours_of_the_palette(opened: Opener) -> None:
    page = opened([an_image("a.png", [[SKY, ROAD, CAR]], student_base=[[CAR, SKY, ROAD]])])
    set_opacity(page, 1)
    canvas = card(page, "a.png").locator("canvas")
    expect_pixels(page, canvas, "prediction", [PALETTE[CAR], PALETTE[SKY], PALETTE[ROAD]])
    press(page, "truth")
    expect_pixels(page, canvas, "truth", PALETTE)
    press(page, "image")
    expect_pixels(page, canvas, "image", [GREY] * 3, off=2)  # JPEG


def test_the_slider_blends_photo_and_layer(opened: Opener) -> None:
    page = opened()
    press(page, "truth")
    canvas = card(page, "a.png").locator("canvas")
    half = [[(g + c) / 2 for g, c in zip(GREY, PALETTE[k], strict=True)] for k in (ROAD, CAR)]
    set_opacity(page, 0.5)
    expect_pixels(page, canvas, "truth", half, off=2)
    set_opacity(page, 0)
    expect_pixels(page, canvas, "truth", [GREY, GREY], off=2)


def test_where_a_map_has_no_class_the_photo_shows(opened: Opener) -> None:
    page = opened([an_image("a.png", [[ROAD, NONE]], pseudo_labels_global=[[NONE, ROAD]])])
    set_opacity(page, 1)
    canvas = card(page, "a.png").locator("canvas")
    press(page, "truth")
    expect_pixels(page, canvas, "truth", [PALETTE[ROAD], GREY], off=2)
    press(page, "global")
    expect_pixels(page, canvas, GLOBAL, [GREY, PALETTE[ROAD]], off=2)


def test_agreement_is_green_where_student_and_global_pseudo_label_are_equal_orange_elsewhere(opened: Opener) -> None:
    truth, pseudo, student = [[ROAD] * 4], [[ROAD, CAR, NONE, SKY]], [[ROAD, ROAD, ROAD, SKY]]
    page = opened([an_image("a.png", truth, pseudo_labels_global=pseudo, student_base=student)])
    set_opacity(page, 1)
    press(page, "agreement")
    canvas = card(page, "a.png").locator("canvas")
    expect_pixels(page, canvas, "agreement", [GREEN, ORANGE, GREY, GREEN], off=2)
    expect(card(page, "a.png")).to_contain_text("agreed 67 %")  # two of the three pixels that have a pseudo-label


def test_an_isolated_class_is_shown_alone_and_rules_the_order_until_it_is_released(opened: Opener) -> None:
    page = opened()
    set_opacity(page, 1)
    canvas = card(page, "a.png").locator("canvas")
    press(page, "car")
    expect_pixels(page, canvas, "prediction", [GREY, PALETTE[CAR]], off=2)
    assert listed(page) == ["b.png", "c.png", "a.png"]  # IoU of car is 0, 0, 100
    expect(card(page, "a.png")).to_contain_text("car · prediction 100.0 · pseudo-labels 0.0")
    press(page, "car")
    expect_pixels(page, canvas, "prediction", [PALETTE[ROAD], PALETTE[CAR]])
    assert listed(page) == ["c.png", "b.png", "a.png"]


def test_another_student_can_be_chosen(opened: Opener) -> None:
    image = an_image("a.png", [[ROAD]], pseudo_labels_global=[[CAR]], student_base=[[SKY]], student_local=[[CAR]])
    page = opened([image])
    set_opacity(page, 1)
    canvas = card(page, "a.png").locator("canvas")
    expect_pixels(page, canvas, "prediction", [PALETTE[CAR]])  # the last one at first
    expect(card(page, "a.png")).to_contain_text("agreed 100 %")
    page.locator("#images .student").select_option(STUDENT)
    expect_pixels(page, canvas, "prediction", [PALETTE[SKY]])
    expect(card(page, "a.png")).to_contain_text("agreed 0 %")


# ---- Which images --------------------------------------------------------------------------------------------------


def test_images_are_sorted_worst_prediction_first_and_by_other_choices(opened: Opener) -> None:
    page = opened()
    expect(page.locator("#count")).to_have_text("3 of 3 images")
    orders = {"prediction": "cba", "pseudo": "acb", "agreement": "abc", "gain": "acb", "name": "abc"}
    assert [option.get_attribute("value") for option in page.locator("#sort option").all()] == list(orders)
    for choice, order in orders.items():
        page.locator("#sort").select_option(choice)
        assert listed(page) == [f"{letter}.png" for letter in order], choice


def test_an_image_without_a_score_comes_last(opened: Opener) -> None:
    page = opened([*THREE, an_image("d.png", [[NONE]], pseudo_labels_global=[[NONE]], student_base=[[NONE]])])
    expect(page.locator(".card")).to_have_count(4)
    assert listed(page)[-1] == "d.png"


def test_images_are_filtered_by_name_and_by_class(opened: Opener) -> None:
    page = opened([*THREE, an_image("sky.png", [[SKY]], pseudo_labels_global=[[CAR]], student_base=[[SKY]])])
    page.locator("#name").fill("B.P")
    expect(page.locator("#count")).to_have_text("1 of 4 images")
    assert listed(page) == ["b.png"]
    page.locator("#name").fill("")
    page.locator("#shows").select_option("car")
    assert sorted(listed(page)) == ["a.png", "b.png", "c.png"]  # a pseudo-label of a car shows no car
    page.locator("#name").fill("nothing has this name")
    assert listed(page) == []


# ---- Keyboard and detail -------------------------------------------------------------------------------------------


def test_arrows_go_through_images_and_layers_and_escape_closes_the_detail_view(opened: Opener) -> None:
    page = opened()
    name, large = page.locator("#detail-name"), page.locator("#large")
    current = page.locator(".card[aria-current=true]")
    expect(page.locator(".card")).to_have_count(3)
    page.keyboard.press("ArrowRight")
    expect(current).to_contain_text("c.png")
    page.keyboard.press("ArrowRight")
    expect(current).to_contain_text("b.png")
    page.keyboard.press("Enter")
    expect(name).to_have_text("b.png")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")  # a is the last
    expect(name).to_have_text("a.png")
    page.keyboard.press("ArrowLeft")
    expect(name).to_have_text("b.png")
    page.keyboard.press("2")
    expect(large).to_have_attribute("aria-label", "truth of b.png")
    page.keyboard.press("ArrowDown")
    expect(large).to_have_attribute("aria-label", f"{GLOBAL} of b.png")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")  # before the first comes the last
    expect(large).to_have_attribute("aria-label", "prediction of b.png")
    page.keyboard.press("ArrowRight")
    expect(name).to_have_text("a.png")
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).not_to_be_visible()
    expect(card(page, "a.png")).to_be_focused()  # not b, which the view was opened from
    expect(current).to_contain_text("a.png")


def test_keys_in_a_text_field_are_text(opened: Opener) -> None:
    page = opened()
    expect(page.locator(".card")).to_have_count(3)
    page.locator("#name").press("2")
    expect(page.locator("#name")).to_have_value("2")
    assert page.locator("#images [data-layer=truth]").get_attribute("aria-pressed") == "false"


def test_the_detail_view_shows_all_layers_and_names_the_pixel_under_the_pointer(opened: Opener) -> None:
    page = opened()
    card(page, "a.png").click()
    film = page.locator("#film canvas")
    expect_pixels(page, film.nth(1), "truth", [PALETTE[ROAD], PALETTE[CAR]])
    expect_pixels(page, film.nth(3), "agreement", [ORANGE, ORANGE])
    expect_pixels(page, film.nth(4), "prediction", [PALETTE[ROAD], PALETTE[CAR]])
    box = page.locator("#large").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2 - 9, box["y"] + box["height"] / 2)  # left of the middle
    expect(page.locator("#readout")).to_have_text("truth: road · global: car · prediction: road")


# ---- Sections ------------------------------------------------------------------------------------------------------


def test_scores_are_tabled_with_the_best_in_bold_and_the_rules_beside_them(opened: Opener) -> None:
    pseudo, student = [[ROAD, CAR, CAR, CAR]], [[ROAD, ROAD, CAR, SKY]]
    page = opened([an_image("a.png", [[ROAD, ROAD, CAR, CAR]], pseudo_labels_global=pseudo, student_base=student)])
    expect(page.locator("#title")).to_have_text("tiny val")
    expect(page.locator("#rules li")).to_have_text(["Pixels without truth count for nothing."])
    assert page.locator("#summary thead th").all_inner_texts() == ["", "mIoU", "boundary mIoU", "pixel accuracy"]
    assert page.locator("#summary tbody th").all_inner_texts() == [GLOBAL, STUDENT]
    assert page.locator("#summary td").all_inner_texts() == ["58.3", "50.8", "75.0", "50.0", "48.0", "75.0"]
    assert page.locator("#summary .best").all_inner_texts() == ["58.3", "50.8", "75.0", "75.0"]
    assert page.locator("#class-table td").all_inner_texts() == [NO_VALUE, "0.0", "50.0", "100.0", "66.7", "50.0"]
    assert page.locator("#class-table .best").all_inner_texts() == ["100.0", "66.7"]


def test_classes_are_sorted_by_the_score_of_a_row(opened: Opener) -> None:
    page = opened()
    titles = page.locator("#class-table tbody th")
    assert titles.all_inner_texts() == NAMES
    for order in (["road", "car", "sky"], ["sky", "car", "road"]):  # best first, then worst first
        page.locator("#class-table").get_by_role("button", name=STUDENT).click()
        assert titles.all_inner_texts() == order
    page.locator("#class-table").get_by_role("button", name="class").click()
    assert titles.all_inner_texts() == NAMES


def test_bars_can_be_hidden_row_by_row(opened: Opener) -> None:
    page = opened()
    expect(page.locator("#class-bars .bar")).to_have_count(2 * len(NAMES))
    toggle = page.locator("#rows").get_by_role("button", name=STUDENT)
    toggle.click()
    expect(toggle).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#class-bars .bar")).to_have_count(len(NAMES))


def test_confusion_is_the_share_of_each_true_class(opened: Opener) -> None:
    page = opened([an_image("a.png", [[ROAD, ROAD, ROAD, CAR]], pseudo_labels_global=[[ROAD, CAR, NONE, CAR]])])
    cells = [page.locator("#heat tbody tr").nth(k).locator("td").all_inner_texts() for k in range(3)]
    assert cells == [[NO_VALUE] * 4, ["", "33", "33", "33"], ["", "", "100", ""]]  # columns: sky, road, car, none
    expect(page.locator("#worst li").first).to_have_text("road called car: 33.33 %, 64 pixels")


def test_curves_of_a_student_tell_their_values_where_one_points(opened: Opener) -> None:
    keys = ("step", "loss", "weight", "agreed", "consistent_loss", "inconsistent_loss", "learning_rate", "val_miou")
    values = [(10, 2.0, None, None, None, None, 1e-3, None), (20, float("nan"), 0.5, 0.75, 0.25, 1.5, 5e-4, 40.0)]
    steps = [dict(zip(keys, line, strict=True)) for line in values]
    page = opened(report=a_report(THREE, curves={STUDENT: steps, "student without a log": []}))
    figures = page.locator("#curves figure")
    expect(figures).to_have_count(6)
    regions = figures.filter(has_text="loss of both regions")
    box = regions.locator("svg").bounding_box()
    assert box is not None
    regions.locator("svg").hover(position={"x": box["width"] - 15, "y": 30})
    expect(regions.locator("figcaption")).to_have_text("step 20, consistent 0.25, inconsistent 1.5")


def test_the_regions_of_a_student_are_held_against_truth_by_class_with_a_verdict(opened: Opener) -> None:
    def shares(consistent: float, inside: float | None, outside: float | None) -> dict[str, float | None]:
        return {"consistent": consistent, "right_consistent": inside, "right_inconsistent": outside, "area": 0.5}

    classes = {"sky": shares(0.9, 1.0, 0.25), "road": shares(0.5, 0.75, None), "car": shares(0.0, None, 0.1)}
    diagnosis = shares(0.7, 0.9, 0.2) | {"classes": classes}
    steps = [
        {"step": 10, "loss": 2.0, "diagnosis": shares(0.4, 0.8, 0.4) | {"classes": classes}},
        {"step": 20, "loss": 1.0, "agreed": 0.75, "weight": 0.04, "diagnosis": diagnosis},
        {"step": 25, "loss": 1.0, "agreed": 0.75, "weight": 0.03},
    ]
    page = opened(report=a_report(THREE, curves={STUDENT: steps, "student without": steps[2:]}))
    section = page.locator("#balance")
    expect(page.locator("#links")).to_contain_text("CARB")
    expect(section.locator("h3")).to_have_text([STUDENT])
    expect(section.locator(".verdict")).to_contain_text("Not for every class: 20 % of the pseudo-labels")
    expect(section.locator(".verdict")).to_contain_text("CARB loses car")
    assert section.locator("tbody th").all_inner_texts() == NAMES
    assert section.locator("tbody tr").nth(2).locator("td").all_inner_texts() == ["0.0", NO_VALUE, "10.0", "4.0"]
    expect(section.locator("figure")).to_have_count(2)
    right = section.locator("figure").first
    box = right.locator("svg").bounding_box()
    assert box is not None
    right.locator("svg").hover(position={"x": box["width"] - 15, "y": 30})
    expect(right.locator("figcaption")).to_have_text("step 20, consistent 0.9, inconsistent 0.2")


def test_image_level_labels_are_described_in_words(opened: Opener) -> None:
    statistics = {
        "dataset": "tiny",
        "split": "train",
        "images": 4,
        "classes": NAMES,
        "classes_per_image": [[1, 1], [2, 3]],
        "mean_classes_per_image": 1.75,
        "positives": {"sky": 0, "road": 4, "car": 3},
        "negatives": {"sky": 4, "road": 0, "car": 1},
        "always": ["road"],
        "nearly_always": ["road"],
        "never": ["sky"],
        "co_occurrence": [[None, None, None], [0, 1, 0.75], [0, 1, 1]],
        "ruled_out": 0.4167,
    }
    tags = {
        "dataset": "tiny",
        "split": "val",
        "images": 3,
        "rows": [{"name": "exact", "precision": 100.0, "recall": 100.0, "miou": {"global": 41.0}}],
    }
    page = opened(report=a_report(THREE, statistics=statistics, tags=tags))
    words = page.locator("#statistics-words")
    for sentence in (
        "4 images, which show 1.8 of 3",
        "Every image shows road:",
        "No image shows sky.",
        "rule out 42 %",
    ):
        expect(words).to_contain_text(sentence)
    assert page.locator("#together tbody tr").nth(1).locator("td").all_inner_texts() == ["", "100", "75"]
    assert page.locator("#tags-table tbody tr").locator("th, td").all_inner_texts() == [
        "exact",
        "100.0",
        "100.0",
        "41.0",
    ]


def test_label_engines_are_compared_and_the_best_of_each_column_is_marked(opened: Opener) -> None:
    def row(seconds: dict[str, float], train: float | None, val: float, **students: float) -> dict[str, Any]:
        scores = {
            split: {"miou": miou, "precision": 50.0, "recall": 60.0} for split, miou in (("train", train), ("val", val))
        }
        return {"seconds": seconds, "labels": scores, "students": students}

    rows = {
        "maskclip": row({"train": 0.08, "val": 0.07}, 41.0, 42.0, **{"base": 47.0, "local+carb": 49.0}),
        "clip-es": row({"train": 0.1204}, 43.5, 40.0, **{"base": 45.0, "base+carb": 44.0}),
        "cam": row({}, None, 9.6),
    }
    engines = {"dataset": "tiny", "split": "val", "rows": rows}
    page = opened(report=a_report(THREE, engines=engines))
    expect(page.locator("#engines-words")).to_contain_text("Pseudo-labels of tiny")
    expect(page.locator("#engines-words")).to_contain_text("mIoU on val of the students")
    assert page.locator("#engines-table thead th").all_inner_texts() == [
        *("engine", "ms / image", "train mIoU", "train precision", "train recall", "val mIoU", "val precision"),
        *("val recall", "student base", "student local+carb", "student base+carb"),
    ]
    lines = page.locator("#engines-table tbody tr")
    assert [line.locator("th, td").all_inner_texts() for line in lines.all()] == [
        ["maskclip", "80.0", "41.0", "50.0", "60.0", "42.0", "50.0", "60.0", "47.0", "49.0", NO_VALUE],
        ["clip-es", "120.4", "43.5", "50.0", "60.0", "40.0", "50.0", "60.0", "45.0", NO_VALUE, "44.0"],
        ["cam", NO_VALUE, NO_VALUE, "50.0", "60.0", "9.6", "50.0", "60.0", NO_VALUE, NO_VALUE, NO_VALUE],
    ]
    marked = [line.locator(".best").all_inner_texts() for line in lines.all()]
    assert marked == [
        ["80.0", "50.0", "60.0", "42.0", "50.0", "60.0", "47.0"],  # the least time
        ["43.5", "50.0", "60.0", "50.0", "60.0"],
        ["50.0", "60.0", "50.0", "60.0"],
    ]


def test_rounds_of_training_are_shown_with_and_without_truth_of_the_training_images(opened: Opener) -> None:
    labels = {"miou": 41.0, "precision": 50.0, "recall": 60.0, "labelled": 94.3}
    rows = {
        "round 0": {"labels": labels, "students": {"base": 44.0, "local": 45.0}},
        "round 1": {"labels": None, "students": {"base": 46.5, "local": 43.0}},
    }
    rounds = {"dataset": "tiny", "split": "val", "settings": {"refine": True}, "rows": rows}
    page = opened(report=a_report(THREE, rounds=rounds))
    expect(page.locator("#rounds-words")).to_contain_text("what student base of the round before predicts, refined")
    header = ["round", "mIoU", "precision", "recall", "labelled", "student base", "student local"]
    assert page.locator("#rounds-table thead th").all_inner_texts() == header
    lines = page.locator("#rounds-table tbody tr")
    assert [line.locator("th, td").all_inner_texts() for line in lines.all()] == [
        ["round 0", "41.0", "50.0", "60.0", "94.3", "44.0", "45.0"],
        ["round 1", *[NO_VALUE] * 4, "46.5", "43.0"],
    ]
    assert [line.locator(".best").all_inner_texts() for line in lines.all()][1] == ["46.5"]


def test_what_is_not_given_is_left_out(opened: Opener) -> None:
    page = opened([an_image("a.png", [[ROAD]], pseudo_labels_local=[[ROAD]])])
    expect(page.locator("#count")).to_have_text("1 of 1 images")
    for section in ("curves", "balance", "statistics", "tags", "engines", "rounds"):
        expect(page.locator(f"#{section}")).not_to_be_visible()
    assert page.locator("#links a").all_inner_texts() == ["Scores", "Images", "Classes", "Confusion", "About"]
    assert page.locator("#images [data-layer]").all_inner_texts() == ["image", "truth", "local"]
    assert page.locator("#sort option").all_inner_texts() == ["worst pseudo-labels", "name"]


def test_students_without_pseudo_labels_have_no_agreement(opened: Opener) -> None:
    page = opened([an_image("a.png", [[ROAD]], student_base=[[ROAD]])])
    expect(card(page, "a.png")).to_contain_text("prediction 100.0")
    assert page.locator("#images [data-layer]").all_inner_texts() == ["image", "truth", "prediction"]
    assert page.locator("#sort option").all_inner_texts() == ["worst prediction", "name"]


def test_images_without_any_row_are_shown_by_name(opened: Opener) -> None:
    page = opened([an_image("a.png", [[ROAD]])])
    expect(page.locator(".card")).to_have_count(1)
    assert page.locator("#links a").all_inner_texts() == ["Images", "About"]


def test_no_images_are_no_gallery(opened: Opener) -> None:
    report = a_report(THREE)
    page = opened([], replace(report, metrics={**report.metrics, "images": 0}))
    expect(page.locator("#images")).not_to_be_visible()


# ---- Names that mean harm ------------------------------------------------------------------------------------------

HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "\"'&amp;<b>{{REPORT}}",
    "<!-- IMAGES --> __proto__ Straße 車 " + "x" * 300,
]


def hostile_report() -> tuple[Report, list[ReportImage]]:
    """Names of classes, files, rows and the data set that would break a page which took them for markup."""
    report = a_report(THREE)
    new = dict(zip(NAMES, HOSTILE, strict=True))
    rows = {
        f"{row}{HOSTILE[0]}": scores
        | {key: {new[name]: v for name, v in scores[key].items()} for key in ("iou", "precision")}
        for row, scores in report.metrics["rows"].items()
    }
    classes = {**report.metrics["classes"], "names": HOSTILE}
    metrics = {**report.metrics, "dataset": HOSTILE[0], "rules": HOSTILE, "classes": classes, "rows": rows}
    about = {"command": HOSTILE[0], "settings": {HOSTILE[1]: HOSTILE[0]}}
    images = []
    for name, image in zip(HOSTILE, THREE, strict=True):
        maps = {row if row == "truth" else f"{row}{HOSTILE[0]}": ids for row, ids in image.maps.items()}
        iou = {f"{row}{HOSTILE[0]}": values for row, values in image.iou.items()}
        images.append(replace(image, image_id=f"{name}\udcff", maps=maps, iou=iou))  # as from bytes that are no UTF-8
    return replace(report, metrics=metrics, about=about, curves={HOSTILE[0]: [{"step": 1, "loss": 1.0}]}), images


def test_hostile_names_are_shown_literally(opened: Opener) -> None:
    report, images = hostile_report()
    page = opened(images, report)
    assert page.locator(".legend").first.locator("button").all_inner_texts() == HOSTILE
    assert sorted(name[:-1] for name in listed(page)) == sorted(HOSTILE)
    expect(page.locator("#title")).to_have_text(f"{HOSTILE[0]} val")
    expect(page.locator("#command")).to_have_text(HOSTILE[0])
    page.locator(".card").first.click()
    expect(page.locator("#large")).to_have_attribute("aria-label", re.compile("^prediction of "))
    assert page.evaluate("[document.images.length, document.querySelectorAll('b:not(.bar b)').length]") == [0, 0]


def test_hostile_names_do_not_widen_a_phone(opened: Opener) -> None:
    report, images = hostile_report()
    page = opened(images, report, viewport={"width": 375, "height": 700})
    expect(page.locator(".card")).to_have_count(3)
    assert page.evaluate("document.documentElement.scrollWidth") == 375


def test_the_policy_stops_a_script_that_is_not_the_page_s_own(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, a_report(THREE), THREE)
    path.write_text(
        path.read_text("utf-8").replace("</body>", "<script>document.title = 'mine'</script></body>"), "utf-8"
    )
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(path.as_uri())
        assert page.title() == "tiny val - carbseg report"


# ---- Screens -------------------------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """Relative luminance of "rgb(r, g, b)" (WCAG 2)."""
    channels = np.array([int(c) for c in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_a_scheme_has_its_background_and_text_that_stands_out(opened: Opener, scheme: str) -> None:
    page = opened(color_scheme=scheme)
    assert (luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) < 0.1) == (scheme == "dark")
    card_colour = luminance(page.evaluate("getComputedStyle(document.querySelector('section')).backgroundColor"))
    for selector in ("h2", ".muted", "label", ".best"):
        text = luminance(page.evaluate("s => getComputedStyle(document.querySelector(s)).color", selector))
        dark, bright = sorted([text, card_colour])
        assert (bright + 0.05) / (dark + 0.05) > 4.5, selector


def test_a_phone_does_not_scroll_sideways(opened: Opener) -> None:
    page = opened(viewport={"width": 375, "height": 700})
    expect(page.locator(".card")).to_have_count(3)
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    page.locator(".card").first.click()
    expect(page.locator("#detail")).to_be_visible()
    assert page.evaluate("document.querySelector('#detail').scrollWidth") <= 375


def test_of_a_thousand_images_only_those_near_the_screen_are_drawn(opened: Opener) -> None:
    page = opened([replace(THREE[0], image_id=f"{k:04d}.png") for k in range(1000)])
    drawn = "[...document.querySelectorAll('.card canvas')].filter((canvas) => canvas.width).length"
    expect(page.locator(".card")).to_have_count(12)
    page.locator("#more").click()
    expect(page.locator(".card")).to_have_count(1000)
    first, last = card(page, "0000.png").locator("canvas"), card(page, "0999.png").locator("canvas")
    expect(first).to_have_attribute("width", str(2 * CELL))
    assert 0 < page.evaluate(drawn) < 60
    last.scroll_into_view_if_needed()
    expect(last).to_have_attribute("width", str(2 * CELL))
    expect(first).to_have_attribute("width", "0")
    assert 0 < page.evaluate(drawn) < 60


# ---- The file ------------------------------------------------------------------------------------------------------


def pixels_of(path: Path) -> dict[str, Any]:
    """The block of the only image."""
    blocks = re.findall(r'<script type="application/json">(.*?)</script>', path.read_text("utf-8"))
    assert len(blocks) == 1
    return json.loads(blocks[0])


def picture(encoded: str) -> NDArray[np.uint8]:
    return cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_UNCHANGED)


def test_pictures_are_shrunk_to_the_width_and_maps_of_another_size_to_that_of_the_photo(tmp_path: Path) -> None:
    image = an_image("a.png", [[SKY, CAR], [ROAD, ROAD]], student_base=[[SKY, CAR], [CAR, ROAD]])
    photo = np.full((40, 20, 3), GREY, np.uint8)
    write_report(tmp_path / "r.html", a_report([image]), [replace(image, image_HW3=photo)], width=4)
    pixels = pixels_of(tmp_path / "r.html")
    assert picture(pixels["photo"]).shape == (8, 4, 3)
    expected = np.kron([[SKY, CAR], [ROAD, ROAD]], np.ones((4, 2)))  # no id that was not there
    np.testing.assert_array_equal(picture(pixels["maps"]["truth"]), expected)


def test_a_picture_that_is_narrower_is_not_enlarged(tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", a_report(THREE), THREE[:1], width=480)
    assert picture(pixels_of(tmp_path / "r.html")["photo"]).shape == (CELL, 2 * CELL, 3)


def test_the_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"

    def failing() -> Iterator[ReportImage]:
        yield THREE[0]
        assert not path.exists()
        raise OSError("cannot read b.png")

    with pytest.raises(OSError, match="cannot read"):
        write_report(path, a_report(THREE), failing())
    assert list(path.parent.iterdir()) == []


def test_a_report_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, a_report(THREE), THREE)
    before = path.read_bytes()
    with pytest.raises(KeyError, match="truth"):
        write_report(path, a_report(THREE), [replace(THREE[0], maps={})])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
