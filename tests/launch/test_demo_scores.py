"""The demo's scores are the product's own commands."""

import json

from launch import cli
from launch.demo_scores import commands


def test_both_commands_run_in_one_process_and_leave_their_folders(tmp_path):
    cli.app(
        ["record", "pocket", "--split", "test", "--episodes", "2", "--out", str(tmp_path / "test")],
        standalone_mode=False,
    )
    for arguments in commands(tmp_path, "tiny-sft", "tiny-sft", "2"):
        cli.app(arguments, standalone_mode=False)
    for kind, count in (("sop", 2), ("live", 2)):
        assert json.loads((tmp_path / "scores/tiny-sft" / kind / "metrics.json").read_text())["n"] == count
