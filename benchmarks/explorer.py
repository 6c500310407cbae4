"""How soon the explorer shows something: from its start to the first mask, and from a word to the masks in it.

In headless Chromium, beside what importing torch and CLIP takes here, which the first word waits for. Prints Markdown.
"""

import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import click
from playwright.sync_api import Page, sync_playwright

from benchmarks.tests import IMPORTS, timed

CHROMIUM = "/usr/bin/chromium"
PATIENCE_MS = 600_000
SHOWN = 'document.querySelector(".pane")?.getAttribute("aria-busy") === "false"'
MOVED = '!!document.querySelector("#moved .change") && document.querySelector("#moved").ariaBusy !== "true"'
WORDS = ("bus", "van", "lorry", "coach", "taxi", "jeep", "cab", "pickup")


def seconds_until(page: Page, act: Callable[[], object], *conditions: str) -> float:
    """From an act until the masks that it leads to are drawn."""
    begun = time.perf_counter()
    act()
    page.wait_for_function(" && ".join([SHOWN, *conditions]), polling="raf", timeout=PATIENCE_MS)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return time.perf_counter() - begun


def seconds_of_word(page: Page, word: str) -> float:
    """From a word that is added to the chosen class until it is said what moved, and the mask is drawn."""
    page.get_by_label("a word to add").fill(word)
    is_listed = f'document.querySelector("#words").innerText.includes("{word}")'
    return seconds_until(page, page.get_by_role("button", name="Add", exact=True).click, is_listed, MOVED)


def measured(out: str, options: tuple[str, ...]) -> dict[str, float]:
    """Seconds, by what took them, in one session on a page that did not see anything before."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1300, "height": 800}, bypass_csp=True)
        begun = time.perf_counter()
        command = [sys.executable, "-m", "pipeline", "explore", out, "--no-browser", *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout
            address = next(found[1] for line in server.stdout if (found := re.match("open (.*)", line)))
            started = time.perf_counter() - begun
            took = {"start to first mask": started + seconds_until(page, lambda: page.goto(address))}
            page.get_by_role("tab", name="Words").click()
            took["first word, which waits for CLIP"] = seconds_of_word(page, "tram")
            took["a further word, median"] = statistics.median(words := [seconds_of_word(page, w) for w in WORDS])
            took["a further word, slowest"] = max(words)
            page.keyboard.press("Escape")
            name = page.locator("#image-name").inner_text()
            is_other = f'document.querySelector("#image-name").innerText !== "{name}"'
            took["another image in other words"] = seconds_until(
                page, lambda: page.keyboard.press("PageDown"), is_other, MOVED
            )
            browser.close()
            server.send_signal(signal.SIGINT)
    return took


@click.command()
@click.argument("out", type=click.Path(exists=True, file_okay=False))
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def main(out: str, options: tuple[str, ...]) -> None:
    """OUT: a run folder. OPTIONS, after --, go to `carbseg explore`."""
    imports = min(timed("-c", IMPORTS)[0] for _ in range(3))
    print(f"\nThe explorer of {out}; `{IMPORTS}` takes {imports:.1f} s here\n")
    print("| | seconds | of the imports |\n|---|---|---|")
    for what, seconds in measured(out, options).items():
        print(f"| {what} | {seconds:.2f} | {seconds / imports:.2f} |")


if __name__ == "__main__":
    main()
