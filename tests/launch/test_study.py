"""guiderail study: the plan, the jobs, the records, and what is made of them."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from guiderail.agent.disk import locked
from guiderail.agent.errors import DataError, SetupError
from guiderail.envs.pocket.record import record as record_pocket
from guiderail.envs.recordings.episodes import load_episodes
from guiderail.launch import agents
from guiderail.launch.cli import app
from guiderail.launch.study import run as running
from guiderail.launch.study import score
from guiderail.launch.study.digest import METRICS, load, points
from guiderail.launch.study.plan import CONFIGS, Job, as_arguments, jobs, load_plan, overrides, plan_file, source
from guiderail.launch.study.records import write_record
from guiderail.launch.study.run import Study, run
from guiderail.launch.study.tables import markdown
from guiderail.rl.config import load_config
from guiderail.rl.runs.log import read_json, write_json

PLAN = """
base: models/tiny
episodes: 4
seeds: [0, 1]
worlds: {train: {split: train, seed: 0}, test: {split: test, seed: 1}, heldout: {split: heldout, seed: 1}}
exams:
  full: {live: {test: 3, heldout: 1}, sop: {test: 4}, live_sampled: {test: 2}, sop_sampled: {test: 3}, steps: {test: 2}, minutes: 1}
  short: {live: {test: 2}, sop: {test: 2}, steps: {test: 1}, minutes: 1}
recipes:
  sft: {config: tiny_sft.yaml, set: {training.max_steps: 3}, minutes: 2}
  semi: {config: tiny_semi_online.yaml, set: {training.max_steps: 5, method.max_turns: 9, method.gamma: 0.5}, minutes: 2}
arms:
  base: {title: base, seeds: [0], exam: short}
  sft: {title: SFT, recipe: sft}
  semi_1: {title: + RL, recipe: semi, after: sft, against: [sft]}
  gamma_0: {title: gamma 0, recipe: semi, after: sft, set: {method.gamma: 0}, exam: short, part: ablations, against: [semi_1]}
"""


@pytest.fixture
def plan_path(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return path


@pytest.fixture
def study(tmp_path, plan_path, monkeypatch):
    monkeypatch.setattr(running, "prepare", lambda study: None)
    return Study(load_plan(plan_path), plan_path, tmp_path / "out", tmp_path / "records")


@pytest.fixture
def spent(study, monkeypatch):
    """Commands that jobs would have started, in order; each leaves what the real one would."""
    done = []

    def spend(_, arguments, log, lock, fine=(0,)):
        done.append(arguments[0] if arguments[0] == "train" else " ".join(arguments[4:7:2]))
        if arguments[0] == "train":
            folder = Path(arguments[-1])
            done[-1] = f"train {folder.parent.name}"
            folder.mkdir(parents=True)
            write_json(folder / "metrics.json", {})
        else:
            arm, seed = arguments[4], int(arguments[6])
            done[-1] = f"score {arm}-{seed}"
            leave(study.records, arm, seed)
        return {"wall": 1.0, "cpu": 1.0}

    monkeypatch.setattr(running, "_spend", spend)
    return done


def leave(records, arm, seed, live=(1, 0, 1), matched=(4, 2, 0), wall=60.0, gamma=0.5, known=(), **more):
    """A record with these live outcomes and SOP progress of 4-step episodes; every other task is a memory task."""
    lines = [
        {"kind": "live", "world": "test", "task": f"t{k}", "memory": k % 2, "ok": ok, "turns": 5, "told": 2}
        for k, ok in enumerate(live)
    ]
    lines = [line | more for line, more in zip_longest(lines, known, fillvalue={})]
    lines += [
        {"kind": "sop", "world": "test", "task": f"t{k}", "memory": k % 2, "of": 4, "matched": s, "turns": 4}
        | {"told": 2, "due": 2, "noted": 1}
        for k, s in enumerate(matched)
    ]
    lines += [
        {"kind": "steps", "world": "test", "task": f"t{k}", "memory": k % 2, "n": 4, "type": 4, "exact": min(4, s + 1)}
        | {"touch": 2, "hit": 1}
        for k, s in enumerate(matched)
    ]
    train = (
        None if arm == "base" else {"wall": wall, "cpu": wall, "updates": 3, "turns": 100, "after": "base", "data": "d"}
    )
    if train is not None:
        train["config"] = {"method": {"gamma": gamma, **more}, "training": {"seed": seed}}
    header = {
        "study": 1,
        "arm": arm,
        "seed": seed,
        "train": train,
        "base": {"weights": None},
        "score": {"wall": wall, "cpu": wall},
    }
    write_record(records / f"{arm}-{seed}.jsonl.gz", header, lines)


# ------------------------------------------------------------------------------------------------------------ the plan


def test_the_shipped_plan_trains_what_it_says():
    plan = load_plan(plan_file(Path("pocket")))
    assert len(plan.seeds) >= 5
    assert plan.exams["full"].live["test"] >= 1000
    for job in jobs(plan):
        arm = plan.arms[job.arm]
        if not arm.recipe:
            continue
        arguments = as_arguments({"model.path": "start", "data.train": "data"} | overrides(plan, job))
        config = load_config(CONFIGS / plan.recipes[arm.recipe].config, arguments)
        assert config.training["seed"] == job.seed
        told = config.method.algorithm != "semi-online" and config.method.expert_thoughts
        assert not (arm.part == "comparison" and told), "nobody there is told the experts' thoughts"


def test_every_arm_of_the_online_plan_samples_as_many_turns():
    plan = load_plan(plan_file(Path("online")))
    assert len(plan.seeds) >= 3
    for job in jobs(plan):
        if (
            job.arm == "own" or plan.arms[job.arm].part == "hour"
        ):  # makes attempts before it trains; is as long as it may be
            continue
        turns, stage = 0, job
        while stage is not None and plan.arms[stage.arm].recipe:
            recipe = plan.recipes[plan.arms[stage.arm].recipe]
            arguments = as_arguments({"model.path": "start", "data.train": "data"} | overrides(plan, stage))
            turns += load_config(CONFIGS / recipe.config, arguments).method.max_turns
            stage = source(plan, stage)
        assert turns == {"sft": 0, "half": 12000}.get(job.arm, 24000)


def test_the_plan_about_teachers_trains_what_it_says():
    plan = load_plan(plan_file(Path("teach")))
    for job in jobs(plan):
        recipe = plan.arms[job.arm].recipe
        if recipe:
            arguments = as_arguments({"model.path": "start", "data.train": "data"} | overrides(plan, job))
            method = load_config(CONFIGS / plan.recipes[recipe].config, arguments).method
            assert (method.hindsight is not None) == (recipe in ("warm", "hindsight"))
            assert method.hindsight is None or not method.hindsight.thoughts


def test_jobs_go_part_by_part_seed_by_seed_and_start_from_their_own_seed(study):
    names = [job.name for job in jobs(study.plan)]
    assert names == ["base-0", "sft-0", "semi_1-0", "sft-1", "semi_1-1", "gamma_0-0", "gamma_0-1"]
    assert source(study.plan, Job("semi_1", 1)) == Job("sft", 1)
    assert source(study.plan, Job("sft", 1)) is None
    length = {"training.max_steps": 5, "method.max_turns": 9}
    assert overrides(study.plan, Job("gamma_0", 1)) == {**length, "method.gamma": 0, "training.seed": 1}
    assert [job.name for job in jobs(study.plan, ["base"])] == ["base-0"]
    assert [job.name for job in jobs(study.plan, ["ablations"])] == ["gamma_0-0", "gamma_0-1"]


def test_a_shared_start_serves_every_seed(plan_path):
    plan_path.write_text(PLAN.replace("sft: {title: SFT,", "sft: {title: SFT, seeds: [0],"))
    assert source(load_plan(plan_path), Job("semi_1", 1)) == Job("sft", 0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("after: sft, against: [sft]", "after: stf", "did you mean 'sft'"),
        ("recipe: sft}", "recipe: sfft}", "did you mean 'sft'"),
        ("after: sft, against: [sft]", "after: base", "base trains nothing"),
        ("live: {test: 2}", "live: {tset: 2}", "did you mean 'test'"),
        ("seeds: [0, 1]", "seed: [0, 1]", "Extra inputs"),
        ("recipes:\n  sft: {", "recipes:\n  sft: {recordings: tran, ", "did you mean 'train'"),
        ("set: {training.max_steps: 3}, ", "", "its recipe sets no training.max_steps"),
    ],
)
def test_mistakes_in_a_plan_are_named(plan_path, old, new, message):
    plan_path.write_text(PLAN.replace(old, new, 1))
    with pytest.raises(SetupError, match=message):
        load_plan(plan_path)


def test_a_finished_model_is_scored_and_started_from_as_it_is(plan_path, study, spent):
    plan_path.write_text(PLAN.replace("{title: SFT, recipe: sft}", "{title: SFT, model: models/half, seeds: [0]}"))
    given = replace(study, plan=load_plan(plan_path))
    assert given.model(Job("sft", 0)) == "models/half"
    assert source(given.plan, Job("semi_1", 1)) == Job("sft", 0)
    run(given, ["comparison"], 60, 1)
    assert spent == [
        "score base-0",
        "score sft-0",
        "train semi_1-0",
        "score semi_1-0",
        "train semi_1-1",
        "score semi_1-1",
    ]


def test_an_arm_can_walk_recordings_of_other_experts(plan_path, study, monkeypatch):
    text = PLAN.replace(
        "{split: train, seed: 0}", "{split: train, seed: 0}, told: {split: train, seed: 0, informative: 1}"
    )
    plan_path.write_text(text.replace("semi: {", "semi: {recordings: told, "))
    given, asked = replace(study, plan=load_plan(plan_path)), []
    monkeypatch.setattr(running, "_spend", lambda _, arguments, log, lock: asked.append(arguments) or {})
    for job in (Job("sft", 0), Job("semi_1", 0)):
        (given.out / job.name).mkdir(parents=True)
        running._train(given, job, 0)
    for name, said in zip(("train", "told"), asked, strict=True):
        assert f'data.train="{given.out / "data" / name}"' in said
    assert given.plan.recorded("told") == given.plan.recorded("train") == 4


def test_an_arm_can_train_on_what_its_start_succeeds_in(plan_path, study, monkeypatch):
    """Its own attempts are made first; their turns and their time count as its own."""
    plan_path.write_text(PLAN.replace("minutes: 2}\narms:", "minutes: 2, own: n=9 seed=1}\narms:"))
    given, asked = replace(study, plan=load_plan(plan_path)), []

    def spend(_, arguments, log, lock):
        asked.append(arguments)
        Path(arguments[-1]).mkdir(parents=True)
        write_json(
            Path(arguments[-1]) / ("attempts.json" if arguments[0] == "record" else "metrics.json"), {"turns": 70}
        )
        return {"wall": 2.0, "cpu": 1.0}

    monkeypatch.setattr(running, "_spend", spend)
    job = Job("semi_1", 1)
    running._train(given, job, 0)
    own = given.out / "semi_1-1" / "own"
    start = str(given.out / "sft-1" / "train" / "model")
    made = ["record", "attempts", "pocket", "n=9", "seed=1", "--model", start, "--seed", "1", "--out", str(own)]
    assert asked[0] == made
    assert f'data.train="{own}"' in asked[1]
    assert read_json(given.out / "semi_1-1" / "cost.json") == {"wall": 4.0, "cpu": 2.0}
    about = SimpleNamespace(
        about=SimpleNamespace(config={"method": 1, "training": 2, "model": {"images": 1}}, data=None)
    )
    monkeypatch.setattr(running, "read_record", lambda folder: about)
    write_json(given.out / "semi_1-1" / "train" / "metrics.json", {"updates": 3, "sampled_turns": 0})
    assert running.training_of(given, job)["turns"] == 70


def test_an_unknown_arm_is_named(study):
    with pytest.raises(SetupError, match="did you mean 'semi_1'"):
        jobs(study.plan, ["semi1"])


# ------------------------------------------------------------------------------------------------------------ the jobs


def test_every_job_leaves_a_record_and_what_it_starts_from_comes_first(study, spent):
    run(study, [], 60, 1)
    assert spent[:4] == ["score base-0", "train sft-0", "score sft-0", "train semi_1-0"]
    assert len(spent) == 6 + 7
    before = len(spent)
    run(study, [], 60, 2)
    assert len(spent) == before, "nothing is left to do"


def test_a_lost_model_is_trained_again_but_not_scored_again(study, spent):
    leave(study.records, "sft", 0)
    run(study, ["semi_1"], 60, 2)
    assert "train sft-0" in spent
    assert "score sft-0" not in spent
    assert spent.index("train sft-0") < spent.index("train semi_1-0")


def test_a_job_that_does_not_fit_is_not_started(study, spent):
    run(study, [], 2.0, 1)
    assert spent == ["score base-0"], "SFT is guessed to take three minutes"
    run(study, [], 3.6, 1)
    assert spent[1:3] == ["train sft-0", "score sft-0"]


def test_a_record_knows_better_than_the_plan_how_long_it_takes(study):
    assert study.estimate(Job("sft", 1)) == pytest.approx(1.15 * 180)
    leave(study.records, "sft", 0, wall=500.0)
    assert study.estimate(Job("sft", 1)) == pytest.approx(1.15 * 1000)


def test_a_failed_job_is_reported_and_stops_what_depends_on_it(study, monkeypatch):
    tried = []

    def spend(_, arguments, log, lock, fine=(0,)):
        tried.append(arguments[0])
        raise SetupError("no luck")

    monkeypatch.setattr(running, "_spend", spend)
    with pytest.raises(SetupError, match=r"3 jobs failed: base-0, sft-0, sft-1"):
        run(study, [], 60, 1)
    assert tried == ["study", "train", "train"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(28, "No space left on device", "/out/train.log"),
            "/out/train.log: No space left on device; make room",
        ),
        (DataError("a:1", "not JSON"), "a:1"),
        (KeyError("wall"), "KeyError: 'wall'"),
    ],
)
def test_whatever_ends_a_job_is_reported(study, monkeypatch, capsys, error, said):
    def spend(*asked):
        raise error

    monkeypatch.setattr(running, "_spend", spend)
    with pytest.raises(SetupError, match="1 jobs failed: base-0"):
        run(study, ["base"], 60, 2)
    assert f"base-0 failed: {said}" in " ".join(capsys.readouterr().err.split())
    assert said in study.failed[Job("base", 0)]


def test_what_ends_a_worker_between_jobs_ends_the_command(study, monkeypatch):
    def lock(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(running, "_lock", lock)
    with pytest.raises(PermissionError):
        run(study, ["base"], 60, 2)


def test_what_a_record_needs_is_looked_for_before_the_exam(study, plan_path, monkeypatch):
    monkeypatch.setattr("guiderail.launch.study.command.prepare", lambda study: None)
    monkeypatch.setattr(score, "examine", lambda *asked: pytest.fail("the exam has begun"))
    where = ["--plan", plan_path, "--out", study.out, "--records", study.records]
    words = ["study", "score", "tiny-sft", "--base", "tiny-sft", "--arm", "sft", *where]
    done = CliRunner().invoke(app, [*map(str, words)])
    assert f"{study.out / 'sft-0' / 'train' / 'run.json'} is not there" in str(done.exception)
    leave(study.records, "sft", 0)
    before = study.record(Job("sft", 0)).read_bytes()
    done = CliRunner().invoke(app, [*map(str, words)])
    assert "sft-0.jsonl.gz is there already; delete it" in str(done.exception)
    assert study.record(Job("sft", 0)).read_bytes() == before


def test_a_command_that_fails_says_why(study, tmp_path):
    with pytest.raises(SetupError, match=r"gate ended with 2: .*log"):
        running._spend(study, ["gate", str(tmp_path / "nowhere")], tmp_path / "log", running._lock(tmp_path / "job"))
    assert "nowhere" in (tmp_path / "log").read_text()


def test_the_lock_outlives_a_killed_parent(tmp_path):
    """A child keeps the lock it was handed, so that nobody works in its folder after its parent was killed."""
    lock = running._lock(tmp_path / "job")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,))
    os.close(lock)
    assert running._lock(tmp_path / "job") is None
    child.communicate(b"\n")
    free = running._lock(tmp_path / "job")
    assert free is not None
    os.close(free)


def test_a_second_process_in_the_same_study_is_refused(study, spent, plan_path):
    with locked(study.out):
        words = ["study", "pocket", "--plan", plan_path, "--out", study.out, "--records", study.records]
        error = CliRunner().invoke(app, [str(word) for word in words]).exception
    assert isinstance(error, SetupError)
    assert f"{study.out} is being written by another process" in str(error)
    assert not spent
    run(study, ["base"], 60, 1)
    assert spent


def test_what_another_process_is_at_is_waited_for(study, spent, monkeypatch):
    """The other one leaves its record and lets go; the job is then found done."""
    lock = running._lock(study.out / "base-0")
    real, asked = running._next, []

    def next_job(study, todo, end):
        asked.append(1)
        if len(asked) == 2:
            leave(study.records, "base", 0)
            os.close(lock)
        return real(study, todo, end)

    monkeypatch.setattr(running, "_next", next_job)
    monkeypatch.setattr(running, "WAIT", 0.01)
    run(study, ["base"], 60, 1)
    assert spent == []
    assert study.record(Job("base", 0)).exists()


# --------------------------------------------------------------------------------------------------------- the records


def test_a_record_is_the_same_bytes_for_the_same_content(tmp_path):
    for name in ("a", "b"):
        leave(tmp_path / name, "sft", 0)
        time.sleep(0.01)
    assert (tmp_path / "a" / "sft-0.jsonl.gz").read_bytes() == (tmp_path / "b" / "sft-0.jsonl.gz").read_bytes()


def test_a_broken_record_is_named(tmp_path):
    (tmp_path / "x-0.jsonl.gz").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"x-0\.jsonl\.gz"):
        load(tmp_path)
    with pytest.raises(SetupError, match="guiderail study pocket"):
        load(tmp_path / "nothing")


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "test"
    record_pocket(folder, 26, seed=1, split="test")
    return folder


def test_the_expert_sits_the_exam(recording, plan_path, monkeypatch):
    """It matches everything, and notes what is due about as often as its thoughts are informative."""
    text = PLAN.replace("live: {test: 3, heldout: 1}, sop: {test: 4}", "live: {}, sop: {test: 26}")
    text = text.replace("live_sampled: {test: 2}, sop_sampled: {test: 3}, ", "")
    plan_path.write_text(text)
    loaded, real = load_episodes(recording), agents.build_agent
    monkeypatch.setattr(
        score.agents, "build_agent", lambda ask: real(agents.AgentSpec(agent="expert"), loaded.episodes)
    )
    monkeypatch.setattr(score.parts, "dataset", lambda *a: replace(loaded, episodes=loaded.episodes[: a[-1]]))
    lines = list(score.examine(load_plan(plan_path), "full", "m", recording.parent))
    walks = [line for line in lines if line["kind"] == "sop"]
    assert len(walks) == 26
    assert all(line["matched"] == line["of"] == line["turns"] for line in walks)
    steps = [line for line in lines if line["kind"] == "steps"]
    assert len(steps) == 2
    assert all(line["exact"] == line["type"] == line["n"] and line["hit"] == line["touch"] for line in steps)
    due, noted = sum(line["due"] for line in walks), sum(line["noted"] for line in walks)
    assert due > 10
    assert 0.25 < noted / due < 0.75


def test_an_agent_that_knows_nothing_sits_the_exam(recording, plan_path, monkeypatch):
    real = agents.build_agent
    monkeypatch.setattr(score.agents, "build_agent", lambda ask: real(agents.AgentSpec(agent="random")))
    lines = list(score.examine(load_plan(plan_path), "full", "m", recording.parent))
    kinds = [(line["kind"], line["world"]) for line in lines]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        ("sop", "test"): 4,
        ("sop_sampled", "test"): 3,
        ("steps", "test"): 2,
        ("live", "test"): 3,
        ("live", "heldout"): 1,
        ("live_sampled", "test"): 2,
    }
    assert all(line["ok"] == 0 for line in lines if line["kind"] == "live")
    assert all({line["popups"], line["claimed"]} <= {0, 1} for line in lines if line["kind"].startswith("live"))
    sop, live = ({line["task"] for line in lines if line["kind"] == kind} for kind in ("sop", "live"))
    assert len(sop & live) == 3, "live tasks are the recorded ones, disturbed"


def test_what_a_careful_expert_notes(recording):
    episodes = {str(e.meta["template"]): e for e in load_episodes(recording).episodes}
    two = episodes["call_two"]
    due = score.notes(two, "easy", (160, 288))
    assert len(due) == len(two.steps)
    assert not due[0]
    assert frozenset([two.meta["params"]["a"]]) in due
    assert not any(score.notes(episodes["toggle"], "easy", (160, 288)))


@pytest.mark.parametrize(("thought", "expected"), [(None, False), ("", False), ("tap it", False), ("tap Anna", True)])
def test_thoughts_that_say_something(thought, expected):
    assert score.tells(thought) is expected


# ----------------------------------------------------------------------------------------------------- what is made of it


@pytest.fixture
def records(study):
    leave(study.records, "base", 0, (0, 0), (0, 0))
    for seed in (0, 1):
        leave(study.records, "sft", seed, (1, 0, 0, 0), (4, 1, 0, 2))
        leave(study.records, "semi_1", seed, (1, 1, seed, 0), (4, 4, 1 + seed, 2))
    leave(study.records, "gamma_0", 0, (1, 0), (4, 2))
    leave(study.records, "stray", 0, (0, 0, 1), (1, 0, 4))
    return study.records


def test_pop_ups_and_false_claims_have_a_table_where_records_know_them(study):
    leave(study.records, "base", 0)
    assert "Pop-ups" not in markdown(study.plan, study.records)
    known = [{"popups": 1, "claimed": 1}, {"popups": 1, "claimed": 1}, {"popups": 0, "claimed": 0}, {}]
    leave(study.records, "sft", 0, (1, 0, 0, None), known=known)
    section = markdown(study.plan, study.records).split("### Pop-ups")[1].split("###")[0]
    row = next(line for line in section.splitlines() if line.startswith("| SFT"))
    assert row.count("| 50.0 [") == 2


def test_the_tables_hold_the_records_numbers(study, records):
    text = markdown(study.plan, records)
    assert "6 of 7 planned checkpoints have a record; 7 records in all" in text
    rows = {line.split("|")[1].strip(): line for line in text.split("### Differences")[0].splitlines() if "|" in line}
    assert "| 25.0 [" in rows["SFT"]
    assert "| 62.5 [" in rows["+ RL"]
    gap = next(line for line in text.splitlines() if line.startswith("| + RL minus SFT"))
    assert "+37.5 [" in gap
    assert "2 of 2" in gap
    assert "| + RL | 2 | 100 | 3 | 1.0 | 1.0 | 1.0 |" in text
    assert "gamma 0 minus RL" in text
    assert "SOP TSR, sampled" not in text, "no exam of these records measured it"


def test_a_section_without_rows_is_left_out(study):
    leave(study.records, "gamma_0", 0)
    heads = [line for line in markdown(study.plan, study.records).splitlines() if line.startswith("###")]
    assert "### Ablations" in heads
    assert "### Online success and metrics" not in heads
    assert not any("never trained on" in head.lower() for head in heads), "one world"


def test_seeds_trained_differently_are_named(study, records):
    assert "different settings" not in markdown(study.plan, records)
    leave(records, "sft", 1, gamma=0.9)
    assert "The seeds of sft were trained with different settings" in markdown(study.plan, records)


def test_a_key_of_a_newer_edition_is_no_other_setting(study, records):
    """A record of an edition without the key was made as its default says."""
    leave(records, "sft", 1, start="first")
    assert "different settings" not in markdown(study.plan, records)
    leave(records, "sft", 1, start="any")
    assert "The seeds of sft were trained with different settings" in markdown(study.plan, records)


def test_records_of_another_base_are_refused(study, spent, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "model.safetensors").write_bytes(b"other")
    leave(study.records, "sft", 0)
    with pytest.raises(SetupError, match=r"sft-0.*was made with .*base None, now it is"):
        run(replace(study, plan=study.plan.model_copy(update={"base": str(base)})), [], 60, 1)
    assert spent == []


def test_records_of_another_finished_model_are_refused(study, spent, tmp_path):
    model = tmp_path / "sft"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"one")
    start = study.plan.arms["sft"].model_copy(update={"recipe": "", "model": str(model), "seeds": (0,)})
    plan = study.plan.model_copy(update={"arms": study.plan.arms | {"sft": start}})
    run(replace(study, plan=plan), ["base"], 60, 1)
    (model / "model.safetensors").write_bytes(b"another")
    with pytest.raises(SetupError, match=r"was made with .*sft \w+, now it is"):
        run(replace(study, plan=plan), ["base"], 60, 1)


def test_ten_times_the_samples_is_another_study(study, plan_path, spent, tmp_path):
    longer = load_plan(plan_path, times=10)
    assert overrides(longer, Job("semi_1", 0))["training.max_steps"] == 50
    assert overrides(longer, Job("semi_1", 0))["method.max_turns"] == 90
    assert overrides(study.plan, Job("semi_1", 0))["training.max_steps"] == 5
    run(study, ["base"], 60, 1)
    for other in (replace(study, plan=longer), replace(study, plan=longer, out=tmp_path / "elsewhere")):
        with pytest.raises(SetupError, match="was made with times 1, now it is 10"):
            run(other, ["base"], 60, 1)
    assert spent == ["score base-0"]


def test_no_checkpoint_is_left_out_and_all_are_compared_on_the_same_tasks(study, records):
    names, x, y = points(load(records), "SOP TSR")
    assert len(names) == 7
    assert "stray-0" in names
    by_name = dict(zip(names, zip(x, y, strict=True), strict=True))
    assert by_name["semi_1-1"] == (1.0, 1.0), "of the two tasks that every checkpoint met"
    assert by_name["base-0"] == (0.0, 0.0)
    assert "| SOP TSR | all | 7 |" in markdown(study.plan, records)


def test_unscored_tasks_are_nobodys_failure(tmp_path):
    leave(tmp_path, "sft", 0, (1, None, 0))
    tops, bottoms = METRICS["online"].of(load(tmp_path)[0])
    assert tops == {"t0": 1.0, "t2": 0.0}
    assert bottoms == {"t0": 1.0, "t2": 1.0}


def test_the_plots_are_the_same_for_the_same_records(study, records, tmp_path):
    from guiderail.launch.study.plots import draw

    first, again = draw(study.plan, records, tmp_path / "a"), draw(study.plan, records, tmp_path / "b")
    assert {path.name for path in first} == {
        f"{name}.{kind}" for name in ("online", "ablations", "metrics") for kind in ("png", "svg")
    }
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
