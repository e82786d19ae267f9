"""The demo's closing lines, from run folders."""

import json

from launch.demo_table import against_start


def test_agents_are_compared_with_the_start_task_by_task(tmp_path):
    outcomes = {
        "tiny-sft": {f"t{k}": k < 10 for k in range(40)} | {"broken": None, "unmet": True},
        "more-sft": {f"t{k}": k < 10 for k in range(40)},
        "semi-online": {f"t{k}": 5 <= k < 25 for k in range(40)} | {"broken": True},
    }
    for agent, tasks in outcomes.items():
        folder = tmp_path / "scores" / agent / "live-1"
        folder.mkdir(parents=True)
        rows = [json.dumps({"task": task, "success": success}) for task, success in tasks.items()]
        (folder / "rollouts.jsonl").write_text("\n".join(rows) + "\n")
    more, semi = against_start(tmp_path)
    assert "same 40 tasks: + more SFT +0.0 points" in more
    assert more.endswith("p = 1")
    assert "+ semi-online RL +25.0 points [" in semi
    assert semi.endswith("p = 0.041")  # 15 won, 5 lost: exact binomial
