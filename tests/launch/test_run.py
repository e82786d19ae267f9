"""guiderail run: what the terminal and programs get, and the run folder that other commands read."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

pytest.importorskip("android_env")

from PIL import Image

from guiderail.agent.errors import SetupError
from guiderail.agent.types import Screenshot
from guiderail.envs.live.device import encode_png
from guiderail.launch import run, show
from guiderail.launch.cli import app
from guiderail.launch.console.again import find
from guiderail.rl.runs.log import read_record, read_rollouts


def invoke(*words, code=0):
    result = CliRunner().invoke(app, [*map(str, words)])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "expert"
    said = invoke("run", "--agent", "expert", "--device", "pocket:toggle", "--out", out)
    assert said.splitlines()[0] == "Turn on Clicks."
    assert "finished; the goal is reached" in said
    return out


def test_the_run_folder_is_one_like_any_other(folder):
    (row,) = read_rollouts(folder)
    assert (row["unit"], row["ended"], row["outcome"]["success"]) == ("toggle-test-1-live", "finished", True)
    assert {turn["by"] for turn in row["turns"]} == {"expert"}
    assert all((folder / "images" / f"{turn['screenshot']}.png").is_file() for turn in row["turns"])
    record = read_record(folder)
    assert (record.kind, record.about.model, record.about.world["name"]) == ("run", "expert", "pocket")
    assert json.loads((folder / "metrics.json").read_text())["success"] == 1.0


def test_report_reads_it_and_links_back_into_the_console(folder, tmp_path):
    pytest.importorskip("jinja2")
    invoke("report", folder, "--out", tmp_path / "report", "--no-plots")
    index = (tmp_path / "report" / "data" / "index.js").read_text()
    assert '"again":true' in index
    assert "guiderail console --from" in (tmp_path / "report" / "assets" / "viewer.js").read_text()


def test_a_bundle_of_it_verifies(folder, tmp_path):
    pytest.importorskip("cryptography")
    invoke("submit", "build", folder, "--out", tmp_path / "bundle.zip")
    invoke("submit", "verify", tmp_path / "bundle.zip")


def test_json_is_one_object_per_line(folder):
    lines = [
        json.loads(line)
        for line in invoke("run", "--agent", "expert", "--device", "pocket:toggle", "--json").splitlines()
    ]
    *steps, last = lines
    assert [step["step"] for step in steps] == [*range(len(steps))]
    assert steps[0]["action"]["name"] == "click"
    assert last["result"]["success"] is True
    assert last["result"]["steps"] == len(steps)


def test_exit_codes_say_what_happened():
    invoke("run", "--agent", "random", "--device", "pocket:toggle", "--max-steps", "1", code=1)
    result = CliRunner().invoke(app, ["run", "Turn on Wi-Fi", "--agent", "expert"])
    assert isinstance(result.exception, SetupError)
    assert "no expert for a goal of your own" in str(result.exception)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--device", "pocket"], "give exactly one of"),
        (["--agent", "expert", "--device", "pocket:nothing"], "unknown template"),
        (["a goal", "--agent", "expert", "--device", "pocket:toggle"], "has its own goal"),
        (["--agent", "random", "--device", "emulator-5554"], "give one, such as"),
        (["--agent", "random", "--device", "miniwob"], "name a page"),
    ],
)
def test_what_cannot_be_done_is_said_with_its_remedy(words, expected):
    result = CliRunner().invoke(app, ["run", *words])
    assert isinstance(result.exception, SetupError)
    assert expected in str(result.exception)


@pytest.mark.parametrize("finished", [True, False])
def test_a_used_folder_is_refused_before_the_first_step(folder, tmp_path, finished):
    used = shutil.copytree(folder, tmp_path / "used")
    if not finished:
        (used / "metrics.json").unlink()
    words = ["run", "--agent", "expert", "--device", "pocket:toggle", "--out", str(used)]
    result = CliRunner().invoke(app, words)
    kind = "a finished run" if finished else "a run"
    assert str(result.exception) == f"{used} already holds {kind}; give another --out"
    assert result.stdout == ""


def test_what_a_model_thinks_cannot_steer_the_terminal(monkeypatch):
    shown = run.step_text(
        {"index": 3, "thought": "\x1b]0;mine\x07tap \u202eok", "action": {"label": "\x1b[2Jclick"}, "note": ""}
    )
    monkeypatch.setattr(show.out, "_file", said := io.StringIO())
    show.out.print(shown)
    assert said.getvalue() == "  3  \ufffd]0;minetap \ufffdok\n     \ufffd[2Jclick\n"
    assert "\x1b" in shown.plain, "the text itself stays"


def test_a_risky_act_is_not_done_where_nobody_can_be_asked():
    result = CliRunner().invoke(
        app, ["run", "--agent", "expert", "--device", "pocket:call", "--confirm", "--max-steps", "12"]
    )
    assert result.exit_code == 130
    assert "Nobody can answer here" in " ".join(result.output.split())
    assert "not allowed to go on" in result.output
    said = invoke("run", "--agent", "expert", "--device", "pocket:call", "--no-confirm")
    assert "the goal is reached" in said


def test_ctrl_c_stops_at_once_and_keeps_what_was_done(tmp_path):
    world = tmp_path / "slow.py"
    world.write_text(SLOW)
    command = [sys.executable, "-m", "guiderail.launch.cli", "run", "--agent", "random", "--device", f"{world}:WORLD"]
    process = subprocess.Popen([*command, "--out", str(tmp_path / "out")], stdout=subprocess.PIPE, text=True, bufsize=1)
    process.stdout.readline()  # the goal: the first step is done
    time.sleep(0.5)  # the device hangs in the second one
    os.kill(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=40)  # the device hangs for longer
    assert process.returncode == 130
    assert "stopped" in said
    (row,) = read_rollouts(tmp_path / "out")
    assert (row["ended"], row["outcome"]) == ("stopped", None)
    assert len(row["turns"]) >= 1


def test_ctrl_c_is_an_exception_only_where_no_lock_can_be_held():
    before = signal.getsignal(signal.SIGINT)
    with run._interrupts() as ctrl_c:
        signal.raise_signal(signal.SIGINT)
        assert ctrl_c.pressed
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with run._interrupts() as ctrl_c:
        ctrl_c.raises = True  # a question is asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


SLOW = """
import time
from guiderail.agent.types import Outcome
from guiderail.envs.pocket.hands import PhoneInHand
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.state import new_state


class Slow(PhoneInHand):
    acts = 0

    def act(self, action):
        self.acts += 1
        if self.acts > 1:
            time.sleep(60)


class Task:
    id, goal, max_steps = "slow", "wait for it", 5
    start = staticmethod(lambda: Slow(Phone(new_state(0))))
    check = staticmethod(lambda: Outcome(False))
    close = staticmethod(lambda: None)


class World:
    listed = staticmethod(lambda: [("slow", ())])

    class Session:
        task = staticmethod(lambda name: Task())
        close = staticmethod(lambda: None)

    def open(self, worker):
        return self.Session()


WORLD = World()
"""


def test_an_attempt_is_found_again_before_any_of_its_steps(folder):
    found = find(folder, "toggle-test-1-live", 0, 2)
    assert (found.device, found.goal, found.model, found.again.dialect) == (
        "pocket:toggle-test-1-live",
        "",
        "expert",
        "brief",
    )
    assert [turn.index for turn in found.again.turns] == [0, 1]
    for wrong in ({"unit": "nothing"}, {"sample": 3}, {"step": 99}):
        with pytest.raises(SetupError):
            find(folder, **({"unit": "toggle-test-1-live", "sample": 0, "step": 0} | wrong))


def test_the_device_is_given_back_before_the_program_ends(monkeypatch):
    """A thread that was still at work when Python ended aborted it, with exit code 134."""
    gone = []

    def slowly(attempt):
        time.sleep(0.5)
        gone.append(attempt)

    monkeypatch.setattr(run.Attended, "_give_back", slowly)
    invoke("run", "--agent", "expert", "--device", "pocket:toggle")
    assert len(gone) == 1


def test_half_blocks_show_two_pixels_per_character():
    image = Image.new("RGB", (2, 4), "red")
    image.paste("blue", (0, 2, 2, 4))
    shot = encode_png(image)
    assert isinstance(shot, Screenshot)
    text = run.half_blocks(shot, 2)
    assert text.plain == "▀▀\n▀▀\n"
    assert io.StringIO(str(text.spans[0].style)).read() == "rgb(255,0,0) on rgb(255,0,0)"
    assert str(text.spans[-1].style) == "rgb(0,0,255) on rgb(0,0,255)"
