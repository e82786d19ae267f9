"""What the viewer shows: one entry per group of rollouts of one episode or live task, as plain JSON values.

An entry: {key, episode, goal, generation, visit, signal, template, live, steps, rollouts}; episode is the unit. steps[t] of
a recording: {image, w, h, expert, boxes, thought, instruction}, and history where it is history only. A rollout: {sample,
ended, success, reason, turns}. A turn:
{t, outcome, why, said, thought, text, tokens, finish, ids, by, repair, reward, return, episode, step, sum}, where live with
its own {image, w, h}. ids tells sampled tokens apart. What teachers said is added by `launch.report.lessons`. Places are fractions of the screen. outcome is one letter: e exact, t right kind of action only, w wrong,
u unreadable, c cannot be judged, l not judged (live).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from guiderail.agent.codec import action_from_json
from guiderail.agent.errors import DataError, UnreadableAction
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.types import Action, Click, Episode, LongPress, Open, Point, Step, Swipe
from guiderail.launch.report.images import Images
from guiderail.launch.report.runs import Recording, Run
from guiderail.launch.sheet import said
from guiderail.rl.runs.log import read_rollouts
from guiderail.rl.runs.rows import success

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
    line that is not a rollout. While a run is under way, the rest is left out instead, with a remark."""
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
    """Rollouts of one visit of a training belong together, elsewhere all of one unit. Single steps of a recording are
    gathered into one rollout."""
    visit = row.get("visit", row.get("generation"))
    key = str(row["unit"]) if visit is None else f"{row['unit']}@{visit}"
    if key not in entries:
        entries[key] = _entry(key, row, recording.episodes.get(str(row["unit"])), images)
    rollouts = entries[key]["rollouts"]
    sample = int(row["sample"])
    rollout = next((r for r in rollouts if r["sample"] == sample), None)
    if rollout is None or entries[key]["live"]:
        ended = "single steps" if run.kind == "offline" else str(row["ended"])
        rollout = {"sample": sample, "ended": ended, "success": success(row) if "outcome" in row else None, "turns": []}
        rollout |= {"reason": str(row["reason"])} if row.get("reason") else {}
        rollouts.append(rollout)
    rollout["turns"] += [_turn(turn, run.folder, images) for turn in row["turns"]]


def _entry(key: str, row: Mapping[str, Any], episode: Episode | None, images: Images) -> Entry:
    live = "outcome" in row
    return {
        "key": key,
        "episode": str(row["unit"]),
        "goal": episode.goal if episode else str(row.get("goal", "")),
        "generation": row.get("generation"),
        "visit": row.get("visit"),
        "signal": row.get("signal"),
        "template": _live_template(row) if live else _template(episode),
        "live": live,
        "steps": [] if live else [_step(step, images) for step in episode.steps] if episode else _blank_steps(row),
        "rollouts": [],
    }


def _blank_steps(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The steps of a recording that is not at hand, of the size of the first screen."""
    sizes = [{"w": turn["screen"][0], "h": turn["screen"][1]} for turn in row["turns"]]
    return sizes[:1] * min(int(row["steps"]), LONGEST)


def _live_template(row: Mapping[str, Any]) -> str:
    """What the line says, else what its name begins with."""
    unit = str(row["unit"])
    return str(row.get("template") or re.split(r"[-/#:]|\d", unit, maxsplit=1)[0].rstrip("_. ") or "unknown")


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
    } | ({"history": True} if step.history else {})


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


def _turn(turn: Mapping[str, Any], folder: Path, images: Images) -> dict[str, Any]:
    row: dict[str, Any] = {
        "t": int(turn["index"]),
        "said": _said(turn.get("action"), turn["screen"]),
        "thought": turn.get("thought"),
        "text": str(turn["text"]),
        "tokens": int(turn.get("tokens", 0)),
        "finish": str(turn.get("finish", "stop")),
    }
    if "verdict" in turn:
        row |= {"outcome": _outcome(turn["verdict"]), "why": str(turn["verdict"]["why"])}
    else:
        row |= {"outcome": "u" if turn["action"] is None else "l", "why": str(turn["note"])}
    if "screenshot" in turn:
        row |= {"image": images.add(_kept(folder, turn)), "w": turn["screen"][0], "h": turn["screen"][1]}
    if turn.get("by"):
        row["by"] = str(turn["by"])
    if "repair" in turn:
        row["repair"] = {"strategy": str(turn["repair"]["strategy"]), "text": str(turn["repair"]["text"])}
    if turn.get("token_ids"):
        row["ids"] = ids_of(turn["token_ids"])
    if "reward" in turn:
        row |= {name: _number(turn[key]) for name, key in CREDIT.items()}
    return row


def ids_of(tokens: Sequence[int]) -> str:
    """Of a turn's token ids, a short text."""
    return hashlib.sha256(repr([int(token) for token in tokens]).encode()).hexdigest()[:12]


def _kept(folder: Path, turn: Mapping[str, Any]) -> Path | None:
    """The screenshot of a live turn. A name that is not a hash could lead out of the folder."""
    digest = str(turn["screenshot"])
    return folder / "images" / f"{digest}.png" if re.fullmatch(r"[0-9a-f]{64}", digest) else None


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
