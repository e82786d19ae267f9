"""From click to picture in the console, in headless Chromium against Pocket: python -m benchmarks.console [--json].

The clock of the page itself: from the release of the mouse button to the first frame in which the new screenshot is decoded
and can be painted. On the way lie the socket, the attempt's thread, a snapshot of the phone, the act through android_env,
the screenshot as PNG, the elements, the page's update and the download of the picture. Every click opens an app, so that each
has a new picture.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from guiderail.launch.agents import AgentSpec
from guiderail.launch.console.lanes import Lanes, Offer
from tests.launch.console.conftest import Console
from tests.launch.report.browser import Browser

EACH = 15
WATCH = """
const screen = document.querySelector('.screen');
window.times = []; window.began = null;
if (window.watching) return;
window.watching = true;
screen.addEventListener('pointerup', () => { window.began = performance.now(); }, true);
screen.querySelector('img').addEventListener('load', () => requestAnimationFrame(() => {
  if (window.began !== null) { window.times.push(performance.now() - window.began); window.began = null; }
}));
"""


def measure(clicks: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as profile:
        console = Console(Lanes(Offer({"expert": AgentSpec(agent="expert")}, ["pocket"])))
        browser = Browser(Path(profile), (1280, 900))
        try:
            browser.open(console.url)
            browser.until("document.querySelector('#devices option')")
            times: list[float] = []
            while len(times) < clicks:
                times += _attempt(browser, console)
        finally:
            browser.close()
            console.close()
    found = np.array(times)
    return {"clicks": len(times), "median_ms": float(np.median(found)), "p95_ms": float(np.percentile(found, 95))}


def _attempt(browser: Browser, console: Console) -> list[float]:
    """Milliseconds of `EACH` clicks, in an attempt as long as an ordinary one."""
    console.lanes.start(0, "nobody", "pocket", "look around", 1)
    browser.until(
        "document.querySelector('.lane .status.ready') && document.querySelectorAll('.step').length === 0", 30
    )
    browser.run(WATCH)
    for number in range(EACH):
        _click(browser, number)
        browser.until(f"window.times.length > {number}")
        _home(browser)
    found: list[float] = browser.run("return window.times")
    return found


def _click(browser: Browser, number: int) -> None:
    """On one of the eight icons of the home screen."""
    x, y = (0.25, 0.75)[number % 2], (0.14, 0.36, 0.58, 0.81)[number // 2 % 4]
    box = browser.run(
        "const r = document.querySelector('.screen').getBoundingClientRect(); return [r.x, r.y, r.width, r.height]"
    )
    place = {"x": round(box[0] + x * box[2]), "y": round(box[1] + y * box[3])}
    moves = [
        {"type": "pointerMove", "duration": 0, **place},
        {"type": "pointerDown", "button": 0},
        {"type": "pointerUp", "button": 0},
    ]
    pointer = {"type": "pointer", "id": "m", "parameters": {"pointerType": "mouse"}, "actions": moves}
    browser.command("/actions", actions=[pointer])


def _home(browser: Browser) -> None:
    shown = browser.run("return document.querySelector('.screen').dataset.shown")
    browser.run("[...document.querySelectorAll('.keys button')].find(b => b.textContent === 'Home').click()")
    browser.until(f"document.querySelector('.screen').dataset.shown !== {json.dumps(shown)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.clicks)
    print(
        json.dumps(result)
        if options.json
        else f"{result['clicks']} clicks: median {result['median_ms']:.0f} ms, p95 {result['p95_ms']:.0f} ms"
    )
