"""MobileGym's tasks as live tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from guiderail.agent.errors import EnvCrashed, GuiderailError, SetupError
from guiderail.agent.types import Action, Outcome
from guiderail.envs.live.chromium import Pool, find_browser
from guiderail.envs.mobilegym.bench import LANGUAGES, SPLITS, Bench, Language
from guiderail.envs.mobilegym.checkout import Checkout
from guiderail.envs.mobilegym.device import GymPhone
from guiderail.envs.mobilegym.expert import Move, Moves, expert, known
from guiderail.envs.mobilegym.page import MOST_LOADS, Page
from guiderail.envs.mobilegym.seam import BenchEnv
from guiderail.envs.mobilegym.site import Site

EXPERTS = "experts"
ENGLISH_SUFFIX = " Then open the app Answer Sheet (答题卡), answer the question in it and submit."


@dataclass(frozen=True)
class MobileGym:
    """`envs.live.attempts.World`: tasks of a split, `seeds` instances each where a task has parameters to draw.

    checkout: the user's folder. names: only these tasks ("suite.Class"), or (EXPERTS,) for those with an expert. language: of the phone and of the goals; "en" has
    the tasks with an English wording. scale: screenshot pixels per CSS pixel of a 360x800 screen. Tasks of apps whose data
    the checkout lacks are left out. Listed names are "suite.Class/INSTANCE".
    """

    checkout: str
    split: str = "test"
    names: tuple[str, ...] = ()
    seeds: int = 1
    seed: int = 0
    language: Language = "zh"
    scale: int = 2

    def _checked(self) -> Checkout:
        if self.split not in SPLITS or self.language not in LANGUAGES or min(self.seeds, self.scale) < 1:
            raise SetupError(
                f"{self}: expected a split of {', '.join(SPLITS)}, a language of {', '.join(LANGUAGES)}, and seeds and "
                "scale of at least 1"
            )
        find_browser()
        return Checkout.at(self.checkout)

    def ids(self, split: str) -> list[str]:
        """Ids of all tasks of a split."""
        return Bench.of(self._checked()).ids(split)

    @cached_property
    def chosen(self) -> dict[str, str]:
        """Every task asked for: its id -> why it is left out, "" where it is not."""
        found = self._checked()
        bench, lacking = Bench.of(found), found.without_data
        ids = bench.ids(self.split)
        wanted = self.names or ids
        if self.names == (EXPERTS,):
            wanted = [name for name in ids if known(name, bench.only_asks(name))]
        elif unknown := sorted({*self.names} - {*ids}):
            raise SetupError(
                f"the {self.split} split has no task {', '.join(unknown)}; leave --tasks out for all of it"
            )
        why: dict[str, str] = {}
        for name in wanted:
            missing = sorted(lacking & {*bench.about(name).apps})
            wordless = self.language == "en" and bench.english(name) is None
            why[name] = f"no data of {', '.join(missing)}" if missing else "no English wording" if wordless else ""
        return why

    def listed(self) -> Sequence[tuple[str, tuple[str, ...]]]:
        bench = Bench.of(self._checked())
        names = [name for name, why in self.chosen.items() if not why]
        if not names:
            raise SetupError(
                f"no task is left: {', '.join({*self.chosen.values()})}; choose others with --tasks or --split"
            )
        return [
            (
                f"{name}/{draw}",
                (f"template:{name}", f"level:{bench.about(name).difficulty}", f"suite:{name.split('.')[0]}"),
            )
            for draw in range(self.seeds)
            for name in names
            if draw < bench.draws(name, self.seeds)
        ]

    def open(self, worker: int) -> GymSession:
        return GymSession(self)


class GymSession:
    """`envs.live.attempts.Session`: one site, and a Chromium per attempt under way."""

    def __init__(self, world: MobileGym):
        checkout = world._checked()
        self.world, self.bench = world, Bench.of(checkout)
        self._site = Site(checkout.pages, checkout.data)
        self.pool: Pool[Page] = Pool(partial(Page, self._site, world.scale))

    def task(self, name: str) -> GymTask:
        return GymTask(name, self)

    def close(self) -> None:
        self.pool.close()
        self._site.close()


class GymTask:
    """`envs.live.attempts.LiveTask`: an instance of a task. Its id is "suite.Class/INSTANCE"."""

    def __init__(self, name: str, session: GymSession):
        self.id, self.goal, self.max_steps = name, "", 0
        self.session = session
        self.name, _, draw = name.rpartition("/")
        self._draw = int(draw)
        self.phone: GymPhone | None = None
        self.bench_task: Any = None
        self._moves: Moves | None = None
        self._first: Any = None

    def start(self) -> GymPhone:
        self.close()
        page = self.session.pool.take()
        self.phone = GymPhone(page, partial(self._set_up, page), self.session.bench.app_names)
        try:
            self.bench_task, self._first = self._set_up(page)
        except BaseException:
            self.close()
            raise
        self.goal = self._worded(self.bench_task)
        self.max_steps = self.session.bench.budget(self.bench_task)
        return self.phone

    def _set_up(self, page: Page) -> tuple[Any, Any]:
        """The page as this instance begins: (MobileGym's task, its first observation). Each call gives the same."""
        bench, world = self.session.bench, self.session.world
        made = bench.task(self.name, self._draw, world.seed, world.language)
        try:
            first = bench.setup(made, BenchEnv(page, bench, made._seed, world.language))
        except GuiderailError:
            raise
        except Exception as error:  # whatever MobileGym's task raises: the attempt has no score, the others go on
            raise EnvCrashed(f"MobileGym's setup of {self.name}: {type(error).__name__}: {str(error)[:200]}") from error
        page.settle()
        return made, first

    def _worded(self, task: Any) -> str:
        """The goal, with MobileGym's request to use the answer sheet; that is Chinese, so an English goal gets ours."""
        goal = str(task.description)
        if self.session.world.language == "en" and task.answer_fields:
            task.task_name = ""
            return str(task.description) + ENGLISH_SUFFIX
        return goal

    def check(self) -> Outcome:
        if self.phone is None:
            raise RuntimeError("the task has not been started")
        bench, page = self.session.bench, self.phone.page
        last = bench.observation(page.state(), page.route())
        return bench.judge(self.bench_task, self._first, last, self.phone.answers)

    measure = check

    def expert(self) -> tuple[str, Action]:
        move = self.move()
        return move.thought, move.action

    def move(self) -> Move:
        """The expert's next move with its target. Gives up when its script does not find its way."""
        if self.phone is None:
            raise EnvCrashed("the task has not been started")
        if not known(self.name, self.session.bench.only_asks(self.name)):
            raise SetupError(f"{self.name} has no expert; --tasks {EXPERTS} runs those that have one")
        if self._moves is None:
            self._moves = expert(self)
        return next(self._moves)

    def expected(self) -> list[Any]:
        """What the judge wants to read in the form, from the state as it is now."""
        bench = self.session.bench
        if self.phone is None:
            raise EnvCrashed("the task has not been started")
        last = bench.observation(self.phone.page.state(), self.phone.page.route())
        return bench.expected(self.bench_task, self._first, last)

    def params(self) -> Mapping[str, Any]:
        """What was drawn for this instance; empty before the start."""
        return dict(self.bench_task.params) if self.bench_task is not None else {}

    def close(self) -> None:
        phone, self.phone, self._moves = self.phone, None, None
        if phone is not None:
            phone.page.broken |= phone.page.loads >= MOST_LOADS
            self.session.pool.give(phone.page)
