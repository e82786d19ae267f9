"""Android in the Wild, online: task lists of a DigiRL checkout, an emulator per worker, a judge that looks at the screen.

DigiRL protocol (arXiv 2406.11896): the first 96 lines of a list, one after the other, 10 steps for General and 20 for
Web-shopping. DigiRL judges after every step and stops at the first success. Here the agent has to say that it is done; then
the final screen (or the whole trajectory) is judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from guiderail.agent.errors import SetupError
from guiderail.agent.policy import Policy
from guiderail.agent.screen import Vision
from guiderail.agent.types import Action, Outcome, Screenshot
from guiderail.envs.aitw.judge import NOTHING, AnyJudge, Judge, Judgement, Mode, describe
from guiderail.envs.aitw.rubric import RubricJudge
from guiderail.envs.android.emulator import EmulatorSpec, Lease, lease
from guiderail.envs.live.device import Device, Element

List = Literal["general_train", "general_test", "webshop_train", "webshop_test"]
LISTS: tuple[List, ...] = ("general_train", "general_test", "webshop_train", "webshop_test")
PROTOCOL_LINES = 96
PROTOCOL_STEPS = {"general": 10, "webshop": 20}
TASK_SET = Path("digirl/environment/android/assets/task_set")


def read_tasks(checkout: Path, name: List, limit: int | None = PROTOCOL_LINES) -> dict[str, str]:
    """Task id -> instruction: the first `limit` lines of a list, repeated ones included, as the protocol has them."""
    if name not in LISTS:
        raise SetupError(f"unknown AITW list {name!r}; choose one of {', '.join(LISTS)}")
    file = next((f for f in (checkout / TASK_SET / f"{name}.txt", checkout / f"{name}.txt") if f.is_file()), None)
    if file is None:
        raise SetupError(
            f"no {name}.txt below {checkout}; run: git clone https://github.com/DigiRL-agent/digirl and give its folder"
        )
    lines = [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]
    return {f"{name}-{k:03d}": line for k, line in enumerate(lines[:limit])}


@dataclass(frozen=True)
class JudgeSpec:
    """Who judges: a model behind an OpenAI-compatible server, and where its verdicts are kept. Picklable."""

    server: str
    model: str
    folder: str
    mode: Mode = "final"
    api_key_env: str = "OPENAI_API_KEY"

    def build(self) -> AnyJudge:
        from guiderail.agent.served.openai import ServedPolicy

        policy: Policy = ServedPolicy(self.server, self.model, Vision(max_pixels=1280 * 28 * 28), self.api_key_env)
        folder = Path(self.folder)
        return RubricJudge(policy, folder) if self.mode == "rubric" else Judge(policy, folder, self.mode)


@dataclass(frozen=True)
class AitwTasks:
    """`envs.live.attempts.World`. checkout: a DigiRL checkout, or a folder with the lists. max_steps None: the protocol's."""

    checkout: str
    judge: JudgeSpec
    emulator: EmulatorSpec
    name: List = "general_test"
    limit: int | None = PROTOCOL_LINES
    max_steps: int | None = None

    def tasks(self) -> dict[str, str]:
        return read_tasks(Path(self.checkout), self.name, self.limit)

    def listed(self) -> Sequence[tuple[str, tuple[str, ...]]]:
        return [(task, (f"list:{self.name}", *level(text))) for task, text in self.tasks().items()]

    def open(self, worker: int) -> AitwSession:
        return AitwSession(self, lease(self.emulator, worker), self.judge.build())


def level(text: str) -> tuple[str, ...]:
    """Web-shopping instructions have levels: 1 goes to a site, 2 also searches there, 3 also selects a result."""
    if not text.casefold().startswith("go to "):
        return ()
    return (f"level:{1 + ('search for' in text.casefold()) + ('select' in text.casefold())}",)


class AitwSession:
    """One worker's emulator and judge."""

    def __init__(self, world: AitwTasks, held: Lease, judge: AnyJudge):
        self._world, self.held, self.judge = world, held, judge
        self._tasks = world.tasks()

    def task(self, name: str) -> JudgedTask:
        kind = name.partition("_")[0]
        steps = self._world.max_steps or PROTOCOL_STEPS.get(kind, PROTOCOL_STEPS["general"])
        return JudgedTask(name, self._tasks[name], steps, self.held, self.judge)

    def close(self) -> None:
        self.held.close()


class JudgedTask:
    """`envs.live.attempts.LiveTask` that a judge model decides. The outcome holds its reason."""

    def __init__(self, name: str, goal: str, max_steps: int, held: Lease, judge: AnyJudge):
        self.id, self.goal, self.max_steps = name, goal, max_steps
        self._held, self._judge = held, judge
        self._watched: Watched | None = None
        self.judgement: Judgement | None = None

    def start(self) -> Watched:
        self._held.reset()
        device = self._held.device()
        device.shell(["input", "keyevent", "KEYCODE_HOME"])
        self._watched = Watched(device)
        return self._watched

    def check(self) -> Outcome:
        """Show the judge all screenshots so far. Raises EnvCrashed when the judge gives no verdict."""
        if self._watched is None:
            raise RuntimeError("the task has not been started")
        if not self._watched.shots or len(self._watched.said) == len(self._watched.shots):
            self._watched.screenshot()
        self.judgement = self._judge(self.goal, self._watched.shots, self._watched.said)
        return Outcome(self.judgement.success, reason=self.judgement.reason, checked_by="judge")

    def close(self) -> None:
        """The emulator stays for the next task."""
        self._watched = None


class Watched:
    """A device that remembers its screenshots, and what was done after each, as the judge reads it."""

    def __init__(self, device: Device):
        self._device = device
        self.shots: list[Screenshot] = []
        self.said: list[str] = []

    def screenshot(self) -> Screenshot:
        self.shots.append(self._device.screenshot())
        return self.shots[-1]

    def act(self, action: Action) -> None:
        self._device.act(action)
        self.said += [NOTHING] * (len(self.shots) - 1 - len(self.said))
        self.said.append(describe(action))

    @property
    def answers(self) -> tuple[str, ...]:
        return self._device.answers

    def shell(self, args: list[str]) -> str:
        return self._device.shell(args)

    def elements(self) -> list[Element]:
        return self._device.elements()

    def snapshot(self) -> object:
        return self._device.snapshot()

    def restore(self, token: object) -> None:
        self._device.restore(token)

    def close(self) -> None:
        self._device.close()
