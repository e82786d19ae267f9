"""Generations whose groups go to whoever is free, beside generations that are sampled try by try: the same groups.

    python -m benchmarks.dispatch [--model tiny-sft] [--groups 8] [--rollouts 8] [--eta 0.3] [--generations 6] [--out FILE]
    torchrun --standalone --nproc_per_node 2 -m benchmarks.dispatch ...

Semi-online rollouts along Pocket's recordings, with the settings of tiny_semi_online. Every generation is sampled in both ways, each
way first in turn, after a pass that stores the vision features of both. Seconds are those from the start to the end of a generation,
exchange included; `idle` is the mean share of them in which a process samples nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch.distributed

from benchmarks.rollout import load
from guiderail.agent.local.policy import LocalPolicy
from guiderail.agent.local.vision import VisionStore
from guiderail.agent.policy import Policy, Request, Sampling
from guiderail.agent.shipped import shipped
from guiderail.envs.pocket.record import record
from guiderail.rl.config import load_config
from guiderail.rl.rollout.from_config import recorded_plan
from guiderail.rl.rollout.generation import generation
from guiderail.rl.rollout.plan import Group
from guiderail.rl.train.distributed import processes

clock = time.process_time if processes().world == 1 else time.perf_counter
CONFIG = Path(__file__).parents[1] / "launch/configs/tiny_semi_online.yaml"


@dataclass
class Timed:
    """A policy that knows for how long it was asked."""

    policy: Policy
    seconds: float = 0.0
    batches: int = 0

    def __post_init__(self) -> None:
        self.name, self.vision = self.policy.name, self.policy.vision

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Any:
        started = clock()
        made = self.policy.complete(requests, sampling)
        self.seconds += clock() - started
        self.batches += 1
        return made


def same(one: Group, other: Group) -> bool:
    """The same turns, whatever the rounding of their probabilities."""
    return (one.unit, one.signal, _said(one)) == (other.unit, other.signal, _said(other))


def _said(group: Group) -> list[list[str]]:
    return [[turn.completion.text for turn in rollout.turns if turn.completion] for rollout in group.rollouts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-sft")
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--eta", type=float, default=0.3)
    parser.add_argument("--generations", type=int, default=6)
    parser.add_argument("--out", default=None, help="also write the result here, as JSON")
    asked = parser.parse_args()
    together = processes()
    if together.world > 1:
        torch.distributed.init_process_group("gloo")
    with tempfile.TemporaryDirectory() as folder:
        record(Path(folder), 100, 7)
        policy, work = load(shipped(asked.model), folder, 100, asked.rollouts, 1.0)
        method = [f"method.{key}={getattr(asked, key)}" for key in ("groups", "rollouts", "eta")]
        config = load_config(CONFIG, [f"data.train={folder}", *method])
        plan = recorded_plan(config, work.episodes, work.dialogue, 0)
        store = VisionStore(policy.encoder)
        seconds, asking, batches = {True: 0.0, False: 0.0}, {True: 0.0, False: 0.0}, {True: 0, False: 0}
        cursor = alike = groups = 0
        for number in range(asked.generations):
            made = {}
            for free in [None, *((True, False) if number % 2 else (False, True))]:
                timed = Timed(LocalPolicy(policy.model, policy.encoder, "timed", max_batch=64, store=store))
                together.exchange(None)
                started = clock()
                made[free] = generation(replace(plan, free=bool(free)), timed, number, cursor, together)
                took = clock() - started
                if free is not None:
                    seconds[free] += took
                    asking[free] += timed.seconds
                    batches[free] += timed.batches
            alike += sum(map(same, made[True].groups, made[False].groups))
            groups += len(made[True].groups)
            cursor = made[True].cursor
    every = together.exchange((asking, batches))
    result = {
        "processes": together.world,
        "groups": groups,
        "equal": alike,
        "speedup": round(seconds[False] / seconds[True], 3),
        **{
            name: {
                "seconds": round(seconds[free], 2),
                "idle": round(1 - sum(one[free] for one, _ in every) / len(every) / seconds[free], 3),
                "batches": [count[free] for _, count in every],
            }
            for name, free in (("tries", False), ("free", True))
        },
    }
    if together.rank == 0:
        print(json.dumps(result, indent=1))
        if asked.out:
            Path(asked.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
