"""The commands of the README and of docs/ run, each page from top to bottom, at small sizes."""

import json
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from guiderail.agent.types import ACTION_NAMES
from guiderail.envs.recordings.episodes import load_episodes
from guiderail.launch.cli import app
from tests.test_docs import ROOT, fences, typed

SMALL = [  # what a page says -> what the test runs
    (r"--episodes \d+", "--episodes 25"),
    (r"--tasks \d+", "--tasks 2"),
    (r"--seeds \d+", "--seeds 2"),
    (r"--screens \d+", "--screens 20"),
    (r"--steps 2800", "--steps 2"),
    (r"(evaluate (?:sop|offline|likelihood) .*)", r"\1 --limit 3"),
    (r"--limit 8", "--limit 1 --draws 1"),
    (r"(train tiny_sft .*)", r"\1 data.limit=4 training.max_steps=1 training.per_device_train_batch_size=2"),
    (r"(train tiny_more_sft .*)", r"\1 data.limit=4 training.max_steps=1"),
    (
        r"(train tiny_(?:semi_online|offline|miniwob) .*)",
        r"\1 method.groups=2 method.rollouts=2 training.max_steps=4 method.eta=0 method.tries=1",
    ),
]
SMALL += [
    (r"(distill minilm .*)", r"\1 --steps 1 --batch 2"),
    (r"(train tiny_distill .*)", r"\1 method.groups=2 training.max_steps=4"),
    (r"(train tiny_online .*)", r"\1 method.groups=2 method.rollouts=4 training.max_steps=2 method.tries=2"),
    (r"\bn=\d+", "n=8"),
]
OF_ONES_OWN = re.compile(
    r"\b(SHARDS|FOLDER|FILE\.jsonl|TASKS\.jsonl|MODEL|CHECKOUT|URL|NAME)\b|http://|qwen|data/screenshot|data/ac\b"
)
"""Words that stand for files, models and servers of the reader's own: such lines are parsed, in test_docs, not run."""
HOURS = re.compile(r"guiderail console|guiderail study (pocket|plots)|android-world|install-completion")
QUICK = re.compile(
    r"guiderail (record pocket|gate|data|rejudge|evaluate sop .* --agent|run .*--agent|plan|study table|doctor|--version)"
)
"""Lines that need no torch."""


def small(line: str, folder: Path) -> str:
    """A line at the test's size. The episode of explain and replay is one that the small training sampled."""
    for pattern, other in SMALL:
        line = re.sub(pattern, other, line)
    if "--episode 414" in line:
        with (folder / "runs" / "rl" / "rollouts.jsonl").open() as file:
            line = line.replace("--episode 414", f"--episode {json.loads(file.readline())['unit']}")
    return line


def run(line: str, folder: Path) -> None:
    result = CliRunner().invoke(app, shlex.split(small(line, folder), comments=True)[1:])
    assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"


def lines_of(page: str, quick: bool) -> list[str]:
    lines = [line for line in typed((ROOT / page).read_text()) if not OF_ONES_OWN.search(line.split("#")[0])]
    return [line for line in lines if (QUICK if quick else re.compile("")).match(line) and not HOURS.search(line)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("GUIDERAIL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "study").symlink_to(ROOT / "docs" / "study")  # `study` reads its records from the clone
    return tmp_path


def test_the_quick_commands_run_from_top_to_bottom(folder):
    """Those that record, check and score without a model; the others run behind -m slow."""
    done: set[str] = set()
    for page in ("README.md", "docs/use.md", "docs/data.md", "docs/hub.md", "docs/pocket.md", "docs/console.md"):
        for line in lines_of(page, quick=True):
            command = line.split("#")[0].strip()
            if command in done or "rejudge" in line:
                continue
            done.add(command)
            run(line, folder)
    assert len(done) > 8
    run("guiderail evaluate sop data/test --agent random --out runs/sop", folder)
    run("guiderail rejudge runs/sop --rules all", folder)


@pytest.mark.slow
def test_every_command_runs_from_top_to_bottom(folder):
    """README, then docs/use.md in the folder that it leaves, which is what its first line says."""
    if not all(map(find_spec, ("torch", "jinja2", "cryptography", "android_env"))):
        pytest.skip("needs guiderail[train,android,report,submit]")
    web = find_spec("miniwob") is not None
    done: set[str] = set()
    for page in ("README.md", "docs/use.md", "docs/data.md", "docs/hub.md", "docs/console.md"):
        for line in lines_of(page, quick=False):
            command = line.split("#")[0].strip()
            if command in done or (not web and re.search("miniwob|data/web|runs/web", command)):
                continue
            done.add(command)
            run(line, folder)
    assert "on the same 2\u00a0tasks" in (folder / "runs" / "report" / "index.html").read_text()
    assert len(done) > 35


@pytest.mark.slow
def test_the_commands_of_online_rl_run(folder):
    for line in lines_of("docs/online.md", quick=False):
        run(line, folder)
    assert (folder / "runs" / "fleet" / "model" / "config.json").is_file()


def test_every_action_of_the_page_loads(tmp_path):
    actions, step = (json.loads(code) for code in fences((ROOT / "docs" / "data.md").read_text(), "json"))
    steps = [{"screenshot": "0.png", "action_content": action} for action in actions]
    line = {"goal": "g", "swipes": "finger", "steps": [*steps, step]}
    (tmp_path / "episodes.jsonl").write_text(json.dumps(line))
    (episode,) = load_episodes(tmp_path, screen=(1080, 2400)).episodes
    assert {made.action.name for made in episode.steps[:-1]} == set(ACTION_NAMES)
    whole = episode.steps[-1]
    assert (whole.thought, whole.instruction, whole.box_origin) == (
        "There it is.",
        "Add milk to the basket.",
        "annotation",
    )
    assert len(whole.boxes) == 2


def test_the_page_names_every_field_that_the_loader_reads():
    page = (ROOT / "docs" / "data.md").read_text()
    source = (ROOT / "envs" / "recordings" / "episodes.py").read_text()
    read = set(re.findall(r'(?:line|step|content|options)\.get\("(\w+)"', source)) | {"swipes", "steps", "episode_id"}
    assert len(read) > 9
    assert not {field for field in read if f"`{field}`" not in page and f"`{field}:" not in page}
