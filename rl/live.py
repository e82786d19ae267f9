"""Scoring a policy on live tasks: attempts in parallel, crashed ones tried again, then reported as unscored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from agent.codec import action_to_json
from agent.dialogue import Dialogue
from agent.policy import GREEDY, Policy, Sampling
from agent.screen import ScreenTransform
from agent.types import Action, Completion
from envs.attempts import Attempt, LiveTask, attempt
from rl.rollout import drive
from rl.statistics import wilson

Record = Callable[[LiveTask, Attempt], None]


def evaluate_live(
    tasks: Sequence[LiveTask],
    policy: Policy,
    dialogue: Dialogue,
    *,
    sampling: Sampling = GREEDY,
    seed: int = 0,
    width: int = 16,
    retries: int = 1,
    record: Record | None = None,
) -> list[Attempt]:
    """One attempt per task, at most `width` devices at a time, in the order of the tasks. An attempt whose machine
    crashed is made again `retries` times, under a new seed, before it counts as crashed."""
    attempts: dict[int, Attempt] = {}
    missing = list(range(len(tasks)))
    for again in range(1 + retries):
        walks = [((seed, tasks[i].id, again), attempt(tasks[i], dialogue=dialogue)) for i in missing]
        attempts |= dict(zip(missing, drive(walks, policy, sampling, width=width), strict=True))
        done = [i for i in missing if again == retries or attempts[i].ending != "crashed"]
        for i in done:
            if record is not None:
                record(tasks[i], attempts[i])
        missing = [i for i in missing if i not in done]
    return [attempts[i] for i in range(len(tasks))]


def play(task: LiveTask, dialogue: Dialogue, expert: Callable[[], tuple[str, Action]]) -> Attempt:
    """An attempt by a script that sees more than the screen, such as the task's own expert: (thought, action)."""
    going = attempt(task, dialogue=dialogue)
    try:
        prompt = next(going)
        while True:
            text = dialogue.say(*expert(), prompt.screen.screenshot)
            prompt = going.send(Completion(text))
    except StopIteration as stop:
        result: Attempt = stop.value
        return result


def live_score(attempts: Sequence[Attempt], groups: Sequence[Sequence[str]]) -> dict[str, Any]:
    """{success, interval (Wilson), n, unscored, endings, by_group}. groups[i]: names attempt i also counts under."""
    result = _success(attempts)
    members: dict[str, list[Attempt]] = defaultdict(list)
    endings: dict[str, int] = defaultdict(int)
    for one, names in zip(attempts, groups, strict=True):
        endings[one.ending] += 1
        for name in names:
            members[name].append(one)
    return result | {
        "endings": dict(endings),
        "crashes": sorted({one.reason for one in attempts if one.ending == "crashed"}),
        "by_group": {name: _success(rows) for name, rows in sorted(members.items())},
    }


def _success(attempts: Sequence[Attempt]) -> dict[str, Any]:
    scored = [one for one in attempts if one.success is not None]
    right, n = sum(bool(one.success) for one in scored), len(scored)
    return {
        "success": right / n if n else None,
        "interval": wilson(right, n),
        "n": n,
        "unscored": len(attempts) - n,
    }


def attempt_row(one: Attempt, **more: Any) -> dict[str, Any]:
    """One line of rollouts.jsonl for a live attempt; screenshots by content hash."""
    return {
        "task": one.task,
        "goal": one.goal,
        "ending": one.ending,
        "success": one.success,
        "reason": one.reason,
        **more,
        "turns": [
            {
                "index": turn.index,
                "screenshot": turn.screenshot.digest,
                "screen": list(turn.screen),
                "text": turn.completion.text,
                "thought": turn.thought,
                "action": None if turn.action is None else action_to_json(turn.action, ScreenTransform(*turn.screen)),
                "note": turn.note,
            }
            for turn in one.turns
        ],
    }
