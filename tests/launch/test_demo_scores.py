"""The demo's scores are the product's own commands."""

import json
import sys

from guiderail.launch import cli
from guiderail.launch.demo_scores import commands, run
from guiderail.rl.runs.log import read_record


def test_both_commands_run_in_one_process_and_leave_their_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["demo_scores"])
    cli.app(
        ["record", "pocket", "--split", "test", "--episodes", "2", "--out", str(tmp_path / "test")],
        standalone_mode=False,
    )
    for arguments in commands(tmp_path, "tiny-sft", "tiny-sft", "2"):
        run(arguments)
        folder = tmp_path / "scores/tiny-sft" / ("sop" if "sop" in arguments else "live")
        assert json.loads((folder / "metrics.json").read_text())["n"] == 2
        assert read_record(folder).legs[0].command == tuple(arguments)
