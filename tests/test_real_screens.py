"""Real screenshots of Android at real size, through import, gate, every dialect, SOP, report and submission."""

import hashlib
import json
import random
from dataclasses import fields
from functools import partial

import numpy as np
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from guiderail.agent.dialects import DIALECTS
from guiderail.agent.dialogue import Dialogue, transform
from guiderail.agent.policy import ScriptedPolicy
from guiderail.agent.screen import ScreenTransform, Vision
from guiderail.agent.scripted import ORIGINAL_SIZE
from guiderail.agent.types import Click, Completion, Picture, Point, Screenshot
from guiderail.envs.recordings.episodes import load_episodes
from guiderail.envs.recordings.gate import blind_probes, oracle_gate
from guiderail.envs.recordings.match import GUIDERAIL, judge
from guiderail.launch.cli import app
from guiderail.rl.score.steps import evaluate_sop
from tests.conftest import REAL_DATA

SOURCE = REAL_DATA / "android_world_runs"
pytestmark = pytest.mark.skipif(not SOURCE.is_dir(), reason="the real screenshots are not beside the repository")

WIDTH, HEIGHT = 1092, 2408
VISIONS = {
    "as it is": ORIGINAL_SIZE,
    "Qwen2.5-VL": Vision(),
    "Qwen3-VL": Vision(factor=32),
    "1 megapixel": Vision(max_pixels=1280 * 28 * 28),
    "small": Vision(factor=32, max_pixels=256 * 32 * 32),
    "enlarged": Vision(min_pixels=6000 * 28 * 28),
}


def guiderail(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("real") / "data"
    guiderail("import", "uis1", SOURCE, "--out", out)
    return out


@pytest.fixture(scope="module")
def data(folder):
    return load_episodes(folder)


def test_import_keeps_every_pixel_and_number(folder, data, tmp_path):
    assert (len(data.episodes), sum(len(e.steps) for e in data.episodes)) == (20, 147)
    assert {(s.screenshot.width, s.screenshot.height) for e in data.episodes for s in e.steps} == {(WIDTH, HEIGHT)}

    def digests(place):
        return {
            hashlib.sha256(file.read_bytes()).hexdigest()
            for file in place.rglob("*")
            if file.suffix in (".png", ".jpg")
        }

    assert digests(folder) == digests(SOURCE)
    assert len(digests(folder)) == 128
    guiderail("data", "export", folder, "--out", tmp_path / "back.jsonl")
    back, first = ((path).read_text().splitlines() for path in (tmp_path / "back.jsonl", SOURCE / "episodes.jsonl"))
    assert [json.loads(line) for line in back] == [json.loads(line) for line in first]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_gate_is_right_and_blind_agents_are_lost(data, dialect):
    dialogue = Dialogue(Vision(), DIALECTS.find(dialect))
    found = oracle_gate(data, dialogue)
    sayable = sum(dialogue.dialect.says(step.action) for e in data.episodes for step in e.steps)
    assert found["steps"] == 147
    assert found["exact"] >= sayable
    assert max(probe["TSR"] for probe in blind_probes(data, dialogue).values()) == 0


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_points_are_right_to_the_pixel_after_every_resize(data, dialect, vision):
    """What the expert touches, said in the dialect and read back: off by at most half a unit of the dialect, in pixels of the
    original screenshot; by nothing where the unit is such a pixel. All other arguments come back as they were."""
    spoken = DIALECTS.find(dialect)
    dialogue = Dialogue(ORIGINAL_SIZE if spoken.space == "original" else VISIONS[vision], spoken)
    grounded = 0
    for episode in data.episodes:
        history = []
        for index, step in enumerate(episode.steps):
            shots = [earlier.screenshot for earlier in episode.steps[: index + 1]]
            prompt = dialogue.prompt(episode.goal, shots, history)
            assert prompt.screen.screenshot is step.screenshot
            history.append(dialogue.retell("look", step.action, step.screenshot))
            if not spoken.says(step.action):
                continue
            reply = dialogue.read(Completion(history[-1]), prompt.screen)
            assert type(reply.action) is type(step.action)
            assert judge(step, reply, GUIDERAIL).exact
            grounded += same_arguments(step.action, reply.action, spoken, prompt.screen)
    assert grounded > 70


def same_arguments(ours, theirs, spoken, picture):
    """Whether there was a point. Asserts that all arguments came back, as far as the dialect holds them."""
    units = {
        "picture": (picture.width, picture.height),
        "original": (WIDTH, HEIGHT),
        "thousand": (999, 999) if spoken.name == "qwen3_vl" else (1000, 1000),  # Qwen3-VL counts from 0 to 999
        "unit": (1000, 1000),
    }[spoken.space]
    pointed = False
    for field in fields(ours):
        name = f"{ours.name}.{field.name}"
        mine, read = getattr(ours, field.name), getattr(theirs, field.name)
        if name in spoken.forgets or (ours.name == "swipe" and "swipe.points" in spoken.forgets):
            continue
        if not isinstance(mine, Point):
            assert mine == read, name
            continue
        pointed = True
        for side, unit, a, b in ((WIDTH, units[0], mine.x, read.x), (HEIGHT, units[1], mine.y, read.y)):
            wrong = abs(a - b) * side
            assert wrong <= 0.5 * side / unit + 1e-6, (name, wrong)
            if unit == side:
                assert round(b * side) == round(a * side)
    return pointed


@pytest.mark.slow
@pytest.mark.parametrize("vision", VISIONS)
def test_marked_pixels_are_found_where_the_text_points(data, vision, tmp_path):
    """A square around the expert's point, painted into the real screenshot, is seen in the resized picture at the coordinates
    that the dialect writes, to within a pixel."""
    spoken = DIALECTS.find("guiderail")
    steps = [step for e in data.episodes for step in e.steps if isinstance(step.action, Click)]
    for number, step in enumerate(random.Random(0).sample(steps, 6)):
        x, y = ScreenTransform(WIDTH, HEIGHT).to_pixels(step.action.point)
        half = min(20, x, y, WIDTH - 1 - x, HEIGHT - 1 - y)
        marked = Image.new("L", (WIDTH, HEIGHT))
        ImageDraw.Draw(marked).rectangle((x - half, y - half, x + half, y + half), fill=255)
        real = step.screenshot.image()
        real.paste((255, 0, 255), mask=marked)
        real.save(tmp_path / f"{number}.png")
        shot = Screenshot(WIDTH, HEIGHT, tmp_path / f"{number}.png")
        picture = VISIONS[vision].picture(shot)
        said = spoken.read(spoken.say("x", step.action, transform(picture)), transform(picture)).action.point
        found = magenta(picture)
        for pixel, share, side, of in (
            (found[0], said.x, picture.width, WIDTH),
            (found[1], said.y, picture.height, HEIGHT),
        ):
            middle = 0.5 * side / of  # a pixel's number is that of its left edge
            assert abs(pixel - (share * side + middle)) <= 1.0


def magenta(picture: Picture):
    """The centre of the painted square, in pixels of the picture."""
    pixels = np.asarray(picture.image()).astype(int)
    rows, columns = np.nonzero((pixels[..., 0] > 200) & (pixels[..., 1] < 60) & (pixels[..., 2] > 200))
    return columns.mean() + 0.5, rows.mean() + 0.5


# ------------------------------------------------------------------------------------------------------------------- SOP


def scripted(data, dialogue, script):
    """A policy that answers step k of an episode with script(episode, k)."""
    places = {id(step.screenshot): (e, k) for e in data.episodes for k, step in enumerate(e.steps)}

    def say(request):
        episode, index = places[id(request.prompt.screen.screenshot)]
        return dialogue.retell("as told", script(episode, index), request.prompt.screen.screenshot)

    return ScriptedPolicy(say, "scripted", dialogue.vision)


def one_step_late(episode, index):
    return episode.steps[min(index + 1, len(episode.steps) - 1)].action


def one_pixel_off(dx, dy, episode, index):
    action = episode.steps[index].action
    if not isinstance(action, Click):
        return action
    x, y = ScreenTransform(WIDTH, HEIGHT).to_pixels(action.point)
    return Click(Point((x + dx) / WIDTH, (y + dy) / HEIGHT))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_sop_of_the_expert_of_one_pixel_and_of_one_step(data, dialect):
    spoken = DIALECTS.find(dialect)
    sayable = [e for e in data.episodes if all(spoken.says(step.action) for step in e.steps)]
    dialogue = Dialogue(ORIGINAL_SIZE if spoken.space == "original" else Vision(max_pixels=1280 * 28 * 28), spoken)
    scores = {}
    for name, script in {
        "expert": lambda episode, index: episode.steps[index].action,
        **{f"pixel {d}": partial(one_pixel_off, *d) for d in ((1, 0), (-1, 0), (0, 1), (0, -1))},
        "late": one_step_late,
    }.items():
        scores[name] = evaluate_sop(sayable, scripted(data, dialogue, script), dialogue, GUIDERAIL)
    right = [leading(e) for e in sayable]
    assert sayable
    for name in scores.keys() - {"late"}:
        assert (scores[name]["PG"], scores[name]["TSR"]) == (1.0, 1.0), name
    assert scores["late"]["PG"] == pytest.approx(
        sum(k / len(e.steps) for k, e in zip(right, sayable, strict=True)) / len(right)
    )
    assert scores["late"]["TSR"] == sum(k == len(e.steps) for k, e in zip(right, sayable, strict=True)) / len(right)


def leading(episode):
    """Steps from the start whose next action would do as well: the same kind, and the same words or a touch of the same
    place. Written here anew, to check the score by other means than its own."""
    for index, step in enumerate(episode.steps):
        if not agrees(step, one_step_late(episode, index)):
            return index
    return len(episode.steps)


def agrees(step, action):
    ours = step.action
    if type(ours) is not type(action):
        return False
    if ours.name == "click":
        smallest = min((t.box for t in step.boxes), key=lambda box: box.area, default=None)
        near = ((ours.point.x - action.point.x) ** 2 + (ours.point.y - action.point.y) ** 2) ** 0.5 <= 0.04
        return near or (smallest is not None and smallest.scaled(1.2).contains(action.point))
    if ours.name == "swipe":
        return ours.direction == action.direction
    return ours == action


# ------------------------------------------------------------------------------------------------- report and submission


@pytest.mark.parametrize("episodes", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_report_and_submission(folder, tmp_path, episodes):
    run, bundle = tmp_path / "sop", tmp_path / "sop.zip"
    who = ("--agent", "expert", "--dialect", "guiderail")
    guiderail("evaluate", "sop", folder, *who, "--limit", episodes, "--out", run)
    metrics = json.loads((run / "metrics.json").read_text())
    assert (metrics["PG"], metrics["TSR"], metrics["n"]) == (1.0, 1.0, episodes)
    guiderail("report", run, "--out", tmp_path / "report")
    assert (tmp_path / "report" / "index.html").is_file()
    guiderail("submit", "build", run, "--out", bundle)
    verified = json.loads(guiderail("submit", "verify", bundle, "--json"))
    assert (verified["ok"], verified["attempts"], verified["problems"]) == (True, episodes, [])
