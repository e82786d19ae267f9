"""An attempt with a person in it, without any web: on Pocket, on Pocket behind the real adb client, on MiniWoB++."""

import gc
import shutil
import threading
import time
import weakref
from dataclasses import replace

import pytest

pytest.importorskip("android_env")

from guiderail.agent.errors import EnvCrashed
from guiderail.agent.types import Answer, Click, Open, Point, Swipe, SystemButton, Terminate, Type, Wait
from guiderail.envs.live.attempts import Patience, by_expert
from guiderail.launch.console.attended import Attended
from guiderail.launch.console.devices import DeviceSpec, Place, open_place
from guiderail.launch.console.standing import Options
from guiderail.launch.console.view import view
from guiderail.rl.runs import schema
from guiderail.rl.runs.rows import rollout_of, rollout_row, success
from tests.launch.console.conftest import expert, place, settled, speaker, until

ADB = shutil.which("adb")
BROWSER = shutil.which("chromium") and shutil.which("chromedriver")


def test_an_agent_left_alone_does_what_an_evaluation_sees(attend):
    attempt = attend(place(), expert)
    attempt.run()
    until(lambda: attempt.phase == "over")
    made, actor, home = attempt.rollout(), expert(), open_place(DeviceSpec("pocket:toggle"))
    evaluated = by_expert(home.task, dialogue=actor.dialogue)
    home.close()
    assert [turn.by for turn in made.turns] == ["expert"] * len(made.turns)
    assert (made.ended, made.outcome) == ("finished", evaluated.outcome)
    assert [turn.completion for turn in made.turns] == [turn.completion for turn in evaluated.turns]
    assert [turn.prompt for turn in made.turns] == [turn.prompt for turn in evaluated.turns]


def test_a_person_takes_over_and_the_agent_goes_on_in_the_joint_history(attend):
    seen = []

    def say(prompt):
        seen.append(prompt)
        return "look", Wait(0.0)

    attempt = attend(place(), speaker(say))
    attempt.step()
    settled(attempt)
    attempt.act(SystemButton("Home"), "I know better")
    settled(attempt)
    attempt.step()
    settled(attempt)
    assert [turn.by for turn in attempt.turns] == ["agent", "person", "agent"]
    said = [part for message in seen[-1].messages if message.role == "assistant" for part in message.parts]
    assert len(said) == 2
    assert "I know better" in said[1]
    assert '"system_button", "button": "Home"' in said[1]
    row = rollout_row(attempt.rollout())
    schema.check(row)
    assert [turn.get("by") for turn in row["turns"]] == [None, "person", None]
    assert rollout_of(row).turns[1].by == "person"


def test_an_attempt_with_a_persons_help_is_no_score_of_the_agent(attend):
    attempt = attend(place(), expert)
    attempt.act(Wait(0.0))
    attempt.run()
    until(lambda: attempt.phase == "over")
    row = rollout_row(attempt.rollout())
    assert row["outcome"]["success"] is True
    assert success(row) is None
    assert success(row | {"turns": []}) is True


def test_pause_shows_an_answer_before_it_is_done(attend):
    inside, go = threading.Event(), threading.Event()

    def say(prompt):
        inside.set()
        assert go.wait(10)
        return "home", SystemButton("Home")

    attempt = attend(place(), speaker(say))
    attempt.run()
    assert inside.wait(10)
    attempt.pause()
    go.set()
    until(lambda: attempt.phase == "ready")
    assert attempt.turns == []
    assert attempt.proposal.action == SystemButton("Home")
    attempt.step()
    settled(attempt)
    assert [turn.action for turn in attempt.turns] == [SystemButton("Home")]


def test_undo_brings_back_screen_history_and_an_ended_attempt(attend):
    attempt = attend(place(), expert)
    first = attempt.screen.digest
    attempt.run()
    until(lambda: attempt.phase == "over")
    for _ in range(len(attempt.turns)):
        assert attempt.undoable
        before = attempt.turns[-1].screen.screenshot.digest
        attempt.undo()
        until(lambda before=before: attempt.phase == "ready" and attempt.screen.digest == before)
    assert (attempt.turns, attempt.screen.digest, attempt.ended, attempt.outcome) == ([], first, None, None)
    attempt.run()
    until(lambda: attempt.phase == "over")
    assert attempt.outcome.success


def test_stop_works_at_once_even_while_the_agent_thinks(attend):
    inside, go = threading.Event(), threading.Event()

    def say(prompt):
        inside.set()
        go.wait(10)
        return "home", SystemButton("Home")

    attempt = attend(place(), speaker(say))
    attempt.run()
    assert inside.wait(10)
    started = time.monotonic()
    attempt.stop()
    assert (attempt.phase, attempt.ended) == ("over", "stopped")
    assert time.monotonic() - started < 0.1
    go.set()
    time.sleep(0.1)
    assert attempt.turns == []
    attempt.judge(False)
    assert (attempt.outcome.success, attempt.outcome.checked_by) == (False, "person")


class Hanging:
    """A device that stops answering."""

    def __init__(self, device):
        self._device, self.free = device, threading.Event()

    def __getattr__(self, name):
        return getattr(self._device, name)

    def act(self, action):
        assert self.free.wait(10)


def hanging(devices):
    def opened():
        home = open_place(DeviceSpec("pocket:toggle"))
        start = home.task.start

        def started():
            devices.append(Hanging(start()))
            return devices[-1]

        home.task.start = started
        return home

    return opened


def test_a_device_that_hangs_ends_the_attempt_as_crashed_and_blocks_nobody(attend):
    devices = []
    attempt = attend(hanging(devices), expert, Options(patience=Patience(step=0.3)))
    started = time.monotonic()
    attempt.act(Wait(0.0))
    assert time.monotonic() - started < 0.1
    until(lambda: attempt.phase == "acting")
    assert view(attempt)["phase"] == "acting"  # who watches is not kept waiting
    until(lambda: attempt.phase == "over")
    assert (attempt.ended, attempt.reason) == ("crashed", "acting took longer than 0.3 s")
    assert attempt.rollout().outcome is None
    devices[0].free.set()
    assert attempt.join(5)


def test_a_world_that_raises_anything_is_a_crash(attend):
    def broken():
        raise ZeroDivisionError("a world of somebody else")

    attempt = attend(broken, expert)
    assert (attempt.ended, attempt.reason) == ("crashed", "ZeroDivisionError: a world of somebody else")


def test_a_goal_of_ones_own_is_checked_by_nobody_but_a_person(attend):
    attempt = attend(place("pocket", "Have a look at the shop"), speaker(lambda prompt: ("done", Terminate("success"))))
    assert attempt.goal == "Have a look at the shop"
    attempt.run()
    until(lambda: attempt.phase == "over")
    assert (attempt.ended, attempt.outcome) == ("finished", None)
    attempt.judge(True)
    assert rollout_row(attempt.rollout())["outcome"]["checked_by"] == "person"


def test_the_expert_cannot_know_a_goal_of_ones_own(attend):
    attempt = attend(place("pocket", "Have a look at the shop"), expert)
    attempt.step()
    until(lambda: attempt.note)
    assert "no expert" in attempt.note
    attempt.act(Open("Shop"))  # a person can go on
    settled(attempt)
    assert len(attempt.turns) == 1


def test_the_step_limit_stops_the_agent(attend):
    attempt = attend(place(), speaker(lambda prompt: ("wait", Wait(0.0))), Options(max_steps=3))
    attempt.run()
    until(lambda: attempt.phase == "over")
    assert (attempt.ended, len(attempt.turns), attempt.outcome.success) == ("out_of_steps", 3, False)


def test_a_risky_touch_waits_for_a_yes(attend):
    home = open_place(DeviceSpec("pocket:call"))
    attempt = attend(lambda: replace(home, real=True), expert)
    assert attempt.confirms
    attempt.run()
    until(lambda: attempt.phase == "asking")
    assert "'Call" in attempt.question
    before = len(attempt.turns)
    attempt.answer(False)
    until(lambda: attempt.phase == "ready")
    assert len(attempt.turns) == before
    assert attempt.proposal is not None
    attempt.run()
    until(lambda: attempt.phase == "asking")
    attempt.answer(True)
    until(lambda: len(attempt.turns) > before)


def test_two_persons_and_a_running_agent_lose_no_command(attend):
    attempt = attend(place(), speaker(lambda prompt: ("wait", Wait(0.0))), Options(max_steps=10_000))
    attempt.run()
    threads = [
        threading.Thread(target=lambda: [attempt.act(SystemButton("Home")) for _ in range(10)]) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: sum(turn.by == "person" for turn in attempt.turns) == 20)
    settled(attempt)
    assert [turn.index for turn in attempt.turns] == list(range(len(attempt.turns)))


@pytest.mark.skipif(not ADB, reason="no adb client on this machine")
def test_the_same_attempt_on_the_real_adb_client(attend):
    attempt = attend(place("pocket-adb:toggle"), expert)
    attempt.act(SystemButton("Home"))
    settled(attempt)
    attempt.run()
    until(lambda: attempt.phase == "over", 60)
    assert attempt.outcome.success
    assert not attempt.can_undo
    assert [turn.by for turn in attempt.turns[:2]] == ["person", "expert"]


@pytest.mark.skipif(not BROWSER, reason="no Chromium with chromedriver on this machine")
def test_the_same_attempt_on_a_web_page(attend):
    pytest.importorskip("miniwob")
    attempt = attend(place("miniwob:click-button"), expert)
    shown = attempt.screen.digest
    attempt.act(Click(Point(0.99, 0.99)))
    settled(attempt)
    attempt.undo()
    until(lambda: attempt.phase == "ready" and not attempt.turns)
    assert attempt.screen.digest == shown
    attempt.run()
    until(lambda: attempt.phase == "over", 60)
    assert attempt.outcome.success


def test_every_action_of_a_person_can_be_said_and_shown(attend):
    attempt = attend(place(), expert)
    here, there = Point(0.5, 0.5), Point(0.5, 0.2)
    for action in (Click(here), Swipe(here, there), Type("<b>&'\""), SystemButton("Back"), Open("Shop"), Answer("x")):
        attempt.act(action)
    settled(attempt)
    found = view(attempt)
    assert len(found["turns"]) == 6
    assert found["turns"][1]["action"]["to"] == [0.5, 0.2]
    assert found["turns"][0]["action"]["at"] == [0.5, 0.5]
    schema.check(rollout_row(attempt.rollout()))


@pytest.mark.parametrize("device", ["pocket-phone:toggle", "pocket:toggle-test-1-phone-live"])
def test_the_phone_style_has_its_own_size(attend, device):
    attempt = attend(place(device), expert)
    assert (attempt.screen.width, attempt.screen.height) == (360, 800)
    attempt.run()
    until(lambda: attempt.phase == "over")
    assert attempt.outcome.success


def test_a_device_without_snapshots_says_so(attend):
    home = open_place(DeviceSpec("pocket:toggle"))
    start = home.task.start

    def started():
        device = start()
        device.snapshot = lambda: (_ for _ in ()).throw(EnvCrashed("no snapshots here"))
        return device

    home.task.start = started
    attempt = attend(lambda: home, expert)
    attempt.step()
    settled(attempt)
    assert (attempt.can_undo, view(attempt)["can_undo"]) == (False, False)
    attempt.undo()
    settled(attempt)
    assert len(attempt.turns) == 1
    assert isinstance(home, Place)


def test_an_attempt_taken_up_again_is_the_same_state_and_history(attend, tmp_path):
    from guiderail.launch.console.again import find
    from guiderail.launch.console.keep import Keeper

    first = attend(place(), expert)
    first.step()
    settled(first)
    first.act(SystemButton("Home"), "back to the start")
    settled(first)
    first.run()
    until(lambda: first.phase == "over")
    keeper = Keeper(tmp_path / "run")
    assert keeper.keep(first)
    keeper.close()
    found = find(tmp_path / "run", "toggle-test-1-live", 0, 3)
    slowly = {"changed": lambda: time.sleep(0.02)}
    again = attend(place(found.device, found.goal, found.seed), expert, again=found.again, **slowly)
    until(lambda: again.phase == "ready")
    assert again.note == ""
    assert [turn.by for turn in again.turns] == ["expert", "person", "expert"]
    assert again.screen.digest == first.turns[3].screen.screenshot.digest
    assert [turn.history_text() for turn in again.turns] == [turn.history_text() for turn in first.turns[:3]]
    again.run()
    until(lambda: again.phase == "over")
    assert again.outcome.success


def test_another_screen_than_then_is_said(attend):
    from guiderail.launch.console.attended import Again

    first = attend(place(), expert)
    first.step()
    settled(first)
    then = first.turns[0]
    shot = replace(then.prompt.screen.screenshot)
    file = __import__("pathlib").Path(__import__("tempfile").mkdtemp()) / "x.png"
    file.write_bytes(first.screen.encoded())
    kept = replace(shot, path=file, data=None)
    other = replace(
        then,
        prompt=replace(
            then.prompt,
            messages=(replace(then.prompt.messages[0], parts=(replace(then.prompt.screen, screenshot=kept),)),),
        ),
    )
    again = attend(place(), expert, again=Again([other], "brief"))
    settled(again)
    assert "another screen" in again.note


def test_a_kept_attempt_is_written_anew_after_an_undo(attend, tmp_path):
    from guiderail.launch.console.keep import Keeper
    from guiderail.rl.runs.log import read_rollouts

    attempt, keeper = attend(place(), expert), Keeper(tmp_path / "run")
    assert not keeper.keep(attempt)
    attempt.act(Terminate("failure"))
    until(lambda: attempt.phase == "over")
    assert keeper.keep(attempt)
    attempt.undo()
    until(lambda: attempt.phase == "ready")
    attempt.act(Terminate("success"))
    until(lambda: attempt.phase == "over")
    assert keeper.keep(attempt)
    keeper.close()
    (row,) = read_rollouts(tmp_path / "run")
    assert (row["ended"], len(row["turns"])) == ("finished", 1)


def test_a_kept_attempt_that_was_taken_back_whole_is_no_success(attend, tmp_path):
    from guiderail.launch.console.keep import Keeper
    from guiderail.rl.runs.log import read_rollouts

    attempt, keeper = attend(place(), expert), Keeper(tmp_path / "run")
    attempt.act(Terminate("failure"))
    until(lambda: attempt.phase == "over")
    assert keeper.keep(attempt)
    attempt.undo()
    until(lambda: attempt.phase == "ready")
    attempt.stop()
    keeper.keep(attempt)
    keeper.close()
    (row,) = read_rollouts(tmp_path / "run")
    assert (row["ended"], row["turns"]) == ("stopped", [])


def test_the_thread_of_a_deadline_never_frees_the_model(monkeypatch):
    """It ends a little after the act. Where it freed the last tensors while Python ended, the program was aborted."""
    timers = []

    class Kept(threading.Timer):
        def __init__(self, *given):
            super().__init__(*given)
            timers.append(self)

    monkeypatch.setattr(threading, "Timer", Kept)
    attempt = Attended(place(), expert)
    settled(attempt)
    attempt.close()
    assert attempt.join(10)
    freed = weakref.ref(attempt)
    del attempt
    gc.collect()
    assert timers
    assert freed() is None


@pytest.mark.slow
def test_a_model_answers_as_in_an_evaluation_with_the_same_seed(attend):
    pytest.importorskip("torch")
    from guiderail.agent.policy import Sampling
    from guiderail.envs.pocket.world import PocketTasks
    from guiderail.launch.agents import AgentSpec
    from guiderail.launch.console.actors import build_actor
    from guiderail.rl.live.jobs import Job, JobQueue
    from guiderail.rl.live.worker import Worker

    world = PocketTasks(2)
    (task, _), _ = world.listed()
    actor = build_actor(AgentSpec(model="tiny-sft"), temperature=1.0, seed=5)
    rows = []
    session = world.open(0)
    sampling = Sampling(1.0, actor.voice.max_new_tokens)
    worker = Worker(session, actor.dialogue, actor.policy, sampling, seed=5)
    queue = JobQueue([Job(task)], 0, lambda row, images: rows.append(row))
    worker.work(queue, queue.done)
    session.close()
    attempt = attend(place(f"pocket:{task}"), lambda: actor, Options(likely=8))
    attempt.run()
    until(lambda: attempt.phase == "over", 120)
    assert [turn.completion.text for turn in attempt.turns] == [turn["text"] for turn in rows[0]["turns"]]
    for found in attempt.likely.values():
        assert found[0].chosen
        assert found[0].drawn == 8
        assert len(found) <= 3
        assert sum(one.share for one in found) <= 1
