"""The console as people meet it: the real page in headless Chromium, against Pocket."""

import json

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("websockets")
pytest.importorskip("android_env")

from guiderail.agent.types import Type, Wait
from guiderail.launch.console.attended import Attended
from guiderail.launch.console.lanes import Lane
from guiderail.rl.runs.log import read_record, read_rollouts
from tests.launch.console.conftest import place, speaker, until
from tests.launch.report.browser import BROWSER, DRIVER, Browser

pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="no Chromium with chromedriver on this machine")
EVIL = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>&amp;\u202e"
READY = "document.querySelector('.lane .status.ready')"
OVER = "document.querySelector('.lane .status.over')"
STEPS = "document.querySelectorAll('.lane .step').length"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    window = Browser(tmp_path_factory.mktemp("profile"), (1280, 900))
    yield window
    window.close()


@pytest.fixture
def page(browser, console):
    for number in (0, 1):
        console.lanes.leave(number)
    browser.open("about:blank")
    browser.open(console.url)
    browser.until("document.querySelector('#devices option')")
    yield browser
    assert browser.messages() == []


def begin(page, device="pocket:toggle", agent="expert", goal=""):
    page.run(
        f"document.getElementById('device').value = {json.dumps(device)};"
        f"document.getElementById('goal').value = {json.dumps(goal)};"
        f"document.getElementById('agent-0').value = {json.dumps(agent)};"
        "document.querySelector('#setup .main').click()"
    )
    page.until(READY, 30)


def click(page, label, lane=0):
    found = f"[...document.querySelectorAll('[data-lane=\"{lane}\"] button')].find(b => b.textContent === {json.dumps(label)})"
    page.until(f"{found} && !{found}.disabled")
    page.run(f"{found}.click()")


def mouse(page, x, y, to=None, hold=0):
    """Press the mouse on the device's screen, in fractions of it."""
    box = page.run(
        "const r = document.querySelector('.screen').getBoundingClientRect(); return [r.x, r.y, r.width, r.height]"
    )
    at = lambda p: {"x": round(box[0] + p[0] * box[2]), "y": round(box[1] + p[1] * box[3])}  # noqa: E731
    moves = [{"type": "pointerMove", "duration": 0, **at((x, y))}, {"type": "pointerDown", "button": 0}]
    moves += [{"type": "pause", "duration": hold}] if hold else []
    moves += [{"type": "pointerMove", "duration": 60, **at(to)}] if to else []
    moves += [{"type": "pointerUp", "button": 0}]
    page.command(
        "/actions", actions=[{"type": "pointer", "id": "m", "parameters": {"pointerType": "mouse"}, "actions": moves}]
    )


def attempt(console, lane=0):
    return console.lanes.attempt(lane)


def test_run_pause_take_over_hand_back(page, console):
    begin(page)
    assert page.run("return document.querySelector('.title').textContent") == attempt(console).goal
    click(page, "Step")
    page.until(f"{STEPS} === 1")
    shown = page.run("return document.querySelector('.screen').dataset.shown")
    click(page, "Home")
    page.until(f"{STEPS} === 2 && document.querySelector('.screen').dataset.shown !== {json.dumps(shown)}")
    assert page.run("return document.querySelector('.step .who').textContent") == "you"
    assert [turn.by for turn in attempt(console).turns] == ["expert", "person"]
    click(page, "Hand back")
    page.until(OVER, 30)
    assert attempt(console).outcome.success
    assert {turn.by for turn in attempt(console).turns[2:]} == {"expert"}
    judged = page.until("document.querySelector('.judge p').textContent")
    assert judged.startswith("The goal is reached, says the device's state. You took part")
    kept = page.until("(document.querySelector('.judge code') || {}).textContent")
    (row,) = read_rollouts(until_folder(kept))
    assert [turn.get("by") for turn in row["turns"]] == [turn.by for turn in attempt(console).turns]
    assert read_record(until_folder(kept)).about.world["name"] == "pocket"


def until_folder(name):
    from pathlib import Path

    until(lambda: (Path(name) / "metrics.json").is_file())
    return Path(name)


def test_mouse_click_drag_hold_and_text(page, console):
    begin(page, "pocket", "nobody", "Look around")
    mouse(page, 0.25, 0.81)
    page.until(f"{STEPS} === 1")
    mouse(page, 0.5, 0.7, to=(0.5, 0.3))
    page.until(f"{STEPS} === 2")
    mouse(page, 0.5, 0.5, hold=700)
    page.until(f"{STEPS} === 3")
    page.run(
        "document.querySelector('.hand input').value = 'two words'; document.querySelector('.text').requestSubmit()"
    )
    page.until(f"{STEPS} === 4")
    click, swipe, hold, typed = (turn.action for turn in attempt(console).turns)
    assert (click.name, swipe.name, hold.name) == ("click", "swipe", "long_press")
    assert (round(click.point.x, 2), round(click.point.y, 2)) == (0.25, 0.81)
    assert swipe.direction == "up"
    assert 0.5 <= hold.seconds < 3
    assert typed == Type("two words")


def test_everything_works_with_the_keyboard(page, console):
    begin(page)
    page.press("s")
    page.until(f"{STEPS} === 1")
    page.press("u")
    page.until(f"{STEPS} === 0")
    page.press("p")
    page.press("ArrowDown")
    assert page.run("return document.activeElement.className").startswith("screen")
    page.press("\ue007")  # Enter
    page.until(f"{STEPS} === 1")
    assert attempt(console).turns[0].action.name == "click"
    page.run("document.activeElement.blur()")
    page.press("h")
    page.until(f"{STEPS} === 2")
    page.press("k")
    page.until("document.querySelector('.step[aria-current]')")
    page.press("\ue00c")
    page.press("?")
    page.until("document.getElementById('keys').open")
    page.press("\ue00c")  # Escape
    page.until("!document.getElementById('keys').open")
    page.press(" ")
    page.until(OVER, 30)
    page.press("u")
    page.until(READY)
    page.press("x")
    page.until(OVER)
    assert attempt(console).ended == "stopped"


def test_a_person_judges_a_goal_of_their_own(page, console):
    begin(page, "pocket", "nobody", "Have a look")
    click(page, "It is done")
    page.until(OVER)
    assert "Nobody has checked" in page.run("return document.querySelector('.judge p').textContent")
    click(page, "It did not")
    page.until("document.querySelector('.judge p').textContent.includes('you say')")
    assert attempt(console).outcome.success is False


def test_two_agents_side_by_side_on_the_same_task_and_seed(page, console):
    page.run(
        "document.getElementById('compare').click(); document.getElementById('device').value = 'pocket:toggle';"
        "document.getElementById('agent-0').value = 'expert'; document.getElementById('agent-1').value = 'random';"
        "document.querySelector('#setup .main').click()"
    )
    page.until("document.querySelectorAll('.lane .status.ready').length === 2", 30)
    left, right = attempt(console, 0), attempt(console, 1)
    assert (left.place.task.id, left.screen.digest) == (right.place.task.id, right.screen.digest)
    page.run("document.getElementById('both').click()")
    page.until("document.querySelectorAll('.lane .status.over').length === 2", 60)
    assert left.outcome.success
    assert [turn.by for turn in right.turns] == ["agent"] * len(right.turns)


def test_hostile_goals_thoughts_answers_and_elements_are_shown_as_text(page, console):
    page.run("window.hacked = undefined")
    made = Attended(place("pocket", EVIL), speaker(lambda prompt: (EVIL, Type(EVIL))), changed=console.lanes.tell)
    console.lanes.lanes[0] = Lane(made, {"agent": EVIL, "device": EVIL})
    until(lambda: made.phase == "ready")
    made.seen[0] = ()
    made.step()
    until(lambda: len(made.turns) == 1 and made.phase == "ready")
    made._set(question=EVIL, phase="asking")
    page.until("document.querySelector('.ask p')")
    made._set(question="", phase="ready", note=EVIL)
    page.until(f"document.querySelector('.status').textContent.includes({json.dumps(EVIL)})")
    assert page.run("return document.querySelector('.title').textContent") == EVIL
    assert EVIL in page.run("return document.querySelector('.about').textContent")
    assert page.run("return document.querySelector('.now .thought').textContent") == EVIL
    assert EVIL in page.run("return document.querySelector('.now .action').textContent").replace("\\u202e", "\u202e")
    assert page.run("return window.hacked === undefined && !document.querySelector('img[src=x]')")
    made._end("crashed", None, EVIL)
    page.until(f"document.querySelector('.status').textContent.includes({json.dumps(EVIL)})")
    assert page.run("return window.hacked === undefined && !document.querySelector('img[src=x]')")


def test_scripts_written_into_the_page_would_be_stopped(browser, console):
    browser.open(console.url)
    browser.run(
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 1'; document.head.append(s)"
    )
    browser.run("const p = document.createElement('p'); p.setAttribute('onclick', 'window.hacked = 1'); p.click()")
    assert browser.run("return window.hacked") is None
    assert any("Content Security Policy" in message for message in browser.messages())


def test_a_page_that_lost_the_console_finds_it_again(page, console):
    begin(page)
    page.run("window.old = true")
    other = console.lanes.attempt(0)
    other.act(Wait(0.0))
    page.until(f"{STEPS} === 1")
    browser_tab = page.run("return document.querySelector('.title').textContent")
    page.open("about:blank")
    page.open(console.url)
    page.until(f"{STEPS} === 1")
    assert page.run("return document.querySelector('.title').textContent") == browser_tab


CUT = (
    "return [...document.querySelectorAll('main *, header *')].filter(e => !e.closest('svg, dialog, .skip')"
    " && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 120))"
)
THIN = (  # words, one letter per line, are far higher than wide
    "return [...document.querySelectorAll('main p, main li, main button, main label')].filter(e => {"
    "const r = e.getBoundingClientRect();"
    "return r.width && r.width < 45 && r.height > 90 && e.textContent.trim().length > 8"
    "}).map(e => e.outerHTML.slice(0, 120))"
)


def test_nothing_is_cut_at_any_width(page, console):
    begin(page)
    click(page, "Step")
    page.until(f"{STEPS} === 1")
    try:
        for compare in (False, True):
            if compare:
                page.run("document.getElementById('compare').click(); document.querySelector('#setup .main').click()")
                page.until("document.querySelectorAll('.lane .status.ready').length === 2", 30)
            page.run("document.getElementById('new').open = true")
            for width in (390, 800, 1400):
                metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
                page.cdp("Emulation.setDeviceMetricsOverride", metrics)
                page.until(f"innerWidth === {width}")
                assert (page.run(CUT), page.run(THIN)) == ([], []), (width, compare)
    finally:
        page.cdp(
            "Emulation.setDeviceMetricsOverride",
            {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
