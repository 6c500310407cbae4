"""One pixel per class: proposed from truth, worked out by hand; and clicked on the page, in a browser."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from labelgen.points import Point, as_csv, read_points
from labelgen.samples import ClassSet
from pipeline.datasets import DATASETS
from pipeline.datasets.classes import CAMVID_CLASSES
from pipeline.datasets.tags import TagConfig
from pipeline.stages.points import LONG_SIDE_PX, Deep, choose, deepest, drawn_images, propose
from tests.conftest import carbseg, refused
from tests.files import image, label, own_folder

SKY, BUILDING, ROAD = 0, 1, 3
WIDTH, HEIGHT = 40, 30
OWN = ClassSet(("sky", "road", "traffic light"), (("",),) * 3, ((0, 0, 0),) * 3)

Opener = Callable[..., Page]


# ---- Proposals -----------------------------------------------------------------------------------------------------


def of_class(*rows: str) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    return np.array([[sign == "#" for sign in row] for row in rows])


def test_the_deepest_pixel_is_far_from_the_region_s_and_from_the_image_s_border() -> None:
    inside = of_class(".......", ".#####.", ".#####.", ".#####.", ".......")
    assert deepest(inside) == Deep(
        2, 2, 2.0
    )  # of (2, 2), (3, 2) and (4, 2), all 2 pixels from what is around, the first
    assert deepest(of_class("###", "###", "###")) == Deep(1, 1, 2.0)  # what is beyond the image is not of the region
    assert deepest(of_class("....", "...#")) == Deep(3, 1, 1.0)


def test_of_several_regions_the_larger_one_has_the_deepest_pixel() -> None:
    assert deepest(of_class("#..###", "##.###", "#..###")) == Deep(4, 1, 2.0)


def test_diagonals_are_euclidean() -> None:
    depth = deepest(of_class("#####", "#####", "#####", "#####", "####."))
    assert (depth.x, depth.y) == (2, 2)
    assert depth.depth == pytest.approx(8**0.5, abs=1e-5)  # to the corner, nearer than the 3 to each side


def camvid(root: Path, **maps: list[list[int]]) -> Path:
    for grey, (name, rows) in enumerate(maps.items()):
        image(root / "train" / f"{name}.png", len(rows), len(rows[0]), grey)
        label(root / "trainannot" / f"{name}.png", rows)
    return root


def proposed(root: Path, images: int = 40, seed: int = 0) -> list[Point]:
    spec = DATASETS["camvid"]
    return propose(spec, drawn_images(spec, root, "train", images, seed), seed)


def test_each_class_that_is_shown_gets_its_deepest_pixel(tmp_path: Path) -> None:
    """Void (11) is no class."""
    root = camvid(tmp_path, a=[[SKY, SKY, SKY, 11], [SKY, SKY, SKY, 11], [SKY, SKY, SKY, ROAD]])
    assert proposed(root) == [Point("a.png", 1, 1, SKY), Point("a.png", 3, 2, ROAD)]


def test_a_region_is_drawn_as_often_as_the_square_of_its_depth_says(tmp_path: Path) -> None:
    """Depths 1 and 2: the deeper one in four fifths of 200 draws, give or take four standard deviations of 5.7."""
    root = camvid(tmp_path, a=[[SKY]], b=[[SKY] * 3] * 3)
    drawn = Counter(point.image for seed in range(200) for point in proposed(root, seed=seed))
    assert drawn.total() == 200
    assert 137 < drawn["b.png"] < 183


def test_a_larger_number_of_images_adds_to_those_of_a_smaller_one(toy_root: Path) -> None:
    few, more = (drawn_images(DATASETS["toy"], toy_root, "train", n, seed=1) for n in (3, 8))
    assert len(few) == 3
    assert few == more[:3]
    assert drawn_images(DATASETS["toy"], toy_root, "train", 3, seed=2) != few


def test_only_the_drawn_label_maps_are_read(toy_root: Path) -> None:
    read: list[None] = []
    spec = DATASETS["toy"]
    propose(spec, drawn_images(spec, toy_root, "train", 4, 0), 0, lambda: read.append(None))
    assert len(read) == 4


def test_a_seed_says_which_pixels_and_truth_says_their_class(toy_root: Path, tmp_path: Path) -> None:
    options = ("points", "propose", "--dataset", "toy", "--data-root", toy_root)
    files = [tmp_path / f"{name}.csv" for name in ("one", "again", "two")]
    for file, seed in zip(files, (1, 1, 2), strict=True):
        printed = carbseg(*options, "--seed", seed, "--to", file).stdout
        assert printed == f"{len(read_points(file, CAMVID_CLASSES))} points in {file}\n"
    assert files[0].read_bytes() == files[1].read_bytes()
    one, two = (read_points(file, CAMVID_CLASSES) for file in (files[0], files[2]))
    assert len(set(one) & set(two)) < len(one) / 2
    for point in (*one, *two):
        truth_HW = DATASETS["toy"].read_truth(toy_root / "trainannot" / f"{Path(point.image).stem}.png")
        assert truth_HW[point.y, point.x] == point.train_id


def test_a_class_that_no_drawn_image_shows_is_said(tmp_path: Path) -> None:
    root = camvid(tmp_path, a=[[SKY, ROAD]])
    to = tmp_path / "points.csv"
    said = carbseg("points", "propose", "--dataset", "camvid", "--data-root", root, "--to", to).stderr
    assert "no pixel for building, pole, sidewalk, tree, sign, fence, car, pedestrian, bicyclist: none of the 1" in said
    assert f"--images, or click it: 'carbseg points page --points {to}'" in said
    assert [point.train_id for point in read_points(to, CAMVID_CLASSES)] == [SKY, ROAD]


def test_points_that_are_there_are_not_overwritten(tmp_path: Path) -> None:
    root = camvid(tmp_path, a=[[SKY, ROAD]])
    (tmp_path / "points.csv").write_text("clicked with care")
    options = ("--dataset", "camvid", "--data-root", root, "--to", tmp_path / "points.csv")
    assert "exists already; choose another file (--to)" in refused("points", "propose", *options)
    assert (tmp_path / "points.csv").read_text() == "clicked with care"


def test_without_truth_nothing_is_proposed(tmp_path: Path) -> None:
    root = own_folder(tmp_path / "mine", "a.png")
    options = ("--dataset", "folder", "--data-root", root, "--to", tmp_path / "points.csv")
    assert "folder train has no pixel labels" in refused("points", "propose", *options)
    label(root / "truth" / "a.png", [[1, 1, 255], [1, 1, 255]])
    carbseg("points", "propose", *options)
    assert read_points(tmp_path / "points.csv", OWN) == [Point("a.png", 0, 0, 1)]


# ---- Which images are on the page ----------------------------------------------------------------------------------


def test_images_that_show_many_classes_come_first_then_what_they_do_not_show(tmp_path: Path) -> None:
    root = own_folder(tmp_path, "a.png", "b.png", "c.png", "d.png")
    (root / "labels.csv").write_text("image,labels\na.png,sky\nb.png,sky;road\nc.png,traffic light\nd.png,sky;road\n")
    assert choose(DATASETS["folder"].at(root), root, "train", 4) == ["b", "c", "d", "a"]
    mine = tmp_path / "mine.csv"
    mine.write_text("image,labels\nd.png,road;traffic light\na.png,sky\n")
    assert choose(DATASETS["folder"].at(root), root, "train", 2, TagConfig(file=str(mine))) == ["d", "a"]


def test_images_of_which_nothing_is_known_are_evenly_spread(tmp_path: Path) -> None:
    root = own_folder(tmp_path, *(f"{letter}.png" for letter in "abcde"))
    assert choose(DATASETS["folder"].at(root), root, "train", 3) == ["a", "c", "e"]
    assert choose(DATASETS["folder"].at(root), root, "train", 9) == list("abcde")


# ---- The page ------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images, a and b; three classes."""
    root = own_folder(tmp_path / "mine")
    for grey, name in enumerate("ab"):
        image(root / "images" / f"{name}.png", HEIGHT, WIDTH, 90 + 60 * grey)
    return root


@pytest.fixture
def opened(open_page: Opener, root: Path, tmp_path: Path) -> Callable[..., Page]:
    """Writes the page with these arguments and opens it."""

    def open_points(*arguments: object, **context: object) -> Page:
        to = tmp_path / "points.html"
        carbseg("points", "page", *arguments, "--dataset", "folder", "--data-root", root, "--to", to)
        return open_page(to, **context)

    return open_points


def place(page: Page, x: int, y: int, width: int = WIDTH, height: int = HEIGHT) -> tuple[float, float]:
    """Where the middle of a pixel is, in the view, while the whole image is shown."""
    box = page.locator("#view").bounding_box()
    assert box is not None
    scale = min(box["width"] / width, box["height"] / height)
    left, top = (box["width"] - scale * width) / 2, (box["height"] - scale * height) / 2
    return left + scale * (x + 0.5), top + scale * (y + 0.5)


def click(page: Page, x: int, y: int, **size: int) -> None:
    left, top = place(page, x, y, **size)
    page.locator("#view").click(position={"x": left, "y": top})


def saved(page: Page, folder: Path, classes: ClassSet = OWN) -> list[Point]:
    """What the file that the page gives holds; the text to copy says the same."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Save points.csv").click()
    assert download.value.suggested_filename == "points.csv"
    download.value.save_as(folder / "points.csv")
    assert (folder / "points.csv").read_text(encoding="utf-8") == page.locator("#csv").input_value()
    return read_points(folder / "points.csv", classes)


def test_pixels_are_clicked_with_the_mouse(opened: Opener, tmp_path: Path) -> None:
    page = opened()
    expect(page.locator("#progress")).to_have_text("folder train: 0 of 3 classes have a pixel")
    click(page, 3, 4)
    page.get_by_role("button", name="traffic light").click()
    page.get_by_role("button", name="next image").click()
    click(page, 39, 29)
    expect(page.locator("#progress")).to_have_text("folder train: 2 of 3 classes have a pixel")
    expect(page.locator("#missing")).to_have_text("none yet for road")
    assert page.locator("#classes button").nth(0).inner_text().split("\n")[-1] == "3, 4 in image 1"
    expect(page.locator("#classes .done")).to_have_count(2)
    assert saved(page, tmp_path) == [Point("a.png", 3, 4, 0), Point("b.png", 39, 29, 2)]
    click(page, 0, 0)  # the class has its pixel: it moves
    assert saved(page, tmp_path) == [Point("a.png", 3, 4, 0), Point("b.png", 0, 0, 2)]


def test_pixels_are_set_with_the_keyboard_alone(opened: Opener, tmp_path: Path) -> None:
    """The cross-hair begins in the middle of an image."""
    page = opened()

    def press(*keys: str) -> None:
        for key in keys:
            page.keyboard.press(key)

    press("2", "ArrowRight", "ArrowRight", "ArrowUp", "Enter")
    press("PageDown", ".", "Shift+ArrowLeft", "Shift+ArrowDown", "Shift+ArrowDown", " ")  # the last row is the end
    press("<", "1", "+", "+", "ArrowDown", "Enter", "Delete", "Control+z")
    expected = [Point("a.png", 20, 16, 0), Point("a.png", 22, 14, 1), Point("b.png", 10, 29, 2)]
    assert saved(page, tmp_path) == expected
    press("3", "3")  # goes to its pixel
    expect(page.locator("#image-name")).to_have_text("b.png")
    expect(page.locator("#readout")).to_have_text("traffic light · x 10, y 29")
    press("Delete")
    assert saved(page, tmp_path) == expected[:2]
    press("Control+z")
    assert saved(page, tmp_path) == expected


def test_a_pixel_that_is_clicked_for_another_class_changes_its_class(opened: Opener, tmp_path: Path) -> None:
    page = opened()
    click(page, 5, 5)
    page.keyboard.press("2")
    click(page, 5, 5)
    assert saved(page, tmp_path) == [Point("a.png", 5, 5, 1)]


def test_a_zoomed_view_hits_the_same_pixels(opened: Opener, root: Path, tmp_path: Path) -> None:
    image(root / "images" / "large.png", 300, 400)
    page = opened("large")
    left, top = place(page, 300, 80, width=400, height=300)
    box = page.locator("#view").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + left, box["y"] + top)
    expect(page.locator("#readout")).to_have_text("sky · x 300, y 80")
    fit = page.evaluate("zoom.scale")
    page.mouse.wheel(0, -600)
    page.wait_for_function("fit => zoom.scale > fit", arg=fit)
    expect(page.locator("#readout")).to_have_text("sky · x 300, y 80")  # what is under the pointer stays there
    page.mouse.down()
    page.mouse.move(box["x"] + left + 50, box["y"] + top, steps=4)  # drags, and sets nothing
    page.mouse.up()
    expect(page.locator("#progress")).to_contain_text("0 of 3")
    page.mouse.click(box["x"] + left + 50, box["y"] + top)
    assert saved(page, tmp_path) == [Point("large.png", 300, 80, 0)]


def test_a_window_of_another_size_keeps_the_zoom_and_a_whole_image_stays_whole(opened: Opener, tmp_path: Path) -> None:
    page = opened()
    page.set_viewport_size({"width": 700, "height": 600})
    click(page, 39, 29)
    page.keyboard.press("+")
    zoomed = page.evaluate("zoom.scale")
    page.set_viewport_size({"width": 650, "height": 600})
    page.wait_for_function("byId('view').clientWidth < 650")
    assert page.evaluate("zoom.scale") == zoomed > page.evaluate("zoom.fitScale()")
    assert saved(page, tmp_path) == [Point("a.png", 39, 29, 0)]


def test_a_picture_is_shrunk_and_coordinates_are_not(opened: Opener, root: Path, tmp_path: Path) -> None:
    width, height = 2 * LONG_SIDE_PX, 600
    image(root / "images" / "wide.png", height, width)
    page = opened("wide")
    page.wait_for_function(f"images[0].picture.naturalWidth === {LONG_SIDE_PX}")
    click(page, width // 2, height // 2, width=width, height=height)
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    (point,) = saved(page, tmp_path)
    assert abs(point.x - (width // 2 + 10)) <= 2  # a pixel of the screen is some of the image
    assert abs(point.y - (height // 2 + 1)) <= 2


def test_loaded_points_are_shown_and_kept_and_their_images_come_first(
    opened: Opener, root: Path, tmp_path: Path
) -> None:
    image(root / "images" / "c.png", HEIGHT, WIDTH, 200)
    loaded = [Point("c.png", 7, 8, 1), Point("c.png", 9, 8, 1), Point("b.png", 1, 2, 2)]
    (tmp_path / "mine.csv").write_text(as_csv(loaded, OWN))
    page = opened("--points", tmp_path / "mine.csv", "--images", 2)
    expect(page.locator("#film button")).to_have_text(["1 · 2 set", "2 · 1 set"])
    expect(page.locator("#image-name")).to_have_text("c.png")
    expect(page.locator("#several")).to_be_checked()  # for road has two
    click(page, 4, 4)
    assert saved(page, tmp_path) == [Point("c.png", 4, 4, 0), *loaded]


def test_the_page_fits_a_phone_and_is_tapped(opened: Opener, tmp_path: Path) -> None:
    phone = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True, "color_scheme": "dark"}
    page = opened(**phone)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.get_by_role("button", name="road").tap()
    left, top = place(page, 12, 20)
    page.locator("#view").tap(position={"x": left, "y": top})
    expect(page.locator("#readout")).to_have_text("road · x 12, y 20")
    page.get_by_role("button", name="left", exact=True).tap()
    page.get_by_role("button", name="set", exact=True).tap()
    assert saved(page, tmp_path) == [Point("a.png", 11, 20, 1)]
    assert page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor") == "rgb(17, 21, 27)"


def test_names_are_text_wherever_they_stand(opened: Opener, root: Path, tmp_path: Path) -> None:
    """Without the policy, too, nothing of a name becomes an element."""
    evil = '<img src=x onerror=alert(1)>,"'
    (root / "classes.toml").write_text(f"classes = ['</script><b>bold</b>', '{evil}', '{{{{DATA}}}}']\n")
    (root / "images" / "b.png").rename(root / "images" / f"{evil}.png")
    page = opened(evil)
    expect(page.locator("#image-name")).to_have_text(f"{evil}.png")
    page.keyboard.press("2")
    click(page, 1, 1)
    assert page.locator("#classes .clip:not(small)").all_inner_texts() == ["</script><b>bold</b>", evil, "{{DATA}}"]
    assert page.locator("b, img[src=x]").count() == 0
    classes = DATASETS["folder"].at(root).classes
    assert saved(page, tmp_path, classes) == [Point(f"{evil}.png", 1, 1, 1)]


def test_an_image_that_there_is_not_and_wrong_points_are_refused(root: Path, tmp_path: Path) -> None:
    options = ("points", "page", "--dataset", "folder", "--data-root", root, "--to", tmp_path / "points.html")
    assert "folder train has no image 'z'; name images by id or file name, such as a.png" in refused(*options, "z")
    (tmp_path / "points.csv").write_text(f"image,x,y,class\na,{WIDTH},0,sky\n")
    assert "outside of a" in refused(*options, "--points", tmp_path / "points.csv")
    assert not (tmp_path / "points.html").exists()


def test_pictures_are_upright_and_coloured_as_in_the_file(opened: Opener, root: Path) -> None:
    red = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    red[..., 2] = 200  # OpenCV's order is BGR
    cv2.imwrite(str(root / "images" / "red.png"), red)
    page = opened("red.png")
    page.wait_for_function("images[0].picture.complete")
    read = "canvas => [...canvas.getContext('2d').getImageData(canvas.width / 4, canvas.height / 4, 1, 1).data]"
    assert np.abs(np.subtract(page.locator("#view").evaluate(read)[:3], [200, 0, 0])).max() <= 3
