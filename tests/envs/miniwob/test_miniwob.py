"""MiniWoB++ in a real Chromium: the contract, what actions do, what a dead browser does. Skipped without one."""

import io
import json
import os
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("miniwob")

from PIL import Image

from guiderail.agent.dialects import BRIEF
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.agent.scripted import ORIGINAL_SIZE
from guiderail.agent.types import Click, Point, Swipe, Type
from guiderail.envs.live import chromium
from guiderail.envs.live.attempts import attempt, by_expert
from guiderail.envs.live.chromium import find_browser
from guiderail.envs.miniwob.browser import Browser, BrowserDevice
from guiderail.envs.miniwob.experts import EXPERTS
from guiderail.envs.miniwob.suites import ANDROID_WORLD, DESKTOP, PIX2ACT, SMOKE, TINY, suite
from guiderail.envs.miniwob.tasks import WebTasks
from tests.contracts import DeviceContract, TaskContract, WorldContract

try:
    find_browser()
except SetupError as error:
    pytest.skip(str(error), allow_module_level=True)

TALK = Dialogue(ORIGINAL_SIZE, BRIEF)


@pytest.fixture(scope="module")
def session():
    session = WebTasks(max_steps=25).open(0)
    yield session
    session.close()


@pytest.fixture(scope="module")
def browser(session):
    browser = session._pool.take()
    yield browser
    session._pool.give(browser)


class TestBrowserDevice(DeviceContract):
    @pytest.fixture
    def device(self, browser):
        return BrowserDevice(browser, "click-checkboxes", 3)


class TestWebTasks(TaskContract, WorldContract):
    @pytest.fixture
    def world(self):
        return WebTasks("click-test,enter-text", seeds=2)

    @pytest.fixture
    def task(self, session):
        return session.task("enter-text/4")


def test_the_suites_are_those_of_the_package():
    import miniwob.registration
    from gymnasium.envs.registration import registry

    if "miniwob/click-test-v1" not in registry:
        miniwob.registration.register_miniwob_envs()
    registered = {n.removeprefix("miniwob/").removesuffix("-v1") for n in registry if n.startswith("miniwob/")}
    assert {*DESKTOP} == {name for name in registered if not name.startswith("flight.")}
    assert len(DESKTOP) == 125
    assert len(ANDROID_WORLD) == 90
    assert {*SMOKE, *TINY} <= {*EXPERTS} <= {*DESKTOP}
    assert len(EXPERTS) == 77
    assert len({*PIX2ACT}) == len({*PIX2ACT} & {*DESKTOP}) == 58
    assert {*suite("pix2act-experts")} == {*PIX2ACT} & {*EXPERTS}
    assert suite("click-test, click-link") == ("click-test", "click-link")
    with pytest.raises(SetupError, match="simon-says"):
        suite("simon-says")


def test_the_same_seed_is_the_same_screen_at_the_chosen_scale(browser):
    shots = [BrowserDevice(browser, "click-link", seed).screenshot() for seed in (5, 5, 6)]
    assert shots[0].digest == shots[1].digest != shots[2].digest
    assert (shots[0].width, shots[0].height) == (320, 420) == Image.open(io.BytesIO(shots[0].encoded())).size


def test_thinking_for_longer_than_the_page_allows_is_no_failure(browser):
    """The package's clock stops an episode after 10 s, and pays less for late answers."""
    device = BrowserDevice(browser, "click-test", 1)
    assert browser.driver.execute_script("return core.EPISODE_MAX_TIME;") == 3_600_000
    browser.driver.execute_script("core.ept0 -= 1800000;")  # as if half an hour had gone by
    device.act(Click(device.elements()[0].box.center))
    assert browser.standing() == (True, 1.0)
    assert browser.driver.execute_script("return WOB_REWARD_GLOBAL;") < 0.6


def test_a_decided_page_cannot_be_started_again(browser):
    device = BrowserDevice(browser, "click-test", 1)
    device.act(Click(device.elements()[0].box.center))
    for x in (0.2, 0.5, 0.8):
        for y in (0.2, 0.5, 0.8):
            device.act(Click(Point(x, y)))
    assert browser.standing() == (True, 1.0)


def test_a_swipe_scrolls_what_scrolls_and_drags_what_does_not(browser):
    up = Swipe(Point(0.5, 0.7), Point(0.5, 0.4))
    device = BrowserDevice(browser, "scroll-text", 3)
    before = browser.driver.execute_script("return document.querySelector('textarea').scrollTop;")
    device.act(up)
    after = browser.driver.execute_script("return document.querySelector('textarea').scrollTop;")
    assert after - before == pytest.approx(0.3 * 210, abs=2)
    device = BrowserDevice(browser, "drag-box", 0)
    small, large = (next(e.box for e in device.elements() if e.text == name) for name in ("s", "L"))
    device.act(Swipe(small.center, large.center))
    moved = next(e.box for e in device.elements() if e.text == "s")
    assert large.contains(moved.center)


def test_typed_keys_are_text(browser):
    """The private characters that WebDriver takes for Enter and Backspace do nothing."""
    device = BrowserDevice(browser, "enter-text", 2)
    field = next(e for e in device.elements() if e.kind == "field")
    device.act(Click(field.box.center))
    device.act(Type("a\ue006\ue003b\nc😀"))
    assert next(e.text for e in device.elements() if e.kind == "field") == "ab c😀"
    assert browser.standing() == (False, 0.0)


def test_a_killed_browser_is_a_crash_and_the_next_attempt_gets_a_new_one():
    session = WebTasks().open(0)
    try:
        task = session.task("click-test/1")
        going = attempt(task, dialogue=TALK)
        next(going)
        killed = task._browser
        process = killed.driver.service.process
        children = [int(p) for p in os.popen(f"pgrep -P {process.pid}").read().split()]
        for child in children:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.3)
        with pytest.raises(EnvCrashed, match="Chromium"):
            task.over()
        with pytest.raises(StopIteration) as stop:
            going.throw(EnvCrashed("seen"))
        assert stop.value.value.outcome is None
        assert by_expert(session.task("click-test/1"), dialogue=TALK).outcome.success is True
        folders = [Path(browser._instance.folder.name) for browser in (killed, *session._pool._free)]
        assert [bool(folder.exists() and [*folder.iterdir()]) for folder in folders] == [False, True]
    finally:
        session.close()
    assert not any(folder.exists() for folder in folders)


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(EXPERTS))
def test_every_expert_solves_ten_seeds_of_ten(session, page):
    made = [by_expert(session.task(f"{page}/{seed}"), dialogue=TALK) for seed in range(10)]
    assert [one.unit for one in made if not one.outcome.success] == []


def test_recorded_experts_are_standard_episodes_with_true_boxes(tmp_path):
    from guiderail.envs.miniwob.record import record
    from guiderail.envs.recordings.episodes import load_episodes

    counts = record(tmp_path / "web", WebTasks("click-option,enter-text", seeds=2))
    loaded = load_episodes(tmp_path / "web")
    assert counts["episodes"] == len(loaded.episodes) == 4
    for episode in loaded.episodes:
        for step in episode.steps:
            assert step.screenshot.image().size == (320, 420)
            if isinstance(step.action, Click):
                assert step.boxes
                assert any(target.box.contains(step.action.point) for target in step.boxes)
    line = json.loads((tmp_path / "web" / "episodes.jsonl").read_text().splitlines()[0])
    assert {"goal", "steps", "swipes", "is_successful", "page", "seed"} <= {*line}
    with pytest.raises(SetupError, match="empty"):
        record(tmp_path / "web", WebTasks("click-test", seeds=1))
    with pytest.raises(SetupError, match="no expert for circle-center, tic-tac-toe"):
        record(tmp_path / "new", WebTasks("tic-tac-toe,click-test,circle-center", seeds=1))


@pytest.mark.slow
def test_a_driver_that_stands_still_does_not_keep_its_browser_open(monkeypatch):
    monkeypatch.setattr(chromium, "CLOSE_SECONDS", 1.0)
    browser = Browser()
    os.kill(browser.driver.service.process.pid, signal.SIGSTOP)
    began = time.monotonic()
    browser.close()
    assert time.monotonic() - began < 15
    assert browser.driver.service.process is None or browser.driver.service.process.poll() is not None


@pytest.mark.parametrize(
    "page", ["click-shape", "count-shape", "drag-sort-numbers", "use-slider-2", "choose-date-nodelay"]
)
def test_experts_of_drawn_and_dragged_pages(session, page):
    assert by_expert(session.task(f"{page}/3"), dialogue=TALK).outcome.success
