"""Trajectory GRPO against worked tables: the reward is the outcome, one advantage for all turns of an attempt."""

import subprocess
import sys

import pytest

from guiderail.agent.types import Completion, Message, Outcome, Picture, Prompt, Rollout, Screenshot, Turn
from guiderail.rl.credit.named import CREDITS, credit_named
from guiderail.rl.credit.outcome import credit
from guiderail.rl.credit.rates import rates
from guiderail.rl.credit.uis1 import CreditRules

PROMPT = Prompt((Message("user", ("go", Picture(Screenshot(160, 288), 160, 288))),))
DONE, FAILED = Outcome(True), Outcome(False)


def attempts(*outcomes: tuple[int, Outcome | None]) -> list[Rollout]:
    """(number of turns, outcome) per attempt."""
    return [
        Rollout(
            "t", i, tuple(Turn(t, PROMPT, Completion("x", (1,), (-1.0,)), "why", None) for t in range(n)), "finished", o
        )
        for i, (n, o) in enumerate(outcomes)
    ]


@pytest.mark.parametrize(
    ("outcomes", "rules", "advantages", "signal"),
    [
        # mean .25, unbiased std .5: (1 - .25) / .5 and (0 - .25) / .5
        ([(3, DONE), (1, FAILED), (5, FAILED), (2, FAILED)], CreditRules(), [1.5, -0.5, -0.5, -0.5], "kept"),
        # mean .5, biased std .5
        ([(3, DONE), (1, FAILED)], CreditRules(unbiased=False), [1.0, -1.0], "kept"),
        ([(3, DONE), (1, FAILED)], CreditRules(scale=False), [0.5, -0.5], "kept"),
        # progress counts where it is measured: rewards .2, .4, .6, mean .4, std .2
        (
            [(1, Outcome(False, p)) for p in (0.2, 0.4, 0.6)],
            CreditRules(),
            [-1.0, 0.0, 1.0],
            "kept",
        ),
        ([(3, DONE), (1, DONE)], CreditRules(), [0.0, 0.0], "all right"),
        ([(3, FAILED), (1, FAILED)], CreditRules(), [0.0, 0.0], "all wrong"),
        ([(1, Outcome(True, 0.5)), (1, Outcome(False, 0.5))], CreditRules(), [0.0, 0.0], "alike"),
        ([(3, DONE)], CreditRules(), [0.0], "alike"),
    ],
)
def test_advantages_are_the_worked_table(outcomes, rules, advantages, signal):
    group = attempts(*outcomes)
    credited = credit(group, rules)
    assert credited.signal == signal
    assert [row[0].advantage for row in credited.samples] == pytest.approx(advantages, abs=1e-5)
    for rollout, row in zip(group, credited.samples, strict=True):
        assert [sample.index for sample in row] == [turn.index for turn in rollout.turns]
        assert len({(s.advantage, s.advantage_episode, s.advantage_step) for s in row}) == 1
        assert row[0].ret == sum(sample.reward for sample in row) == row[-1].reward


def test_a_rollout_without_an_outcome_is_left_out_of_the_statistics():
    credited = credit(attempts((2, DONE), (4, None), (1, FAILED)), CreditRules())
    assert credited.samples[1] == []
    assert [credited.samples[i][0].advantage for i in (0, 2)] == pytest.approx([0.5**0.5, -(0.5**0.5)], abs=1e-5)
    assert credit(attempts((2, None), (4, None)), CreditRules()).signal == "alike"


def test_statistics_run_over_attempts_not_over_turns():
    """A failure of 20 turns among three successes of one turn counts once."""
    credited = credit(attempts((1, DONE), (1, DONE), (1, DONE), (20, FAILED)), CreditRules(scale=False))
    assert [row[0].advantage for row in credited.samples] == [0.25, 0.25, 0.25, -0.75]


def test_credits_are_found_by_name_and_rates_by_what_was_checked():
    group = attempts((2, DONE), (1, FAILED))
    assert credit_named("outcome", CreditRules())(group) == credit(group, CreditRules())
    assert {"ui-s1", "outcome"} <= set(CREDITS)
    assert rates(group) == {"rollout/success": 0.5, "rollout/readable": 0.0}
    along = [Rollout("e", 0, group[0].turns, "mismatch")]
    assert set(rates(along)) == {f"rollout/{name}" for name in ("exact", "readable", "patched", "finished")}


WITHOUT_TORCH = """
import importlib, pkgutil, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "trl", "peft", "accelerate", "deepspeed"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
try:
    import torch
except ImportError:
    pass
else:
    raise SystemExit("torch is not blocked; this test would say nothing")
for room in ("guiderail.rl.credit", "guiderail.rl.rollout", "guiderail.rl.runs"):
    package = importlib.import_module(room)
    for module in pkgutil.iter_modules(package.__path__):
        print(importlib.import_module(f"{room}.{module.name}").__name__)
"""


def test_credit_rollout_and_runs_need_no_torch():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    names = done.stdout.split()
    assert {"guiderail.rl.credit.uis1", "guiderail.rl.rollout.generation", "guiderail.rl.runs.explain"} <= set(names)
