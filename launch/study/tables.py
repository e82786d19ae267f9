"""The study as markdown tables. Every number comes from the records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from guiderail.launch import show
from guiderail.launch.study.digest import (
    METRICS,
    ONLINE,
    Checkpoint,
    Metric,
    arms,
    comparisons,
    gap,
    load,
    over_seeds,
    points,
    title,
)
from guiderail.launch.study.plan import Plan, jobs
from guiderail.rl.config import Config
from guiderail.rl.score.study import Difference, Mean, correlation

AGAINST = ("SOP PG", "SOP TSR", "SOP Score", "one-step SR")


def markdown(plan: Plan, records: Path) -> str:
    found = load(records)
    planned = {job.name for job in jobs(plan)}
    done = len(planned & {c.name for c in found})
    comparison = arms(plan, found, "comparison")
    sections = [
        f"{done} of {len(planned)} planned checkpoints have a record; {len(found)} records in all. 95 % intervals in "
        "brackets: bootstrap over seeds and tasks. Everything in percent; greedy but for what is called sampled, which is at "
        "temperature 1.",
        *_mixed(plan, found),
        _section("Online success and metrics", _rates(plan, comparison, _RATES)),
        _section("Differences, same seeds and tasks (points)", _differences(plan, found, "comparison")),
        _section("Memory: what the own thoughts carry", _rates(plan, comparison, _THOUGHTS)),
        _section("Never trained on", _worlds(plan, comparison)),
        _section("Pop-ups and false claims", _trouble(plan, comparison)),
        _section("What it took (mean per checkpoint)", _costs(plan, found)),
    ]
    for part, head in _PARTS.items():
        group = arms(plan, found, part)
        sections.append(_section(head, _rates(plan, group, _RATES)))
        sections.append(_section(f"{head}: differences (points)", _differences(plan, found, part)))
        sections.append(_section(f"{head}: memory", _rates(plan, group, _THOUGHTS)))
        sections.append(_section(f"{head}: never trained on", _worlds(plan, group)))
        sections.append(_section(f"{head}: pop-ups and false claims", _trouble(plan, group)))
    sections.append(_section("Which metric tells online success", _correlations(plan, found)))
    sections.append(_section("Every checkpoint", _checkpoints(found)))
    return "\n\n".join(filter(None, sections)) + "\n"


def _filled(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without its seed. A key that Guiderail did not have yet when it was recorded has its default."""
    defaults = Config.model_construct().model_dump(mode="json", exclude={"model", "training"})
    sections = {key: {**value, **config.get(key, {})} for key, value in defaults.items() if isinstance(value, dict)}
    return {**config, **sections, "training": {**config["training"], "seed": 0}}


def _mixed(plan: Plan, found: list[Checkpoint]) -> list[str]:
    """A warning for every arm whose seeds were not trained alike. Own successes are recorded anew for each seed."""
    own = {name for name, arm in plan.arms.items() if arm.recipe and plan.recipes[arm.recipe].own}
    said = []
    for arm in sorted({c.arm for c in found}):
        made = [c.header["train"] for c in found if c.arm == arm and c.header["train"]]
        recipes = [_filled(t["config"]) | {"data": None if arm in own else t["data"]} for t in made]
        if any(recipe != recipes[0] for recipe in recipes):
            said.append(f"**The seeds of {arm} were trained with different settings or data; do not average them.**")
    return said


def _section(head: str, table: str) -> str:
    """Nothing where the table has no rows."""
    return f"### {head}\n\n{table}" if table.count("\n") > 1 else ""


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(columns), ["---", *["--:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


_PARTS = {
    "told": "Where recordings hold the experts' thoughts",
    "hindsight": "Hindsight",
    "long": "The strongest arm in an hour of one core",
    "notes": "Thoughts rewarded",
    "hour": "An hour of one core",
    "additions": "Parts of online RL",
    "ablations": "Ablations",
}
_RATES = {
    name: METRICS[name]
    for name in ("online", "online, memory", "online, other", *AGAINST, "online, sampled", "SOP TSR, sampled")
}
_THOUGHTS = {
    "online, memory tasks": METRICS["online, memory"],
    "the same, sampled": METRICS["online, memory, sampled"],
    "SOP TSR, memory tasks": METRICS["SOP TSR, memory"],
    "informative thoughts, memory tasks": METRICS["informative, memory"],
    "noted what had to be noted": METRICS["noted"],
    "noted, sampled": METRICS["noted, sampled"],
    "SOP TSR where all was noted": METRICS["SOP TSR where noted"],
    "SOP TSR where noted, sampled": METRICS["SOP TSR where noted, sampled"],
    "informative thoughts, all live turns": METRICS["informative, online"],
    "informative thoughts, sampled": METRICS["informative, sampled"],
}
_TROUBLE = {
    "online, tasks with pop-ups": METRICS["online, pop-ups"],
    "the same, sampled": METRICS["online, pop-ups, sampled"],
    "failures that the agent called done": METRICS["false claims"],
    "these, sampled": METRICS["false claims, sampled"],
}


def _rates(plan: Plan, groups: dict[str, list[Checkpoint]], metrics: dict[str, Metric]) -> str:
    """A row per arm, a column per metric that some arm was scored by."""
    made = {name: [over_seeds(metric, group) for group in groups.values()] for name, metric in metrics.items()}
    return _by_arm(plan, groups, {"seeds": [str(len(group)) for group in groups.values()], **_percents(made)})


def _percents(made: dict[str, list[Mean | None]]) -> dict[str, list[str]]:
    """As text, without the columns in which nothing was scored."""
    return {name: [_percent(value) for value in column] for name, column in made.items() if any(column)}


def _by_arm(plan: Plan, groups: dict[str, list[Checkpoint]], columns: dict[str, list[str]]) -> str:
    rows = [[title(plan, arm), *(column[k] for column in columns.values())] for k, arm in enumerate(groups)]
    return _table(["arm", *columns], rows)


def _trouble(plan: Plan, groups: dict[str, list[Checkpoint]]) -> str:
    """Pop-ups and false claims of the arms whose records know of them; those of before do not."""
    known = {name: group for name, group in groups.items() if any("claimed" in line for c in group for line in c.lines)}
    return _rates(plan, known, _TROUBLE)


def _worlds(plan: Plan, groups: dict[str, list[Checkpoint]]) -> str:
    """Online success and SOP TSR in every world that some arm was scored in; no rows where that is one world."""
    worlds = [w for w in plan.worlds if any(ONLINE.of(c, w)[0] for group in groups.values() for c in group)]
    groups = groups if len(worlds) > 1 else {}
    made = {
        f"{name}, {world}": [over_seeds(METRICS[name], group, world) for group in groups.values()]
        for name in ("online", "SOP TSR")
        for world in worlds
    }
    return _by_arm(plan, groups, _percents(made))


def _differences(plan: Plan, found: list[Checkpoint], *parts: str) -> str:
    names = ("online", "online, memory", "SOP TSR", "online, sampled", "SOP TSR, sampled")
    pairs = comparisons(plan, found, *parts)
    made = {name: [gap(METRICS[name], first, second) for _, first, second in pairs] for name in names}
    shown = {name: column for name, column in made.items() if any(column)}
    rows = [
        [words, *(cell for column in shown.values() for cell in _gap(column[k]))]
        for k, (words, _, _) in enumerate(pairs)
    ]
    return _table(["", *(head for name in shown for head in (name, "p", "seeds up"))], rows)


def _gap(found: Difference | None) -> tuple[str, str, str]:
    """(difference with its interval, p, in how many seeds it is above 0)."""
    if found is None:
        return "-", "-", "-"
    up = sum(value > 0 for value in found.by_seed)
    return _points(found), f"{found.p:.3f}" if found.p >= 0.001 else "<.001", f"{up} of {len(found.by_seed)}"


def _costs(plan: Plan, found: list[Checkpoint]) -> str:
    rows = []
    for arm, group in arms(plan, found).items():
        trained = [c.header["train"] for c in group if c.header["train"]]
        rows.append(
            [
                title(plan, arm),
                str(len(group)),
                _mean([t["turns"] for t in trained]),
                _mean([t["updates"] for t in trained]),
                *(_mean([t[key] / 60 if t[key] else None for t in trained], 1) for key in ("wall", "cpu")),
                _mean([c.header["score"]["wall"] / 60 for c in group], 1),
            ]
        )
    head = [
        "arm",
        "checkpoints",
        "sampled turns",
        "updates",
        "training, wall min",
        "training, CPU min",
        "scoring, wall min",
    ]
    return _table(head, rows)


def _correlations(plan: Plan, found: list[Checkpoint]) -> str:
    """Over all checkpoints; and over those trained from the SFT checkpoint only, whose range is small."""
    finished = {name for name, arm in plan.arms.items() if arm.model}
    after = [c for c in found if c.header["train"] and c.header["train"]["after"].rpartition("-")[0] in finished]
    rows = []
    for which, chosen in (("all", found), ("after SFT only", after)):
        for name in AGAINST:
            names, x, y = points(chosen, name)
            made = correlation(names, x, y)
            if made is None:
                rows.append([name, which, str(len(x)), "-", "-", "-", "-", "-"])
                continue
            left = f"{made.drop_one[0]:.3f} to {made.drop_one[1]:.3f}"
            r, rank = _number(made.pearson, made.interval), _number(made.spearman, made.spearman_interval)
            rows.append([name, which, str(made.n), r, f"{made.pearson**2:.2f}", left, made.lever, rank])
    head = ["metric", "checkpoints", "n", "Pearson r", "R²", "r with one left out", "most by", "Spearman"]
    return _table(head, rows)


def _checkpoints(found: list[Checkpoint]) -> str:
    rows = [
        [c.name, *(_percent(over_seeds(METRICS[name], [c]), False) for name in ("online", "online, memory", *AGAINST))]
        for c in found
    ]
    return _table(["checkpoint", "online", "online, memory", *AGAINST], rows)


def _percent(value: Mean | None, interval: bool = True) -> str:
    return "-" if value is None else show.percent(value.value, value.interval if interval else None)


def _points(gap: Difference) -> str:
    return f"{100 * gap.value:+.1f} [{100 * gap.interval[0]:+.1f}, {100 * gap.interval[1]:+.1f}]"


def _number(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _mean(values: Sequence[Any], digits: int = 0) -> str:
    known = [value for value in values if value is not None]
    return f"{fmean(known):.{digits}f}" if known else "-"
