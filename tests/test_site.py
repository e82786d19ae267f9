"""The site builds offline and strictly, asks no other host for anything, and its tutorials run."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from guiderail.envs.recordings.episodes import load_episodes
from guiderail.rl.config import Config
from tests.test_docs import ROOT, fences, typed
from tests.test_docs_run import run

DOCS = ROOT / "docs"
TUTORIAL = DOCS / "tutorials" / "python.md"
NOTEBOOK = DOCS / "tutorials" / "semi_online.ipynb"
SMALL = {"300, seed=0": "16, seed=0", "100, seed=1": "8, seed=1", "PocketTasks(20": "PocketTasks(2"}
SMALL |= {'max_steps": 16': 'max_steps": 4, "method.groups": 2, "method.tries": 1', 'rollouts": 8}': 'rollouts": 2}'}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if find_spec("material") is None:
        pytest.skip("needs guiderail[docs]")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "-f", str(ROOT / "mkdocs.yml")]
    quiet = {"NO_MKDOCS_2_WARNING": "1"}
    made = subprocess.run([*command, "-d", str(folder)], capture_output=True, text=True, env=os.environ | quiet)
    assert made.returncode == 0, made.stderr[-3000:]
    return folder


def test_the_site_asks_no_other_host(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 15
    loads = re.compile(r'(?:src|<link[^>]*href)="?(https?:)?//', re.I)
    for page in pages:
        assert not loads.search(page.read_text()), page
        for tag in re.findall(r"<img [^>]*>", page.read_text()):
            assert re.search(r'alt="[^"]+"', tag), f"{page}: {tag}"
    assert (site / "worker.js").is_file()


def test_the_reference_knows_every_command_and_key(site):
    page = (site / "reference" / "cli.html").read_text()
    assert all(f"guiderail {name}" in page for name in ("train", "evaluate sop", "submit verify", "data stats"))
    keys = (site / "reference" / "config.html").read_text()
    for section, field in Config.model_fields.items():
        for key in getattr(field.annotation, "model_fields", {}):
            assert f"{section}.{key}" in keys
    row = keys[keys.index("method.patch_budget") :][:400]
    assert "<code>1</code>" in row


def test_every_page_is_in_the_menu():
    text = (ROOT / "mkdocs.yml").read_text()
    menu = yaml.safe_load(text)["nav"]
    named = set(re.findall(r"[\w/-]+\.md", json.dumps(menu)))
    made = {"reference/cli.md", "reference/config.md", "benchmarks.md"}
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {"study/table.md"}
    assert named - made == pages


def cells():
    return [
        "".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"
    ]


def test_the_notebook_is_the_page():
    blocks = fences(TUTORIAL.read_text(), "python")
    assert cells() == [block.rstrip("\n") for block in blocks]
    assert sum(len(block.split("\n")) for block in cells()) <= 40


def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
    if not all(map(find_spec, ("torch", "android_env"))):
        pytest.skip("needs guiderail[train,android]")
    monkeypatch.chdir(tmp_path)
    code = "\n".join(cells())
    for pattern, other in SMALL.items():
        assert pattern in code
        code = code.replace(pattern, other)
    exec(code, {"__name__": "notebook"})
    said = capsys.readouterr().out
    assert "expert steps agree with themselves" in said
    assert re.search(r"after PG \d", said)
    assert "live success" in said


def test_own_recordings_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "tutorials" / "own-recordings.md").read_text()
    monkeypatch.setenv("GUIDERAIL_CACHE", str(tmp_path / "cache"))
    by_hand, by_rows = fences(page, "python")
    names = {"__name__": "tutorial"}
    exec(by_hand, names)
    (episode,) = load_episodes(Path("data/mine")).episodes
    assert [step.action.name for step in episode.steps] == ["open", "click", "terminate"]
    for line in typed(page)[:3]:
        run(line, tmp_path)
    assert Path("sheet.png").is_file()
    if find_spec("datasets") is not None:
        exec(by_rows, names)
        assert names["found"]["exact"] == names["found"]["steps"] == 3
        assert load_episodes("data/mine-hf").episodes[0].goal == "Buy milk."
