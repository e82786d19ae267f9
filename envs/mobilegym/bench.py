"""MobileGym's own benchmark, imported from the user's checkout: its tasks, parameter sampling, budgets and judges, untouched.

`bench_env` imports Playwright and an OpenAI client on the way to its tasks. Neither is needed here: the packages are entered
into sys.modules without running their __init__, so that only the modules asked for are loaded.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import sys
import zlib
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.agent.origin import install
from guiderail.agent.types import Outcome
from guiderail.envs.mobilegym.checkout import Checkout

Language = Literal["zh", "en"]
LANGUAGES: tuple[Language, ...] = ("zh", "en")
SPLITS = ("test", "train", "payment")
BARE = ("bench_env", "bench_env.env", "bench_env.runner")
"""Packages whose __init__ is skipped."""
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_MOST_EFFECTS = 20


@dataclass(frozen=True)
class Bench:
    """The benchmark of one checkout. A process can hold only one."""

    folder: Path

    @classmethod
    def of(cls, checkout: Checkout) -> Bench:
        """Raises SetupError where it cannot be imported, or where another checkout's is loaded already."""
        folder = checkout.bench
        loaded = sys.modules.get("bench_env")
        if loaded is not None and [*loaded.__path__] != [str(folder)]:
            raise SetupError(f"this process uses {loaded.__path__[0]} already; use {folder} in another one")
        wanted = folder / "requirements.txt"
        if importlib.util.find_spec("opencc") is None and wanted.is_file() and "opencc" in wanted.read_text("utf-8"):
            raise SetupError(f"MobileGym's judges need opencc, which is not installed; run: {install('mobilegym')}")
        for name in BARE:
            if name not in sys.modules:
                package = ModuleType(name)
                package.__path__ = [str(folder.joinpath(*name.split(".")[1:]))]
                sys.modules[name] = package
        try:
            for name in (
                "config",
                "splits",
                "env.base",
                "env.stopwatch",
                "runner.base",
                "task.common_tasks",
                "task.judge",
                "task.registry",
            ):
                importlib.import_module(f"bench_env.{name}")
        except Exception as error:
            raise SetupError(
                f"{folder} cannot be imported: {type(error).__name__}: {error}; use another checkout"
            ) from None
        return cls(folder)

    def part(self, name: str) -> Any:
        return sys.modules[f"bench_env.{name}"]

    @cached_property
    def _registry(self) -> Any:
        return self.part("task.registry").TaskRegistry()

    @cached_property
    def app_names(self) -> dict[str, str]:
        """Name of an app, Chinese or English, in lower case -> its id: the table of the checkout's own environment, which is
        read and not run, because its module needs Playwright."""
        source = self.folder / "env" / "mobile_gym.py"
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "APP_NAME_MAP" and node.value:
                table: dict[str, str] = ast.literal_eval(node.value)
                return {name.lower(): app for name, app in table.items()} | {app: app for app in table.values()}
        raise SetupError(f"{source} has no APP_NAME_MAP; use the checkout of a release that has")

    def ids(self, split: str) -> list[str]:
        """Ids of a split's tasks, "suite.Class", in order."""
        return sorted(self.part("splits").resolve_split(split))

    def about(self, name: str) -> Any:
        """The class of a task. Raises SetupError for an unknown id."""
        try:
            return self._registry.get_by_id(name)
        except (ValueError, ImportError) as error:
            raise SetupError(f"{name} is not a task of {self.folder.parent}: {str(error)[:200]}") from None

    def draws(self, name: str, most: int) -> int:
        """How many different instances of a task there are, at most `most`."""
        return int(self.part("task.registry")._max_instances(self.about(name), most))

    def english(self, name: str) -> int | None:
        """Which of a task's wordings is in English; None where none is."""
        wordings = self.about(name).templates
        return next((k for k, text in enumerate(wordings) if not _CHINESE.search(text)), None)

    def task(self, name: str, draw: int, seed: int, language: Language) -> Any:
        """An instance: the one that the benchmark's own runner makes as number `draw` from the same seed."""
        made = self._registry.create_task(name, _seed=(seed ^ zlib.crc32(f"{name}:{draw}".encode())) & 0xFFFFFFFF)
        if language == "en":
            made._template_index = self.english(name)
        return made

    def only_asks(self, name: str) -> bool:
        """Whether a task is done once its form holds the right answers: it has no checks of its own."""
        about = self.about(name)
        plain = (self.part("task.base").BaseTask, self.part("task.common_tasks").AnswerTask)
        checks = next(one for one in about.__mro__ if "check_goals" in vars(one))
        return bool(about.answer_fields) and checks in plain

    def expected(self, task: Any, first: Any, last: Any) -> list[Any]:
        """The answers that the form should hold, one per field. Raises LookupError where the task does not tell."""
        both = self.part("task.judge").JudgeInput(init_obs=first, last_obs=last)
        try:
            try:
                found = task.get_expected_response(both)
            except NotImplementedError:
                found = task.get_answer(both)
        except Exception as error:
            raise LookupError(f"{type(error).__name__}: {error}") from error
        if isinstance(found, dict):
            return [*found.values()]
        return [*found] if isinstance(found, list | tuple) else [found]

    def budget(self, task: Any) -> int:
        """Steps it allows, the form for its answer included."""
        return int(self.part("config").RunnerConfig(agent="guiderail", model_name="").get_max_steps(task))

    def setup(self, task: Any, env: Any) -> Any:
        """Set the phone up as the task asks, and inject the form for its answer. Returns the first observation."""
        return _finished(self.part("runner.base").Controller.setup(env, task, eval_mode="grounded"))[0]

    def observation(self, state: dict[str, Any], route: dict[str, Any]) -> Any:
        return self.part("env.base").Observation(route=route, state=state)

    def judge(self, task: Any, first: Any, last: Any, answers: Sequence[str]) -> Outcome:
        """The benchmark's verdict, in its grounded form: success is every check passed and nothing else changed. Raises
        EnvCrashed where the judge itself fails."""
        base = self.part("runner.base")
        said = base.ExecutionResult(0, [], 0.0, True, False, agent_answer=answers[-1] if answers else None)
        try:
            found = base.Evaluator(eval_mode="grounded")._evaluate_with_state(task, first, last, said)
        except Exception as error:  # whatever it raises: the attempt has no score
            raise EnvCrashed(f"MobileGym's judge: {type(error).__name__}: {str(error)[:200]}") from error
        if found.judge_error:
            raise EnvCrashed(f"MobileGym's judge: {str(found.judge_error)[:300]}")
        effects = tuple(str(one["field"]) for one in found.warnings)
        missed = [str(one.get("field") or one.get("reason")) for one in found.issues if not one.get("passed")]
        reason = f"not met: {', '.join(missed)}" if missed else f"also changed: {', '.join(effects)}" if effects else ""
        return Outcome(bool(found.passed), float(found.progress), effects[:_MOST_EFFECTS], reason[:300])


def _finished(steps: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine in which nothing waits: our side of it is synchronous, so it ends in its first step."""
    try:
        steps.send(None)
    except StopIteration as end:
        return end.value
    steps.close()
    raise EnvCrashed("MobileGym's task waits for something that this world does not have")
