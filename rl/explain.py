"""Where an advantage came from: computed again from the lines of a run, by the functions that trained on it.

Nothing here needs the model or the recordings; a line holds the verdicts, and credit is arithmetic over verdicts.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev, stdev
from typing import Any

from agent.errors import SetupError
from agent.types import Completion, Prompt, Repair, Rollout, Turn, Verdict, Wait
from rl.advantage import trajectory_numbers
from rl.collect import worth
from rl.config import Config
from rl.credit import CreditRules, credit
from rl.returns import returns
from rl.reward import reward_terms
from rl.samples import StepSample, deal, over_processes

Row = Mapping[str, Any]
RECORDED = ("reward", "return", "episode_advantage", "step_advantage", "advantage")


@dataclass(frozen=True)
class Link:
    """One term of the return R_t = sum of factor * reward; factor is gamma^(k - t)."""

    step: int
    reward: float
    factor: float


@dataclass(frozen=True)
class Comparison:
    """A number among its peers. members: (who, value). advantage = (mine - mean) / (deviation + 1e-6), or only
    mine - mean where the run does not scale; 0 with nobody to compare with or when all are equal."""

    members: list[tuple[str, float]]
    mine: float
    mean: float
    deviation: float
    advantage: float


@dataclass(frozen=True)
class Weight:
    """What one token of this turn weighs in the loss of one optimizer step: advantage * row / items, times the clipped
    ratio. row: 1, n / k where k of a window's n rows were drawn, 0 when this one was not (see rl/batch.py)."""

    window: int
    tokens: int
    row: float
    items: float
    per_token: float


@dataclass(frozen=True)
class Explanation:
    """One turn of one rollout, from its verdict to its weight. Also what a viewer's panel shows (`asdict`).

    cut: why the return ends where it ends. spread: what the filter looked at, against eta. weight: None when the group was
    dropped. recorded: what the run wrote down; agrees: whether all of it came out the same, to the last digit.
    """

    episode_id: str
    sample: int
    step: int
    generation: int
    visit: int
    unit: str
    text: str
    why: str
    repair: str | None
    terms: list[tuple[str, float]]
    reward: float
    gamma: float
    chain: list[Link]
    cut: str
    ret: float
    steps: Comparison
    episodes: Comparison
    episode_weight: float
    step_weight: float
    spread_of: str
    spread: float
    eta: float
    signal: str
    advantage: float
    weight: Weight | None
    recorded: dict[str, float]
    agrees: bool


def rollout_of(row: Row) -> Rollout:
    """The rollout of a line, as far as credit looks at it: prompts and actions are left out."""
    turns = tuple(
        Turn(
            turn["index"],
            Prompt(()),
            Completion(turn["text"], finish=turn["finish"]),
            turn["thought"],
            None,
            Verdict(**turn["verdict"]),
            repair=Repair(Wait(), turn["repair"]["strategy"], text=turn["repair"]["text"])
            if "repair" in turn
            else None,
        )
        for turn in row["turns"]
    )
    return Rollout(row["episode_id"], row["sample"], turns, row["ended"])


def find(
    rows: Iterable[Row], episode: str, sample: int, step: int | None, generation: int | None, visit: int | None = None
) -> tuple[Row, list[Row]]:
    """The line asked for (the first such of the run when `generation` is None), and all lines of its generation."""
    everything = list(rows)
    if everything and "generation" not in everything[0]:
        raise SetupError("these are the lines of an evaluation, without advantages; give the folder of a training run")
    fits = [
        row
        for row in everything
        if (row["episode_id"], row["sample"]) == (episode, sample)
        and generation in (None, row["generation"])
        and visit in (None, row["visit"])
        and (step is None or any(turn["index"] == step for turn in row["turns"]))
    ]
    if not fits:
        known = sorted({(r["generation"], len(r["turns"])) for r in everything if r["episode_id"] == episode})
        seen = f"episode {episode} is in generations {sorted({g for g, _ in known})}" if known else "no such episode"
        asked = f"rollout {sample} of episode {episode}" + ("" if step is None else f" reached step {step}")
        where = "" if generation is None else f" in generation {generation}"
        raise SetupError(f"no {asked}{where} in this run ({seen}); choose another --step, --rollout or --generation")
    return fits[0], [row for row in everything if row["generation"] == fits[0]["generation"]]


def explain(
    row: Row, generation: Sequence[Row], step: int, config: Config, seed: int, processes: int = 1
) -> Explanation:
    """row: the rollout's line. generation: all lines of its generation, in file order. seed: training.seed of the run."""
    method, rules = config.method, config.method.credit_rules()
    members = [r for r in generation if r["visit"] == row["visit"]]
    group = [rollout_of(r) for r in members]
    samples = credit(group, rules)
    i = next(k for k, r in enumerate(members) if r["sample"] == row["sample"])
    t = next(k for k, turn in enumerate(row["turns"]) if turn["index"] == step)
    mine, turn = samples[i][t], row["turns"][t]
    signal = worth(group, samples, method.eta, method.spread_of)
    firsts = [s[0].ret if method.spread_of == "first_return" else s[-1].reward for s in samples]
    chain, cut = _chain(group[i], [s.reward for s in samples[i]], t, rules)
    recorded = {name: turn[name] for name in RECORDED}
    found = (mine.reward, mine.ret, mine.advantage_episode, mine.advantage_step, mine.advantage)
    return Explanation(
        episode_id=row["episode_id"],
        sample=row["sample"],
        step=step,
        generation=row["generation"],
        visit=row["visit"],
        unit=row["unit"],
        text=turn["text"],
        why=turn["verdict"]["why"],
        repair=turn["repair"]["text"] if "repair" in turn else None,
        terms=reward_terms(group[i].turns[t], rules.reward),
        reward=mine.reward,
        gamma=rules.gamma,
        chain=chain,
        cut=cut,
        ret=mine.ret,
        steps=_steps(samples, i, t, rules),
        episodes=_episodes(samples, i, t, rules),
        episode_weight=rules.episode_weight,
        step_weight=rules.step_weight,
        spread_of=method.spread_of,
        spread=pstdev(firsts),
        eta=method.eta,
        signal=signal,
        advantage=mine.advantage,
        weight=_weight(row, t, generation, config, seed, processes) if signal == "kept" else None,
        recorded=recorded,
        agrees=found == tuple(recorded.values()) and signal == row["group"],
    )


def _chain(rollout: Rollout, rewards: list[float], t: int, rules: CreditRules) -> tuple[list[Link], str]:
    """R_t is linear in the rewards, so the factor of r_k is R_t for the reward that is 1 at k and 0 elsewhere."""
    exact = [turn.verdict.exact for turn in rollout.turns]
    links = []
    for k in range(t, len(rewards)):
        one = [float(j == k) for j in range(len(rewards))]
        factor = returns(one, exact, rules.gamma, rules.returns)[t]
        if factor:
            links.append(Link(rollout.turns[k].index, rewards[k], factor))
    last = t + len(links) - 1
    index = rollout.turns[last].index
    if last + 1 == len(rewards):
        return links, f"the rollout ends at step {index} ({rollout.ended})"
    if rules.gamma == 0:
        return links, "gamma is 0: nothing after the step itself counts"
    if not exact[last]:
        return links, f"step {index} does not match the expert; returns ({rules.returns}) end with the first such step"
    return links, f"step {index + 1} does not match the expert; returns ({rules.returns}) end before it"


def _steps(samples: Sequence[Sequence[StepSample]], i: int, t: int, rules: CreditRules) -> Comparison:
    members = [(f"rollout {row[t].sample}", row[t].ret) for row in samples if t < len(row)]
    return _comparison(members, samples[i][t].ret, samples[i][t].advantage_step, rules)


def _episodes(samples: Sequence[Sequence[StepSample]], i: int, t: int, rules: CreditRules) -> Comparison:
    rewards, rets = [[s.reward for s in row] for row in samples], [[s.ret for s in row] for row in samples]
    if rules.episode == "released":
        members = [(f"rollout {s.sample} step {s.index}", s.reward) for row in samples for s in row]
        return _comparison(members, rewards[i][t], samples[i][t].advantage_episode, rules)
    numbers = trajectory_numbers(rewards, rets, rules.episode)
    members = [(f"rollout {row[0].sample}", value) for row, value in zip(samples, numbers, strict=True)]
    return _comparison(members, numbers[i], samples[i][t].advantage_episode, rules)


def _comparison(members: list[tuple[str, float]], mine: float, advantage: float, rules: CreditRules) -> Comparison:
    values = [value for _, value in members]
    deviation = 0.0 if len(values) < 2 else stdev(values) if rules.unbiased else pstdev(values)
    return Comparison(members, mine, fmean(values), deviation, advantage)


def _weight(row: Row, t: int, generation: Sequence[Row], config: Config, seed: int, processes: int) -> Weight:
    """Deals the generation's rows again, as every process did."""
    kept = [r for r in generation if r["group"] == "kept"]
    rows = [
        (r["visit"], r["sample"], k, turn["tokens"], (r["episode_id"], turn["index"]))
        for r in kept
        for k, turn in enumerate(r["turns"])
        if turn["tokens"]
    ]
    turn = row["turns"][t]
    wanted = (row["visit"], row["sample"], t, turn["tokens"], (row["episode_id"], turn["index"]))
    if wanted not in rows:
        return Weight(0, 0, 0.0, 0.0, 0.0)
    per_window = int(config.training.get("gradient_accumulation_steps", 4))
    windows = max(1, int(config.training.get("steps_per_generation") or per_window) // per_window)
    by_tokens = config.training.get("loss_type", "dapo") != "grpo"
    mine = rows.index(wanted)
    items = [0.0] * windows
    window, factor = 0, 0.0
    for rank, share in enumerate(over_processes([unit for *_, unit in rows], processes)):
        units: list[Hashable] = [rows[i][-1] if config.update.share_prefix else i for i in share]
        dealt = deal(units, windows, config.method.max_rows * per_window, (seed, int(row["generation"]), rank))
        for w, (part, drawn) in enumerate(dealt):
            items[w] += sum(rows[share[k]][3] for k in part) if by_tokens else len(part)
            if mine in (share[k] for k in part):
                window, factor = w, len(part) / len(drawn) if mine in (share[k] for k in drawn) else 0.0
    tokens = wanted[3]
    weight = factor if by_tokens else factor / tokens
    advantage = float(turn["advantage"])
    return Weight(window, tokens, weight, items[window], advantage * weight / items[window])


def batch_of(generation: Sequence[Row], visit: int, groups: int, units: int, processes: int) -> list[int]:
    """The visits that one process sampled together with `visit`: a generation is sampled in tries of as many units as
    groups are still missing, dealt over the processes (`rl.collect.Collector`)."""
    kept = {row["visit"] for row in generation if row["group"] == "kept"}
    start, last = min(row["visit"] for row in generation), max(row["visit"] for row in generation)
    missing = groups
    while start <= last:
        batch = range(start, start + min(missing, units))
        if visit in batch:
            return list(batch[(visit - start) % processes :: processes])
        start, missing = batch.stop, missing - len(kept & set(batch))
    raise ValueError(f"visit {visit} is not of this generation")
