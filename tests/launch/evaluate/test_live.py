"""Live evaluation as typed: workers, resume, and what is left after kill -9 of every part."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("android_env")

from guiderail.agent.errors import SetupError
from guiderail.rl.runs.rows import success as right

GUIDERAIL = [sys.executable, "-m", "guiderail.launch.cli"]


def start(*words, **more):
    return subprocess.Popen(
        [*GUIDERAIL, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )


def run(*words):
    process = start(*words)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out), err


def journal(folder: Path):
    path = folder / "rollouts.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(rows: int, folder: Path, process) -> None:
    deadline = time.monotonic() + 120
    while len(journal(folder)) < rows:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def descendants(pid: int) -> dict[int, str]:
    """Process id -> command line of everything below `pid`."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                names[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
    below = {pid}
    while more := {p for p, parent in parents.items() if parent in below} - below:
        below |= more
    return {p: names[p] for p in below - {pid}}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def check_complete(folder: Path, result, n: int, success: bool | None = True) -> None:
    rows = journal(folder)
    keys = Counter((row["unit"], row["sample"]) for row in rows)
    assert len(keys) == n
    assert set(keys.values()) == {1}
    assert result["n"] + result["unscored"] == n
    assert json.loads((folder / "metrics.json").read_text())["n"] == result["n"]
    if success is not None:
        assert {right(row) for row in rows} == {success}
    assert all(row["unit"].startswith(row["template"]) for row in rows)
    shown = {turn["screenshot"] for row in rows for turn in row["turns"]}
    assert shown == {path.stem for path in (folder / "images").glob("*.png")} & shown


def test_two_workers_agree_with_one(tmp_path):
    words = ["evaluate", "pocket", "--agent", "random", "--tasks", 6, "--repeats", 2, "--json", "--out"]
    one, _ = run(*words, tmp_path / "one")
    two, _ = run(*words, tmp_path / "two", "--workers", 2)
    assert one == two
    check_complete(tmp_path / "two", two, 12, success=None)
    by_key = [
        {(row["unit"], row["sample"]): [turn["text"] for turn in row["turns"]] for row in journal(tmp_path / name)}
        for name in ("one", "two")
    ]
    assert by_key[0] == by_key[1]


def test_a_resumed_run_must_be_the_same_run(tmp_path):
    from guiderail.envs.pocket.world import PocketTasks
    from guiderail.launch.agents import AgentSpec
    from guiderail.launch.evaluate.live import LiveOptions, score_live

    who, world = AgentSpec(agent="expert"), PocketTasks(2)
    first = score_live("pocket", world, who, LiveOptions(), tmp_path, {"tasks": 2})
    again = score_live("pocket", world, who, LiveOptions(resume=True), tmp_path, {"tasks": 2})
    assert first == again
    assert len(journal(tmp_path)) == 2
    with pytest.raises(SetupError, match="tasks 2, not 3"):
        score_live("pocket", PocketTasks(3), who, LiveOptions(resume=True), tmp_path, {"tasks": 3})
    with pytest.raises(SetupError, match="--resume"):
        score_live("pocket", world, who, LiveOptions(), tmp_path, {"tasks": 2})


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_runner_is_killed_and_resumed(tmp_path, workers):
    words = [
        "evaluate",
        "pocket",
        "--agent",
        "expert",
        "--tasks",
        60,
        "--workers",
        workers,
        "--json",
        "--out",
        tmp_path,
    ]
    process = start(*words)
    wait_for(10, tmp_path, process)
    below = descendants(process.pid)
    process.kill()
    process.communicate()
    before = len(journal(tmp_path))
    assert 10 <= before < 60
    result, _ = run(*words, "--resume")
    check_complete(tmp_path, result, 60)
    assert not [pid for pid in below if alive(pid)]


@pytest.mark.slow
def test_a_worker_is_killed(tmp_path):
    process = start(
        *["evaluate", "pocket", "--agent", "expert", "--tasks", 60, "--workers", 2, "--json", "--out", tmp_path]
    )
    wait_for(10, tmp_path, process)
    workers = [pid for pid, command in descendants(process.pid).items() if "spawn_main" in command]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    check_complete(tmp_path, json.loads(out), 60)
    assert max(row["tries"] for row in journal(tmp_path)) <= 1


@pytest.mark.slow
def test_a_worker_that_stands_still_is_replaced_and_its_attempt_named(tmp_path):
    process = start(
        *["evaluate", "pocket", "--agent", "expert", "--tasks", 40, "--workers", 2, "--retries", 0, "--json"],
        *["--attempt-timeout", 20, "--out", tmp_path],
    )
    wait_for(5, tmp_path, process)
    workers = [pid for pid, command in descendants(process.pid).items() if "spawn_main" in command]
    os.kill(workers[0], signal.SIGSTOP)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    result = json.loads(out)
    check_complete(tmp_path, result, 40, success=None)
    assert result["unscored"] == 1
    assert result["unscored_attempts"][0]["reason"].endswith("sent nothing for 20 s")
    assert "unscored: " in err
    assert result["success"] == 1.0


def miniwob_words(out, *more):
    pytest.importorskip("miniwob")
    from guiderail.envs.live.chromium import find_browser

    try:
        find_browser()
    except SetupError as error:
        pytest.skip(str(error))
    return [
        "evaluate",
        "miniwob",
        "--suite",
        "smoke",
        "--agent",
        "expert",
        "--workers",
        2,
        "--json",
        "--out",
        out,
        *more,
    ]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["chromium", "chromedriver"])
def test_a_browser_is_killed(tmp_path, victim):
    process = start(*miniwob_words(tmp_path, "--seeds", 5))
    wait_for(4, tmp_path, process)
    below = descendants(process.pid)
    found = [pid for pid, command in below.items() if command.split(" ")[0].endswith(victim)]
    os.kill(min(found), signal.SIGKILL)
    out, err = process.communicate(timeout=250)
    assert process.returncode == 0, err
    check_complete(tmp_path, json.loads(out), 30)


@pytest.mark.slow
def test_the_runner_of_browsers_is_killed_and_leaves_none_behind(tmp_path):
    words = miniwob_words(tmp_path, "--seeds", 4)
    process = start(*words)
    wait_for(4, tmp_path, process)
    browsers = [pid for pid, command in descendants(process.pid).items() if "chrom" in command]
    assert browsers
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while [pid for pid in browsers if alive(pid)] and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not [pid for pid in browsers if alive(pid)]
    result, _ = run(*words, "--resume")
    check_complete(tmp_path, result, 24)


@pytest.mark.slow
def test_ray_gives_the_same_result(tmp_path):
    pytest.importorskip("ray", reason="the ray extra is not installed")
    words = ["evaluate", "pocket", "--agent", "random", "--tasks", 6, "--json", "--out"]
    here, _ = run(*words, tmp_path / "here")
    ray, _ = run(*words, tmp_path / "ray", "--executor", "ray", "--workers", 2)
    assert here == ray
    check_complete(tmp_path / "ray", ray, 6, success=None)


@pytest.mark.slow
def test_a_ray_actor_is_killed(tmp_path):
    pytest.importorskip("ray", reason="the ray extra is not installed")
    process = start(
        *["evaluate", "pocket", "--agent", "expert", "--tasks", 60, "--width", 4, "--executor", "ray", "--workers", 2],
        *["--json", "--out", tmp_path],
    )
    wait_for(8, tmp_path, process)
    actors = [pid for pid, command in descendants(process.pid).items() if command.startswith("ray::_Actor")]
    assert len(actors) == 2
    os.kill(actors[0], signal.SIGKILL)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    check_complete(tmp_path, json.loads(out), 60)
