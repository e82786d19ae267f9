"""How much more than the mean the busiest process has to do in an update, with samples dealt by rows, then by work.

    python benchmarks/balance.py [--images 2] [--json]

Groups of 8 rollouts of 3 to 10 steps are made up; each rollout ends with probability 0.15 at each step. A screenshot has 3,350 tokens, an
answer and its step's text 150. A micro-batch holds `max_rows` rows of a step and computes what they have in common once. Every
process waits for the busiest one.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from typing import Any

from guiderail.rl.rollout.generation import over_processes, together

PICTURE, TEXT, TURN = 3350, 500, 150


def generation(groups: int, rng: random.Random) -> list[tuple[str, int]]:
    """(unit, step) of every sample."""
    found = []
    for group in range(groups):
        alive = 8
        for step in range(rng.randint(3, 10)):
            found += [(str(group), step)] * alive
            alive -= sum(rng.random() < 0.15 for _ in range(alive))
    return found


def tokens(step: int, rows: int, max_rows: int, images: int) -> int:
    """Of the forward over all rows of a step."""
    size = PICTURE * min(images, step + 1) + TEXT + TURN * (step + 1)
    batches = -(-rows // max_rows)
    lead = size - TURN if step == 0 else TEXT + PICTURE * (images > 1)
    return batches * lead + rows * (size - lead)


def by_rows(steps: Sequence[tuple[str, int]], processes: int) -> list[list[int]]:
    dealt: list[list[int]] = [[] for _ in range(processes)]
    for places in sorted(together(steps), key=len, reverse=True):
        min(dealt, key=len).extend(places)
    return dealt


def busiest(steps: Sequence[tuple[str, int]], dealt: Sequence[Sequence[int]], max_rows: int, images: int) -> float:
    load = []
    for share in dealt:
        mine = [steps[i] for i in share]
        load.append(sum(tokens(step[1], mine.count(step), max_rows, images) for step in set(mine)))
    return max(load) * len(load) / sum(load)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    choices = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for processes, groups in ((2, 8), (8, 32), (32, 32)):
        for max_rows in (2, 4, 8):
            rng, found = random.Random(0), {"rows": 0.0, "work": 0.0}
            for _ in range(20):
                steps = generation(groups, rng)
                for name, deal in (("rows", by_rows), ("work", over_processes)):
                    found[name] += busiest(steps, deal(steps, processes), max_rows, choices.images) / 20
            rows.append({"processes": processes, "groups": groups, "max_rows": max_rows, **found})
    if choices.json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        print(
            f"{row['processes']:3} processes, {row['groups']} groups, {row['max_rows']} rows: "
            f"{row['rows']:.3f} times the mean dealt by rows, {row['work']:.3f} by work"
        )


if __name__ == "__main__":
    main()
