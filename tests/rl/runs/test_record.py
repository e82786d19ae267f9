"""run.json: legs are added and never lost, version 1 reads as the present one, and the commit is Guiderail's own."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from guiderail.agent.errors import DataError, SetupError
from guiderail.rl.live.journal import scored_rows
from guiderail.rl.runs.legs import may_change
from guiderail.rl.runs.log import (
    RunLog,
    drop_lines,
    read_json,
    read_lines,
    read_record,
    read_rollouts,
    run_log,
    upgrade,
    version,
    write_json,
)
from guiderail.rl.runs.record import About, changes, convert

OLD = Path(__file__).parents[2] / "data" / "version1"


def old(name: str, tmp_path: Path) -> Path:
    return shutil.copytree(OLD / name, tmp_path / name)


# ----------------------------------------------------------------------------------------------------------------- legs


def test_a_resumed_run_has_a_leg_for_each_start_with_what_it_ran_with(tmp_path, monkeypatch):
    run = tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["guiderail", "train", "a.yaml"])
    RunLog(run, "train", {"config": {"training": {"learning_rate": 1.0}}, "processes": 1}).line({"unit": "e"})
    first = read_json(run / "run.json")["legs"][0]
    assert (first["command"], first["seconds"]) == (["train", "a.yaml"], None)
    monkeypatch.setattr(sys, "argv", ["guiderail", "train", "a.yaml", "--resume"])
    now = {"config": {"training": {"learning_rate": 2.0}}, "processes": 2}
    with pytest.raises(
        SetupError, match=r"config.training.learning_rate 1.0, not 2.0; processes 1, not 2; set this back"
    ):
        RunLog(run, "train", now, resume=True)
    assert read_json(run / "run.json")["legs"] == [first]
    log = RunLog(run, "train", now, resume=True, may_change=lambda about, name: True)
    log.finish({"loss": 0.0})
    legs = read_json(run / "run.json")["legs"]
    assert legs[0] == first, "the leg that was killed stays as it was, without seconds"
    assert 0 <= legs[1]["seconds"] < 60
    record = read_record(run)
    assert record == log.record
    assert record.about.config == {"training": {"learning_rate": 2.0}}
    assert {name: pair for name, *pair in changes(record.legs[0].about, record.legs[1].about)} == {
        "config.training.learning_rate": [1.0, 2.0],
        "processes": [1, 2],
    }
    assert [*read_lines(run, "rollouts.jsonl")] == [{"unit": "e"}]


def test_a_folder_with_a_run_is_kept(tmp_path):
    RunLog(tmp_path, "sop", {"seed": 1}).line({"unit": "e"})
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(SetupError, match="already holds a run"):
        RunLog(tmp_path, "sop", {"seed": 2})
    with pytest.raises(SetupError, match="holds a sop run, not a train run"):
        RunLog(tmp_path, "train", {}, resume=True)
    assert (tmp_path / "run.json").read_bytes() == before
    assert (tmp_path / "rollouts.jsonl").exists()


def test_the_record_is_typed(tmp_path):
    with pytest.raises(ValidationError, match="temprature"):
        RunLog(tmp_path / "a", "sop", {"temprature": 1.0})
    assert not (tmp_path / "a" / "run.json").exists()
    RunLog(tmp_path / "b", "sop", {"data": {"path": "d", "digest": "0"}})
    broken = read_json(tmp_path / "b" / "run.json")
    del broken["legs"][0]["about"]["data"]["digest"]
    write_json(tmp_path / "b" / "run.json", broken)
    with pytest.raises(DataError, match=r"run.json:1: legs.0.about.data.digest: Field required"):
        read_record(tmp_path / "b")


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ('{"version": 3}', SetupError, "has version 3, this Guiderail reads up to 2"),
        ('{"version": "new"}', SetupError, "has version 'new'"),
        ("[]", DataError, "a JSON list, expected one object"),
        ("{", DataError, "not JSON"),
        ('{"version": 2, "kind": "sop", "legs": []}', DataError, "legs: Tuple should have at least 1 item"),
        ('{"kind": "sop", "versions": 3}', DataError, "not a run record of version 1"),
        ('{"kind": "sop", "temperature": "warm"}', DataError, "legs.0.about.temperature"),
    ],
)
def test_what_is_not_a_record_is_named(tmp_path, content, error, message):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(error, match=message):
        read_record(tmp_path)


# ------------------------------------------------------------------------------------------------------------ version 1


@pytest.mark.parametrize("name", ["sop", "offline", "pocket", "rl", "offline-rl"])
def test_old_records_say_what_they_said(name):
    content, record = read_json(OLD / name / "run.json"), read_record(OLD / name)
    (leg,) = record.legs
    about = record.about.model_dump(mode="json")
    assert (record.kind, list(leg.command), record.started) == (content["kind"], content["command"], content["started"])
    assert leg.versions | {"commit": leg.commit} == content["versions"]
    assert (leg.seconds, leg.dirty) == (None, None)
    for key in {"model", "voice", "rules", "temperature", "seed", "repeats", "config", "processes"} & content.keys():
        assert about[key] == content[key]
    if "data" in content:
        assert about["data"] == {"screen": None, "episodes": None} | content["data"]
    if name == "pocket":
        assert about["options"] == content["how"]
        assert about["world"] == {"name": "pocket", "tasks": 2, "split": "test", "size": [160, 288]} | {
            "style": "easy",
            "device": "android_env",
        }


def test_nothing_of_an_old_record_is_lost():
    """Kinds of which no sample is kept."""
    gate = convert({"kind": "gate", "rules": "strict", "data": {"path": "d", "digest": "0"}})
    assert gate["legs"][0]["about"]["rules"] == {"name": "strict"}
    again = convert({"kind": "rejudge", "of": "run", "rules": ["strict", "guiderail"]})
    assert again["legs"][0]["about"] == {"of": "run", "profiles": ["strict", "guiderail"]}
    grounding = convert({"kind": "grounding", "model": "m", "screens": 300, "style": "easy"})
    assert grounding["legs"][0]["about"]["world"] == {"name": "grounding", "screens": 300, "style": "easy"}
    spoken = convert({"kind": "likelihood", "history": "expert", "thoughts": True})
    assert spoken["legs"][0]["about"] == {"history": "expert", "thoughts": True}


@pytest.mark.parametrize("name", ["sop", "offline", "pocket", "rl", "offline-rl"])
def test_an_upgrade_keeps_every_line_and_can_be_interrupted(name, tmp_path):
    folder = old(name, tmp_path)
    rows, record = [*read_rollouts(folder)], read_record(folder)
    upgrade(folder)
    assert (version(OLD / name), version(folder)) == (1, 2)
    assert [*read_lines(folder, "rollouts.jsonl")] == [*read_rollouts(folder)] == rows
    assert read_record(folder) == record
    shutil.copy(OLD / name / "run.json", folder)  # as if it had been killed before run.json was written
    assert [*read_rollouts(folder)] == rows
    upgrade(folder)
    assert [*read_rollouts(folder)] == rows
    assert read_record(folder) == record


def test_an_old_training_goes_on_in_one_schema(tmp_path):
    folder = old("rl", tmp_path)
    rows = [*read_rollouts(folder)]
    RunLog(folder, "train", read_record(folder).about, resume=True)
    drop_lines(folder, lambda row: row["generation"] >= 1)
    assert [*read_lines(folder, "rollouts.jsonl")] == [row for row in rows if row["generation"] == 0]
    assert len(read_record(folder).legs) == 2
    assert not [*changes(*(leg.about for leg in read_record(folder).legs))]


def test_old_live_attempts_are_kept_but_for_crashed_and_torn_ones(tmp_path):
    folder = old("pocket", tmp_path)
    rows = [*read_rollouts(folder)]
    crashed = {"task": "t", "goal": "", "ending": "crashed", "success": None, "reason": "adb", "trial": 0, "turns": []}
    with (folder / "rollouts.jsonl").open("a") as file:
        file.write(json.dumps(crashed) + "\n" + '{"task": "torn')
    assert scored_rows(folder) == rows
    assert [*read_lines(folder, "rollouts.jsonl")] == rows
    assert version(folder) == 2


def test_an_old_live_run_is_resumed_by_its_command_and_no_other(tmp_path):
    pytest.importorskip("android_env")
    from guiderail.envs.pocket.world import PocketTasks
    from guiderail.launch.agents import AgentSpec
    from guiderail.launch.evaluate.live import LiveOptions, score_live

    folder, who = old("pocket", tmp_path), AgentSpec(model="tiny-sft")
    how = LiveOptions(seed=5, repeats=2, resume=True)
    details = {"tasks": 2, "split": "test", "size": [160, 288], "style": "easy", "device": "android_env"}
    with pytest.raises(SetupError, match=r"was run with world\.tasks 2, not 3"):
        score_live("pocket", PocketTasks(3, 5), who, how, folder, details | {"tasks": 3})
    assert version(folder) == 1, "what is refused is left alone"
    result = score_live("pocket", PocketTasks(2, 5), who, how, folder, details)
    before = read_json(OLD / "pocket" / "metrics.json")
    assert {key: result[key] for key in ("success", "n", "unscored", "endings")} == {
        key: before[key] for key in ("success", "n", "unscored", "endings")
    }
    assert len(read_record(folder).legs) == 2


# ------------------------------------------------------------------------------------------------- starting and resuming


def test_a_start_and_a_resume_never_refuse_each_other_in_turn(tmp_path):
    """Whatever a start left behind, one of the two goes on, and says which."""
    run = tmp_path / "run"
    with pytest.raises(ValueError, match="no such model"), run_log(run, "train", {"seed": 1}, resume=False):
        raise ValueError("no such model")
    assert not run.exists(), "a failed start leaves nothing behind"
    for resume in (False, True):
        RunLog(run, "train", {"seed": 1}, resume=resume)  # killed before it left anything
        assert [path.name for path in run.iterdir()] == ["run.json"]
        with run_log(run, "train", {"seed": 1}, resume=not resume):
            assert read_json(run / "run.json")["kind"] == "train"
        assert not run.exists()
    RunLog(run, "train", {"seed": 1}, resume=True).line({"unit": "e"})
    with pytest.raises(SetupError, match="already holds a run; give another --out, or --resume"):
        RunLog(run, "train", {"seed": 1}, resume=False)
    with run_log(run, "train", {"seed": 1}, resume=True) as log:
        assert len(log.record.legs) == 2


def test_only_a_finished_run_is_in_the_way_of_one_that_cannot_be_resumed(tmp_path):
    RunLog(tmp_path, "likelihood", {}, resume=None).line({"unit": "e"}, "likelihood.jsonl")  # killed
    with run_log(tmp_path, "likelihood", {}, resume=None) as log:
        assert not (tmp_path / "likelihood.jsonl").exists()
        log.finish({"n": 0})
    with pytest.raises(SetupError, match="already holds a finished run; give another --out"):
        RunLog(tmp_path, "likelihood", {}, resume=None)


def test_a_second_writer_of_a_run_is_refused(tmp_path):
    with run_log(tmp_path, "train", {}) as log:
        log.line({"unit": "a"})
        for resume in (True, False, None):
            with pytest.raises(SetupError, match="being written by another process"):
                RunLog(tmp_path, "train", {}, resume=resume)
    RunLog(tmp_path, "train", {}, resume=True)


def test_a_torn_last_line_is_gone_when_a_run_goes_on(tmp_path):
    RunLog(tmp_path, "train", {}).line({"unit": "a"})
    with (tmp_path / "rollouts.jsonl").open("a") as file:
        file.write('{"unit": "to')
    RunLog(tmp_path, "train", {}, resume=True).line({"unit": "b"})
    assert [row["unit"] for row in read_lines(tmp_path, "rollouts.jsonl")] == ["a", "b"]


def test_seconds_are_those_of_all_legs(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("guiderail.rl.runs.log.time.monotonic", lambda: clock[0])
    log = RunLog(tmp_path, "train", {})
    clock[0] += 60
    log.line({"unit": "a"})
    clock[0] += 5
    log.line({"unit": "b"})
    log._lock.close()  # killed: known until the line at 60 s
    with run_log(tmp_path, "train", {}, resume=True) as log:
        clock[0] += 100
        assert log.seconds == 160
        log.finish({"loss": 0})
    assert [leg.seconds for leg in read_record(tmp_path).legs] == [60, 100]


def test_a_leg_that_adds_to_a_finished_run_makes_it_unfinished(tmp_path):
    with run_log(tmp_path, "train", {}) as log:
        log.line({"unit": "a"})
        log.finish({"n": 1})
    with run_log(tmp_path, "train", {}, resume=True) as log:
        assert (tmp_path / "metrics.json").exists()
        log.line({"unit": "b"})
        assert not (tmp_path / "metrics.json").exists()


def test_recordings_may_move_but_not_change(tmp_path):
    def about(path, digest, **more):
        return {"data": {"path": path, "digest": digest, **more}, "config": {"data": {"train": path}}}

    RunLog(tmp_path, "train", about("old", "1")).line({"unit": "a"})
    RunLog(tmp_path, "train", about("new", "1", episodes=3), resume=True)
    with pytest.raises(SetupError, match=r"data\.digest '1', not '2'; set this back"):
        RunLog(tmp_path, "train", about("new", "2", episodes=3), resume=True)
    with pytest.raises(SetupError, match=r"data\.episodes 3, not 4"):
        RunLog(tmp_path, "train", about("new", "1", episodes=4), resume=True)


def test_what_an_older_version_could_not_record_is_no_change(tmp_path):
    RunLog(tmp_path, "train", {"config": {"method": {"lora": None}, "training": {}}}).line({"unit": "a"})
    now = {"config": {"method": {"lora": None, "tries": 4}, "update": {"share": True}, "training": {}}}
    RunLog(tmp_path, "train", now, resume=True)
    RunLog(tmp_path / "live", "pocket", {"voice": {"images": 2}, "rules": None}).line({"unit": "a"})
    RunLog(tmp_path / "live", "pocket", {"voice": {"images": 2, "vision": {"factor": 16}}}, resume=True)
    with pytest.raises(SetupError, match=r"rules\.radius None, not 1"):
        RunLog(tmp_path / "live", "pocket", {"voice": {"images": 2}, "rules": {"radius": 1}}, resume=True)
    for name, config in {
        "config.method.lora.r": {"method": {"lora": {"r": 4}}, "training": {}},
        "config.training.beta": {"method": {"lora": None}, "training": {"beta": 0.1}},
    }.items():
        with pytest.raises(SetupError, match=name):
            RunLog(tmp_path, "train", {"config": config}, resume=True)


def test_half_a_surrogate_pair_in_a_servers_text_is_kept(tmp_path):
    RunLog(tmp_path, "sop", {}).line({"text": "a\ud800b\udc80"})
    assert [*read_lines(tmp_path, "rollouts.jsonl")] == [{"text": "a\ud800b\udc80"}]


@pytest.mark.parametrize(
    ("name", "training", "allowed"),
    [
        ("config.training.save_steps", {}, True),
        ("config.training.logging_steps", {}, True),
        ("config.training.report_to", {}, True),
        ("config.training.dataloader_num_workers", {}, True),
        ("config.rollout.server", {}, True),
        ("config.rollout.engine", {}, False),
        ("config.training.learning_rate", {}, False),
        ("config.training.seed", {}, False),
        ("config.method.groups", {}, False),
        ("config.model.path", {}, False),
        ("processes", {}, False),
        ("config.method.max_turns", {"lr_scheduler_type": "cosine"}, True),
        ("config.training.max_steps", {}, True),
        ("config.training.num_train_epochs", {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 10}, True),
        ("config.training.max_steps", {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 0.1}, False),
        ("config.training.max_steps", {"lr_scheduler_type": "cosine"}, False),
    ],
)
def test_what_may_change_between_two_legs_of_a_training(name, training, allowed):
    about = About(config={"method": {"algorithm": "semi-online"}, "training": training})
    assert may_change(about, name) is allowed


def test_the_default_schedule_of_sft_depends_on_its_length():
    assert not may_change(About(config={"method": {"algorithm": "sft"}, "training": {}}), "config.training.max_steps")


def test_a_run_whose_bands_move_with_its_length_keeps_its_length():
    for bands in (False, True):
        about = About(config={"method": {"algorithm": "online"}, "online": {"bands": bands}, "training": {}})
        assert may_change(about, "config.training.max_steps") is not bands
