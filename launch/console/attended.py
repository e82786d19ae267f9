"""An attempt with a person in it: an agent and a person take turns on one device, in one joint history.

The walk is that of `envs.live.attempts.attempt`: the same prompts, the same reading, the same performing. What differs is
who decides that it goes on. Commands return at once; a thread of the attempt's own talks to device and agent. So a device
that hangs blocks nobody: after `Patience.step` seconds the attempt ends as crashed, and the thread is left behind.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import EnvCrashed, GuiderailError, SetupError
from guiderail.agent.types import Action, Completion, Ended, Outcome, Prompt, Screenshot, Terminate, Turn
from guiderail.agent.untrusted import is_file
from guiderail.envs.live.attempts import next_prompt, perform, read_turn
from guiderail.envs.live.device import Device
from guiderail.launch.console.actors import NO_AGENT, Actor
from guiderail.launch.console.devices import FreeGoal, Place
from guiderail.launch.console.likely import likely
from guiderail.launch.console.risky import risk
from guiderail.launch.console.standing import Options, Standing


@dataclass(frozen=True, slots=True)
class Again:
    """Turns of an earlier attempt that a new one begins with, and the dialect that they were said in."""

    turns: Sequence[Turn]
    dialect: str


class _Over(Exception):
    """The attempt was ended from outside while its thread was busy."""


class Attended(Standing):
    """One attempt. place, actor: open the device and load the agent, in the attempt's thread; actor None: the person alone.
    changed: called after every change, from any thread; it must not wait. again: turns of an earlier attempt that are done
    again first."""

    def __init__(
        self,
        place: Callable[[], Place],
        actor: Callable[[], Actor] | None = None,
        options: Options | None = None,
        changed: Callable[[], None] = lambda: None,
        again: Again | None = None,
    ):
        super().__init__(options or Options(), changed)
        self.device: Device | None = None
        self._open, self._load, self._again = place, actor, again
        self._tokens: list[object] = []
        self._commands: queue.Queue[Callable[[], None]] = queue.Queue()
        self._allowed: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._closed = False
        self._left = False
        self._asked = 0
        self._commands.put(self._start)
        self._thread = threading.Thread(target=self._work, name="attended", daemon=True)
        self._thread.start()

    # --------------------------------------------------------------------------------------- commands, from any thread

    def run(self) -> None:
        """The agent goes on by itself: also what hands the device back to it."""
        self._begin(lambda: self._set(running=True), self._go_on)

    def pause(self) -> None:
        """The agent stops before its next act. An answer that is under way is kept, and shown before it is done."""
        self._set(running=False)

    def step(self) -> None:
        """One turn of the agent: what it has proposed, else what it answers now."""
        self._begin(lambda: self._set(running=False), self._one_turn)

    def act(self, action: Action, thought: str | None = None) -> None:
        """The person acts; an agent that was under way stops. What it proposed is dropped."""
        self._begin(lambda: self._set(running=False), lambda: self._person(action, thought))

    def undo(self) -> None:
        """Back to before the last turn, also after the end. Nothing happens where the device has no snapshots."""
        self._set(running=False)
        self._commands.put(self._undo)

    def answer(self, allowed: bool) -> None:
        """The answer to `question`."""
        if self.phase == "asking":
            self._set(phase="acting", question="")
            self._allowed.put(allowed)

    def judge(self, success: bool) -> None:
        """The person says whether the goal was reached; it takes the place of any check. Only at the end."""
        with self.lock:
            if self.ended in ("finished", "gave_up", "out_of_steps", "stopped"):
                self._set(outcome=Outcome(success, checked_by="person"))

    def stop(self, why: str = "a person ended it") -> None:
        """End the attempt now, whatever is under way."""
        self._end("stopped", None, why)

    def close(self) -> None:
        """End the attempt, and give the device back."""
        self.stop()
        self._closed = True
        self._commands.put(lambda: None)
        self._allowed.put(False)

    def join(self, seconds: float) -> bool:
        """Wait until the device has been given back; False where that takes longer."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _begin(self, first: Callable[[], None], then: Callable[[], None]) -> None:
        if self.ended is None:
            first()
            self._allowed.put(False)  # an act that waits for a yes does not get one any more
            self._commands.put(then)

    @contextmanager
    def _within(self, doing: str, seconds: float | None = None) -> Iterator[None]:
        """The attempt ends as crashed where the block takes longer; its thread then finds out when the block ends."""
        limit = seconds or self.options.patience.step
        attempt = weakref.ref(
            self
        )  # a timer's thread ends a little later, and must not be the one that frees the model

        def lost() -> None:
            if (late := attempt()) is not None:
                late._left = True
                late._end("crashed", None, f"{doing} took longer than {limit:g} s")

        timer = threading.Timer(limit, lost)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
        if self._left or self._closed:
            raise _Over

    # ------------------------------------------------------------------------------------------ the attempt's own thread

    def _work(self) -> None:
        try:
            while not self._closed and not self._left:
                command = self._commands.get()
                with self._guarded():
                    command()
                if self._commands.empty():
                    self._set(phase="ready")
                self._commands.task_done()
        finally:
            self._give_back()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except _Over:
            return
        except SetupError as error:
            self._set(note=str(error), running=False)
            if self.screen is None:  # once it has begun, the person can mend this and go on
                self._end("crashed", None, str(error))
        except GuiderailError as error:
            self._end("crashed", None, str(error))
        except Exception as error:  # a world of somebody else's must not end the console
            self._end("crashed", None, f"{type(error).__name__}: {error}")

    def _start(self) -> None:
        with self._within("opening the device"):
            self.place = self._open()
        with self._within("loading the agent", self.options.patience.attempt):
            self.actor = self._load() if self._load else None
        with self._within("starting the task"):
            self.device = self.place.task.start()
        self.can_undo = self._snapshot() is not None
        self._look()
        if self._again is not None:
            self._do_again(self._again)

    def _look(self) -> Screenshot:
        device = self._here()
        with self._within("taking a screenshot"):
            screen = device.screenshot()
        self._set(screen=screen)
        if self.options.elements or (self.place is not None and self.place.quick):
            with self._within("reading the screen"):
                self.seen[len(self.turns)] = tuple(device.elements())
        return screen

    def _go_on(self) -> None:
        while self.running and self.ended is None and self._commands.empty():
            self._one_turn(alone=False)

    def _one_turn(self, alone: bool = True) -> None:
        """alone: one step that was asked for; it is done even though the agent is paused."""
        if self.ended is not None:
            return
        if self.actor is None:
            raise SetupError("there is no agent; choose one, or act yourself")
        if len(self.turns) >= self.max_steps:
            self._end("out_of_steps", Outcome(False))
            return
        turn = self.proposal or self._ask(self.actor)
        if self.ended is not None or not (alone or self.running) or not self._commands.empty():
            return
        if self.confirms and not self._allow(turn):
            self._set(running=False)
            return
        self._do(turn)

    def _prompt(self) -> Prompt:
        return next_prompt(self._dialogue, self.goal, self.turns, self.screen or self._look())

    def _ask(self, actor: Actor) -> Turn:
        assert self.place is not None
        self._set(phase="thinking")
        prompt, index = self._prompt(), len(self.turns)
        with self._within("the agent's answer", self.options.patience.attempt):
            completion = actor.answer(self.place.task, prompt, self._asked)
        self._asked += 1
        turn = read_turn(index, prompt, completion, actor.dialogue)
        if actor.policy is None:
            turn = replace(turn, by="expert")
        if self.ended is None:
            self._set(proposal=turn)
        if self.options.likely and actor.local:
            with self._within("drawing further answers", self.options.patience.attempt):
                found = likely(actor, prompt, turn, self.options.likely)
            with self.lock:
                self.likely[index] = found
                self._set()
        return turn

    def _allow(self, turn: Turn) -> bool:
        device = self._here()
        with self._within("reading the screen"):
            question = risk(turn.action, lambda: self.seen.get(turn.index) or device.elements())
        if not question:
            return True
        while not self._allowed.empty():
            self._allowed.get()
        self._set(phase="asking", question=question)
        allowed = self._allowed.get()
        self._set(phase="acting", question="")
        return allowed and self.ended is None

    def _person(self, action: Action, thought: str | None) -> None:
        if self.ended is not None:
            return
        prompt = self._prompt()
        text = self._dialogue.retell(thought, action, prompt.screen.screenshot)
        self._do(Turn(len(self.turns), prompt, Completion(text), thought, action, by="person"))

    def _do(self, turn: Turn) -> None:
        """The turn joins the history, then the device acts: what was said stays said where the device fails."""
        assert self.place is not None
        with self.lock:
            if self.ended is not None:
                return
            self.turns.append(turn)
            self._set(phase="acting", proposal=None, note="")
        self._tokens.append(self._snapshot() if self.can_undo else None)
        with self._within("acting"):
            end = self._perform(turn.action)
        self._look()
        if end is not None:
            self._end(*end)

    def _perform(self, action: Action | None) -> tuple[Ended, Outcome | None] | None:
        assert self.place is not None
        if isinstance(self.place.task, FreeGoal) and action == Terminate("success"):
            return "finished", None
        return perform(self.place.task, self._here(), action)

    def _snapshot(self) -> object | None:
        """None where the device has none."""
        with suppress(EnvCrashed), self._within("saving the device's state"):
            return self._here().snapshot()
        return None

    def _undo(self) -> None:
        if self.phase != "over":
            self._set(proposal=None)
        if not self.undoable or self._tokens[-1] is None:
            return
        with self.lock:
            self.ended = self.outcome = None
            self._set(phase="acting", reason="")
        with self._within("restoring the device's state"):
            self._here().restore(self._tokens.pop())
        with self.lock:
            self.turns.pop()
            self.likely.pop(len(self.turns), None)
            self.seen.pop(len(self.turns) + 1, None)
        self._look()

    def _do_again(self, again: Again) -> None:
        """Turns of an earlier attempt: their words join the history as they were, their actions are performed. A screen that
        is not the one of then is said."""
        for then in again.turns:
            prompt, shot = self._prompt(), then.screen.screenshot
            if shot.path is not None and is_file(shot.path) and shot.digest != prompt.screen.screenshot.digest:
                self._set(note=f"at step {then.index} the device shows another screen than it did then")
            said = then.completion
            if self._dialogue.dialect.name != again.dialect and then.action is not None:
                said = Completion(self._dialogue.retell(then.thought, then.action, prompt.screen.screenshot))
            note = self.note
            self._do(replace(then, index=len(self.turns), prompt=prompt, completion=said))
            self._set(note=note)

    @property
    def _dialogue(self) -> Dialogue:
        return self.actor.dialogue if self.actor else NO_AGENT

    def _here(self) -> Device:
        if self.device is None:
            raise EnvCrashed("the device has not been started")
        return self.device

    def _give_back(self) -> None:
        with suppress(Exception):
            if self.place is not None:
                self.place.task.close()
                self.place.close()
