"""Two bundles on what both attempted, paired."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from guiderail.agent.errors import SetupError
from guiderail.launch import show
from guiderail.launch.submission import scores
from guiderail.launch.submission.verify import Checked
from guiderail.rl.score.statistics import mcnemar, paired_difference

ALPHA = 0.05


def compare(first: Checked, second: Checked) -> dict[str, Any]:
    """{n, left_out, first, second, difference, interval, p, flip_rate, same_seed, distinguishable, words}.

    Pairs are equal (task, sample). One attempt per task: McNemar's exact test decides; repeated attempts are not independent,
    so there the bootstrap over whole tasks decides. flip_rate: share of pairs whose outcome differs. Raises SetupError.
    """
    a, b = first.manifest, second.manifest
    if a is None or b is None or a.kind != b.kind:
        raise SetupError(
            "these are results of different kinds; compare two bundles of one kind, each of which verifies"
        )
    outcomes = [
        {(row.task, row.sample): right for row in one.attempts if (right := scores.success(a.kind, row)) is not None}
        for one in (first, second)
    ]
    keys = sorted(outcomes[0].keys() & outcomes[1].keys())
    if not keys:
        raise SetupError("no attempt is in both bundles; compare results on the same tasks")
    pairs = [(outcomes[0][key], outcomes[1][key]) for key in keys]
    interval = paired_difference([(key[0], float(x), float(y)) for key, (x, y) in zip(keys, pairs, strict=True)])
    repeated = len({task for task, _ in keys}) < len(keys)
    p = None if repeated else mcnemar(pairs)
    apart = p < ALPHA if p is not None else not interval[0] <= 0 <= interval[1]
    rates = fmean(x for x, _ in pairs), fmean(y for _, y in pairs)
    result = {
        "metric": scores.headline(a.kind),
        "n": len(keys),
        "left_out": len(outcomes[0].keys() ^ outcomes[1].keys()),
        "first": rates[0],
        "second": rates[1],
        "difference": rates[0] - rates[1],
        "interval": list(interval),
        "p": p,
        "flip_rate": fmean(x != y for x, y in pairs),
        "same_seed": a.seed == b.seed,
        "distinguishable": apart,
    }
    return result | {"words": _words(result)}


def _words(found: dict[str, Any]) -> str:
    numbers = show.points(found["difference"], found["interval"], found["p"])
    seeds = "" if found["same_seed"] else "; the seeds differ, so tasks may start differently"
    if not found["distinguishable"]:
        said = "not distinguishable"
    else:
        said = f"the {'first' if found['difference'] > 0 else 'second'} is better"
    return f"{said}: {numbers}; {100 * found['flip_rate']:.0f} % of {found['n']} pairs flip{seeds}"
