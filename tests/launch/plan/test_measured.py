"""The plan against measurement: benchmarks/plan.json, and one case of it measured again."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RECORD = json.loads((ROOT / "benchmarks" / "plan.json").read_text())


@pytest.mark.parametrize("row", RECORD["rows"], ids=lambda row: row["case"])
def test_what_was_measured_is_near_the_plan(row):
    assert row["planned_memory"] == pytest.approx(row["memory"], rel=0.15)
    assert row["planned_flops"] == pytest.approx(row["flops"], rel=0.05)
    assert row["planned_memory"] == pytest.approx(sum(row["parts"].values()))


def test_the_cases_differ_in_what_takes_memory():
    cases = [row["case"] for row in RECORD["rows"]]
    assert len(set(cases)) == len(cases)
    assert sum("full" in case and "teacher" not in case for case in cases) == 4
    for kind in ("2B", "3B", "7B", "float32", "KL", "no checkpointing", "ZeRO-2", "teacher", "1080x2400"):
        assert any(kind in case for case in cases)


def test_the_page_has_what_was_measured():
    table = runpy.run_path(str(ROOT / "benchmarks" / "plan_table.py"))
    page = (ROOT / "benchmarks" / "README.md").read_text()
    assert table["filled"](page, RECORD["rows"]) == page, "run python benchmarks/plan_table.py"


@pytest.mark.slow
@pytest.mark.parametrize("case", ["2B LoRA, KL, frozen tower", "2B LoRA, teacher of 8B"])
def test_a_case_measured_again(case, tmp_path):
    pytest.importorskip("torch")
    out = tmp_path / "plan.json"
    command = [sys.executable, "benchmarks/plan.py", "--case", case, "--out", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=900, capture_output=True)
    (row,) = json.loads(out.read_text())["rows"]
    known = next(one for one in RECORD["rows"] if one["case"] == row["case"])
    assert row["memory"] == pytest.approx(known["memory"], rel=0.01)
    assert row["flops"] == known["flops"]
    test_what_was_measured_is_near_the_plan(row)
