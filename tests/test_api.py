"""`import guiderail as gr`: its names and signatures are kept, it imports at once, and every call does what its command does."""

import inspect
import subprocess
import sys

import pytest

import guiderail as gr
from guiderail.envs.pocket.world import PocketTasks

NAMES = [
    "Cancelled",
    "CreditRules",
    "DataError",
    "Dataset",
    "EnvCrashed",
    "Episode",
    "GuiderailError",
    "Rollout",
    "SetupError",
    "credit",
    "evaluate",
    "export",
    "gate",
    "load_episodes",
    "load_policy",
    "merge",
    "push",
    "record_pocket",
    "report",
    "sop",
    "submission",
    "train",
    "verify",
    "walk",
]

SIGNATURES = {
    "credit": "group, name='ui-s1', rules=None",
    "evaluate": "world, agent, *, repeats=1, temperature=0.0, seed=0, width=8, retries=1, on_rollout=None, progress=None",
    "export": "data, out, *, split='train'",
    "gate": "data, *, dialect='guiderail', rules='guiderail'",
    "load_episodes": "path, *, screen=None, swipes='detect', skip_bad=False, limit=None",
    "load_policy": "model=None, *, server=None, served_model=None, agent=None, dialect=None, images=None, "
    "max_new_tokens=None, episodes=()",
    "merge": "adapter, out, *, base=None, dtype='auto'",
    "push": "run, repo, *, model=None, scores=(), private=False",
    "record_pocket": "out, episodes, **options",
    "report": "runs, out, *, data=None, plots=True",
    "sop": "data, agent, *, rules='guiderail', temperature=0.0, seed=0, width=64, progress=None",
    "submission": "run, out, *, name=None, **declared",
    "train": "config, overrides=None, *, out, resume=False, progress=None",
    "verify": "bundle",
    "walk": "episode, agent, *, rollouts=1, patch='thought-free', patch_budget=1, temperature=1.0, seed=0, rules='guiderail'",
}


def without_types(function):
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters(function)]
    return str(inspect.Signature(plain))[1:-1]


def parameters(function):
    return inspect.signature(function).parameters.values()


def test_the_public_names_are_kept():
    assert gr.__all__ == sorted(NAMES)
    assert set(NAMES) <= set(dir(gr))
    with pytest.raises(AttributeError, match="no 'load_episode'"):
        gr.load_episode  # noqa: B018


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_kept_typed_and_explained(name):
    function = getattr(gr, name)
    assert without_types(function) == SIGNATURES[name]
    assert len(inspect.getdoc(function)) > 60
    assert all(parameter.annotation is not inspect.Parameter.empty for parameter in parameters(function))


def test_every_function_is_listed():
    assert {name for name in NAMES if inspect.isfunction(getattr(gr, name))} == set(SIGNATURES)


def test_the_import_takes_no_time_and_no_torch():
    code = "import sys, time; t = time.perf_counter(); import guiderail as gr; print(time.perf_counter() - t); "
    code += "gr.load_episodes; gr.walk; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    seconds = min(
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(2)
    )
    assert seconds < 0.3


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api") / "data"
    gr.record_pocket(folder, 12, seed=3)
    return gr.load_episodes(folder)


def test_recordings_to_credit_without_a_model(data):
    found = gr.gate(data, dialect="brief")["oracle"]
    assert found["exact"] == found["steps"] > 12
    expert = gr.load_policy(agent="expert", episodes=data.episodes)
    assert gr.sop(data, expert)["TSR"] == 1.0
    random = gr.load_policy(agent="random")
    episode = max(data.episodes, key=lambda one: len(one.steps))
    group = gr.walk(episode, random, rollouts=4, patch_budget=None)
    assert [len(rollout.turns) for rollout in group] == [len(episode.steps)] * 4
    assert group == gr.walk(episode, random, rollouts=4, patch_budget=None)
    assert {rollout.ended for rollout in gr.walk(episode, random, rollouts=4, patch=None)} == {"mismatch"}
    credited = gr.credit(group, rules=gr.CreditRules(eta=0.0))
    assert [len(row) for row in credited.samples] == [len(episode.steps)] * 4
    with pytest.raises(gr.SetupError, match="rollouts 0"):
        gr.walk(episode, random, rollouts=0)


def test_live_success_is_told_and_cancelled():
    pytest.importorskip("android_env")
    seen, rollouts = [], []
    expert = gr.load_policy(agent="expert")
    result = gr.evaluate(PocketTasks(3, 0), expert, progress=lambda *at: seen.append(at), on_rollout=rollouts.append)
    assert (result["success"], result["n"]) == (1.0, 3)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert all(rollout.outcome.success for rollout in rollouts)
    with pytest.raises(gr.Cancelled, match="after 2 of 3"):
        gr.evaluate(PocketTasks(3, 0), expert, progress=lambda done, total: done < 2)


def test_training_is_watched_cancelled_and_resumed(data, tmp_path):
    pytest.importorskip("trl")
    keys = {"model.path": "tiny-base", "data.train": tmp_path / "data", "data.limit": 4, "training.max_steps": 3}
    keys |= {"training.per_device_train_batch_size": 2, "training.save_strategy": "steps", "training.save_steps": 1}
    gr.record_pocket(tmp_path / "data", 4, seed=3)
    with pytest.raises(gr.Cancelled, match="after update 2 of 3"):
        gr.train("tiny_sft", keys, out=tmp_path / "run", progress=lambda done, total: done < 2)
    assert not (tmp_path / "run" / "metrics.json").exists()
    seen = []
    metrics = gr.train("tiny_sft", keys, out=tmp_path / "run", resume=True, progress=lambda *at: seen.append(at))
    assert metrics["updates"] == 3
    assert seen[-1] == (3, 3)
    assert "groups" not in metrics
    assert gr.load_policy(tmp_path / "run" / "model").voice.dialect == "brief"


def test_a_result_becomes_pages_and_a_bundle(tmp_path):
    pytest.importorskip("jinja2")
    pytest.importorskip("cryptography")
    from typer.testing import CliRunner

    from guiderail.launch.cli import app

    gr.record_pocket(tmp_path / "data", 4, seed=3)
    words = ["evaluate", "sop", str(tmp_path / "data"), "--agent", "random", "--out", str(tmp_path / "sop")]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert gr.report([tmp_path / "sop"], tmp_path / "report", plots=False).is_file()
    assert gr.submission(tmp_path / "sop", tmp_path / "sop.zip") == []
    with (tmp_path / "sop.zip").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(gr.DataError, match="not a zip archive"):
        gr.verify(tmp_path / "sop.zip")
    with pytest.raises(gr.SetupError, match="not empty and not a report"):
        gr.report([tmp_path / "sop"], tmp_path / "sop")


def test_overrides_are_values_of_python(tmp_path):
    def problem(value: object) -> str:
        with pytest.raises(gr.SetupError) as refused:
            gr.train(
                "tiny_semi_online",
                {"model.path": "x", "data.train": "y", "method.difficulty": value},
                out=tmp_path / "x",
            )
        return str(refused.value)

    assert "method.difficulty" in problem("hard")
    assert "method.difficulty" not in problem(None)
