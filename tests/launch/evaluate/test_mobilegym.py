"""guiderail evaluate mobilegym as typed: terms, score, submission, a served policy, and what is left after kill -9 of every part.

On the stand-in checkout; with GUIDERAIL_MOBILEGYM on a real one."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from zipfile import ZipFile

import pytest

pytest.importorskip("selenium")

from typer.testing import CliRunner

from guiderail.agent.errors import SetupError
from guiderail.envs.mobilegym import terms
from guiderail.launch.cli import app
from guiderail.launch.console.devices import DeviceSpec, open_place
from guiderail.launch.submission.board import board, pages
from guiderail.launch.submission.export import export
from guiderail.launch.submission.verify import verify
from tests.envs.mobilegym.conftest import REAL, STANDIN, browser, quick  # noqa: F401 (fixtures)

GUIDERAIL = [sys.executable, "-m", "guiderail.launch.cli"]
CHECKOUT = REAL or str(STANDIN)
EVALUATE = ["evaluate", "mobilegym", "--checkout", CHECKOUT, "--scale", 1]


@pytest.fixture
def agreed(tmp_path, monkeypatch):
    """A user who has accepted the terms."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    terms.accept()


def start(*words):
    command = [*GUIDERAIL, *map(str, words)]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process, code=0):
    out, err = process.communicate(timeout=900)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return out, err


def journal(folder):
    path = folder / "rollouts.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run(*words):
    """The command in this process: what it prints on standard output."""
    result = CliRunner().invoke(app, [*map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_terms_are_asked_for_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    words = [*EVALUATE, "--split", "train", "--tasks", "wechat.OpenNewFriends", "--agent", "random"]
    with pytest.raises(
        SetupError, match=r"(?s)CC BY-NC 4\.0.*run: guiderail evaluate mobilegym --accept-mobilegym-terms"
    ):
        run(*words)
    assert not terms.accepted()
    run(*words, "--accept-mobilegym-terms", "--json")
    assert terms.accepted()


def test_a_run_is_scored_resumed_bundled_and_ranked(tmp_path, agreed):
    words = [*EVALUATE, "--agent", "expert", "--json", "--tasks", "notes.ReadNotesCount,wechat.OpenNewFriends"]
    words += ["--split", "train" if REAL else "test", "--out", tmp_path / "run"]
    result = json.loads(run(*words))
    assert (result["success"], result["n"]) == (1.0, 2)
    assert (result["PR"], result["FC"], result["USE"]) == (1.0, 0.0, 0.0)
    assert result["by_group"]["level:L1"]["n"]
    rows = journal(tmp_path / "run")
    again = json.loads(run(*words, "--resume"))
    assert again == result
    assert journal(tmp_path / "run") == rows
    run("submit", "build", tmp_path / "run", "--out", tmp_path / "zips" / "a.zip", "--name", "me")
    with ZipFile(tmp_path / "zips" / "a.zip") as bundle:
        assert not [name for name in bundle.namelist() if name.startswith("screenshots")]
    checked = verify(tmp_path / "zips" / "a.zip")
    assert not checked.problems
    assert checked.manifest.scores["PR"] == 1.0
    if not REAL:
        row = export(checked, "mobilegym")["row.md"].splitlines()
        assert row[0].startswith("| Model | Overall SR | PR | L1 (n=20)")
        assert row[2] == "| me | 100.0 | 100.0 | - | - | - | - | 0.0 | 0.0 |"
        ranked = board(tmp_path / "zips")
        assert ranked["worlds"]["mobilegym"][0]["more"] == {"PR": "100.0", "FC": "0.0", "USE": "0.0"}
        assert "subset of tasks: 2 of 256" in ranked["worlds"]["mobilegym"][0]["lint"]
        assert "| agent | success % | PR % | FC % | USE % |" in pages(ranked)["README.md"]


# ---------------------------------------------------------------------------------------------------- a served policy


class Replaying(BaseHTTPRequestHandler):
    """Answers as an earlier run did: the nth request about a goal gets the text of the nth turn."""

    texts: dict[str, list[str]]
    asked: Counter

    def do_GET(self):
        self.reply({"data": [{"id": "script"}]})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        said = json.dumps(json.loads(body)["messages"], ensure_ascii=False)
        goal = max((goal for goal in self.texts if json.dumps(goal, ensure_ascii=False)[1:-1] in said), key=len)
        text = self.texts[goal][self.asked[goal]]
        self.asked[goal] += 1
        self.reply({"choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}]})

    def reply(self, content):
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *said):
        pass


def served(tmp_path, *more):
    """The expert makes a run; a server replays its words into another. Returns both results."""
    words = [*EVALUATE, "--json", "--dialect", "aguvis", *more]
    first = json.loads(run(*words, "--agent", "expert", "--out", tmp_path / "expert"))
    texts = {row["goal"]: [turn["text"] for turn in row["turns"]] for row in journal(tmp_path / "expert")}
    handler = type("Handler", (Replaying,), {"texts": texts, "asked": Counter()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        made = run(*words, "--server", url, "--served-model", "script", "--out", tmp_path / "served")
        return first, json.loads(made)
    finally:
        server.shutdown()


def test_a_served_policy_that_says_what_the_expert_said_succeeds_where_it_did(tmp_path, agreed):
    """The phone is the same in every attempt, so the same words lead to the same screens."""
    pytest.importorskip("openai")
    first, second = served(
        tmp_path, "--split", "train", "--tasks", "notes.CreateNewNote,wechat.ToggleFriendConfirmation"
    )
    assert first["success"] == second["success"] == 1.0
    shown = [
        [turn["screenshot"] for row in journal(tmp_path / name) for turn in row["turns"]]
        for name in ("expert", "served")
    ]
    assert len(shown[0]) == len(shown[1])
    assert REAL or shown[0] == shown[1]


def test_one_task_by_guiderail_run(agreed, monkeypatch):
    monkeypatch.setenv("GUIDERAIL_MOBILEGYM", CHECKOUT)
    out, _ = finish(start("run", "--device", "mobilegym:wechat.OpenNewFriends", "--agent", "expert", "--json"))
    assert json.loads(out.splitlines()[-1])["result"]["success"] is True
    for device, words in (
        ("mobilegym", "name a task, such as"),
        ("mobilegym:wechat.NoSuchTask", "has no task wechat.NoSuchTask"),
        ("mobilegym:wechat.OpenNewFriends/7", "the last one is wechat.OpenNewFriends/0"),
    ):
        with pytest.raises(SetupError, match=words):
            open_place(DeviceSpec(device))


TWENTY = [
    "alipay.EnableDarkMode",
    "alipay.ShowReceiveQRCode",
    "calendar.ToggleShowWeekNumber",
    "clock.AddWorldCity",
    "notes.AddNewTodo",
    "notes.CreateNewNote",
    "notes.PinNote",
    "notes.ReadNotesCount",
    "sms.ToggleMainSetting",
    "spotify.TogglePrivacy",
    "tencent_meeting.ConfigPrivacySettings",
    "weather.SwitchTempUnit",
    "wechat.BlacklistContact",
    "wechat.EnableDarkMode",
    "wechat.OpenBlacklist",
    "wechat.OpenNewFriends",
    "wechat.SetAddMeSearch",
    "wechat.ToggleStrangerViewMoments",
    "wechat.StarAndRestrictFriend",
    "wechat.ToggleFriendConfirmation",
]


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="needs a real checkout")
def test_twenty_tasks_of_a_real_checkout_end_to_end_behind_a_server(tmp_path, agreed):
    first, second = served(tmp_path, "--split", "train", "--tasks", ",".join(TWENTY))
    assert first["n"] == second["n"] == 20
    assert first["success"] == second["success"] >= 0.95


# --------------------------------------------------------------------------------------------------------- kill -9


ALL, AT = (8, 2) if REAL else (24, 4)
"""Attempts of a run, and how many are over when something is killed."""


def many(out):
    tasks = ["--tasks", ",".join(TWENTY[:ALL])] if REAL else ["--tasks", "notes.CreateNewNote", "--seeds", ALL]
    words = [*EVALUATE, "--split", "train", *tasks, "--workers", 2]
    return [*words, "--agent", "expert", "--json", "--out", out]


def wait_for(rows, folder, process):
    deadline = time.monotonic() + 300
    while len(journal(folder)) < rows:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def check_complete(folder, result):
    keys = Counter((row["unit"], row["sample"]) for row in journal(folder))
    assert len(keys) == ALL
    assert set(keys.values()) == {1}
    assert (result["n"], result["unscored"], result["success"]) == (ALL, 0, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["chromium", "chromedriver", "spawn_main"])
def test_a_browser_a_driver_or_a_worker_is_killed(tmp_path, agreed, victim):
    from tests.launch.evaluate.test_live import descendants

    process = start(*many(tmp_path / "run"))
    wait_for(AT, tmp_path / "run", process)
    found = [pid for pid, command in descendants(process.pid).items() if victim in command.split("--type")[0]]
    assert found
    os.kill(max(found), signal.SIGKILL)
    check_complete(tmp_path / "run", json.loads(finish(process)[0]))


@pytest.mark.slow
def test_the_runner_is_killed_and_leaves_nothing_behind(tmp_path, agreed):
    from tests.launch.evaluate.test_live import alive, descendants

    process = start(*many(tmp_path / "run"))
    wait_for(AT, tmp_path / "run", process)
    below = descendants(process.pid)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while [pid for pid in below if alive(pid)] and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not [below[pid] for pid in below if alive(pid)]
    assert AT <= len(journal(tmp_path / "run")) < ALL
    check_complete(tmp_path / "run", json.loads(finish(start(*many(tmp_path / "run"), "--resume"))[0]))
