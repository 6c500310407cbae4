"""From `carbseg explore` to two saved files, and from these to the same masks: fresh processes and a browser.

On toy scenes, and on CamVid: its real images where there are any (CARBSEG_CAMVID, or data/camvid), else toy scenes
with CamVid's layout, size and file formats.
"""

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Page, expect

from labelgen.images import read_image, read_label_map, resize_image, write_png
from labelgen.store import PseudoLabelStore
from pipeline.datasets.classes import CAMVID_CLASSES
from pipeline.datasets.tags import read_tags
from tests.conftest import ROOT, carbseg, carbseg_process, command
from tests.pipeline.explorer.pages import DESKTOP, Opener, add_word, drawn_classes, picture, press, shows

IMAGES = 3
CAMVID_SIZE = 360, 480


def toy_data(toy_root: Path, root: Path) -> None:
    shutil.copytree(toy_root, root)


def camvid_data(toy_root: Path, root: Path) -> None:
    """Three images of CamVid's val; drawn ones where there is no CamVid."""
    camvid = Path(os.environ.get("CARBSEG_CAMVID", ROOT / "data" / "camvid"))
    (root / "val").mkdir(parents=True)
    (root / "valannot").mkdir()
    if camvid.is_dir():
        lines = (camvid / "val.txt").read_text().splitlines()[:: 101 // IMAGES][:IMAGES]
        for name in " ".join(lines).split():
            shutil.copy(camvid / name, root / name)
    else:
        lines = []
        for drawn in sorted((toy_root / "val").iterdir())[:IMAGES]:
            lines.append(f"val/{drawn.stem}.jpg valannot/{drawn.name}")
            cv2.imwrite(
                str(root / "val" / f"{drawn.stem}.jpg"), resize_image(read_image(drawn), *CAMVID_SIZE)[..., ::-1]
            )
            truth_HW = cv2.resize(
                read_label_map(toy_root / "valannot" / drawn.name), CAMVID_SIZE[::-1], interpolation=cv2.INTER_NEAREST
            )
            write_png(root / "valannot" / drawn.name, truth_HW.astype(np.uint8))
    (root / "val.txt").write_text("\n".join(lines))


def shown_classes(page: Page, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """(H, W) class numbers, read off the screen."""
    shows(page, "fused")
    page.locator("#opacity").fill("1")
    return drawn_classes(picture(page), shape, CAMVID_CLASSES.palette)


@pytest.mark.parametrize(("dataset", "make_data"), [("toy", toy_data), ("camvid", camvid_data)])
def test_from_the_start_to_saved_files_and_from_these_to_the_same_masks(
    dataset: str,
    make_data: Callable[[Path, Path], None],
    open_page: Opener,
    toy_root: Path,
    clip_folder: Path,
    tmp_path: Path,
) -> None:
    make_data(toy_root, tmp_path / "data")
    data = ("--data-root", tmp_path / "data", "--split", "val")
    out = tmp_path / "run"
    carbseg("labels", "--dataset", dataset, *data, "--clip", clip_folder, "--out", out)
    line = command("explore", out, *data, "--no-browser")
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) as explorer:
        assert explorer.stdout is not None
        try:
            said = "".join(explorer.stdout.readline() for _ in range(3))
            page = open_page(said.partition("open ")[2].split()[0], **DESKTOP)
            shows(page, "fused")
            page.locator("#sort").select_option("order")
            press(page, "Escape")
            expect(page.locator("#count")).to_have_text(f"{IMAGES} images")
            page.locator("[role=option]").first.click()
            expect(page.locator("#place")).to_have_text(f"1 of {IMAGES}")
            store = PseudoLabelStore.open(out / "labels" / "val.zarr")
            image_id = page.locator("#image-name").inner_text()
            before_HW = store.mask(image_id, "fused")
            np.testing.assert_array_equal(shown_classes(page, before_HW.shape), before_HW)

            add_word(page, "vehicle", "car")
            add_word(page, "street", "road")
            page.get_by_role("button", name="remove road").click()
            expect(page.locator("#words")).not_to_contain_text("road")

            press(page, "Escape", "t")  # out of the field for another word
            first = int(np.bincount(before_HW.ravel(), minlength=256)[:-1].argmax())
            page.locator("#tags").get_by_role("button", name=store.class_names[first]).click()
            expect(page.locator("#changes")).to_have_text("words of road, car: not saved; tags of 1 image: not saved")
            page.get_by_role("button", name="Save", exact=True).click()
            expect(page.locator("#saved")).to_contain_text("carbseg labels")
            saved = page.locator("#saved .command code").inner_text()
            expect(page.locator("#moved")).to_have_attribute("aria-busy", "false")
            after_HW = shown_classes(page, before_HW.shape)
            page.context.close()
            explorer.send_signal(signal.SIGINT)
            assert explorer.wait(60) == 0
        finally:
            explorer.kill()
    assert {"prompts.toml", "tags.csv"} <= {path.name for path in out.iterdir()}
    assert len(read_tags(out / "tags.csv", CAMVID_CLASSES)) == IMAGES
    assert (after_HW != before_HW).any()
    assert (after_HW != first).all()

    program, *words = shlex.split(saved)
    assert program == "carbseg"
    carbseg_process(*words)
    again = PseudoLabelStore.open(f"{words[words.index('--out') + 1]}/labels/val.zarr")
    np.testing.assert_array_equal(again.mask(image_id, "fused"), after_HW)
