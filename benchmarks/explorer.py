"""How soon the explorer shows something: from its start to the first mask, and from a word to the masks in it.

In headless Chromium, beside what importing torch and CLIP takes here, which the first word waits for. Prints Markdown.
Pseudo-labels are made where they are missing.
"""

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.tests import IMPORTS, timed
from labelgen.layout import is_begun
from pipeline.commands.options import quiet_libraries
from pipeline.stages.labels import make_labels
from pipeline.stages.run import Run

PATIENCE_MS = 600_000
WORDS = ("house", "post", "pavement", "vegetation", "railing", "street", "city", "picture")  # the tiny CLIP knows them
FIRST_MASK, FIRST_WORD, WORD = "start to first mask", "first word: CLIP is loaded, and looks", "a further word"
SLOWEST, OTHER_IMAGE = "a further word, the slowest", "another image in other words"
ASKED_S = {FIRST_MASK: 3, WORD: 1, SLOWEST: 1}

IS_SHOWN = 'document.querySelector(".pane")?.getAttribute("aria-busy") === "false"'
HAS_MOVED = (
    'document.querySelector("#moved .change") && document.querySelector("#moved").getAttribute("aria-busy") === "false"'
)


def seconds_until_shown(page: Page, act: Callable[[], object], *conditions: str) -> float:
    """From an act until these conditions are true, and the masks drawn."""
    begun = time.perf_counter()
    act()
    page.wait_for_function(" && ".join((IS_SHOWN, *conditions)), polling="raf", timeout=PATIENCE_MS)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return time.perf_counter() - begun


def seconds_of_word(page: Page, word: str) -> float:
    """From a word that is added to the chosen class until it is said what moved, and the mask is drawn."""
    page.get_by_label("a word to add").fill(word)
    is_listed = f'document.querySelector("#words").textContent.includes("{word}")'
    return seconds_until_shown(page, lambda: page.keyboard.press("Enter"), is_listed, HAS_MOVED)


def measure(browser: Browser, out: str, *options: str) -> dict[str, float]:
    """Seconds, by what takes them, of a fresh explorer."""
    # What is waited for is told to the page as text, which its own rules forbid.
    page = browser.new_page(viewport={"width": 1300, "height": 800}, bypass_csp=True)
    begun = time.perf_counter()
    command = [sys.executable, "-m", "pipeline", "explore", out, "--no-browser", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        said = "".join(server.stdout.readline() for _ in range(3))
        address = said.partition("open ")[2].split()[0]
        took = {FIRST_MASK: time.perf_counter() - begun + seconds_until_shown(page, lambda: page.goto(address))}
        page.get_by_role("tab", name="Words").click()
        took[FIRST_WORD] = seconds_of_word(page, "vehicle")
        words = [seconds_of_word(page, word) for word in WORDS]
        took |= {WORD: statistics.median(words), SLOWEST: max(words)}
        page.keyboard.press("Escape")
        is_other = (
            f'document.querySelector("#image-name").textContent !== "{page.locator("#image-name").text_content()}"'
        )
        took[OTHER_IMAGE] = seconds_until_shown(page, lambda: page.keyboard.press("PageDown"), is_other, HAS_MOVED)
        page.close()
        server.send_signal(signal.SIGINT)
    return took


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="toy")
    parser.add_argument("--data-root", help="its folder; toy scenes are drawn into data/toy when left out")
    parser.add_argument("--out", help="run folder whose pseudo-labels are taken, and made where they are missing")
    parser.add_argument("--split", default="val")
    options = parser.parse_args()
    quiet_libraries()
    run = Run.of(options.dataset, options.data_root, out=options.out)
    if not is_begun(run.store_path(options.split)):
        make_labels(run, options.split)
    imports = min(timed("-c", IMPORTS)[0] for _ in range(3))
    root = ("--data-root", options.data_root) if options.data_root else ()
    program = os.environ.get("CARBSEG_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        took = measure(browser, str(run.out), "--split", options.split, *root)
        browser.close()
    print(f"\nThe explorer on {options.dataset} {options.split}; `{IMPORTS}` takes {imports:.1f} s\n")
    print("| | seconds | asked | beside the imports |\n|---|---|---|---|")
    for what, seconds in took.items():
        print(f"| {what} | {seconds:.2f} | {ASKED_S.get(what, '')} | {seconds / imports:.2f} |")


if __name__ == "__main__":
    main()
