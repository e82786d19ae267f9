"""Jobs, journal, score: no attempt lost, none doubled, a broken machine never a wrong answer."""

import json

import pytest

from agent.dialects import BRIEF
from agent.dialogue import Dialogue
from agent.errors import EnvCrashed, SetupError
from agent.policy import ScriptedPolicy
from agent.scripted import ORIGINAL_SIZE
from agent.types import Terminate, Wait
from envs.attempts import Patience
from envs.pocket.hands import PhoneInHand
from envs.pocket.phone import Phone
from envs.pocket.state import new_state
from rl.live import Bench, Board, Job, alone, live_score, play, scored_rows, work
from rl.rollout import seed_of
from rl.runlog import RunLog
from rl.statistics import wilson

TALK = Dialogue(ORIGINAL_SIZE, BRIEF)


class Task:
    """Done by whoever says so, if its name is good; its machine fails as often as `faults` says."""

    goal, max_steps = "say done", 3

    def __init__(self, name, faults):
        self.id, self._faults, self.closed = name, faults, 0

    def start(self):
        if self._faults.get(self.id, 0):
            self._faults[self.id] -= 1
            raise EnvCrashed("no signal")
        if self.id == "odd":
            raise KeyError("a bug in a world")
        return PhoneInHand(Phone(new_state(0)))

    def success(self):
        return self.id.startswith("good")

    def close(self):
        self.closed += 1


class Site:
    def __init__(self, faults=None):
        self.faults = faults or {}

    def task(self, name):
        return Task(name, self.faults)

    def close(self):
        pass


def done_policy():
    return ScriptedPolicy(
        lambda r: TALK.say("", Terminate("success"), r.prompt.screen.screenshot), vision=ORIGINAL_SIZE
    )


def run(names, faults=None, retries=1, policy=None, patience=None, trials=1, width=2):
    rows, images = [], {}

    def record(row, pictures):
        rows.append(row)
        images.update(pictures)

    board = Board([Job(name, trial) for trial in range(trials) for name in names], retries, record)
    work(
        Bench(Site(faults), TALK, policy or done_policy(), width=width, patience=patience or Patience()),
        board,
        board.done,
    )
    assert board.over
    return rows, images


def test_each_job_is_recorded_once_with_its_pictures():
    rows, images = run(["good", "bad"], trials=2)
    assert sorted((r["task"], r["trial"]) for r in rows) == [("bad", 0), ("bad", 1), ("good", 0), ("good", 1)]
    assert {r["task"]: r["success"] for r in rows} == {"good": True, "bad": False}
    assert {turn["screenshot"] for r in rows for turn in r["turns"]} == {*images}


def test_a_failed_machine_is_tried_again_and_then_unscored():
    rows, _ = run(["good", "good-2", "good-3"], faults={"good-2": 1, "good-3": 2})
    by_name = {r["task"]: r for r in rows}
    assert len(rows) == 3
    assert (by_name["good-2"]["success"], by_name["good-2"]["tries"]) == (True, 1)
    assert (by_name["good-3"]["success"], by_name["good-3"]["reason"]) == (None, "no signal")


def test_a_bug_in_a_world_is_named_and_costs_only_its_own_attempt():
    rows, _ = run(["odd", "good"])
    odd = next(r for r in rows if r["task"] == "odd")
    assert (odd["ending"], odd["success"]) == ("crashed", None)
    assert odd["reason"].startswith("KeyError at test_live.py:")
    assert next(r for r in rows if r["task"] == "good")["success"] is True


def test_attempts_and_steps_have_their_time():
    class Slow(Site):
        def task(self, name):
            task = super().task(name)
            device = PhoneInHand(Phone(new_state(0)))
            task.start = lambda: device
            device.act = lambda action: __import__("time").sleep(3)
            return task

    waits = ScriptedPolicy(lambda r: TALK.say("", Wait(0.0), r.prompt.screen.screenshot), vision=ORIGINAL_SIZE)
    board_rows = []
    for patience, reason in (
        (Patience(step=0.05), "acting took longer than 0.05 s"),
        (Patience(attempt=-1), "attempt"),
    ):
        board = Board([Job("good")], 0, lambda row, images: board_rows.append(row))
        work(Bench(Slow(), TALK, waits, patience=patience), board, board.done)
        assert board_rows[-1]["success"] is None
        assert reason in board_rows[-1]["reason"]


def test_sampling_depends_on_task_trial_and_try_only():
    seeds = []
    policy = ScriptedPolicy(
        lambda r: (seeds.append(r.seed), TALK.say("", Terminate("success"), r.prompt.screen.screenshot))[1],
        vision=ORIGINAL_SIZE,
    )
    run(["good", "bad"], trials=2, policy=policy, width=1)
    assert seeds == [seed_of(0, task, trial, 0, 0) for trial in (0, 1) for task in ("good", "bad")]


def test_a_late_answer_for_a_lost_job_is_not_counted_twice():
    rows = []
    board = Board([Job("good")], 1, lambda row, images: rows.append(row))
    job = next(board)
    board.lost(job, "worker 0 died: killed by signal 9")
    board.done(job, {"ending": "finished"}, {})
    again = next(board)
    assert again.tries == 1
    board.lost(again, "worker 1 died: killed by signal 9")
    assert board.over
    assert [(r["success"], r["reason"]) for r in rows] == [(None, "worker 1 died: killed by signal 9")]


def test_a_journal_cut_off_in_a_line_goes_on_without_it(tmp_path):
    log = RunLog(tmp_path, "pocket", {})
    for row in ({"task": "a", "success": True}, {"task": "b", "success": None}, {"task": "c", "success": False}):
        log.rollout(row)
    with (tmp_path / "rollouts.jsonl").open("a") as file:
        file.write('{"task": "d", "succ')
    assert [row["task"] for row in scored_rows(tmp_path)] == ["a", "c"]
    assert [json.loads(line)["task"] for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()] == ["a", "c"]


def test_one_writer_per_run(tmp_path):
    with alone(tmp_path), pytest.raises(SetupError, match="another process"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


def test_the_score_counts_repeats_by_task_and_names_the_unscored():
    def row(task, trial, success):
        ending, reason = ("finished", "") if success is not None else ("crashed", "no signal")
        return {"task": task, "trial": trial, "ending": ending, "success": success, "reason": reason}

    rows = [row("a", 0, True), row("a", 1, False), row("b", 0, True), row("b", 1, True), row("c", 0, None)]
    result = live_score(rows, {"a": ["easy"], "b": ["easy"], "c": ["hard"]})
    assert (result["success"], result["n"], result["unscored"]) == (0.75, 4, 1)
    assert result["unscored_attempts"] == [{"task": "c", "trial": 0, "reason": "no signal"}]
    assert result["flips"] == {"rate": 0.5, "tasks": 2, "flipped": ["a"]}
    assert result["by_group"]["hard"]["success"] is None
    assert result["interval"][0] < 0.75 < result["interval"][1]
    assert live_score(rows[:1], {})["flips"]["rate"] is None


def test_tasks_of_one_template_are_draws_from_it():
    rows = [{"task": f"{t}{k}", "trial": 0, "ending": "finished", "success": t == "a"} for t in "ab" for k in range(20)]
    plain = live_score(rows, {})
    drawn = live_score(rows, {row["task"]: [f"template:{row['task'][0]}", "all"] for row in rows})
    assert plain["interval"] == wilson(20, 40)
    assert drawn["interval"] == drawn["by_group"]["all"]["interval"] == wilson(20 * 39, 40 * 39)
    assert drawn["by_group"]["template:a"]["interval"] == wilson(20, 20)


def test_a_task_without_an_expert_says_so():
    with pytest.raises(SetupError, match="no expert"):
        play(Task("good", {}), TALK)
