"""An advantage explained is the advantage that was trained on, to the last digit, whatever the method's variant."""

import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.dialects import GUIDERAIL
from agent.dialogue import Dialogue
from agent.errors import SetupError
from agent.policy import Sampling, ScriptedPolicy
from agent.screen import Vision
from agent.types import Click, Completion, Point
from envs.match import GUIDERAIL as RULES
from envs.replay import walk
from patch.base import build
from rl.advantage import EPISODE_MODES
from rl.collect import Collector, episode_units
from rl.config import Config
from rl.explain import batch_of, explain, find
from rl.returns import RETURN_MODES
from rl.runlog import rollout_row
from rl.samples import deal
from rl.whatif import Lab, budget, effect, forks

DIALOGUE = Dialogue(Vision(factor=32, min_pixels=32 * 32, max_pixels=10**7), GUIDERAIL)


class Guessing(ScriptedPolicy):
    """Right, right in kind, wrong or unreadable, drawn from the request's own seed; tells made-up tokens."""

    def __init__(self, episode, share=0.5):
        self.name, self.vision, self.episode, self.share = "guessing", DIALOGUE.vision, episode, share

    def complete(self, requests, sampling):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        draw = random.Random(request.seed)
        index = sum(message.role == "assistant" for message in request.prompt.messages)
        step = self.episode.steps[min(index, len(self.episode.steps) - 1)]
        text = DIALOGUE.say(step.thought, step.action, step.screenshot)
        if draw.random() > self.share:
            text = draw.choice(["hm", DIALOGUE.say("no", Click(Point(0.9, 0.9)), step.screenshot)])
        return Completion(text, tuple(range(draw.randint(1, 9))))


def config(**method):
    settings_ = {"groups": 2, "rollouts": 4, "eta": 0.05, "max_rows": 2} | method
    training = {"gradient_accumulation_steps": 2, "steps_per_generation": 4, "seed": 7}
    return Config.model_validate(
        {"model": {"path": "m"}, "data": {"train": "d"}, "method": settings_, "training": training}
    )


def sampled(episode, made, seed=7, share=0.5):
    """Lines of one generation, as training writes them."""
    rows = []

    def record(group):
        for rollout, samples in zip(group.rollouts, group.samples, strict=True):
            credit = [
                {"reward": s.reward, "return": s.ret, "episode_advantage": s.advantage_episode}
                | {"step_advantage": s.advantage_step, "advantage": s.advantage}
                for s in samples
            ]
            where = {"generation": group.generation, "visit": group.visit, "unit": group.unit, "group": group.signal}
            rows.append(rollout_row(rollout, len(episode.steps), credit, **where))

    method = made.method
    patch = build(method.patch, None, GUIDERAIL.integrate)
    units = episode_units([episode], lambda e, i: walk(e, dialogue=DIALOGUE, rules=RULES, patch=patch, sample=i))
    Collector(
        units,
        groups=method.groups,
        rollouts=method.rollouts,
        sampling=Sampling(),
        rules=method.credit_rules(),
        eta=method.eta,
        spread_of=method.spread_of,
        seed=seed,
        record=record,
    )(Guessing(episode, share), 0)
    return rows


@pytest.mark.parametrize(("returns", "mode"), product(RETURN_MODES, EPISODE_MODES))
@pytest.mark.parametrize("reward", ["paper", "released"])
def test_every_turn_of_a_generation_is_explained_to_the_last_digit(episode, returns, mode, reward):
    made = config(returns=returns, episode_advantage=mode, reward=reward, gamma=0.7, episode_weight=0.3)
    rows = sampled(episode, made)
    seen = set()
    for row in rows:
        for turn in row["turns"]:
            found = explain(row, rows, turn["index"], made, 7)
            assert found.agrees
            assert found.advantage == turn["advantage"]
            assert found.advantage == 0.3 * found.episodes.advantage + 1.0 * found.steps.advantage
            assert sum(value for _, value in found.terms) == turn["reward"]
            future = 0.0
            for link in reversed(found.chain):
                future = link.reward + 0.7 * future
            assert future == turn["return"]
            assert found.episodes.mine in [value for _, value in found.episodes.members]
            seen.add(found.cut.split(" ")[0])
    assert len(seen) == 1 if returns == "full" else len(seen) == 2


def test_an_edited_line_is_noticed(episode):
    made = config()
    rows = sampled(episode, made)
    row = next(row for row in rows if any(turn["advantage"] for turn in row["turns"]))
    row["turns"][0]["advantage"] += 1e-12
    assert not explain(row, rows, 0, made, 7).agrees
    row["turns"][0]["advantage"] -= 1e-12
    row["group"] = "alike"
    assert not explain(row, rows, 0, made, 7).agrees


def test_weights_of_a_generation_are_those_of_the_deal(episode):
    """Over all turns of an update, weight x tokens adds up to the tokens of the window: the estimate is unbiased."""
    made = config(max_rows=64)
    rows = sampled(episode, made)
    found = [
        explain(row, rows, turn["index"], made, 7).weight
        for row in rows
        if row["group"] == "kept"
        for turn in row["turns"]
    ]
    assert found
    for window in {one.window for one in found}:
        mine = [one for one in found if one.window == window]
        assert sum(one.tokens * one.row for one in mine) == mine[0].items
    few = config(max_rows=1)
    drawn = [
        explain(row, rows, t["index"], few, 7).weight for row in rows if row["group"] == "kept" for t in row["turns"]
    ]
    assert sum(one.row > 0 for one in drawn) == 4
    assert sum(one.row for one in drawn) == pytest.approx(len(drawn))


@given(st.integers(0, 50), st.integers(1, 4), st.integers(1, 9))
def test_a_deal_is_a_partition(count, windows, most):
    dealt = deal(range(count), windows, most, (1, 2))
    assert sorted(i for part, _ in dealt for i in part) == list(range(count))
    assert all(kept == part[:most] for part, kept in dealt)


def test_asking_for_what_is_not_there_says_what_is(episode):
    rows = sampled(episode, config())
    with pytest.raises(SetupError, match=r"rollout 9 of episode e1.*generations \[0\]"):
        find(rows, "e1", 9, 0, None)
    with pytest.raises(SetupError, match="no such episode"):
        find(rows, "e2", 0, 0, None)
    with pytest.raises(SetupError, match="an evaluation"):
        find([{"episode_id": "e1", "sample": 0, "turns": []}], "e1", 0, 0, None)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3), st.randoms())
def test_batches_are_those_the_collector_drove(groups, units, processes, draw):
    """Plays the collector's tries with random outcomes and asks for the batch of every visit."""
    start, generation, batches = draw.randrange(5), [], {}
    missing, visit = groups, start
    for _ in range(4):
        if missing <= 0:
            break
        batch = range(visit, visit + min(missing, units))
        for v in batch:
            kept = draw.random() < 0.4
            generation.append({"visit": v, "group": "kept" if kept else "alike"})
            missing -= kept
            batches[v] = [w for w in batch if (w - batch.start) % processes == (v - batch.start) % processes]
        visit = batch.stop
    for v, batch in batches.items():
        assert batch_of(generation, v, groups, units, processes) == batch


# ------------------------------------------------------------------------------------------------------------- what if


def lab(episode, share, draws=3):
    return Lab(Guessing(episode, share), DIALOGUE, Sampling(), RULES, config().method.credit_rules().reward, 0, draws)


def test_what_if_walks_only_the_suffix_with_paired_seeds(episode):
    rows = sampled(episode, config(patch="thought-free"), share=0.4)
    places = forks(rows, {"e1": episode}, DIALOGUE, RULES, lambda _, t: t == 0)
    assert places
    assert all(not place.turns[-1].verdict.exact and place.step == 0 for place in places)
    patch = build("thought-free", None, GUIDERAIL.integrate)
    twice = [lab(episode, 0.6).walk(places, patch) for _ in range(2)]
    assert twice[0] == twice[1]
    assert len(twice[0]) == 3 * len(places)
    same = effect(*twice)
    assert same["difference"] == 0
    assert same["words"].startswith("not distinguishable")
    sure = lab(episode, 1.0).walk(places, patch)
    assert {(o.matched, o.stops) for o in sure} == {(1.0, (0, 4))}
    lost = lab(episode, 0.0).walk(places, patch)
    assert {(o.matched, o.stops) for o in lost} == {(0.0, (0, 1))}
    none = lab(episode, 0.6).walk(places, None)
    found = effect(twice[0], none)
    assert found["second"] == 0 < found["first"]
    assert set(found["by_position"]) == {"early"}
    assert set(found["by_action"]) == {"click"}


def test_on_policy_and_thought_free_share_the_seeds_after_the_repair(episode):
    """The policy here does not read its history, so the arms may differ only in the question for the thought."""
    places = forks(sampled(episode, config(), share=0.4), {"e1": episode}, DIALOGUE, RULES)
    one, other = (
        lab(episode, 0.5).walk(places, build(name, None, GUIDERAIL.integrate)) for name in ("thought-free", "on-policy")
    )
    assert [(o.matched, o.reward) for o in one] == [(o.matched, o.reward) for o in other]


def test_the_suggested_budget_is_where_repairs_stop_paying(episode):
    places = forks(sampled(episode, config(), share=0.4), {"e1": episode}, DIALOGUE, RULES)
    patch = build("thought-free", None, GUIDERAIL.integrate)
    sure = budget(lab(episode, 1.0).walk(places, patch, further=True))
    assert sure["suggested"] == 1
    lost = budget(lab(episode, 0.0).walk(places, patch, further=True))
    assert lost["suggested"] == 0
    assert all(share == lost["matched"][0] for share in lost["matched"])
