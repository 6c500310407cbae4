"""What tests do with the explorer's page, and read off it."""

import base64
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Page, expect

Opener = Callable[..., Page]
DESKTOP = {"viewport": {"width": 1300, "height": 800}}

expect.set_options(timeout=20_000)  # as long as a page waits (open_page)


def shows(page: Page, *layers: str) -> None:
    """Wait until the panes show these layers."""
    expect(page.locator(".pane")).to_have_count(len(layers))
    for place, layer in enumerate(layers):
        pane = page.locator(".pane").nth(place)
        expect(pane).to_have_attribute("data-layer", layer)
        expect(pane).to_have_attribute("aria-busy", "false")


def picture(page: Page, pane: int = 0) -> NDArray[np.uint8]:
    """(H, W, 3) RGB of what is on the canvas of a pane."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    url = page.locator("canvas").nth(pane).evaluate("canvas => canvas.toDataURL()")
    data = np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8)
    pixels_BGR = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert pixels_BGR is not None
    return np.asarray(cv2.cvtColor(pixels_BGR, cv2.COLOR_BGR2RGB), np.uint8)


def drawn_classes(
    drawn_HW3: NDArray[np.uint8], shape: tuple[int, ...], palette: Sequence[tuple[int, int, int]]
) -> NDArray[np.int64]:
    """(H, W) of that shape: the class whose colour each pixel of the image has on a canvas that shows all of it."""
    height, width = shape
    scale = min(drawn_HW3.shape[0] / height, drawn_HW3.shape[1] / width)
    top, left = (drawn_HW3.shape[0] - scale * height) / 2, (drawn_HW3.shape[1] - scale * width) / 2
    rows = (top + scale * (np.arange(height) + 0.5)).astype(int)
    columns = (left + scale * (np.arange(width) + 0.5)).astype(int)
    colours_HW3 = drawn_HW3[rows][:, columns]
    is_class_HWC = (colours_HW3[:, :, None] == np.array(palette, np.uint8)).all(-1)
    assert is_class_HWC.any(-1).all()
    return is_class_HWC.argmax(-1)


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def add_word(page: Page, word: str, name: str = "sky") -> None:
    """To a class, on the panel Words; waits for what that moves."""
    page.get_by_role("tab", name="Words").click()
    page.locator("#word-class").select_option(label=name)
    page.get_by_label("a word to add").fill(word)
    press(page, "Enter")
    expect(page.locator("#words")).to_contain_text(word)
    expect(page.locator("#moved")).to_have_attribute("aria-busy", "false", timeout=120_000)  # CLIP is loaded first
    expect(page.locator("#moved .change")).to_contain_text("of the pixels changed class")


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until something that fits has the focus."""
    for _ in range(80):
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {selector}")
