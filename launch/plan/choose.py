"""Which GPUs to rent: every type and number that holds the run, and the cheapest under a deadline or the fastest under a budget.

As Mélange (arXiv 2404.14527) does for serving: GPUs differ in what a dollar buys of memory, bandwidth and products, so the
cheapest depends on the work. Here one run is placed on one cluster, so the choice is a search over all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from guiderail.agent.errors import SetupError
from guiderail.launch.plan.lengths import Lengths
from guiderail.launch.plan.machines import GPU, Cluster
from guiderail.launch.plan.planned import Planned, plan
from guiderail.launch.plan.seconds import Assumed
from guiderail.launch.plan.shape import Shape
from guiderail.rl.config import Config

COUNTS = ((1, 1), (2, 1), (4, 1), (8, 1), (8, 2), (8, 4))
"""(GPUs of a machine, machines)."""


def clusters(gpus: Iterable[GPU], count: int | None, nodes: int | None) -> list[Cluster]:
    """Every cluster that is not ruled out by the number of GPUs of a machine, or of machines."""
    if count is not None:
        sizes: Sequence[tuple[int, int]] = [(count, nodes or 1)]
    else:
        sizes = [size for size in COUNTS if nodes is None or size[1] == nodes] or [(8, nodes or 1)]
    return [Cluster(gpu, *size) for gpu in gpus for size in sizes]


def compare(
    config: Config, shape: Shape, lengths: Lengths, candidates: Sequence[Cluster], assumed: Assumed
) -> list[Planned]:
    """All candidates planned, the cheapest first. Several do the same work: with fewer GPUs an update takes more
    micro-batches."""
    whole = len(candidates) > 1
    plans = [plan(config, shape, lengths, cluster, assumed, whole=whole) for cluster in candidates]
    return sorted(plans, key=lambda one: (not one.fits, one.cost, one.hours))


def best(plans: Sequence[Planned], deadline: float | None, budget: float | None) -> Planned | None:
    """The cheapest that fits and ends within `deadline` hours; with a budget in dollars the fastest that it pays for, which
    then has to keep the deadline. None where nothing fits. Raises SetupError where something fits, but not within the limits."""
    fitting = [one for one in plans if one.fits]
    if not fitting:
        return None
    if budget is not None:
        paid = [one for one in fitting if one.cost <= budget]
        if not paid:
            least = min(fitting, key=lambda one: one.cost)
            raise SetupError(
                f"nothing costs at most ${budget:g}; the cheapest is {_said(least)}: --budget {least.cost + 0.5:.0f}"
            )
        fastest = min(paid, key=lambda one: (one.hours, one.cost))
        if deadline is not None and fastest.hours > deadline:
            raise SetupError(
                f"nothing for ${budget:g} ends within {deadline:g} h; the fastest for it is {_said(fastest)}: "
                f"--deadline {fastest.hours + 0.5:.0f}, or a larger --budget"
            )
        return fastest
    if deadline is not None:
        timely = [one for one in fitting if one.hours <= deadline]
        if not timely:
            soonest = min(fitting, key=lambda one: one.hours)
            raise SetupError(
                f"nothing ends within {deadline:g} h; the fastest is {_said(soonest)}: --deadline {soonest.hours + 0.5:.0f}"
            )
        return _cheapest(timely)
    return _cheapest(fitting)


def _cheapest(plans: Sequence[Planned]) -> Planned:
    """Of those that cost about the same, the fastest: most clusters of one GPU type do."""
    least = min(one.cost for one in plans)
    return min((one for one in plans if one.cost <= 1.02 * least), key=lambda one: one.hours)


def _said(one: Planned) -> str:
    return f"{one.cluster.name} with {one.hours:.1f} h and ${one.cost:.0f}"
