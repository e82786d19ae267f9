"""Where an advantage came from: computed again from the lines of a run, by the functions that trained on it.

Nothing here needs the model or the recordings; a line holds the verdicts, and credit is arithmetic over verdicts.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev, stdev
from typing import Any

from guiderail.agent.errors import SetupError
from guiderail.agent.types import Rollout
from guiderail.rl.config import Config, updates_of
from guiderail.rl.credit.named import LIVE_CREDITS, credit_named
from guiderail.rl.credit.samples import Signal, StepSample
from guiderail.rl.credit.shaping import attempt_rewards
from guiderail.rl.credit.uis1 import CreditRules, Terms, credit, returns, reward_terms, spreading, trajectory_numbers
from guiderail.rl.rollout.generation import over_processes, over_updates
from guiderail.rl.runs.rows import acted, rollout_of

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
    mine - mean where the run does not scale; 0 for a single member or when all are equal."""

    members: list[tuple[str, float]]
    mine: float
    mean: float
    deviation: float
    advantage: float


@dataclass(frozen=True)
class Weight:
    """What one token of this turn weighs in the loss of one optimizer step: advantage * row / items, times the clipped
    ratio. row: 1, n / k where k of a window's n rows were drawn, 0 when this one was not (see rl/train/batch.py)."""

    window: int
    tokens: int
    row: float
    items: float
    per_token: float


@dataclass(frozen=True)
class Explanation:
    """One turn of one rollout, from its verdict to its weight. Also what a viewer's panel shows (`asdict`).

    cut: why the return ends where it ends. spread: what the filter looked at, against eta. weight: None when the group was
    dropped, and where answers of an expert shared the update, which no line holds. recorded: what the run wrote down; agrees: whether all of it came out the same, to the last digit.
    """

    unit: str
    sample: int
    step: int
    generation: int
    visit: int
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
        if (row["unit"], row["sample"]) == (episode, sample)
        and generation in (None, row["generation"])
        and visit in (None, row["visit"])
        and (step is None or any(turn["index"] == step for turn in row["turns"]))
    ]
    if not fits:
        known = sorted({(r["generation"], len(r["turns"])) for r in everything if r["unit"] == episode})
        others = list(dict.fromkeys(r["unit"] for r in everything))[:3]
        absent = f"no such episode; it has, for example, {', '.join(others)}" if others else "no such episode"
        seen = f"episode {episode} is in generations {sorted({g for g, _ in known})}" if known else absent
        asked = f"rollout {sample} of episode {episode}" + ("" if step is None else f" reached step {step}")
        where = "" if generation is None else f" in generation {generation}"
        what = "--step, --rollout or --generation" if known else "--episode"
        raise SetupError(f"no {asked}{where} in this run ({seen}); choose another {what}")
    return fits[0], [row for row in everything if row["generation"] == fits[0]["generation"]]


def explain(row: Row, generation: Sequence[Row], step: int, config: Config, processes: int = 1) -> Explanation:
    """row: the rollout's line. generation: all lines of its generation, in file order. processes: of the run. Raises
    SetupError for a run with a credit of the user's own."""
    method, rules = config.method, config.method.credit_rules()
    members = [r for r in generation if (r["visit"], r["unit"]) == (row["visit"], row["unit"])]
    if method.credit != "ui-s1" and ("outcome" in row or not config.live):
        if method.credit not in LIVE_CREDITS or "outcome" not in row:
            raise SetupError(
                f"this run has the credit {method.credit!r}; only that of ui-s1, and of {', '.join(LIVE_CREDITS)} in live "
                "runs, can be explained term by term"
            )
        return _attempt(row, members, generation, step, config, processes)
    group = [rollout_of(r) for r in members]
    credited = credit(group, rules)
    samples, signal = credited.samples, credited.signal
    i = next(k for k, r in enumerate(members) if r["sample"] == row["sample"])
    t = next(k for k, turn in enumerate(row["turns"]) if turn["index"] == step)
    mine, turn = samples[i][t], row["turns"][t]
    chain, cut = _chain(group[i], [s.reward for s in samples[i]], t, rules)
    recorded = {name: turn[name] for name in RECORDED}
    found = (mine.reward, mine.ret, mine.advantage_episode, mine.advantage_step, mine.advantage)
    return Explanation(
        sample=row["sample"],
        step=step,
        generation=row["generation"],
        visit=row["visit"],
        unit=row["unit"],
        text=turn["text"],
        why=turn["verdict"]["why"],
        repair=turn["repair"]["text"] if "repair" in turn else None,
        terms=[*reward_terms(group[i].turns[t], rules.reward)],
        reward=mine.reward,
        gamma=rules.gamma,
        chain=chain,
        cut=cut,
        ret=mine.ret,
        steps=_steps(samples, i, t, rules),
        episodes=_episodes(samples, i, t, rules),
        episode_weight=rules.episode_weight,
        step_weight=rules.step_weight,
        spread_of=rules.spread_of,
        spread=pstdev(spreading(samples, rules)),
        eta=rules.eta,
        signal=signal,
        advantage=mine.advantage,
        weight=_weight(row, t, generation, config, processes, signal),
        recorded=recorded,
        agrees=found == tuple(recorded.values()) and signal == row["signal"],
    )


def _attempt(
    row: Row, members: Sequence[Row], generation: Sequence[Row], step: int, config: Config, processes: int
) -> Explanation:
    """Of a live attempt, which is compared with the others of its group, and in GiGPO and ui-s1-states also at each state. Its
    reward comes with the last turn, in ui-s1-states the expert's verdict with each."""
    rules, group = config.method.credit_rules(), [acted(r) for r in members]
    credited = credit_named(config.method.credit, rules)(group)
    checked = [(i, one) for i, one in enumerate(group) if one.outcome is not None]
    rewards = attempt_rewards([one for _, one in checked], rules)
    i = next(k for k, r in enumerate(members) if r["sample"] == row["sample"])
    t = next(k for k, turn in enumerate(row["turns"]) if turn["index"] == step)
    mine, turn, last = credited.samples[i][t], row["turns"][t], group[i].turns[-1].index
    worth = dict(zip((k for k, _ in checked), rewards, strict=True)).get(i, 0.0)
    own = rules.gamma ** (last - step) if config.method.credit == "gigpo" else 1.0
    terms: Terms = [("of the attempt", mine.reward)] if step == last else []
    chain, cut = [Link(last, worth, own)], f"the attempt ends at step {last} ({group[i].ended}) and {_ended(group[i])}"
    if config.method.credit == "ui-s1-states":
        terms = reward_terms(group[i].turns[t], rules.reward)
        chain, cut = _chain(group[i], [one.reward for one in credited.samples[i]], t, rules)
    peers = [(f"rollout {group[k].sample}", value) for (k, _), value in zip(checked, rewards, strict=True)]
    same = [(f"rollout {s.sample} step {s.index}", s.ret) for s in _peers(group, credited.samples, i, t, config)]
    recorded = {name: turn[name] for name in RECORDED}
    return Explanation(
        sample=row["sample"],
        step=step,
        generation=row["generation"],
        visit=row["visit"],
        unit=row["unit"],
        text=turn["text"],
        why=turn["verdict"]["why"] if "verdict" in turn else turn.get("note") or "no expert to compare with",
        repair=None,
        terms=[*terms],
        reward=mine.reward,
        gamma=rules.gamma,
        chain=chain,
        cut=cut,
        ret=mine.ret,
        steps=_comparison(same, mine.ret, mine.advantage_step, rules),
        episodes=_comparison(peers, worth, mine.advantage_episode, rules),
        episode_weight=rules.episode_weight,
        step_weight=rules.step_weight,
        spread_of="none" if rules.spread_of == "none" else "attempt_reward",
        spread=pstdev(rewards),
        eta=0.0,
        signal=credited.signal,
        advantage=mine.advantage,
        weight=_weight(row, t, generation, config, processes, credited.signal),
        recorded=recorded,
        agrees=(mine.reward, mine.ret, mine.advantage_episode, mine.advantage_step, mine.advantage)
        == tuple(recorded.values())
        and credited.signal == row["signal"],
    )


def _ended(rollout: Rollout) -> str:
    outcome = rollout.outcome
    return "reached its goal" if outcome is not None and outcome.success else "did not reach its goal"


def _peers(
    group: Sequence[Rollout], samples: Sequence[Sequence[StepSample]], i: int, t: int, config: Config
) -> list[StepSample]:
    """The turns that are compared with turn t of rollout i at its state. That turn alone where the credit compares no states."""
    state = group[i].turns[t].state
    if config.method.credit not in ("gigpo", "ui-s1-states"):
        return [samples[i][t]]
    return [
        sample
        for one, row in zip(group, samples, strict=True)
        for turn, sample in zip(one.turns, row, strict=False)
        if turn.state == state
    ]


def _chain(rollout: Rollout, rewards: list[float], t: int, rules: CreditRules) -> tuple[list[Link], str]:
    """R_t is linear in the rewards, so the factor of r_k is R_t for the reward that is 1 at k and 0 elsewhere."""
    exact = [turn.exact for turn in rollout.turns]
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


def _more(config: Config) -> bool:
    """Whether updates also hold an expert's turns, of which a run has no lines: then what a token weighs is not known."""
    recorded = config.teacher is not None and config.teacher.recorded > 0
    return recorded or config.method.shown > 0 or config.online.shown > 0


def _weight(
    row: Row, t: int, generation: Sequence[Row], config: Config, processes: int, signal: Signal
) -> Weight | None:
    """Hands the generation's samples out again, as every process did. None where the group was dropped, or where updates held
    more than the run has lines of."""
    if signal != "kept" or _more(config):
        return None
    turns = [(r, turn) for r in generation if r["signal"] == "kept" for turn in r["turns"] if turn["tokens"]]
    turn = row["turns"][t]
    # With method.mix a live group and one along a recording may have the same visit.
    places = [(r["visit"], r["unit"], r["sample"], one["index"]) for r, one in turns]
    if (place := (row["visit"], row["unit"], row["sample"], turn["index"])) not in places:
        return Weight(0, 0, 0.0, 0.0, 0.0)
    mine = places.index(place)
    steps = [(str(r["unit"]), int(one["index"])) for r, one in turns]
    shares = _shares([("outcome" in r, step) for (r, _), step in zip(turns, steps, strict=True)], processes)
    training, tokens = config.rl_training(), [int(one["tokens"]) for _, one in turns]
    updates = updates_of(training)
    items = [0.0] * updates.windows
    window, own = 0, 0.0
    for rank, share in enumerate(shares):
        together: list[Hashable] = [steps[i] if config.update.share_prefix else i for i in share]
        dealt = over_updates(
            together,
            [tokens[i] for i in share],
            updates.windows,
            config.method.max_rows * updates.micro,
            updates.by_tokens,
            (int(training["seed"]), int(row["generation"]), rank),
        )
        for w, part in enumerate(dealt):
            items[w] += part.items
            if mine in (share[k] for k in part.fell):
                window = w
                own = {share[k]: weight for k, weight in zip(part.kept, part.weights, strict=True)}.get(mine, 0.0)
    advantage = float(turn["advantage"])
    return Weight(window, tokens[mine], own, items[window], advantage * own / items[window])


def _shares(steps: Sequence[tuple[bool, tuple[str, int]]], processes: int) -> list[list[int]]:
    """Each process's samples, live ones first: each kind is dealt by itself (rl/rollout/mix.py)."""
    shares: list[list[int]] = [[] for _ in range(processes)]
    for live in (True, False):
        places = [i for i, (kind, _) in enumerate(steps) if kind is live]
        for share, mine in zip(shares, over_processes([steps[i][1] for i in places], processes), strict=True):
            share.extend(places[k] for k in mine)
    return shares
