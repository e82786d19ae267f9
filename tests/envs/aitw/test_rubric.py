"""The judge with rubrics: windows, states that stay, notes, evidence, hostile answers."""

import json
import re
import time
from itertools import pairwise

import pytest

pytest.importorskip("openai", reason="needs the extra served")

from guiderail.agent.errors import EnvCrashed
from guiderail.agent.policy import ScriptedPolicy
from guiderail.agent.screen import Vision
from guiderail.agent.served.openai import ServedPolicy
from guiderail.agent.types import Open, Picture, Terminate
from guiderail.envs.aitw.judge import Item, Judge, judgement_of, rejudge
from guiderail.envs.aitw.rubric import MOST_ITEMS, OVERLAP, WINDOW, RubricJudge, passed, read_rubric, windows
from guiderail.envs.aitw.tasks import JudgedTask, JudgeSpec
from guiderail.envs.pocket.hands import PhoneInHand
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.state import new_state
from guiderail.rl.live.journal import images_of, keep_images
from guiderail.rl.runs.rows import rollout_row
from tests.agent.served.faults import faulty
from tests.envs.aitw.test_aitw import Hand, run
from tests.judge_server import judge_server, pictures_in, words_of

REACH = {"text": "milk is in the basket", "kind": "reach"}
OTHER = {"text": "bread is in the basket", "kind": "reach"}
AVOID = {"text": "anything is paid for", "kind": "avoid"}


def frames(n):
    """n different screenshots."""
    phone = PhoneInHand(Phone(new_state(0)))
    shots = []
    for k in range(n):
        phone.act(Open(("Shop", "Clock", "Notes")[k % 3]))
        phone.phone.state.notes = {f"n{k}": ""}
        phone.phone.state.goods[0] = f"g{k}"
        phone.phone.state.alarms = {f"{k}:00": True}
        shots.append(phone.screenshot())
    assert len({shot.digest for shot in shots}) == n
    return shots


class Model:
    """Splits the task into `items`, then answers each window with the next of `says` (dicts; the last again and again)."""

    def __init__(self, items, *says):
        self.items, self.says, self.asked = items, list(says), []

    def __call__(self, request):
        words = [part for message in request.prompt.messages for part in message.parts]
        self.asked.append(words)
        if not request.prompt.pictures:
            return json.dumps({"items": self.items})
        say = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        return say if isinstance(say, str) else json.dumps(say)

    @property
    def windows(self):
        return [words for words in self.asked if any(isinstance(part, Picture) for part in words)]

    def judge(self, folder):
        return RubricJudge(ScriptedPolicy(self, "judge-1"), folder)


def says(notes="", *items):
    keys = ("item", "state", "frame")
    return {"notes": notes, "items": [dict(zip(keys, item, strict=False)) | {"why": "seen"} for item in items]}


@pytest.mark.parametrize("n", [1, 7, 8, 9, 14, 15, 31])
def test_windows_show_every_frame_and_overlap(n):
    made = [*windows(n)]
    assert {k for window in made for k in window} == set(range(n))
    assert all(len(window) <= WINDOW for window in made)
    for before, after in pairwise(made):
        assert len(set(before) & set(after)) == OVERLAP
        assert after[-1] > before[-1]


def test_what_was_met_early_counts_at_the_end(tmp_path):
    """Item 1 is seen in frame 3 of 30 only; a judge of the last 20 frames never sees it."""
    model = Model(
        [REACH, OTHER, AVOID], says("milk seen", (1, "met", 3)), says("", (2, "open")), says("", (2, "met", 18)), says()
    )
    shots = frames(30)
    made = model.judge(tmp_path)("Add milk and bread", shots, ["tap"] * 30)
    assert made.success
    assert [(item.state, item.frame) for item in made.items] == [("met", 3), ("met", 18), ("open", None)]
    assert made.items[0].image == shots[2].digest
    assert made.images == tuple(shot.digest for shot in shots)
    assert (made.mode, made.reason) == ("rubric", "all items are met")
    shown = [[part for part in words if isinstance(part, Picture)] for words in model.windows]
    assert [len(pictures) for pictures in shown] == [8, 8, 8, 8, 6]
    seen_by_trajectory = (
        Judge(ScriptedPolicy(model), tmp_path / "t", "trajectory").prompt("t", shots[-20:], []).pictures
    )
    assert shots[2] not in [picture.screenshot for picture in seen_by_trajectory]


def test_windows_bring_notes_and_states(tmp_path):
    model = Model([REACH, OTHER], says("price 3", (1, "met", 2)), says("price 4", (2, "met", 10)))
    model.judge(tmp_path)("Add milk and bread", frames(10), [f"did {k}" for k in range(10)])
    first, second = (" ".join(part for part in words if isinstance(part, str)) for words in model.windows)
    assert "Notes on the frames before: none" in first
    assert "Notes on the frames before: price 3" in second
    assert "1. [reach, met] milk is in the basket" in second
    assert "2. [reach, open] bread" in second
    assert "did 9" in second
    assert "did 9" not in first
    assert re.findall(r"Frame (\d+):", second) == ["7", "8", "9", "10"]


def test_settled_items_stay_so(tmp_path):
    model = Model([REACH, OTHER], says("", (1, "met", 1)), says("", (1, "violated", 7), (1, "open"), (2, "met", 9)))
    made = model.judge(tmp_path)("t", frames(9))
    assert made.success
    assert made.items[0].state == "met"


def test_a_violation_ends_it(tmp_path):
    model = Model([REACH, AVOID], says("", (1, "met", 1), (2, "violated", 4)))
    made = model.judge(tmp_path)("t", frames(30))
    assert not made.success
    assert len(model.windows) == 1
    assert made.reason == "violated: anything is paid for (seen)"
    assert made.items[1].frame == 4


def test_what_is_never_seen_is_not_met(tmp_path):
    made = Model([REACH, OTHER], says("", (1, "met", 1))).judge(tmp_path)("t", frames(2))
    assert not made.success
    assert made.reason == "not met: bread is in the basket"
    assert not passed([Item("x", "reach"), Item("y", "avoid")])
    assert passed([Item("x", "reach", "met"), Item("y", "avoid")])


def test_asked_once_for_each_task_and_attempt(tmp_path):
    model = Model([REACH], says("", (1, "met", 1)))
    shots = frames(3)
    first = model.judge(tmp_path)("t", shots, ["a", "b", "c"])
    assert len(model.asked) == 2
    assert model.judge(tmp_path)("t", shots, ["a", "b", "c"]) == first
    assert len(model.asked) == 2
    model.judge(tmp_path)("t", shots[:2], ["a", "b"])
    assert len(model.asked) == 3, "another attempt at the same task keeps the rubric"
    other = model.judge(tmp_path)("t", shots, ["a", "b", "z"])
    assert other.key != first.key
    model.judge(tmp_path)("another task", shots, ["a", "b", "c"])
    assert len(model.asked) == 6
    kept = json.loads((tmp_path / f"{first.key}.json").read_text())
    assert kept["items"][0]["image"] == shots[0].digest
    (tmp_path / f"{first.key}.json").write_text('{"items": 3}')
    assert model.judge(tmp_path)("t", shots, ["a", "b", "c"]) == first


def test_verdicts_from_before_there_were_items_are_read():
    row = {
        "task": "t",
        "success": True,
        "reason": "",
        "model": "m",
        "mode": "final",
        "key": "k",
        "images": ["a"],
        "text": "",
    }
    assert judgement_of(row).items == ()
    assert judgement_of({"task": "t"}) is None


@pytest.mark.parametrize(
    "bad",
    [
        "I cannot say",
        "{" * 5000,
        says("", (1, "met", 1), (1, "violated", 1)),
        says("", (1, "open"), (1, "met", 1)),
        says("", (2, "met", 1)),
        says("", (3, "met", 1)),
        says("", (0, "met", 1)),
        says("", (True, "met", 1)),
        says("", (1, "met", 4)),
        says("", (1, "met", 0)),
        says("", (1, "met", None)),
        says("", (1, "done", 1)),
        {"items": {"1": "met"}},
        {"items": ["met"]},
        {"notes": 3, "items": []},
        {"success": True},
    ],
    ids=str,
)
def test_an_answer_that_cannot_be_meant_is_asked_again_and_is_no_failure(tmp_path, bad):
    good = says("", (1, "met", 1))
    model = Model([REACH, AVOID], bad, good)
    assert model.judge(tmp_path / "a")("t", frames(3)).success
    assert len(model.windows) == 2
    with pytest.raises(EnvCrashed, match="gave no states of items in 3 answers"):
        Model([REACH, AVOID], bad).judge(tmp_path / "b")("t", frames(3))
    assert not [file for file in (tmp_path / "b").iterdir() if '"success"' in file.read_text()]


@pytest.mark.parametrize(
    "items",
    [
        [],
        [AVOID],
        [REACH, REACH],
        [{"text": " ", "kind": "reach"}],
        [{"text": "x", "kind": "must"}],
        ["x"],
        [{"text": f"x{k}", "kind": "reach"} for k in range(MOST_ITEMS + 1)],
    ],
    ids=str,
)
def test_a_bad_rubric_is_refused(tmp_path, items):
    assert read_rubric({"items": items}) is None
    with pytest.raises(EnvCrashed, match="gave no list of items"):
        Model(items, says()).judge(tmp_path)("t", frames(1))


def test_long_answers_are_cut(tmp_path):
    model = Model([REACH], says("n" * 10**5), says("", (1, "met", 9)))
    model.judge(tmp_path)("t", frames(9))
    assert len(model.windows[1][1]) < 2500


def test_through_a_server(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def answer(body):
        if not pictures_in(body):
            return 'Here: {"items": [{"text": "the shop is open", "kind": "reach"}]}'
        last = re.findall(r"Frame (\d+):", words_of(body))[-1]
        return f'Thinking {{...}} {{"notes": "", "items": [{{"item": 1, "state": "met", "frame": {last}}}]}}'

    with judge_server(answer) as url:
        judge = RubricJudge(ServedPolicy(url, "judge-1", Vision()), tmp_path)
        assert judge("Open the shop", frames(3), ["a", "b", "c"]).items[0].frame == 3


def test_a_live_task_is_judged_by_items_and_again_without_the_phone(tmp_path, brief):
    model = Model([REACH], says("", (1, "met", 2)))
    judge = model.judge(tmp_path / "judge")
    task = JudgedTask("general_test-000", "Add milk", 5, Hand(), judge)
    made = run(task, brief, [Open("Shop"), Open("Notes"), Terminate("success")])
    assert (made.outcome.success, made.outcome.checked_by, made.outcome.reason) == (True, "judge", "all items are met")
    assert task.judgement.items[0].image == made.turns[1].screen.screenshot.digest
    keep_images(tmp_path / "images", images_of(made))
    asked = len(model.asked)
    again = rejudge([json.loads(json.dumps(rollout_row(made)))], tmp_path / "images", judge)
    assert again == {"general_test-000": task.judgement}
    assert len(model.asked) == asked
    spec = JudgeSpec("http://127.0.0.1:9/v1", "m", str(tmp_path), "rubric")
    assert isinstance(spec.build(), RubricJudge)


def test_a_judge_that_hangs_ends_within_its_seconds(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with faulty("hang") as server:
        judge = RubricJudge(ServedPolicy(server.url, "judge-1", Vision()), tmp_path, seconds=0.4)
        began = time.monotonic()
        with pytest.raises(EnvCrashed, match=r"no answer within 0\.4 s"):
            judge("Open the shop", frames(1))
        assert time.monotonic() - began < 2
