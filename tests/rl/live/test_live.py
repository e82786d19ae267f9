"""Jobs, journal, score: no attempt lost, none doubled, a broken machine never a wrong answer."""

import json

import pytest

from guiderail.agent.dialects import BRIEF
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.disk import locked
from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.agent.policy import ScriptedPolicy
from guiderail.agent.scripted import ORIGINAL_SIZE
from guiderail.agent.types import Outcome, Rollout, Terminate, Wait
from guiderail.envs.live.attempts import Patience, by_expert
from guiderail.envs.pocket.hands import PhoneInHand
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.state import new_state
from guiderail.rl.live.jobs import Job, JobQueue
from guiderail.rl.live.journal import scored_rows
from guiderail.rl.live.score import live_score
from guiderail.rl.live.worker import Worker
from guiderail.rl.rollout.drive import seed_of
from guiderail.rl.runs.log import RunLog
from guiderail.rl.runs.rows import rollout_row, success
from guiderail.rl.score.statistics import wilson

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

    def check(self):
        return Outcome(self.id.startswith("good"))

    def close(self):
        self.closed += 1


class Session:
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


def run(names, faults=None, retries=1, policy=None, patience=None, samples=1, width=2):
    rows, images = [], {}

    def record(row, pictures):
        rows.append(row)
        images.update(pictures)

    queue = JobQueue([Job(name, sample) for sample in range(samples) for name in names], retries, record)
    worker = Worker(Session(faults), TALK, policy or done_policy(), width=width, patience=patience or Patience())
    worker.work(queue, queue.done)
    assert queue.finished
    return rows, images


def line(unit, sample, right):
    """A line of the journal; right None: its machine failed."""
    if right is None:
        return rollout_row(Rollout(unit, sample, (), "crashed", reason="no signal"))
    return rollout_row(Rollout(unit, sample, (), "finished", Outcome(right)))


def test_each_job_is_recorded_once_with_its_pictures():
    rows, images = run(["good", "bad"], samples=2)
    assert sorted((r["unit"], r["sample"]) for r in rows) == [("bad", 0), ("bad", 1), ("good", 0), ("good", 1)]
    assert {r["unit"]: success(r) for r in rows} == {"good": True, "bad": False}
    assert {turn["screenshot"] for r in rows for turn in r["turns"]} == {*images}


def test_a_failed_machine_is_tried_again_and_then_unscored():
    rows, _ = run(["good", "good-2", "good-3"], faults={"good-2": 1, "good-3": 2})
    by_name = {r["unit"]: r for r in rows}
    assert len(rows) == 3
    assert (success(by_name["good-2"]), by_name["good-2"]["tries"]) == (True, 1)
    assert (success(by_name["good-3"]), by_name["good-3"]["reason"]) == (None, "no signal")


def test_a_bug_in_a_world_is_named_and_costs_only_its_own_attempt():
    rows, _ = run(["odd", "good"])
    odd = next(r for r in rows if r["unit"] == "odd")
    assert (odd["ended"], success(odd)) == ("crashed", None)
    assert odd["reason"].startswith("KeyError at test_live.py:")
    assert success(next(r for r in rows if r["unit"] == "good")) is True


def test_attempts_and_steps_have_their_time():
    class Slow(Session):
        def task(self, name):
            task = super().task(name)
            device = PhoneInHand(Phone(new_state(0)))
            task.start = lambda: device
            device.act = lambda action: __import__("time").sleep(3)
            return task

    waits = ScriptedPolicy(lambda r: TALK.say("", Wait(0.0), r.prompt.screen.screenshot), vision=ORIGINAL_SIZE)
    rows = []
    for patience, reason in (
        (Patience(step=0.05), "acting took longer than 0.05 s"),
        (Patience(attempt=-1), "attempt"),
    ):
        queue = JobQueue([Job("good")], 0, lambda row, images: rows.append(row))
        Worker(Slow(), TALK, waits, patience=patience).work(queue, queue.done)
        assert success(rows[-1]) is None
        assert reason in rows[-1]["reason"]


def test_sampling_depends_on_task_sample_and_try_only():
    seeds = []
    policy = ScriptedPolicy(
        lambda r: (seeds.append(r.seed), TALK.say("", Terminate("success"), r.prompt.screen.screenshot))[1],
        vision=ORIGINAL_SIZE,
    )
    run(["good", "bad"], samples=2, policy=policy, width=1)
    assert seeds == [seed_of(0, task, sample, 0, 0) for sample in (0, 1) for task in ("good", "bad")]


def test_a_late_answer_for_a_lost_job_is_not_counted_twice():
    rows = []
    queue = JobQueue([Job("good")], 1, lambda row, images: rows.append(row))
    job = next(queue)
    queue.lost(job, "worker 0 died: killed by signal 9")
    queue.done(job, {"ended": "finished"}, {})
    again = next(queue)
    assert again.tries == 1
    queue.lost(again, "worker 1 died: killed by signal 9")
    assert queue.finished
    assert [(success(r), r["reason"]) for r in rows] == [(None, "worker 1 died: killed by signal 9")]


def test_a_journal_cut_off_in_a_line_goes_on_without_it(tmp_path):
    log = RunLog(tmp_path, "pocket", {})
    for name, right in (("a", True), ("b", None), ("c", False)):
        log.line(line(name, 0, right))
    with (tmp_path / "rollouts.jsonl").open("a") as file:
        file.write('{"unit": "d", "outc')
    assert [row["unit"] for row in scored_rows(tmp_path)] == ["a", "c"]
    assert [json.loads(line)["unit"] for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()] == ["a", "c"]


def test_one_writer_per_run(tmp_path):
    with locked(tmp_path), pytest.raises(SetupError, match="another process"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_the_score_counts_repeats_by_task_and_names_the_unscored():
    rows = [line("a", 0, True), line("a", 1, False), line("b", 0, True), line("b", 1, True), line("c", 0, None)]
    result = live_score(rows, {"a": ["easy"], "b": ["easy"], "c": ["hard"]})
    assert (result["success"], result["n"], result["unscored"]) == (0.75, 4, 1)
    assert result["unscored_attempts"] == [{"unit": "c", "sample": 0, "reason": "no signal"}]
    assert result["flips"] == {"rate": 0.5, "tasks": 2, "flipped": ["a"]}
    assert result["by_group"]["hard"]["success"] is None
    assert result["interval"][0] < 0.75 < result["interval"][1]
    assert live_score(rows[:1], {})["flips"]["rate"] is None


def test_tasks_of_one_template_are_draws_from_it():
    rows = [line(f"{t}{k}", 0, t == "a") for t in "ab" for k in range(20)]
    plain = live_score(rows, {})
    drawn = live_score(rows, {row["unit"]: [f"template:{row['unit'][0]}", "all"] for row in rows})
    assert plain["interval"] == wilson(20, 40)
    assert drawn["interval"] == drawn["by_group"]["all"]["interval"] == wilson(20 * 39, 40 * 39)
    assert drawn["by_group"]["template:a"]["interval"] == wilson(20, 20)


def test_a_task_without_an_expert_says_so():
    with pytest.raises(SetupError, match="no expert"):
        by_expert(Task("good", {}), dialogue=TALK)
