"""guiderail judge measure: a judge against exact checks, end to end, with a server that a test writes."""

import json
import re
import shutil

import pytest
from typer.testing import CliRunner

pytest.importorskip("openai", reason="needs the extra served")
pytest.importorskip("android_env")

from guiderail.agent.errors import SetupError
from guiderail.launch.cli import app
from guiderail.rl.live.judged import judge_all, known_attempts
from tests.judge_server import judge_server, pictures_in, words_of


def guiderail(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Experts succeed; random agents claim success at times. The second run stands for another world, too."""
    folder = tmp_path_factory.mktemp("runs")
    for agent, tasks in (("expert", 6), ("random", 40)):
        guiderail("evaluate", "pocket", "--agent", agent, "--tasks", tasks, "--out", folder / agent)
    shutil.copytree(folder / "random", folder / "web")
    record = folder / "web" / "run.json"
    record.write_text(record.read_text().replace('"pocket"', '"miniwob"'))
    return folder


@pytest.fixture(autouse=True)
def loopback(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def measured(url, folder, *words, code=0):
    judge = ("--judge-server", url, "--judge-model", "m", "--judgements", folder / "judgements")
    return json.loads(guiderail("judge", "measure", *words, *judge, "--json", code=code))


def rows(run):
    return [json.loads(line) for line in (run / "rollouts.jsonl").read_text().splitlines()]


def checked(run):
    return [row for row in rows(run) if row["ended"] == "finished"]


def test_verdicts_are_compared_with_the_state(runs, tmp_path):
    """The judge passes what has an even number of frames; the test counts for itself what that means."""

    def answer(body):
        return json.dumps({"success": pictures_in(body) % 2 == 0, "reason": ""})

    with judge_server(answer) as url:
        made = measured(url, tmp_path, runs / "expert", runs / "random", runs / "web", "--judge-mode", "trajectory")
    truths = {name: [row["outcome"]["success"] for row in checked(runs / name)] for name in ("expert", "random")}
    says = {name: [min(20, len(row["turns"])) % 2 == 0 for row in checked(runs / name)] for name in truths}
    assert truths["expert"] == [True] * 6
    assert truths["random"]
    assert not any(truths["random"]), "random agents claim success without having it"
    fails, passes = says["expert"].count(False), says["random"].count(True)
    pocket, web = made["by_world"]["pocket"], made["by_world"]["miniwob"]
    assert (pocket["n"], pocket["false_fail_count"], pocket["false_pass_count"]) == (
        6 + len(says["random"]),
        fails,
        passes,
    )
    assert (web["n"], web["succeeded"], web["false_pass_count"]) == (len(says["random"]), 0, passes)
    assert made["n"] == pocket["n"] + web["n"]
    assert made["not_checked"] == 2 * (len(rows(runs / "random")) - len(says["random"]))
    assert made["no_verdict"] == {}


def test_items_of_a_rubric_are_measured(runs, tmp_path):
    """Two items for each task; the second is never seen where the task speaks of a basket."""

    def answer(body):
        words = words_of(body)
        if not pictures_in(body):
            return json.dumps({"items": [{"text": "first", "kind": "reach"}, {"text": "second", "kind": "reach"}]})
        last = int(re.findall(r"Frame (\d+):", words)[-1])
        seen = [1] if "basket" in words.split("\n")[1] else [1, 2]
        return json.dumps({"notes": "", "items": [{"item": k, "state": "met", "frame": last} for k in seen]})

    with judge_server(answer) as url:
        made = measured(url, tmp_path, runs / "expert", "--judge-mode", "rubric")
    baskets = [row for row in checked(runs / "expert") if "basket" in row["goal"]]
    assert 0 < len(baskets) < 6
    assert made["false_fail_count"] == made["items"]["missed_count"] == len(baskets)
    assert made["items"]["n"] == 12
    assert {row["item"] for row in made["items"]["worst"]} == {"second"}
    assert sum(row["alone"] for row in made["items"]["worst"]) == len(baskets)


def test_a_judge_without_verdicts_is_reported_not_counted(runs, tmp_path):
    with judge_server(lambda body: "I cannot say") as url:
        made = measured(url, tmp_path, runs / "expert", code=4)
    assert (made["n"], len(made["no_verdict"]), made["agreement"]) == (0, 6, None)
    calls = []

    def answer(body):
        calls.append(words_of(body))
        return "no" if "basket" in calls[-1] else '{"success": true}'

    with judge_server(answer) as url:
        made = measured(url, tmp_path, runs / "expert")
        again = measured(url, tmp_path, runs / "expert")
    silent = sum("basket" in row["goal"] for row in checked(runs / "expert"))
    assert (made["n"], len(made["no_verdict"]), made["agreement"]) == (6 - silent, silent, 1.0)
    assert again == made
    asked = [words for words in calls if "basket" not in words]
    assert len(asked) == 6 - silent, "verdicts are kept"


def judged_again(url, folder, run, code=0):
    judge = ("--judge-server", url, "--judge-model", "m", "--judgements", folder / "judgements")
    return json.loads(guiderail("evaluate", "judge", run, *judge, "--json", code=code))


def test_an_attempt_without_a_verdict_does_not_lose_the_others(runs, tmp_path):
    def answer(body):
        return "no" if "basket" in words_of(body) else '{"success": true}'

    with judge_server(answer) as url:
        made = judged_again(url, tmp_path, runs / "expert")
    silent = {f"{row['unit']}#{row['sample']}" for row in rows(runs / "expert") if "basket" in row["goal"]}
    assert silent
    assert set(made["no_verdict"]) == silent
    assert (made["n"], made["success"], len(made["verdicts"])) == (6 - len(silent), 1.0, 6 - len(silent))
    with judge_server(lambda body: "I cannot say") as url:
        made = judged_again(url, tmp_path / "other", runs / "expert", code=4)
    assert (made["n"], len(made["no_verdict"])) == (0, 6)


def test_a_run_along_recordings_has_nothing_to_judge(tmp_path):
    guiderail("record", "pocket", "--episodes", 2, "--out", tmp_path / "data")
    guiderail("evaluate", "sop", tmp_path / "data", "--agent", "expert", "--out", tmp_path / "sop")
    judge = ["--judge-server", "http://127.0.0.1:9/v1", "--judge-model", "m"]
    done = CliRunner().invoke(app, ["evaluate", "judge", str(tmp_path / "sop"), *judge])
    assert isinstance(done.exception, SetupError)
    assert "keeps no screenshots of its own; give a run in a live world" in str(done.exception)


def test_a_table_for_people(runs, tmp_path):
    with judge_server(lambda body: '{"success": true}') as url:
        judge = ("--judge-server", url, "--judge-model", "m", "--judgements", tmp_path)
        shown = guiderail("judge", "measure", runs / "expert", "--limit", 2, *judge)
    assert "pocket" in shown
    assert "100.0 [34.2, 100.0]" in " ".join(shown.split())


def test_what_cannot_be_measured_is_refused(runs, tmp_path):
    with pytest.raises(SetupError, match="is not there"):
        known_attempts([tmp_path])
    judged = tmp_path / "judged"
    shutil.copytree(runs / "expert", judged)
    lines = (judged / "rollouts.jsonl").read_text()
    (judged / "rollouts.jsonl").write_text(lines.replace('"checked_by": "state"', '"checked_by": "judge"'))
    with pytest.raises(SetupError, match="no attempt that a check of the state decided"):
        known_attempts([judged])


def test_the_last_action_of_an_attempt_that_ended_by_itself_is_shown(runs, tmp_path):
    """MiniWoB++ pages end with an action, so no screenshot shows what it did; a claim of success is not shown."""
    said = []

    def answer(body):
        said.append(words_of(body).count("Then the agent did:"))
        assert "terminate" not in words_of(body)
        return '{"success": true}'

    run = tmp_path / "web"
    shutil.copytree(runs / "expert", run)
    row = rows(run)[0]
    with judge_server(answer) as url:
        for kept in (row["turns"], row["turns"][:-1]):
            (run / "rollouts.jsonl").write_text(json.dumps(row | {"turns": kept}) + "\n")
            measured(url, tmp_path, run, "--judge-mode", "trajectory")
    assert said == [len(row["turns"]) - 1] * 2


def test_a_server_that_is_gone_ends_the_measuring(runs):
    known, _ = known_attempts([runs / "expert"])
    asked = []

    def gone(task, shots, said=()):
        asked.append(task)
        raise SetupError("the model server does not answer")

    with pytest.raises(SetupError, match="does not answer"):
        judge_all(known, gone, 1, lambda: None)
    assert len(asked) < len(known)
