"""One line of rollouts.jsonl: a `Rollout` as JSON, and back. Schema version 2; version 1 is read and converted.

    unit        the episode, or the live task
    sample      which of its rollouts, from 0
    ended       see `agent.types.Rollout`
    start       first step, of a single-step rollout only
    steps       length of the recording
    reason      the part that failed, after a crash
    goal, outcome, template, tries              of live attempts: outcome is null where nothing was checked (a crash, a stop,
                                                a goal of the user's own), template is the task's,
                                                tries counts the attempts lost to crashes before
    sampled                                     of a live attempt that an earlier generation sampled: which
    generation, visit, signal                   of training runs: when it was sampled, and whether its group was kept
    behind                                      of training runs, where it is not 0: generations of updates between the
                                                policy that sampled the group and the one that was trained on it
    shown                                       of training runs, where it is not 0: how many answers of the expert were
                                                trained on with the group. Such a group is learned from, whatever its signal
    turns       index, text, finish, tokens, screen [width, height], thought, action (model pixels of `screen`),
                verdict and repair (along recordings), screenshot, note and state (live), by (who made it, if not the agent),
                target (the box that a person touched, in fractions of the screen),
                and in training runs reward, return, episode_advantage, step_advantage, advantage, prompt (digest),
                token_ids

Lines are keyed by unit and sample (and start, for single steps), never by their order. Live turns of version 1 have no
tokens and no finish.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from guiderail.agent.codec import action_from_json, action_to_json
from guiderail.agent.dialogue import transform
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.types import Completion, Outcome, Prompt, Repair, Rollout, Turn, Verdict, Wait

Row = Mapping[str, Any]


def rollout_row(
    rollout: Rollout, *, steps: int | None = None, credit: Sequence[Row] | None = None, **more: Any
) -> dict[str, Any]:
    """steps: length of the recording; None for a live attempt. credit: reward and advantages per turn."""
    live = steps is None
    row: dict[str, Any] = {"unit": rollout.unit, "sample": rollout.sample, "ended": rollout.ended}
    if rollout.start:
        row["start"] = rollout.start
    if live:
        outcome = None if rollout.outcome is None else asdict(rollout.outcome)
        row |= {"goal": rollout.goal, "outcome": outcome, "reason": rollout.reason}
        row |= {"tries": rollout.tries} if rollout.tries else {}
        row |= {} if rollout.sampled is None else {"sampled": rollout.sampled}
    else:
        row |= {"steps": steps} | ({"reason": rollout.reason} if rollout.reason else {})
    turns = [turn_row(turn, live) | dict(credit[i] if credit else {}) for i, turn in enumerate(rollout.turns)]
    return {**row, **more, "turns": turns}


def turn_row(turn: Turn, live: bool = False) -> dict[str, Any]:
    """One turn. Of a live one also the screenshot's hash (its file is in images/) and why the answer was unreadable."""
    screen = transform(turn.screen)
    row: dict[str, Any] = {
        "index": turn.index,
        "text": turn.completion.text,
        "finish": turn.completion.finish,
        "tokens": len(turn.completion.token_ids),
        "screen": [screen.width, screen.height],
        "thought": turn.thought,
        "action": None if turn.action is None else action_to_json(turn.action, screen),
    }
    if live:
        row |= {"screenshot": turn.screen.screenshot.digest, "note": turn.note}
        row |= {"state": turn.state} if turn.state else {}
    if turn.by != "agent":
        row["by"] = turn.by
    if turn.verdict is not None:
        row["verdict"] = asdict(turn.verdict)
    if turn.repair is not None:
        row["repair"] = {"strategy": turn.repair.strategy, "text": turn.repair.text}
    return row


def rollout_of(row: Row) -> Rollout:
    """The rollout of a line, as far as credit and scores look at it: prompts and actions are left out. `acted` adds the
    actions, which the credit of live attempts counts."""
    outcome = row.get("outcome")
    return Rollout(
        row["unit"],
        row["sample"],
        tuple(_turn_of(turn) for turn in row["turns"]),
        row["ended"],
        None if outcome is None else Outcome(**_tuples(outcome)),
        row.get("goal", ""),
        row.get("reason", ""),
        row.get("start", 0),
        sampled=row.get("sampled"),
    )


def acted(row: Row) -> Rollout:
    """The rollout of a live attempt's line with its actions, as far as the model's pixels tell them apart. A state without a key
    is its screenshot's hash, as for `rl.credit.gigpo.state_of`."""
    rollout = rollout_of(row)
    actions = [
        None if turn["action"] is None else action_from_json(turn["action"], ScreenTransform(*turn["screen"]))
        for turn in row["turns"]
    ]
    states = [turn.get("state") or turn.get("screenshot", "") for turn in row["turns"]]
    turns = [replace(turn, action=a, state=s) for turn, a, s in zip(rollout.turns, actions, states, strict=True)]
    return replace(rollout, turns=tuple(turns))


def _turn_of(turn: Row) -> Turn:
    said = Completion(turn["text"], finish=turn.get("finish", "stop"))
    verdict = Verdict(**turn["verdict"]) if "verdict" in turn else None
    repair = None
    if "repair" in turn:
        repair = Repair(Wait(), turn["repair"]["strategy"], text=turn["repair"]["text"])
    note, by, state = turn.get("note", ""), turn.get("by", "agent"), turn.get("state", "")
    return Turn(turn["index"], Prompt(()), said, turn["thought"], None, verdict, 0, repair, note, by, state)


def _tuples(outcome: Row) -> dict[str, Any]:
    effects = outcome.get("side_effects")
    return {**outcome, "side_effects": None if effects is None else tuple(effects)}


def success(row: Row) -> bool | None:
    """Whether a live attempt of an agent alone reached its goal; None where nothing was checked or a person took part."""
    outcome = row["outcome"]
    helped = any(turn.get("by") == "person" for turn in row.get("turns", ()))
    return None if outcome is None or helped else bool(outcome["success"])


def convert(row: dict[str, Any]) -> dict[str, Any]:
    """A line of version 1, which had one schema for recordings and another for live attempts, as version 2. A line of
    version 2 stays as it is."""
    return _live_of_1(row) if "task" in row else _recorded_of_1(row) if "episode_id" in row else row


def _live_of_1(row: dict[str, Any]) -> dict[str, Any]:
    checked = None if row["success"] is None else asdict(Outcome(row["success"]))
    head = {"unit": row["task"], "sample": row.get("trial", 0), "ended": row["ending"]}
    head |= {"goal": row["goal"], "outcome": checked, "reason": row["reason"]}
    known = ("task", "trial", "ending", "goal", "success", "reason", "turns")
    return head | {key: value for key, value in row.items() if key not in known} | {"turns": row["turns"]}


def _recorded_of_1(row: dict[str, Any]) -> dict[str, Any]:
    head = {"unit": row["episode_id"], "sample": row["sample"], "ended": row["ended"]}
    name, _, number = str(row.get("unit", "")).rpartition("/")
    start = row.get("index", int(number) if name == row["episode_id"] and number.isdigit() else 0)
    if start:
        head["start"] = start
    if "group" in row:
        head["signal"] = row["group"]
    known = ("episode_id", "sample", "ended", "unit", "group", "index")
    return head | {key: value for key, value in row.items() if key not in known}
