"""What is sampled before a group: where it begins (`Unit.opening`)."""

from __future__ import annotations

from collections.abc import Sequence

from guiderail.agent.policy import Policy
from guiderail.rl.rollout.drive import Asking, Key, seed_of
from guiderail.rl.rollout.plan import Opened, Plan, Unit


def opened(plan: Plan, policy: Policy, number: int, pairs: Sequence[tuple[int, Unit]]) -> list[Opened]:
    """Where the groups of these (visit, unit) begin in generation `number`; all openings are driven as one batch."""
    walks: list[tuple[Key, Asking[Opened]]] = []
    places: list[int] = []
    for place, (visit, unit) in enumerate(pairs):
        if unit.opening is not None:
            key = (plan.seed, number, visit, unit.key, "opening")
            walks.append((key, unit.opening(seed_of(*key, "where"))))
            places.append(place)
    found = plan.drive(walks, policy, plan.sampling, width=plan.width) if walks else []
    made = dict(zip(places, found, strict=True))
    return [made.get(place, Opened()) for place in range(len(pairs))]
