"""A recording of the simulated phone, a training run and two evaluations on it, and their report."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.launch.report.synthetic import sop_run, training_run

# Test modules import what the report is made with, which guiderail[report] installs.
collect_ignore_glob = [] if find_spec("jinja2") and find_spec("matplotlib") else ["test_*.py"]

EVIL = '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1">\'\u2028{{7*7}}'


def hostile(data: Path) -> None:
    """The first episode's goal and template are markup; so is the expert's thought."""
    file = data / "episodes.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()
    first = json.loads(lines[0])
    first |= {"goal": f"goal {EVIL}", "template": f"template {EVIL}", "episode_id": "evil/../<b>"}
    first["steps"][0]["thought"] = f"expert {EVIL}"
    file.write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from guiderail.envs.pocket.record import record

    folder = tmp_path_factory.mktemp("report") / "data"
    record(folder, 20, 0)
    hostile(folder)
    return folder


@pytest.fixture(scope="session")
def study(data: Path) -> Path:
    folder = data.parent / "study"
    training_run(data, folder / "rl", generations=4, groups=4)
    sop_run(data, folder / "scores" / "first", 0.3)
    sop_run(data, folder / "scores" / "second", 0.1, model=f"model {EVIL}")
    rows = [
        json.loads(line) for line in (folder / "rl" / "rollouts.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    ]
    rows[0]["turns"][0] |= {"thought": f"thought {EVIL}", "text": f"said {EVIL}"}
    rows[0]["turns"][0]["verdict"]["why"] = f"why {EVIL}"
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rl" / "rollouts.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def built(study: Path) -> Path:
    from guiderail.launch.report.pages import build

    out = study.parent / "out"
    build([study], out)
    return out
