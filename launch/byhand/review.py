"""The review queue: where agent and expert part in a run along recordings, the most telling divergences first.

Like failures form a cluster (`launch.report.atlas.clusters`). The queue takes one divergence of every cluster, the largest
cluster first, then a second one of each, and so on: the first questions stand for the most failures.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from guiderail.agent.codec import action_from_json
from guiderail.agent.disk import append_whole, cut_torn_line
from guiderail.agent.errors import SetupError, UnreadableAction
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.types import Accepted, Action, Episode, Step
from guiderail.envs.recordings.episodes import Dataset
from guiderail.envs.recordings.match import judge
from guiderail.envs.recordings.saving import save_episodes
from guiderail.launch import parts
from guiderail.launch.report.atlas import clusters
from guiderail.launch.report.entries import read_entries
from guiderail.launch.report.images import Images
from guiderail.launch.report.runs import Recording, discover
from guiderail.patch.person import Answered, load_answers
from guiderail.rl.runs.corrections import content_of
from guiderail.rl.runs.log import read_record, read_rollouts, reading

ANSWERS = "review.jsonl"
LONGEST_TEXT = 1000


@dataclass(frozen=True)
class Divergence:
    """One question. action: what the agent did, None where it could not be read. alike: how many failures of the run are in
    its cluster; gist: what they have in common."""

    episode: Episode
    index: int
    action: Action | None
    thought: str | None
    why: str
    gist: str
    alike: int

    @property
    def step(self) -> Step:
        return self.episode.steps[self.index]

    @property
    def following(self) -> Step | None:
        """The next recorded step, whose screen shows what the expert's action led to."""
        return self.episode.steps[self.index + 1] if self.index + 1 < len(self.episode.steps) else None

    @property
    def content(self) -> dict[str, Any] | None:
        """The agent's action in pixels of the screenshot."""
        shot = self.step.screenshot
        return None if self.action is None else content_of(self.action, ScreenTransform(shot.width, shot.height))


@dataclass
class Review:
    """A run's questions and its answers, which are on the disk at once. by: who answers."""

    run: Path
    data: Dataset
    questions: list[Divergence]
    by: str = ""

    def answer(
        self, question: Divergence, verdict: Literal["person", "agent"], action: Action | None = None, thought: str = ""
    ) -> None:
        """verdict "agent": the agent is right too. "person": `action` is right; None means the recorded one."""
        chosen = question.action if verdict == "agent" else action or question.step.action
        if chosen is None:
            raise SetupError("the agent's answer could not be read, so it cannot be right; give an action")
        shot = question.step.screenshot
        row: dict[str, Any] = {"episode_id": question.episode.id, "step": question.index, "verdict": verdict}
        row["action"] = content_of(chosen, ScreenTransform(shot.width, shot.height))
        row |= {"screen": [shot.width, shot.height], "said": question.content}
        row |= {"thought": thought.strip()[:LONGEST_TEXT]} if thought.strip() else {}
        row |= {"by": self.by} if self.by else {}
        append_whole(self.run / ANSWERS, json.dumps(row, ensure_ascii=False).encode() + b"\n")
        answered = _given([row])
        self.questions = [one for one in self.questions if not _settled(one, answered)]


def open_review(run: Path, by: str = "", data: str | None = None) -> Review:
    """The divergences of a run that nobody has answered yet. data: where the recordings are now, if they moved. Raises
    SetupError where the run has no recordings, or other ones than it was made on, and DataError for a broken run."""
    source = read_record(run).about.data
    if source is None:
        raise SetupError(
            f"{run} was not made along recordings, so nothing says where its agent is wrong; give such a run"
        )
    loaded = parts.dataset_of(source, data)
    cut_torn_line(run / ANSWERS)
    with reading(run):
        answered = _given(_rows(run))
        found = _queue(run, loaded)
        return Review(run, loaded, [one for one in found if not _settled(one, answered)], by)


def _queue(run: Path, loaded: Dataset) -> list[Divergence]:
    episodes = {episode.id: episode for episode in loaded.episodes}
    (named,) = (one for one in discover([run]) if one.folder == run)
    entries, _ = read_entries(named, Recording(episodes, "", True), _NoImages(run))
    turns = {(key, row["sample"], turn["index"]): turn for key, row in _keyed(run) for turn in row["turns"]}
    made: dict[tuple[Any, ...], Divergence] = {}
    groups = clusters(entries)
    for rank in zip_longest(*(group["links"] for group in groups)):
        for group, link in zip(groups, rank, strict=True):
            if link is None:
                continue
            key, _, index = link
            turn, episode = turns[link], episodes[re.sub(r"@\d+$", "", key) if key not in episodes else key]
            action = _action(turn)
            one = Divergence(episode, index, action, turn["thought"], turn["verdict"]["why"], group["gist"], group["n"])
            made.setdefault((episode.id, index, json.dumps(one.content, sort_keys=True)), one)
    return list(made.values())


def _keyed(run: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each row with the key of its entry, as `read_entries` names it."""
    for row in read_rollouts(run):
        visit = row.get("visit", row.get("generation"))
        yield (str(row["unit"]) if visit is None else f"{row['unit']}@{visit}"), row


def _action(turn: Mapping[str, Any]) -> Action | None:
    try:
        return None if turn["action"] is None else action_from_json(turn["action"], ScreenTransform(*turn["screen"]))
    except UnreadableAction:
        return None


class _NoImages(Images):
    def add(self, path: Path | None) -> str | None:
        return None


def _rows(run: Path) -> list[dict[str, Any]]:
    if not (run / ANSWERS).exists():
        return []
    load_answers(run / ANSWERS)
    return [json.loads(text) for text in (run / ANSWERS).read_text("utf-8").split("\n") if text.strip()]


def _given(rows: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
    return {(str(row["episode_id"]), row["step"], json.dumps(row.get("said"), sort_keys=True)) for row in rows}


def _settled(one: Divergence, answered: set[tuple[Any, ...]]) -> bool:
    return (one.episode.id, one.index, json.dumps(one.content, sort_keys=True)) in answered


# ----------------------------------------------------------------------------------------- answers become a recording


def reviewed(runs: list[Path], out: Path, data: str | None = None) -> dict[str, int]:
    """Write the recordings of these runs, all of the same data, with what people accepted, as the JSONL file `out`.

    An answered action that the judge does not find exact already becomes an accepted one of its step. Returns counts:
    answers, accepted (new ones), steps (that have any now). Raises SetupError and DataError.
    """
    sources = [read_record(run).about.data for run in runs]
    if not sources or sources[0] is None or any(s is None or s.digest != sources[0].digest for s in sources):
        raise SetupError("these runs were not made along the same recordings; give runs of one recording")
    if out.exists():
        raise SetupError(f"{out} exists already; choose another name")
    loaded = parts.dataset_of(sources[0], data)
    answers = [one for run in runs if (run / ANSWERS).exists() for one in load_answers(run / ANSWERS)]
    if not answers:
        raise SetupError(f"nobody has answered yet; run: guiderail console --review {runs[0]}")
    by_step: dict[tuple[str, int], list[Answered]] = {}
    for one in answers:
        by_step.setdefault((one.episode, one.step), []).append(one)
    before = sum(len(step.accepted) for episode in loaded.episodes for step in episode.steps)
    made = [_with(episode, by_step) for episode in loaded.episodes]
    save_episodes(out, made)
    wider = [len(step.accepted) for episode in made for step in episode.steps if step.accepted]
    return {"answers": len(answers), "accepted": sum(wider) - before, "steps": len(wider)}


def _with(episode: Episode, by_step: Mapping[tuple[str, int], list[Answered]]) -> Episode:
    steps = list(episode.steps)
    for index, step in enumerate(steps):
        for one in by_step.get((episode.id, index), ()):
            if not judge(step, one.action).exact:
                step = replace(step, accepted=(*step.accepted, Accepted(one.action)))
        steps[index] = step
    return replace(episode, steps=tuple(steps))
