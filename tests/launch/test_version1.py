"""Run folders and bundles of version 1 (tests/data/version1) give the numbers that the code of their time gave."""

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from guiderail.launch.cli import app
from guiderail.launch.submission import archive
from guiderail.launch.submission.build import build as bundle
from guiderail.launch.submission.schema import Declarations, canonical
from guiderail.launch.submission.verify import verify

OLD = Path(__file__).parents[1] / "data" / "version1"


def call(*words: object) -> dict:
    result = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return json.loads(result.stdout)


def expected(name: str) -> dict:
    return json.loads((OLD / "expected" / f"{name}.json").read_text())


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A copy of the samples as the working directory: their records name relative paths."""
    folder = shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("run", ["sop", "offline"])
def test_rejudge(here, run):
    found, before = call("rejudge", run, "--rules", "all"), expected(f"rejudge-{run}")
    for name, row in before.items():  # the rules have one field more
        row["rules"]["loose"] = (
            name.startswith("uis1-released") or found[name]["rules"]["name"] == "uis1-sop-as-written"
        )
    assert found == before


def index(file: Path) -> list[dict]:
    """The entries that a report's index.js names."""
    text = file.read_text(encoding="utf-8")
    return json.loads(text[text.index(",") + 1 : text.rindex(")")])["entries"]


def test_report(here):
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    runs = ["sop", "offline", "pocket", "rl", "offline-rl"]
    call("report", *runs, "--out", "report", "--no-plots")
    for run in runs:
        found, before = index(Path("report", run, "data", "index.js")), index(Path("expected", f"index-{run}.js"))
        if run == "offline-rl":  # keys named episode, step and visit; the visit alone says which group it is
            before = [row | {"key": f"{row['episode']}@{row['key'].partition('@')[2]}"} for row in before]
        assert found == before
        page = (Path("report") / run / "index.html").read_text()
        assert "576b2edfce36f83d8a18558d76f72b0db32b5a95" in page
        assert "2026-11-30" in page


def test_explain(here):
    from guiderail.launch.explain import _trained
    from guiderail.rl.runs.explain import explain, find
    from guiderail.rl.runs.log import read_rollouts

    rows = expected("explain")
    assert {row[0] for row in rows} == {"rl", "offline-rl"}
    for run, episode, sample, step, visit, *numbers, weight in rows:
        record, config = _trained(Path(run), trust_files=False)
        row, generation = find(read_rollouts(Path(run)), episode, sample, step, None, visit)
        found = explain(row, generation, step, config, record.about.processes or 1)
        assert found.agrees
        credit = [found.reward, found.ret, found.episodes.advantage, found.steps.advantage, found.advantage]
        assert [*credit, found.signal] == numbers
        one = found.weight
        assert (one and [one.window, one.row, one.items, one.per_token]) == weight


@pytest.mark.parametrize("run", ["sop", "offline", "pocket"])
def test_a_run_is_bundled_now_with_the_numbers_it_had(here, run):
    """Both ways: the old bundle verifies, and the old run folder makes a bundle of the present format."""
    before = expected(f"verify-{run}")
    assert call("submit", "verify", f"{run}.zip") == before
    made = call("submit", "build", run, "--out", "new.zip", "--name", "sample")
    assert made["scores"] == before["scores"]
    assert made["screenshots"] == before["screenshots"]
    compared = call("submit", "compare", f"{run}.zip", "new.zip")
    assert (compared["n"], compared["left_out"], compared["flip_rate"]) == (before["attempts"], 0, 0.0)


# --------------------------------------------------------------------------------- an old bundle is checked as hard as a new one


def members_of(name: str) -> dict[str, bytes]:
    with zipfile.ZipFile(OLD / name) as file:
        return {one: file.read(one) for one in file.namelist()}


def bent(tmp_path: Path, run: str, number: int, **change: object) -> list[tuple[str, str]]:
    """What verify says of the old bundle after one of its lines was edited, with hashes made to fit."""
    members = members_of(f"{run}.zip")
    lines = members[archive.ATTEMPTS].decode().splitlines()
    lines[number - 1] = canonical(json.loads(lines[number - 1]) | change)
    members[archive.ATTEMPTS] = ("\n".join(lines) + "\n").encode()
    manifest = json.loads(members[archive.MANIFEST])
    manifest["attempts"][number - 1]["sha256"] = hashlib.sha256(lines[number - 1].encode()).hexdigest()
    return found(tmp_path, members | {archive.MANIFEST: json.dumps(manifest).encode()})


def found(tmp_path: Path, members: dict[str, bytes]) -> list[tuple[str, str]]:
    members[archive.SUMS] = archive.sums(archive.digests(members))
    archive.write(tmp_path / "bent.zip", members)
    return [(problem.place, problem.what) for problem in verify(tmp_path / "bent.zip").problems]


@pytest.mark.parametrize(
    ("run", "number", "change", "place", "what"),
    [
        ("pocket", 3, {"success": False}, "manifest.json scores.success", "claimed 0.5, the attempts give 0.25"),
        ("pocket", 3, {"success": None}, "attempts.jsonl:3", "success is null exactly when the ending is crashed"),
        ("pocket", 3, {"ending": "out_of_steps"}, "attempts.jsonl:3 outcome", "success is true, but it ended with out_of_steps"),
        ("pocket", 3, {"ending": "lucky"}, "attempts.jsonl:3", "ended: Input should be 'finished'"),
        ("pocket", 3, {"seed": 6}, "attempts.jsonl:3 seed", "6, the manifest declares 5"),
        ("pocket", 3, {"budget": 2}, "attempts.jsonl:3 turns", "5 turns, the budget is 2"),
        ("pocket", 3, {"trial": 7}, "attempts.jsonl:3", "sample 7 is not declared"),
        ("pocket", 3, {"trial": 1}, "attempts.jsonl:4", "second attempt at"),
        ("pocket", 3, {"unit": "x"}, "attempts.jsonl:3", "unit: Extra inputs are not permitted"),
        ("pocket", 3, {"goal": 5}, "attempts.jsonl:3", "goal: Input should be a valid string"),
        ("sop", 1, {"success": True}, "attempts.jsonl:1", "success is True, its verdicts say False"),
        ("sop", 1, {"steps": 2}, "attempts.jsonl:1", "success is False, its verdicts say True"),
        ("offline", 2, {"success": False}, "attempts.jsonl:2", "success is False, its verdicts say True"),
        ("offline", 2, {"task": "0/9"}, "attempts.jsonl:2 turns", "turns are not numbered 9, 10, 11, ..."),
        ("offline", 2, {"task": "0"}, "attempts.jsonl:2 start", "a single step names its step"),
    ],
)  # fmt: skip
def test_a_bent_old_line_is_named(tmp_path, run, number, change, place, what):
    assert any(there == place and what in said for there, said in bent(tmp_path, run, number, **change))


def test_a_bent_old_manifest_is_named(tmp_path):
    members = members_of("pocket.zip")
    manifest = json.loads(members[archive.MANIFEST])
    for change, what in (
        ({"samples": 2}, "samples: Extra inputs are not permitted"),
        ({"trials": 0}, "trials: Input should be greater than or equal to 1"),
        ({"trials": 3}, "sample 2, which is declared"),
        ({"tasks": [*manifest["tasks"], "another"]}, "no attempt at 'another' sample 0"),
        ({"scores": manifest["scores"] | {"success": 0.6}}, "claimed 0.6, the attempts give 0.5"),
        ({"format": "guiderail-submission/3"}, "format: Input should be 'guiderail-submission/2'"),
    ):
        text = json.dumps(manifest | change).encode()
        assert any(what in said for _, said in found(tmp_path, members | {archive.MANIFEST: text})), what


def test_a_new_bundle_of_single_steps_names_each_step(here):
    members = bundle(Path("offline"), Declarations())
    rows = [json.loads(line) for line in members[archive.ATTEMPTS].splitlines()]
    assert [(row["unit"], row["start"]) for row in rows] == [("0", t) for t in range(5)] + [("1", t) for t in range(10)]
    assert all("success" not in row and row["outcome"] is None for row in rows)
