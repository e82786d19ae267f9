"""Units of online RL: live tasks. A group is N attempts from the same task, seed and start state.

An attempt whose machine failed is made again and never enters a group. A forked group begins in the middle: one attempt of
the agent's own goes first, and the N attempts all start from one of its states with its history. So their first answers
are compared at the same screen, state and history, as rollouts along a recording are; live groups otherwise share their start
alone.
"""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from statistics import fmean
from typing import Any

from guiderail.agent.codec import Reply
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import EnvCrashed, GuiderailError, SetupError, UnreadableAction
from guiderail.agent.types import Completion, Outcome, Prompt, Rollout, Turn
from guiderail.envs.live.attempts import (
    Keyed,
    LiveTask,
    Look,
    Middle,
    Patience,
    Restorable,
    Session,
    Teaching,
    attempt,
)
from guiderail.envs.live.device import Device
from guiderail.envs.recordings.match import MatchRules, judge
from guiderail.rl.rollout.drive import Asking
from guiderail.rl.rollout.plan import Opened, Unit, faults
from guiderail.rl.sections import Fork


@dataclass(frozen=True)
class Site:
    """An open world, and how attempts in it are made. retries: new tries after a machine failed. expert: the rules by which
    turns are judged against the task's expert; None: they are not. shown: each turn also holds what that expert would have said."""

    session: Session
    dialogue: Dialogue
    patience: Patience = field(default_factory=Patience)
    retries: int = 2
    expert: MatchRules | None = None
    shown: bool = False

    def attempt(
        self, name: str, sample: int, begin: Middle | None = None, most: int | None = None, look: Look | None = None
    ) -> Asking[Rollout]:
        """One attempt, made again while its machine fails, at most `retries` times; then "crashed". Only our own errors pass.

        A new try gives the answers of the one before as long as it is asked the same. So where a world does the same again, an
        attempt and its random stream do not depend on faults, and no turn is sampled twice.
        """
        heard = Heard()
        for tries in range(self.retries + 1):
            made = yield from heard.again(self._once(name, sample, begin, most, look or self.look))
            if made.ended != "crashed" or tries == self.retries:
                return replace(made, tries=tries, spent=heard.asked - len(made.turns))
        raise AssertionError("the last try returns")

    def _once(self, name: str, sample: int, begin: Middle | None, most: int | None, look: Look) -> Asking[Rollout]:
        patience = self.patience
        try:
            task = self.session.task(name)
            return (
                yield from attempt(
                    task, dialogue=self.dialogue, patience=patience, sample=sample, look=look, begin=begin, most=most
                )
            )
        except GuiderailError as error:
            if not isinstance(error, EnvCrashed):
                raise
            reason = str(error)
        except Exception as error:  # a world's own fault: this attempt is void, the others go on
            last = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {error}"
        return Rollout(name, sample, (), "crashed", reason=reason)

    def begin(self, order: Order) -> Asking[Any]:
        """Make an order here."""
        function, arguments = order
        return function(self, *arguments)

    def look(self, task: LiveTask, device: Device, turn: Turn) -> Turn:
        """The turn with its state's key, and judged against the task's expert, where these are known and wanted."""
        if isinstance(task, Keyed):
            turn = replace(turn, state=task.state_key())
        if self.expert is None:
            return turn
        if not isinstance(task, Teaching):
            raise SetupError(f"{task.id} has no expert that can be asked in any state; remove online.expert")
        said: Reply | UnreadableAction
        said = UnreadableAction(turn.note, "") if turn.action is None else Reply(turn.thought, turn.action)
        screenshot = turn.screen.screenshot
        step = task.expert_step(screenshot)
        shown = self.dialogue.retell(step.thought, step.action, screenshot) if self.shown else ""
        return replace(turn, verdict=judge(step, said, self.expert), shown=shown)


@dataclass
class Heard:
    """What the policy was asked and answered in the tries of one attempt. asked: how often, in all tries."""

    said: list[tuple[Prompt, Completion]] = field(default_factory=list)
    asked: int = 0

    def again(self, walk: Asking[Rollout]) -> Asking[Rollout]:
        """The walk, with known answers to the questions that it has in common with the one before."""
        try:
            prompt = next(walk)
            for turn in count():
                if turn < len(self.said) and self.said[turn][0] == prompt:
                    prompt = walk.send(self.said[turn][1])
                    continue
                del self.said[turn:]
                try:
                    completion = yield prompt
                except EnvCrashed as crash:
                    prompt = walk.throw(crash)
                    continue
                self.said.append((prompt, completion))
                self.asked += 1
                prompt = walk.send(completion)
        except StopIteration as stop:
            made: Rollout = stop.value
            return made
        finally:
            walk.close()
        raise AssertionError("a walk ends by returning")


Order = tuple[Callable[..., Asking[Any]], tuple[Any, ...]]
"""What is to be sampled at a site, as a value that pickles: a function, and its arguments after the site."""


def live_units(names: Sequence[str], begin: Callable[[Order], Asking[Any]], fork: Fork | None = None) -> list[Unit]:
    """One unit per task. begin: makes an order at a site; here, or later in a worker of a fleet."""

    def start(name: str, sample: int) -> Asking[Rollout]:
        return begin((whole, (name, sample)))

    if fork is None:
        return [Unit(name, partial(start, name)) for name in names]

    def ahead(name: str, seed: int) -> Asking[Opened]:
        return begin((opening, (fork, name, seed)))

    def start_at(name: str, middle: object, sample: int) -> Asking[Rollout]:
        return begin((branch, (fork, name, middle, sample)))

    return [Unit(name, partial(start, name), partial(ahead, name), partial(start_at, name)) for name in names]


def whole(site: Site, name: str, sample: int) -> Asking[Rollout]:
    """An attempt from the start of the task."""
    return site.attempt(name, sample)


# -------------------------------------------------------------------------------------------------------- forked groups


def opening(site: Site, fork: Fork, name: str, seed: int) -> Asking[Opened]:
    """An attempt goes ahead; the group begins at one of its turns, drawn from `seed`. Where its machines failed the group
    begins at the start."""
    states: list[object] = []

    def look(task: LiveTask, device: Device, turn: Turn) -> Turn:
        if not isinstance(task, Restorable):
            raise SetupError(f"{task.id}: its world restores no states; remove online.fork")
        if turn.index == 0:
            states.clear()
        states.append(task.keep())
        return site.look(task, device, turn)

    ahead = yield from site.attempt(name, 0, look=look)
    spent = len(ahead.turns) + ahead.spent
    if ahead.ended == "crashed" or not ahead.turns:
        return Opened(None, spent, faults([ahead]))
    first = len(ahead.turns) // 2 if fork.at == "late" else 0
    at = random.Random(seed).randrange(first, len(ahead.turns))
    return Opened(Middle(ahead.turns[:at], states[at]), spent, faults([ahead]))


def branch(site: Site, fork: Fork, name: str, middle: Middle, sample: int) -> Asking[Rollout]:
    """One answer from `middle` on and what follows it. With several continuations the rollout is the answer alone; its
    progress is their mean reward, a Monte-Carlo estimate of the answer's value (VinePPO, arXiv 2410.01679)."""
    after: list[object] = []

    def look(task: LiveTask, device: Device, turn: Turn) -> Turn:
        if not after and turn.index == len(middle.turns) + 1 and isinstance(task, Restorable):
            after.append(task.keep())
        return site.look(task, device, turn)

    made = yield from site.attempt(name, sample, middle, fork.most, look)
    if made.ended == "crashed" or (fork.train == "branch" and fork.continuations == 1):
        return made
    again = [made]
    if after and made.outcome is not None:
        later = Middle((*middle.turns, made.turns[0]), after[0])
        for _ in range(fork.continuations - 1):
            again.append((yield from site.attempt(name, sample, later, fork.most)))
    return _answer_alone(made, again)


def _answer_alone(made: Rollout, again: Sequence[Rollout]) -> Rollout:
    """made: the answer with its first continuation. again: all continuations, that one included."""
    checked = [one.outcome for one in again if one.outcome is not None]
    spent = sum(len(one.turns) + one.spent for one in again) - min(1, len(made.turns))
    outcome = made.outcome
    if outcome is not None and len(checked) > 1:
        value = fmean(float(one.success) if one.progress is None else one.progress for one in checked)
        outcome = Outcome(outcome.success, value, checked_by=outcome.checked_by)
    return replace(made, turns=made.turns[:1], outcome=outcome, spent=spent, tries=faults(again))
