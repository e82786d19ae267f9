"""In a browser: three episodes recorded by hand, five divergences reviewed, and a model trained on exactly that."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from guiderail.agent.types import Answer, Click, LongPress, Open, Swipe, SystemButton, Terminate, Type, Wait
from guiderail.envs.pocket.hands import PhoneInHand
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.tasks import task
from guiderail.envs.pocket.world import PocketTasks
from guiderail.envs.recordings.episodes import load_episodes
from guiderail.launch.console.command import STARTED
from guiderail.patch.person import load_answers
from guiderail.rl.runs.log import read_rollouts
from tests.launch.report.browser import BROWSER, DRIVER, Browser
from tests.launch.report.synthetic import sop_run
from tests.rl.runs.test_corrections import AGENT, PERSON, attempt, run_of

pytestmark = pytest.mark.slow
EVIL = "<img src=x onerror=\"document.title='evil'\">"


def guiderail(*words, out=subprocess.DEVNULL):
    command = [sys.executable, "-m", "guiderail.launch.cli", *map(str, words)]
    return subprocess.run(command, check=True, stdout=out, text=True, env=os.environ, timeout=900)


@contextmanager
def serving(*words):
    """The address of a page that this command serves."""
    command = [sys.executable, "-m", "guiderail.launch.cli", *map(str, words), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        assert line.startswith(STARTED), line
        yield line.removeprefix(STARTED).strip()
    finally:
        server.send_signal(2)
        assert server.wait(30) == 130


class Hands:
    """A person at the page of the recorder or the review."""

    def __init__(self, browser):
        self.browser = browser
        self.pressed = 0

    def see(self, condition):
        return self.browser.until(f"!document.body.classList.contains('busy') && ({condition})", 60)

    def click(self, selector):
        self.browser.run(f"document.querySelector({json.dumps(selector)}).click()")

    def write(self, selector, text):
        self.browser.run(f"document.querySelector({json.dumps(selector)}).value = {json.dumps(text)}")

    def pointer(self, *points, hold=0):
        """Real mouse input on the screen, at these fractions of it."""
        self.see("document.querySelector('.screen img').complete")
        self.browser.run("document.querySelector('.screen').scrollIntoView({block: 'center'})")
        box = self.browser.run(
            "const b = document.querySelector('.screen').getBoundingClientRect(); return [b.left, b.top, b.width, b.height]"
        )
        places = [(round(box[0] + x * box[2]), round(box[1] + y * box[3])) for x, y in points]
        acts = [{"type": "pointerMove", "duration": 0, "x": places[0][0], "y": places[0][1]}]
        acts += [{"type": "pointerDown", "button": 0}, {"type": "pause", "duration": hold}]
        acts += [{"type": "pointerMove", "duration": 30, "x": x, "y": y} for x, y in places[1:]]
        acts += [{"type": "pointerUp", "button": 0}]
        pointer = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": acts}
        self.browser.command("/actions", actions=[pointer])

    def do(self, action):
        """One step in the recorder, as a person does it."""
        steps = self.browser.run("return document.querySelectorAll('#steps li').length")
        match action:
            case Click(point) | LongPress(point):
                self.pointer((point.x, point.y), hold=700 if isinstance(action, LongPress) else 0)
                self.see("!document.getElementById('pending').hidden")
                self.browser.press("\ue007")
            case Swipe(start, end):
                self.pointer((start.x, start.y), (end.x, end.y))
            case SystemButton(button):
                self.browser.run(
                    f"[...document.querySelectorAll('#buttons button')].find(b => b.textContent === '{button}').click()"
                )
            case Wait():
                self.browser.run(
                    "[...document.querySelectorAll('#buttons button')].find(b => b.textContent === 'Wait').click()"
                )
            case Type(text) | Open(text) | Answer(text):
                self.write("#type", text)
                self.write("#kind", action.name)
                self.click("#text button")
        self.see(f"document.querySelectorAll('#steps li').length === {steps + 1}")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not (BROWSER and DRIVER):
        pytest.skip("no Chromium with chromedriver on this machine")
    window = Browser(tmp_path_factory.mktemp("profile"))
    yield window
    window.close()


def recorded(hands, url, number):
    """Record task `number`: the expert says what to do next, on a phone that does the same beside it."""
    ((name, (template, seed)),) = PocketTasks(1, number, "train").drawn().items()
    made = task(template, seed, "train", live=True)
    assert made.id == name
    mirror = PhoneInHand(Phone(made.start()))
    hands.see("!document.getElementById('begin').disabled")
    hands.write("#number", str(number))
    hands.click("#begin")
    hands.see("!document.getElementById('attempt').hidden")
    while not isinstance(action := made.expert(mirror.phone, mirror.answers).action, Terminate):
        hands.write("#thought", f"{EVIL} {action.name}")
        hands.do(action)
        mirror.act(action)
    hands.click("#done")
    hands.see("document.getElementById('attempt').hidden")
    return made


def test_three_episodes_and_five_answers_train_a_model(browser, tmp_path):
    hands, data = Hands(browser), tmp_path / "mine"
    with serving("record", "pocket", "--by-hand", "--out", data, "--annotator", "ann") as url:
        browser.open(url)
        made = [recorded(hands, url, number) for number in (3, 4, 5)]
        assert browser.run("return document.title") == "Record · Guiderail"
        assert [text for text in browser.messages() if "favicon" not in text] == []
    episodes = load_episodes(data).episodes
    assert [episode.goal for episode in episodes] == [one.goal for one in made]
    for step in (step for episode in episodes for step in episode.steps):
        assert (len(step.boxes) == 1) == isinstance(step.action, Click | LongPress)
        assert isinstance(step.action, Terminate) or step.thought.startswith(EVIL)
    guiderail("gate", data, "--dialect", "brief")

    run = sop_run(data, tmp_path / "run", errs=0.5)
    for extra in range(6):  # enough divergences in so few steps
        more = sop_run(data, tmp_path / f"more{extra}", errs=0.6 + extra / 20)
        with (run / "rollouts.jsonl").open("a") as file:
            file.writelines(
                json.dumps({**json.loads(line), "sample": extra + 1}) + "\n"
                for line in (more / "rollouts.jsonl").read_text().splitlines()
            )
    with serving("console", "--review", run, "--annotator", "ann") as url:
        browser.open(url)
        for k, key in enumerate(("a", "e", "point", "e", "a")):
            hands.see(f"document.getElementById('about').textContent.includes(', {k} answered')")
            if key == "a" and browser.run("return document.getElementById('right').disabled"):
                key = "e"
            if key == "point":
                hands.pointer((0.4, 0.4))
                hands.see("!document.getElementById('own').hidden")
                browser.press("\ue007")
            else:
                browser.press(key)
        hands.see("document.getElementById('about').textContent.includes(', 5 answered')")
        assert [text for text in browser.messages() if "favicon" not in text] == []
    assert len(load_answers(run / "review.jsonl")) == 5
    reviewed = json.loads(guiderail("data", "from-review", run, "--json", out=subprocess.PIPE).stdout)
    assert reviewed["answers"] == 5
    assert reviewed["accepted"] >= 1
    guiderail("gate", reviewed["written"], "--dialect", "brief")

    small = ["training.max_steps=2", "training.logging_steps=1", f"data.train={reviewed['written']}"]
    guiderail("train", "tiny_more_sft", *small, "training.per_device_train_batch_size=4", "--out", tmp_path / "sft")
    patch = ["method.patch=person", "method.patch_budget=unlimited", f"method.answers={run / 'review.jsonl'}"]
    eta = ["method.groups=2", "method.rollouts=4", "method.eta=0"]
    guiderail(
        "train",
        "tiny_semi_online",
        f"model.path={tmp_path / 'sft' / 'model'}",
        *small,
        *patch,
        *eta,
        "--out",
        tmp_path / "rl",
    )
    metrics = json.loads((tmp_path / "rl" / "metrics.json").read_text())
    assert metrics["updates"] == 2
    assert metrics["groups"]["kept"] > 0


def test_corrected_attempts_train_a_model(tmp_path):
    """The persons' steps alone are trained on, by SFT and by semi-online RL."""
    who = [AGENT, "wrong", PERSON, AGENT, PERSON]
    run = run_of(tmp_path / "run", *(attempt(task("alarm", 3 * number), who) for number in range(4)))
    guiderail("data", "from-runs", run, "--out", tmp_path / "data")
    guiderail("gate", tmp_path / "data", "--dialect", "brief")
    small = ["training.max_steps=1", "training.logging_steps=1", f"data.train={tmp_path / 'data'}"]
    guiderail("train", "tiny_more_sft", *small, "training.per_device_train_batch_size=4", "--out", tmp_path / "sft")
    groups = ["method.groups=2", "method.rollouts=4", "method.eta=0", f"model.path={tmp_path / 'sft' / 'model'}"]
    guiderail("train", "tiny_semi_online", *small, *groups, "--out", tmp_path / "rl")
    rows = [*read_rollouts(tmp_path / "rl")]
    assert rows
    assert {turn["index"] for row in rows for turn in row["turns"]} <= {2, 4}
    assert {row["steps"] for row in rows} == {5}
    guiderail("explain", tmp_path / "rl", "--episode", rows[0]["unit"], "--step", "2")
