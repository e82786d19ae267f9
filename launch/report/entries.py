"""What the viewer shows: one entry per group of walks of one episode (or per live task), as plain JSON values.

An entry: {key, episode, goal, generation, visit, signal, template, live, steps, rollouts}. steps[t]: {image, w, h, expert,
boxes, thought, instruction}; a rollout: {sample, ended, success, turns}; a turn: {t, outcome, why, said, thought, text,
tokens, finish, repair, reward, return, episode, step, sum}, where live with its own {image, w, h}. Places are fractions of the screen. outcome is one letter:
e exact, t right kind of action only, w wrong, u unreadable, c cannot be judged, l live (nobody to compare with).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.codec import action_from_json
from agent.errors import DataError, UnreadableAction
from agent.screen import ScreenTransform
from agent.types import Action, Click, Episode, LongPress, Open, Point, Step, Swipe
from launch.report.images import Images
from launch.report.runs import Recording, Run
from launch.sheet import said
from rl.runlog import read_rollouts

Entry = dict[str, Any]
LONGEST = 1000  # steps drawn of an episode whose recording is not at hand
CREDIT = {
    "reward": "reward",
    "return": "return",
    "episode": "episode_advantage",
    "step": "step_advantage",
    "sum": "advantage",
}


def read_entries(run: Run, recording: Recording, images: Images) -> tuple[list[Entry], list[str]]:
    """All entries of a run in the order of their first line, and remarks for people. Raises DataError "file:line" for a
    line that is no rollout; while a run is under way the rest is left out instead, with a remark."""
    entries: dict[str, Entry] = {}
    path, number = run.folder / "rollouts.jsonl", 0
    if not path.is_file():
        return [], []
    try:
        for number, row in enumerate(read_rollouts(run.folder), 1):
            try:
                _add(entries, row, run, recording, images)
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                raise DataError(f"{path}:{number}", f"not a rollout: {type(error).__name__} {error}") from None
    except DataError as error:
        if run.metrics is not None:
            raise
        return list(entries.values()), [f"read up to here while the run goes on: {error}"]
    for entry in entries.values():
        entry["rollouts"].sort(key=lambda rollout: rollout["sample"])
        for rollout in entry["rollouts"]:
            rollout["turns"].sort(key=lambda turn: turn["t"])
    return list(entries.values()), []


def _add(entries: dict[str, Entry], row: Mapping[str, Any], run: Run, recording: Recording, images: Images) -> None:
    if "task" in row:
        _add_trial(entries, row, run.folder, images)
        return
    episode_id, generation = str(row["episode_id"]), row.get("generation")
    unit = str(row.get("unit", episode_id))
    key = unit if generation is None else f"{unit}@{row.get('visit', generation)}"
    if key not in entries:
        entries[key] = _entry(key, episode_id, row, recording.episodes.get(episode_id), images)
    entry = entries[key]
    sample = int(row["sample"])
    rollout = next((r for r in entry["rollouts"] if r["sample"] == sample), None)
    if rollout is None:
        ended = "single steps" if run.kind == "offline" else str(row["ended"])
        rollout = {"sample": sample, "ended": ended, "success": None, "turns": []}
        entry["rollouts"].append(rollout)
    rollout["turns"] += [_turn(turn) for turn in row["turns"]]


def _entry(key: str, episode_id: str, row: Mapping[str, Any], episode: Episode | None, images: Images) -> Entry:
    return {
        "key": key,
        "episode": episode_id,
        "goal": episode.goal if episode else "",
        "generation": row.get("generation"),
        "visit": row.get("visit"),
        "signal": row.get("group"),
        "template": _template(episode),
        "live": False,
        "steps": [_step(step, images) for step in episode.steps]
        if episode
        else [{"w": t["screen"][0], "h": t["screen"][1]} for t in row["turns"]][:1] * min(int(row["steps"]), LONGEST),
        "rollouts": [],
    }


def _template(episode: Episode | None) -> str:
    """What like episodes have in common: the recording's own word for it, else the app that the expert opens."""
    if episode is None:
        return "unknown"
    for name in ("template", "app", "app_name", "category"):
        if isinstance(episode.meta.get(name), str):
            return str(episode.meta[name])
    return next((step.action.text for step in episode.steps if isinstance(step.action, Open)), "other")


def _step(step: Step, images: Images) -> dict[str, Any]:
    shot = step.screenshot
    boxes = sorted((target.box for target in step.boxes), key=lambda box: box.area)
    return {
        "image": images.add(shot.path),
        "w": shot.width,
        "h": shot.height,
        "expert": mark(step.action),
        "boxes": [[_short(b.left), _short(b.top), _short(b.right), _short(b.bottom)] for b in boxes[:4]],
        "thought": step.thought,
        "instruction": step.instruction,
    }


def mark(action: Action) -> dict[str, Any]:
    """{name, label, at?, to?}: what to draw and what to call it."""
    match action:
        case Click(point) | LongPress(point):
            return {"name": action.name, "label": said(action), "at": _place(point)}
        case Swipe(start, end):
            return {"name": "swipe", "label": said(action), "at": _place(start), "to": _place(end)}
    return {"name": action.name, "label": said(action)}


def _place(point: Point) -> list[float]:
    return [_short(point.x), _short(point.y)]


def _short(value: float) -> float:
    return round(value, 4)


def _turn(turn: Mapping[str, Any]) -> dict[str, Any]:
    verdict = turn["verdict"]
    row = _words(turn) | {"outcome": _outcome(verdict), "why": str(verdict["why"])}
    if "repair" in turn:
        row["repair"] = {"strategy": str(turn["repair"]["strategy"]), "text": str(turn["repair"]["text"])}
    if "reward" in turn:
        row |= {name: _number(turn[key]) for name, key in CREDIT.items()}
    return row


def _words(turn: Mapping[str, Any]) -> dict[str, Any]:
    """What the policy said, common to walks and live attempts."""
    return {
        "t": int(turn["index"]),
        "said": _said(turn.get("action"), turn["screen"]),
        "thought": turn.get("thought"),
        "text": str(turn["text"]),
        "tokens": int(turn.get("tokens", 0)),
        "finish": str(turn.get("finish", "stop")),
    }


def _said(content: Any, screen: Any) -> dict[str, Any] | None:
    if content is None:
        return None
    try:
        return mark(action_from_json(content, ScreenTransform(*screen)))
    except UnreadableAction:
        return None


def _outcome(verdict: Mapping[str, Any]) -> str:
    if not verdict["readable"]:
        return "u"
    if not verdict.get("judgeable", True):
        return "c"
    return "e" if verdict["exact"] else "t" if verdict["type_ok"] else "w"


def _number(value: Any) -> float:
    """Infinities and NaN are not JSON."""
    return float(value) if math.isfinite(float(value)) else 0.0


def _add_trial(entries: dict[str, Entry], row: Mapping[str, Any], folder: Path, images: Images) -> None:
    """A live attempt has no expert, and its screens are its own; a task's trials are the walks of one entry."""
    task = str(row["task"])
    if task not in entries:
        entries[task] = {
            "key": task,
            "episode": task,
            "goal": str(row["goal"]),
            "generation": None,
            "visit": None,
            "signal": None,
            "template": row.get("template") or re.split(r"[-/#:]|\d", task, maxsplit=1)[0].rstrip("_. ") or "unknown",
            "live": True,
            "steps": [],
            "rollouts": [],
        }
    rollouts = entries[task]["rollouts"]
    taken = {rollout["sample"] for rollout in rollouts}
    trial = int(row.get("trial", 0))
    sample = trial if trial not in taken else max(taken) + 1
    about = {"ended": str(row["ending"]), "success": row["success"], "reason": str(row["reason"])}
    rollouts.append({"sample": sample, **about, "turns": [_live_turn(turn, folder, images) for turn in row["turns"]]})


def _live_turn(turn: Mapping[str, Any], folder: Path, images: Images) -> dict[str, Any]:
    digest = str(turn.get("screenshot"))
    file = folder / "images" / f"{digest}.png" if re.fullmatch(r"[0-9a-f]{64}", digest) else None
    outcome = "u" if turn.get("action") is None else "l"
    screen = {"image": images.add(file), "w": turn["screen"][0], "h": turn["screen"][1]}
    return _words(turn) | screen | {"outcome": outcome, "why": str(turn.get("note", ""))}


def matched(rollout: Mapping[str, Any]) -> int | None:
    """Step of the first divergence; None when every turn agreed, or nobody judged."""
    return next((turn["t"] for turn in rollout["turns"] if turn["outcome"] not in "el"), None)


def turns_of(entries: list[Entry]) -> Iterator[tuple[Entry, dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """(entry, rollout, turn, recorded step) of every judged turn."""
    for entry in entries:
        for rollout in entry["rollouts"]:
            for turn in rollout["turns"]:
                if not entry["live"] and turn["t"] < len(entry["steps"]):
                    yield entry, rollout, turn, entry["steps"][turn["t"]]
