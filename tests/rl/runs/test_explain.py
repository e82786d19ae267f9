"""An advantage explained is the advantage that was trained on, to the last digit, whatever the method's variant."""

import json
import random
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guiderail.agent.dialects import GUIDERAIL
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import SetupError
from guiderail.agent.policy import Sampling, ScriptedPolicy
from guiderail.agent.screen import Vision
from guiderail.agent.types import (
    Click,
    Completion,
    Message,
    Outcome,
    Picture,
    Point,
    Prompt,
    Rollout,
    Screenshot,
    Turn,
)
from guiderail.envs.recordings.match import GUIDERAIL as RULES
from guiderail.envs.recordings.replay import walk
from guiderail.patch.base import build
from guiderail.rl.config import Config
from guiderail.rl.credit.named import credit_named
from guiderail.rl.credit.samples import Credited, StepSample
from guiderail.rl.credit.uis1 import EPISODE_MODES, RETURN_MODES
from guiderail.rl.rollout.difficulty import Difficulty
from guiderail.rl.rollout.drive import drive
from guiderail.rl.rollout.generation import Collector, episode_units, generation, over_updates
from guiderail.rl.rollout.plan import Group, Plan, Unit
from guiderail.rl.rollout.processes import Processes
from guiderail.rl.runs.explain import explain, find
from guiderail.rl.runs.generations import credit_row, group_rows
from guiderail.rl.runs.replay import batch_of, differences, replayable
from guiderail.rl.runs.rows import rollout_row
from guiderail.rl.runs.whatif import Lab, budget, effect, forks

DIALOGUE = Dialogue(Vision(factor=32, min_pixels=32 * 32, max_pixels=10**7), GUIDERAIL)


class Guessing(ScriptedPolicy):
    """Right, right in kind, wrong or unreadable, drawn from the request's own seed; with made-up tokens."""

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

    def record(made_):
        for group in made_.groups:
            for rollout, samples in zip(group.rollouts, group.samples, strict=True):
                where = {"generation": group.generation, "visit": group.visit, "signal": group.signal}
                credit = [credit_row(sample) for sample in samples]
                rows.append(rollout_row(rollout, steps=len(episode.steps), credit=credit, **where))

    method = made.method
    patch = build(method.patch, None, GUIDERAIL.integrate)
    units = episode_units([episode], lambda e, i: walk(e, dialogue=DIALOGUE, rules=RULES, patch=patch, sample=i))
    credit = credit_named(method.credit, method.credit_rules())
    plan = Plan(units, credit, method.groups, method.rollouts, Sampling(), seed=seed)
    Collector(plan, record=record)(Guessing(episode, share), 0)
    return rows


@pytest.mark.parametrize(("returns", "mode"), product(RETURN_MODES, EPISODE_MODES))
@pytest.mark.parametrize("reward", ["paper", "released"])
def test_every_turn_of_a_generation_is_explained_to_the_last_digit(episode, returns, mode, reward):
    made = config(returns=returns, episode_advantage=mode, reward=reward, gamma=0.7, episode_weight=0.3)
    rows = sampled(episode, made)
    seen = set()
    for row in rows:
        for turn in row["turns"]:
            found = explain(row, rows, turn["index"], made)
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
    assert not explain(row, rows, 0, made).agrees
    row["turns"][0]["advantage"] -= 1e-12
    row["signal"] = "alike"
    assert not explain(row, rows, 0, made).agrees


def test_weights_of_a_generation_are_those_of_the_deal(episode):
    """Over all turns of an update, weight x tokens adds up to the tokens of the window: the estimate is unbiased."""
    made = config(max_rows=64)
    rows = sampled(episode, made)
    found = [
        explain(row, rows, turn["index"], made).weight
        for row in rows
        if row["signal"] == "kept"
        for turn in row["turns"]
    ]
    assert found
    for window in {one.window for one in found}:
        mine = [one for one in found if one.window == window]
        assert sum(one.tokens * one.row for one in mine) == mine[0].items
    few = config(max_rows=1)
    drawn = [
        explain(row, rows, t["index"], few).weight for row in rows if row["signal"] == "kept" for t in row["turns"]
    ]
    assert sum(one.row > 0 for one in drawn) == 4
    assert sum(one.row for one in drawn) == pytest.approx(len(drawn))


def test_which_turns_are_drawn_follows_the_seed_of_the_run(episode):
    """max_rows 1: of each window two turns are kept, drawn as the trainer draws them (rl/train/trainer.py)."""
    rows = sampled(episode, config())
    turns = [(row, t["index"]) for row in rows if row["signal"] == "kept" for t in row["turns"]]
    steps, lengths = [t for _, t in turns], [row["turns"][t]["tokens"] for row, t in turns]
    for seed in (0, 7):
        made = config(max_rows=1)
        made.training["seed"] = seed
        drawn = {i for i, (row, t) in enumerate(turns) if explain(row, rows, t, made).weight.row > 0}
        dealt = over_updates([("e1", t) for t in steps], lengths, 2, 2, True, (seed, 0, 0))
        assert drawn == {i for part in dealt for i in part.kept}


@given(st.integers(0, 50), st.integers(1, 4), st.integers(1, 9))
def test_windows_are_a_partition(count, windows, most):
    dealt = over_updates(range(count), [3] * count, windows, most, True, (1, 2))
    assert sorted(i for part in dealt for i in part.fell) == list(range(count))
    for part in dealt:
        assert len(part.kept) == min(most, len(part.fell))
        assert set(part.kept) <= set(part.fell)
        assert sum(part.weights) == pytest.approx(len(part.fell))
        assert part.items == 3 * len(part.fell)


def test_a_turn_has_its_own_tokens_where_a_live_group_has_the_same_visit(episode):
    """With method.mix visits along recordings and live ones are counted apart, so they overlap."""
    made = config(max_rows=64)
    rows = sampled(episode, made)
    others = [
        row | {"unit": "live task", "turns": [turn | {"tokens": turn["tokens"] + 100} for turn in row["turns"]]}
        for row in rows
    ]
    kept = [row for row in rows if row["signal"] == "kept"]
    assert kept
    for row in kept:
        for turn in row["turns"]:
            assert explain(row, others + rows, turn["index"], made).weight.tokens == turn["tokens"]


def attempt(sample, screens, success, *, keys):
    """A live attempt with these screens, one byte each. keys: whether the world has keys of its own for its states."""
    turns = [
        Turn(
            index,
            Prompt((Message("user", ("goal", Picture(Screenshot(200, 400, data=screen.encode()), 100, 200))),)),
            Completion("tap", (1, 2)),
            None,
            Click(Point(0.5, 0.5)),
            None,
            state=f"key {screen}" if keys else "",
        )
        for index, screen in enumerate(screens)
    ]
    return Rollout("task", sample, tuple(turns), "finished", Outcome(success), "goal")


@pytest.mark.parametrize("keys", [True, False])
def test_gigpo_is_explained_with_state_keys_and_without(keys):
    """Without keys turns are compared at the hash of their screenshot, which a line holds."""
    method = config().method.model_copy(update={"credit": "gigpo", "gamma": 0.5, "eta": 0.0})
    made = config().model_copy(update={"method": method})
    group = [
        attempt(i, screens, success, keys=keys)
        for i, (screens, success) in enumerate([("ab", 1), ("acb", 0), ("ab", 1)])
    ]
    credited = credit_named("gigpo", method.credit_rules())(group)
    where = {"generation": 0, "visit": 0, "signal": credited.signal}
    rows = [
        rollout_row(one, credit=[credit_row(sample) for sample in samples], **where)
        for one, samples in zip(group, credited.samples, strict=True)
    ]
    for row in rows:
        for turn in row["turns"]:
            assert explain(row, rows, turn["index"], made).agrees
    peers = [who for who, _ in explain(rows[0], rows, 1, made).steps.members]
    assert peers == ["rollout 0 step 1", "rollout 1 step 2", "rollout 2 step 1"]


def test_a_run_with_another_credit_is_not_explained(episode):
    rows = sampled(episode, config())
    other = config().model_copy(update={"method": config().method.model_copy(update={"credit": "outcome"})})
    with pytest.raises(SetupError, match="only that of ui-s1"):
        explain(rows[0], rows, 0, other)


def test_asking_for_what_is_not_there_says_what_is(episode):
    rows = sampled(episode, config())
    with pytest.raises(SetupError, match=r"rollout 9 of episode e1.*generations \[0\]"):
        find(rows, "e1", 9, 0, None)
    with pytest.raises(SetupError, match=r"no such episode; it has, for example, e1\); choose another --episode"):
        find(rows, "e2", 0, 0, None)
    with pytest.raises(SetupError, match="an evaluation"):
        find([{"unit": "e1", "sample": 0, "turns": []}], "e1", 0, 0, None)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 3), st.booleans(), st.randoms(use_true_random=False))
def test_batches_are_those_that_were_sampled_together(groups, units, processes, passing, draw):
    """Generations with random signals and difficulties, on several processes played one after the other."""
    batches: dict[int, list[int]] = {}
    signals = {f"u{u}": draw.choice(["kept", "alike"]) for u in range(units)}

    def start(unit):
        def unasked(sample):
            return Rollout(unit, sample, (), "finished")
            yield

        return unasked

    def credit(rollouts):
        return Credited([[] for _ in rollouts], signals[rollouts[0].unit])

    class Played(Processes):
        """All ranks in turn, with a note of what each sampled together."""

        def map(self, work, items):
            shares = [work(items[rank::processes]) for rank in range(processes)]
            for rank, share in enumerate(shares):
                if share and isinstance(share[0], Group):
                    for visit in items[rank::processes]:
                        batches[visit] = [*items[rank::processes]]
            return [shares[i % processes][i // processes] for i in range(len(items))]

    hard = {f"u{u}" for u in range(units) if draw.random() < 0.4} if passing else set()
    difficulty = Difficulty(lambda policy, keys: [0.0 if key in hard else 0.5 for key in keys], 0.1, 0.9, 2)
    plan = Plan(
        [Unit(f"u{u}", start(f"u{u}")) for u in range(units)],
        credit,
        groups,
        2,
        Sampling(),
        difficulty=difficulty if passing else None,
    )
    made = generation(plan, ScriptedPolicy(str), 0, draw.randrange(5), Played())
    rows = [{"visit": group.visit, "signal": group.signal} for group in made.groups]
    passed = {one.visit for one in made.weighed if one.reason != "fits"}
    asked = config(groups=groups, difficulty={"low": 0.1, "high": 0.9, "rounds": 2} if passing else None)
    assert set(batches) == {row["visit"] for row in rows}
    for visit, batch in batches.items():
        assert batch_of(rows, visit, asked, units, processes, passed) == batch


def test_a_group_that_the_expert_was_shown_in_counts_as_learned_from(episode):
    """Visits 0 and 1 are the first try. Of these one was learned from, so the second try samples one group, visit 2."""
    kept = next(walk(episode, dialogue=DIALOGUE))
    said = StepSample("e1", 0, 0, kept, Completion("tap", (1,)), 0.0, 0.0, 0.0, 0.5, 0.5)
    alike = [Group(0, visit, "e1", "alike", (Rollout("e1", 0, (), "finished"),), ((),)) for visit in range(3)]
    shown = [replace(alike[0], shown=(said, said)), *alike[1:]]
    rows = [[row for group in groups for row in group_rows(group, {"e1": 4})] for groups in (shown, alike)]
    assert [row.get("shown") for row in rows[0]] == [2, None, None]
    assert batch_of(rows[0], 2, config(), 4, 1) == [2]
    assert batch_of(rows[1], 2, config(), 4, 1) == [2, 3]


def test_what_a_generation_remembers_is_in_the_checkpoint_before_it(tmp_path):
    """Two updates to a generation; each was sampled one generation ahead. What earlier ones found, as of bands, was known later
    than the weights that sampled."""
    rows = [{"unit": "t", "sample": 0, "ended": "finished", "turns": [], "generation": g} for g in range(4)]
    lines = [json.dumps(row | {"behind": int(row["generation"] > 0)}) for row in rows]
    (tmp_path / "rollouts.jsonl").write_text("\n".join(lines) + "\n")
    for update in (2, 3):
        (tmp_path / f"checkpoint-{update}").mkdir()
        (tmp_path / f"checkpoint-{update}" / "complete.json").touch()
    made = config()
    assert replayable(tmp_path, made) == {0: None, 1: None, 2: tmp_path / "checkpoint-2"}
    bands = made.model_copy(update={"online": made.online.model_copy(update={"bands": True})})
    assert replayable(tmp_path, bands) == {0: None, 1: None}


def test_differences_are_named_by_their_path():
    assert differences("", {"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}) == ["a[1].b: recorded 2, now 3"]
    assert differences("", {"a": 1}, {"a": 1}) == []
    assert differences("", {"a": 1}, {"c": 1}) == ["a: recorded 1, now None", "c: recorded None, now 1"]


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


@pytest.mark.parametrize("thoughts", [True, False])
def test_what_if_of_walks_that_began_behind_the_experts(episode, thoughts):
    """method.start=any: the steps before are in the history, with the thoughts that the rollout saw, and are nobody's to match."""
    how = {"dialogue": DIALOGUE, "rules": RULES, "thoughts": thoughts}
    rollouts, rows = {}, []
    for begin in (1, 2):
        key = (0, begin, "e1", 0)
        walks = [((7, begin), walk(episode, begin=begin, **how))]
        (rollouts[key],) = drive(walks, Guessing(episode, 0.0), Sampling())
        rows.append(rollout_row(rollouts[key], steps=4, generation=0, visit=begin))
    places = forks(rows, {"e1": episode}, DIALOGUE, RULES, thoughts=thoughts)
    assert [(place.step, place.asked, place.left) for place in places] == [(1, 3, 2), (2, 2, 1)]
    assert [place.turns[-1].prompt.messages for place in places] == [
        rollouts[place.key].turns[-1].prompt.messages for place in places
    ]
    seen = []

    class Watching(Guessing):
        def complete(self, requests, sampling):
            seen.extend(request.prompt for request in requests)
            return super().complete(requests, sampling)

    patch = build("thought-free", None, GUIDERAIL.integrate)
    sure = replace(lab(episode, 1.0, draws=1), policy=Watching(episode, 1.0), thoughts=thoughts).walk(
        places, patch, True
    )
    assert [(one.matched, one.stops) for one in sure] == [(1.0, (0, 3)), (1.0, (0, 2))]
    first = next(m.parts[0] for m in seen[0].messages if m.role == "assistant")
    assert ("tap shop" in first) == thoughts
    assert budget(sure)["matched"] == pytest.approx([0.0, (2 / 3 + 1 / 2) / 2])
    last = forks(
        [rows[1] | {"start": 3, "turns": [rows[1]["turns"][0] | {"index": 3}]}], {"e1": episode}, DIALOGUE, RULES
    )
    assert last == [], "a mismatch at the last step is not repaired"


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
