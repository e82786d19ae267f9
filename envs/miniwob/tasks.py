"""MiniWoB++ pages as live tasks: a page and a seed, decided by the page's own raw reward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.agent.types import Action, Outcome, Terminate
from guiderail.envs.live.chromium import Pool, find_browser
from guiderail.envs.live.device import Device
from guiderail.envs.miniwob.browser import Browser, BrowserDevice
from guiderail.envs.miniwob.experts import EXPERTS
from guiderail.envs.miniwob.moves import Move
from guiderail.envs.miniwob.suites import suite


class WebTask:
    """`envs.live.attempts.LiveTask` over one page and seed; ends by itself. Its id is "page/seed"."""

    def __init__(self, page: str, seed: int, max_steps: int, pool: Pool[Browser]):
        self.page, self.seed, self.max_steps = page, seed, max_steps
        self._pool = pool
        self._browser: Browser | None = None
        self._device: BrowserDevice | None = None
        self._script: Iterator[Move] | None = None

    @property
    def id(self) -> str:
        return f"{self.page}/{self.seed}"

    @property
    def goal(self) -> str:
        return self._device.goal if self._device else ""

    def start(self) -> Device:
        self.close()
        self._browser = self._pool.take()
        self._device = BrowserDevice(self._browser, self.page, self.seed)
        return self._device

    def over(self) -> bool:
        return self._here().standing()[0]

    def check(self) -> Outcome:
        done, reward = self._here().standing()
        return Outcome(done and reward == 1)

    def expert(self) -> tuple[str, Action]:
        move = self.move()
        return move.thought, move.action

    def move(self) -> Move:
        """The expert's next move with its target. Gives up when its script has ended before the page is decided."""
        if self.page not in EXPERTS:
            raise SetupError(f"{self.page} has no expert; --suite experts runs the pages that have one")
        if self._script is None:
            self._script = EXPERTS[self.page](self._here())
        return next(self._script, Move(Terminate("failure"), "I do not know how to go on"))

    def close(self) -> None:
        browser, self._browser = self._browser, None
        self._device = self._script = None
        if browser is not None:
            self._pool.give(browser)

    def _here(self) -> Browser:
        if self._browser is None:
            raise EnvCrashed("the task has not been started")
        return self._browser


@dataclass(frozen=True, slots=True)
class WebTasks:
    """`envs.live.attempts.World`: the pages of a suite, `seeds` episodes each, from seed `seed` on. scale: see Browser."""

    suite: str = "smoke"
    seeds: int = 3
    seed: int = 0
    scale: int = 2
    max_steps: int = 30

    def listed(self) -> Sequence[tuple[str, tuple[str, ...]]]:
        if min(self.seeds, self.scale, self.max_steps) < 1:
            raise SetupError(f"{self}: expected seeds, scale and max_steps of at least 1")
        find_browser()
        return [(f"{page}/{seed}", (f"page:{page}",)) for seed in self._seeds() for page in suite(self.suite)]

    def _seeds(self) -> range:
        return range(self.seed, self.seed + self.seeds)

    def open(self, worker: int) -> WebSession:
        return WebSession(self)


class WebSession:
    """`envs.live.attempts.Session`: one browser per attempt under way."""

    def __init__(self, world: WebTasks):
        self._world, self._pool = world, Pool(partial(Browser, world.scale))

    def task(self, name: str) -> WebTask:
        page, _, seed = name.rpartition("/")
        return WebTask(page, int(seed), self._world.max_steps, self._pool)

    def close(self) -> None:
        self._pool.close()
