"""The demo's table and closing lines, from run folders."""

import json

from guiderail.launch.demo_table import against_start, measures


def test_agents_are_compared_with_the_start_task_by_task(tmp_path):
    outcomes = {
        "tiny-sft": {f"t{k}": k < 10 for k in range(40)} | {"broken": None, "unmet": True},
        "more-sft": {f"t{k}": k < 10 for k in range(40)},
        "semi-online": {f"t{k}": 5 <= k < 25 for k in range(40)} | {"broken": True},
    }
    for agent, tasks in outcomes.items():
        folder = tmp_path / "scores" / agent / "live"
        folder.mkdir(parents=True)
        found = {task: None if success is None else {"success": success} for task, success in tasks.items()}
        made = {"sample": 0, "goal": "", "reason": "", "turns": []}
        rows = [
            json.dumps(made | {"unit": task, "outcome": outcome, "ended": "finished" if outcome else "crashed"})
            for task, outcome in found.items()
        ]
        (folder / "rollouts.jsonl").write_text("\n".join(rows) + "\n")
    more, semi = against_start(tmp_path)
    assert more.startswith("live, + more SFT: success 25.0 % → 25.0 %: +0.0 points [")
    assert more.endswith("p = 1; not distinguishable on 40")
    assert semi.startswith("live, + semi-online RL: success 25.0 % → 50.0 %: +25.0 points [")
    assert semi.endswith("p = 0.041; better on 40")  # 15 won, 5 lost: exact binomial


def test_measures_stand_beside_their_intervals(tmp_path):
    recorded = {"PG": 0.8, "TSR": 0.7, "intervals": {"PG": [0.75, 0.85], "TSR": [0.6, 0.78]}}
    phones = {
        "success": 0.4,
        "interval": [0.36, 0.44],
        "by_group": {"memory": {"success": 0.075, "interval": [0.043, 0.127]}},
    }
    for kind in ("sop", "live"):
        folder = tmp_path / "scores" / "semi-online" / kind
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(recorded if kind == "sop" else phones))
    told = measures(tmp_path, "semi-online")
    assert told["SOP PG"] == "80.0 [75.0, 85.0]"
    assert told["live success"] == "40.0 [36.0, 44.0]"
    assert told["  of these, memory tasks"] == "7.5 [4.3, 12.7]"
    assert told["turns sampled for it"] == "0"  # the start was not trained here
    (tmp_path / "semi-online").mkdir()
    (tmp_path / "semi-online" / "metrics.json").write_text('{"seconds": 90, "sampled_turns": 1200}')
    trained = measures(tmp_path, "semi-online")
    assert (trained["minutes of training"], trained["turns sampled for it"]) == ("1.5", "1200")
