"""ScreenSpot-v2 and ScreenSpot-Pro: is the point in the box, by cell of area and kind of target.

Areas of v2 are mobile, desktop and web; of Pro its six groups of applications. Kinds are text and icon. Episodes are the
importer's: one click each, the annotated box as target.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import DataError
from guiderail.agent.policy import GREEDY, Policy, Sampling
from guiderail.agent.types import Click, Episode, Rollout, Verdict
from guiderail.envs.recordings.match import SCREENSPOT
from guiderail.rl.score.statistics import wilson
from guiderail.rl.score.steps import Known, Record, evaluate_offline

KINDS = ("text", "icon")
_AREA_OF = {"ios": "mobile", "android": "mobile", "windows": "desktop", "macos": "desktop"}
_AREA_OF |= dict.fromkeys(("shop", "tool", "gitlab", "forum", "web"), "web")


def evaluate_screenspot(
    episodes: Sequence[Episode],
    policy: Policy,
    dialogue: Dialogue,
    *,
    sampling: Sampling = GREEDY,
    seed: int = 0,
    width: int = 64,
    record: Record | None = None,
    known: Known = {},  # noqa: B006 - never written
) -> dict[str, Any]:
    """Ask for every click and score by cell. Raises DataError for an episode that is no ScreenSpot item."""
    for episode in episodes:
        cell(episode)
    verdicts = {unit: _verdict(rollout) for (unit, _), rollout in known.items()}

    def keep(rollout: Rollout) -> None:
        verdicts[rollout.unit] = _verdict(rollout)
        if record is not None:
            record(rollout)

    evaluate_offline(
        episodes, policy, dialogue, SCREENSPOT, sampling=sampling, seed=seed, width=width, record=keep, known=known
    )
    return by_cell(episodes, verdicts)


def _verdict(rollout: Rollout) -> Verdict | None:
    return rollout.turns[0].verdict if rollout.turns else None


def cell(episode: Episode) -> tuple[str, str]:
    """(area, kind) from what the importer kept of the item. Raises DataError."""
    if len(episode.steps) != 1 or not isinstance(episode.steps[0].action, Click) or not episode.steps[0].boxes:
        raise DataError(episode.source, "not a ScreenSpot item: expected one click with its box; import the data first")
    meta = episode.meta
    area = meta.get("group") or _AREA_OF.get(str(meta.get("data_source")).lower()) or meta.get("platform")
    kind = meta.get("ui_type") or meta.get("data_type")
    if not isinstance(area, str) or kind not in KINDS:
        found = {key: meta.get(key) for key in ("group", "data_source", "platform", "ui_type", "data_type")}
        raise DataError(episode.source, f"no area or kind (text or icon) of target in {found}")
    return area, str(kind)


def by_cell(episodes: Sequence[Episode], verdicts: Mapping[str, Verdict | None]) -> dict[str, Any]:
    """{accuracy, interval, n, unreadable, unscored, cell_mean, cells}; cells: "area kind", "area", "text", "icon" ->
    {accuracy, interval, n}, intervals Wilson's. accuracy is over all items, cell_mean over cells of area and kind. An item
    whose machine crashed (verdict None) is unscored; an unreadable answer is wrong."""
    hits: dict[str, list[bool]] = defaultdict(list)
    scored = [(episode, verdict) for episode in episodes if (verdict := verdicts.get(episode.id)) is not None]
    for episode, verdict in scored:
        area, kind = cell(episode)
        for name in (f"{area} {kind}", area, kind):
            hits[name].append(verdict.exact)
    cells = {name: _rate(values) for name, values in sorted(hits.items())}
    finest = [row["accuracy"] for name, row in cells.items() if name.endswith((" text", " icon"))]
    return _rate([verdict.exact for _, verdict in scored]) | {
        "unreadable": sum(not verdict.readable for _, verdict in scored),
        "unscored": len(episodes) - len(scored),
        "cell_mean": sum(finest) / len(finest) if finest else None,
        "cells": cells,
    }


def _rate(values: Sequence[bool]) -> dict[str, Any]:
    n = len(values)
    return {"accuracy": sum(values) / n if n else None, "interval": wilson(sum(values), n), "n": n}
