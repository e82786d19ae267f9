"""docs/own-parts.md is true: its examples are written to files, its commands are run, its package is found by name."""

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")

from guiderail.agent import registry
from guiderail.agent.dialects import DIALECTS
from guiderail.agent.errors import SetupError
from guiderail.agent.types import Completion, Episode, Message, Prompt, Turn, Wait
from guiderail.envs.live.worlds import WORLDS
from guiderail.envs.recordings.match import ALL_RULES
from guiderail.launch.agents import AgentSpec, Voice, voice
from guiderail.launch.cli import app
from guiderail.patch.base import PATCHES, build
from guiderail.rl.config import load_config, validated
from guiderail.rl.credit.named import CREDITS, REWARDS
from guiderail.rl.credit.uis1 import reward_terms

PAGE = (Path(__file__).parents[2] / "docs" / "own-parts.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
FILES = {text.split("\n", 1)[0].removeprefix("# "): text for kind, text in BLOCKS if kind in ("python", "yaml")}
COMMANDS = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
KINDS = {one.group: one for one in (PATCHES, REWARDS, CREDITS, ALL_RULES, DIALECTS, WORLDS)}


def call(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, f"{words}\n{result.output}\n{result.exception!r}"
    return result.stdout


def refused(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert isinstance(result.exception, SetupError), f"{words}\n{result.output}\n{result.exception!r}"
    return str(result.exception)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a reader of the page sits, after running every command on it."""
    here = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        for name, text in FILES.items():
            Path(name).write_text(text)
        for line in COMMANDS:
            program, *words = shlex.split(line)
            assert program == "guiderail"
            call(*words)
        yield here


def both(*words: object) -> str:
    """Standard output and standard error together."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.output


def about(run: Path | str) -> dict:
    return json.loads((Path(run) / "run.json").read_text())["legs"][0]["about"]


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "rollouts.jsonl").read_text().splitlines()]


def test_the_page_has_every_kind():
    assert set(FILES) == {f"my_{kind}.py" for kind in ("patch", "reward", "credit", "rules", "dialect", "world")} | {
        "run.yaml"
    }
    assert len(COMMANDS) == 10


def test_a_training_uses_all_four(folder):
    rows = lines(folder / "runs/own")
    turns = [(row, i, turn) for row in rows for i, turn in enumerate(row["turns"])]
    strategies = {turn["repair"]["strategy"] for *_, turn in turns if "repair" in turn}
    assert strategies == {"goal-as-thought"}
    for row, i, turn in turns:
        verdict = turn["verdict"]
        agreement = 1.0 if verdict["exact"] else 0.5 if verdict["type_ok"] else 0.0
        words = len((turn["thought"] or "").split())
        assert turn["reward"] == (agreement - 0.01 * max(0, words - 10) if verdict["readable"] else 0)
        after = any(not before["verdict"]["exact"] for before in row["turns"][:i])
        assert not after or turn["advantage"] == 0
    assert any(i and not row["turns"][i - 1]["verdict"]["exact"] for row, i, _ in turns)


@pytest.mark.slow
def test_two_processes_load_the_files_each_for_itself_and_sample_the_same(folder, monkeypatch):
    monkeypatch.chdir(folder)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "guiderail.launch.cli"]
    subprocess.run([*launcher, "train", "run.yaml", "training.max_steps=1", "--out", "runs/two"], check=True)
    together, alone = lines(folder / "runs/two"), lines(folder / "runs/own")
    assert together == [row for row in alone if row["generation"] == 0]


def test_the_world_is_solved_by_its_expert(folder):
    assert json.loads((folder / "runs/lamps/metrics.json").read_text())["success"] == 1
    assert len(lines(folder / "runs/lamps")) == 3


def test_the_run_record_names_every_part(folder):
    own = about(folder / "runs/own")
    assert set(own["parts"]) == {"patch", "reward", "credit", "rules"}
    for kind, part in own["parts"].items():
        file = folder / f"my_{kind}.py"
        assert part == {
            "name": own["config"]["method"][kind],
            "file": file.name,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
    assert set(about(folder / "runs/lamps")["parts"]) == {"world"}


def test_explain_shows_the_terms_and_computes_the_same(folder, monkeypatch):
    monkeypatch.chdir(folder)
    row, turn = next((r, t) for r in lines(folder / "runs/plain") for t in r["turns"] if t["verdict"]["type_ok"])
    words = ["explain", "runs/plain", "--episode", row["unit"], "--rollout", row["sample"], "--step", turn["index"]]
    words += ["--generation", row["generation"], "--visit", row["visit"]]
    assert "--trust-files" in refused(*words)
    text = call(*words, "--trust-files")
    assert "agreement" in text
    assert "length" in text
    assert "the same, to the last digit" in text


# ------------------------------------------------------------------------------------------- what is held to which check

HEAD = """
from dataclasses import replace
from guiderail.agent.dialects import BRIEF
from guiderail.agent.types import Repair
from guiderail.envs.recordings.match import MatchRules
from guiderail.rl.credit.uis1 import RewardRules
"""
WRONG = [
    (PATCHES, "def part(episode): ...", r"got part\(episode\), expected a function repair\(episode, turn\)"),
    (PATCHES, "part = Repair", r"got the class Repair, expected a function repair"),
    (
        REWARDS,
        "def part(turn, rules): ...",
        r"got part\(turn, rules\), expected RewardRules, or a function reward\(turn\)",
    ),
    (REWARDS, "part = RewardRules('x', exact='much')", r"its exact is 'much': Input should be a valid number"),
    (CREDITS, "def part(group): ...", r"got part\(group\), expected a function credit\(group, rules\)"),
    (ALL_RULES, "part = 'guiderail'", r"got 'guiderail' \(str\), expected a value of .*match.MatchRules"),
    (ALL_RULES, "part = MatchRules", r"got the class MatchRules, expected a value"),
    (
        ALL_RULES,
        "part = MatchRules('x', boxes='smalest')",
        r"its boxes is 'smalest': Input should be 'smallest', 'any'",
    ),
    (ALL_RULES, "part = MatchRules('x', radius='wide')", r"its radius is 'wide': Input should be a valid number"),
    (DIALECTS, "part = replace(BRIEF, space='inches')", r"its space is 'inches': Input should be 'picture'"),
    (DIALECTS, "part = replace(BRIEF, later=3)", r"its later is '3': Input should be a valid string"),
    (DIALECTS, "part = replace(BRIEF, read=lambda text: 0)", r"got <lambda>\(text\), expected as read a function of 2"),
    (WORLDS, "class part: ...", r"got the class part, expected a world: .*, such as part\(\)"),
    (WORLDS, "part = 3", r"expected a world: an object with listed\(\) and open\(worker\)"),
]


@pytest.mark.parametrize(("kind", "code", "message"), WRONG, ids=[code for _, code, _ in WRONG])
def test_every_kind_is_checked_as_ours_are(tmp_path, kind, code, message):
    path = tmp_path / "wrong.py"
    path.write_text(HEAD + code)
    with pytest.raises(SetupError, match=rf"wrong.py:part is not a {kind.kind}: .*{message}"):
        kind.find(f"{path}:part")


@pytest.mark.parametrize("kind", [ALL_RULES, DIALECTS], ids=["rules", "dialects"])
def test_values_of_ours_pass_the_check_that_a_users_must_pass(kind):
    for name, part in kind.items():
        assert kind._accept(name, part) == part


def test_own_values_go_by_the_name_they_were_asked_for(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert ALL_RULES.find("my_rules.py:GENEROUS").name == "my_rules.py:GENEROUS"
    assert DIALECTS.find("my_dialect.py:ONE_JSON").name == "my_dialect.py:ONE_JSON"


def test_what_a_patch_and_a_reward_return_is_checked(tmp_path):
    path = tmp_path / "returns.py"
    path.write_text(
        "def words(episode, turn): return 'click'\ndef number(turn): return 1.0\ndef nan(turn): return [('x', float('nan'))]\n"
    )
    episode = Episode("e", "goal", (), "data.jsonl:3")
    turn = Turn(2, Prompt(()), Completion("said"), None, None)
    patch = build(f"{path}:words", 1, lambda goal: "")
    with pytest.raises(SetupError, match=r"returns.py:words at data.jsonl:3 step 2: got 'click', expected a Repair"):
        patch(episode, turn)
    for name in ("number", "nan"):
        with pytest.raises(
            SetupError, match=rf"returns.py:{name}: got .* for step 2, expected a list of \(term, value\)"
        ):
            reward_terms(turn, REWARDS.find(f"{path}:{name}"))


def test_a_reward_sees_only_what_a_run_records(tmp_path):
    path = tmp_path / "sees.py"
    path.write_text(
        "def part(turn):\n    assert not turn.prompt.messages and turn.action is None and not turn.completion.token_ids\n    return [(turn.completion.text, len(turn.thought))]\n"
    )
    prompt = Prompt((Message("user", ("secret",)),))
    turn = Turn(0, prompt, Completion("said", (1, 2), (0.0, 0.0)), "why", Wait())
    assert reward_terms(turn, REWARDS.find(f"{path}:part")) == [("said", 3.0)]


# ---------------------------------------------------------------------------------------------------- configs and models


@pytest.fixture
def config(tmp_path):
    (tmp_path / "mine.py").write_text(HEAD + "def patch(episode): ...\nRULES = MatchRules('x')\n")
    path = tmp_path / "run.yaml"
    path.write_text("model: {path: tiny-sft}\ndata: {train: data}\n")
    return path


def test_a_config_with_a_wrong_part_says_key_and_file_and_is_refused_before_torch(config):
    wrong = f"method.patch={config.parent / 'mine.py'}:patch"
    with pytest.raises(
        SetupError, match=r"run.yaml: method.patch: .*mine.py:patch is not a patch: got patch\(episode\)"
    ):
        load_config(config, [wrong])
    script = "import sys; from guiderail.launch.cli import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    made = subprocess.run([sys.executable, "-c", script, "train", config, wrong], capture_output=True, text=True)
    assert made.returncode == 2
    assert made.stdout.split() == ["False"]
    assert "method.patch" in made.stderr


def test_reading_a_config_of_others_runs_none_of_its_files(config):
    marker = config.parent / "was-run"
    (config.parent / "mine.py").write_text(f"open({str(marker)!r}, 'w')")
    content = {"model": {"path": "m"}, "data": {"train": "d"}, "method": {"patch": f"{config.parent}/mine.py:patch"}}
    assert validated(content, config).method.patch.endswith("mine.py:patch")
    with pytest.raises(SetupError, match="unknown patch 'thoughtfree', did you mean 'thought-free'"):
        validated(content | {"method": {"patch": "thoughtfree"}}, config)
    assert not marker.exists()


def test_a_model_folder_cannot_make_a_file_run(tmp_path, folder):
    name = f"{folder / 'my_dialect.py'}:ONE_JSON"
    Voice(name, images=3).save(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SetupError, match=r"a file that is run as code; if you trust it, add --dialect .*:ONE_JSON"):
        voice(AgentSpec(model=str(tmp_path)))
    assert voice(AgentSpec(model=str(tmp_path), dialect=name)).images == 3


def test_a_part_that_changed_since_the_run_is_named(folder, monkeypatch, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    row = lines(Path("runs/plain"))[0]
    words = ["explain", "runs/plain", "--episode", row["unit"], "--step", 0, "--trust-files"]
    assert "not the reward" not in both(*words)
    Path("my_reward.py").write_text(FILES["my_reward.py"] + "# changed\n")
    registry._read.cache_clear()
    assert "not the reward of this run" in both(*words)


def test_a_run_cannot_make_rejudge_run_a_file(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    words = ["evaluate", "sop", "data", "--agent", "random", "--dialect", "my_dialect.py:ONE_JSON", "--limit", 1]
    call(*words, "--out", tmp_path / "run")
    assert set(about(tmp_path / "run")["parts"]) == {"dialect"}
    words = ["rejudge", tmp_path / "run", "--rules", "strict"]
    assert "names my_dialect.py:ONE_JSON, run as code" in refused(*words)
    call(*words, "--trust-files")


def test_live_attempts_are_not_continued_with_a_part_that_changed(folder, monkeypatch, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    words = ["evaluate", "world", "my_world.py:LAMPS", "--agent", "expert", "--out", "runs/lamps", "--resume"]
    call(*words)
    Path("my_world.py").write_text(FILES["my_world.py"] + "# changed\n")
    registry._read.cache_clear()
    assert "was run with parts.world.sha256" in refused(*words)


# --------------------------------------------------------------------------------------------------------------- worlds


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("return [('a', ('g',)), ('a', ('g',))]", "lists 'a' twice"),
        ("return []", "lists no task"),
        ("return ['a']", r"lists 'a', expected a list of \(task name"),
        ("return [('a', 'group')]", r"expected a list of \(task name"),
    ],
)
def test_lists_of_tasks_that_break_the_contract(tmp_path, code, message):
    said = refused("evaluate", "world", world_of(tmp_path, code), "--agent", "random")
    assert re.search(message, said)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_task_that_lacks_a_method_is_named_from_any_process(tmp_path, workers):
    world = world_of(tmp_path, "return [('a', ())]")
    said = refused("evaluate", "world", world, "--agent", "random", "--workers", workers)
    assert re.search(r"task 'a' of .*world.py:WORLD has no check; a LiveTask has all of", said)


def world_of(folder: Path, listed: str) -> str:
    (folder / "world.py").write_text(
        "class Task:\n    id = goal = 'a'\n    max_steps = 1\n    def start(self): ...\n    def close(self): ...\n"
        "class World:\n    def task(self, name): return Task()\n    def close(self): ...\n"
        f"    def open(self, worker): return self\n    def listed(self): {listed}\nWORLD = World()\n"
    )
    return f"{folder / 'world.py'}:WORLD"


def test_unknown_worlds(tmp_path):
    assert "unknown world 'pocket'; known: mobilegym, path/to/file.py:NAME" in refused(
        "evaluate", "world", "pocket", "--agent", "random"
    )


# ---------------------------------------------------------------------------------------------------------- a published part


@pytest.fixture
def installed(folder, tmp_path, monkeypatch):
    """The package of the page's last section, as pip would leave it."""
    project = tomllib.loads(next(text for kind, text in BLOCKS if kind == "toml"))["project"]
    info = tmp_path / "my_parts-1.0.dist-info"
    for part in (info, tmp_path / "my_parts"):
        part.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    sections = (
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items())
        for group, names in project["entry-points"].items()
    )
    (info / "entry_points.txt").write_text("\n".join(sections))
    for file in folder.glob("my_*.py"):
        shutil.copy(file, tmp_path / "my_parts")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(folder)
    yield project["entry-points"]
    for name in [name for name in sys.modules if name.startswith("my_parts")]:
        del sys.modules[name]


def test_every_part_of_the_package_is_found_by_name(installed):
    assert set(installed) == set(KINDS)
    for group, names in installed.items():
        for name in names:
            assert KINDS[group].find(name) is not None
            assert KINDS[group].origin(name) == {"name": name, "distribution": "my-parts", "version": "1.0"}


def test_a_training_with_a_patch_of_the_package(installed):
    short = ["training.max_steps=1", "method.groups=1", "method.credit=ui-s1", "method.spread_of=none"]
    call("train", "run.yaml", "method.patch=goal-as-thought", *short, "--out", "runs/packaged")
    assert about("runs/packaged")["parts"]["patch"]["distribution"] == "my-parts"
    repairs = [
        turn["repair"]["strategy"] for row in lines(Path("runs/packaged")) for turn in row["turns"] if "repair" in turn
    ]
    assert set(repairs) == {"goal-as-thought"}
    assert "world" in about("runs/lamps")["parts"]
    call("evaluate", "world", "lamps", "--agent", "expert")
