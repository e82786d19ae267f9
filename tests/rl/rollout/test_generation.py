"""Sampling groups: what is kept, bounded tries, independence of the number of processes, resumable state."""

import random
import time
from dataclasses import replace

import pytest

from guiderail.agent.dialects import BRIEF
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import EnvCrashed
from guiderail.agent.policy import Request, Sampling
from guiderail.agent.screen import Vision
from guiderail.agent.scripted import ORIGINAL_SIZE
from guiderail.agent.types import Completion, Episode, Terminate
from guiderail.envs.live.attempts import attempt
from guiderail.envs.pocket.world import PocketTasks
from guiderail.envs.recordings.replay import step_walk, walk
from guiderail.patch.base import build
from guiderail.rl.credit.named import credit_named
from guiderail.rl.credit.uis1 import CreditRules
from guiderail.rl.rollout.difficulty import Difficulty
from guiderail.rl.rollout.drive import drive, seed_of
from guiderail.rl.rollout.generation import Collector, episode_units, step_units
from guiderail.rl.rollout.plan import Plan, Unit
from guiderail.rl.rollout.processes import ALONE, Processes
from guiderail.rl.runs.metrics import METRICS
from tests.rl.rollout.threads import Exchange, together

SAMPLING = Sampling(temperature=1.0, max_new_tokens=8)
TALK = Dialogue(ORIGINAL_SIZE, BRIEF)


class Dice:
    """Right with probability `skill`, by the request's seed alone. Tokens carry the seed so that draws are visible."""

    name = "dice"
    vision = Vision(factor=32, min_pixels=32 * 32, max_pixels=10**7)

    def __init__(self, dialogue, episodes, skill=0.7):
        self.dialogue, self.skill = dialogue, skill
        self.expert = {id(step.screenshot): step for e in episodes for step in e.steps}
        self.batches: list[int] = []

    def complete(self, requests, sampling):
        self.batches.append(len(requests))
        return [self.answer(request) for request in requests]

    def answer(self, request: Request) -> Completion:
        step = self.expert[id(request.prompt.screen.screenshot)]
        right = (request.seed % 1000) / 1000 < self.skill
        text = self.dialogue.say(f"t{request.seed % 7}", step.action, step.screenshot) if right else "no"
        return Completion(text, (request.seed % 50,), (-0.5,))


@pytest.fixture
def episodes(episode):
    return [Episode(f"e{i}", episode.goal, episode.steps[i % 3 :], f"made.jsonl:{i}") for i in range(9)]


def collector(episodes, dialogue, seen=None, processes=ALONE, eta=0.1, **more):
    """seen: a list that receives every generation."""
    patch = build("thought-free", 1, dialogue.dialect.integrate)
    units = episode_units(episodes, lambda e, i: walk(e, dialogue=dialogue, patch=patch, sample=i))
    credit = credit_named("ui-s1", CreditRules(eta=eta))
    settings = {"groups": 4, "rollouts": 6, "sampling": SAMPLING, "seed": 3} | more
    return Collector(Plan(units, credit, **settings), processes, None if seen is None else seen.append)


def sampled(seen):
    return [group for made in seen for group in made.groups]


def passed_over(seen):
    return [one for made in seen for one in made.weighed if one.reason != "fits"]


def key(sample):
    return (sample.unit, sample.sample, sample.index, sample.completion, sample.advantage)


def test_kept_groups_spread_and_dropped_ones_say_why(episodes, brief):
    seen = []
    collect = collector(episodes, brief, seen)
    samples = collect(Dice(brief, episodes), 0)
    assert 0 < collect.metrics["groups/kept"] <= 4
    assert sum(group.signal == "kept" for group in sampled(seen)) == collect.metrics["groups/kept"]
    kept = {group.unit for group in sampled(seen) if group.signal == "kept"}
    assert {sample.unit for sample in samples} == kept


def test_a_perfect_policy_gives_no_samples_and_bounded_tries(episodes, brief):
    seen = []
    collect = collector(episodes, brief, seen, tries=3)
    assert collect(Dice(brief, episodes, skill=1.0), 0) == []
    assert len(sampled(seen)) == 12
    assert collect.metrics["groups/all_right"] == 1.0


def test_later_tries_sample_only_what_is_missing(episodes, brief):
    seen = []
    collect = collector(episodes, brief, seen, tries=9, eta=0.4)
    collect(Dice(brief, episodes), 0)
    assert collect.metrics["groups/kept"] == 4
    assert sampled(seen)[-1].signal == "kept"


def test_the_groups_do_not_depend_on_the_number_of_processes(episodes, brief):
    alone = [key(s) for s in collector(episodes, brief)(Dice(brief, episodes), 5)]
    exchange = Exchange(2)

    def process(rank):
        one = collector(episodes, brief, processes=Processes(rank, 2, exchange.of(rank)))
        return [key(s) for s in one(Dice(brief, episodes), 5)]

    shares = together(process)
    assert set(shares[0] + shares[1]) == set(alone)
    assert len(shares[0]) + len(shares[1]) == len(alone)
    work = [sum(1 if index == 0 else 5 for _, _, index, *_ in share) for share in shares]
    assert abs(work[0] - work[1]) <= 6 * 5
    places = [{(unit, index) for unit, _, index, *_ in share} for share in shares]
    assert not places[0] & places[1]


def test_state_continues_where_it_stopped(episodes, brief):
    policy = Dice(brief, episodes)
    straight = collector(episodes, brief)
    runs = [[key(s) for s in straight(policy, g)] for g in range(6)]
    first = collector(episodes, brief)
    for g in range(3):
        first(policy, g)
    second = collector(episodes, brief)
    second.load_state_dict(first.state_dict())
    assert [[key(s) for s in second(policy, g)] for g in range(3, 6)] == runs[3:]
    assert second.sampled_turns == straight.sampled_turns


def test_every_unit_is_visited_once_per_pass(episodes, brief):
    seen = []
    collect = collector(episodes, brief, seen, groups=9, tries=1)
    for g in range(3):
        collect(Dice(brief, episodes), g)
    orders = [[group.unit for group in made.groups] for made in seen]
    for order in orders:
        assert sorted(order) == sorted(e.id for e in episodes)
    assert orders[0] != orders[1]


def test_offline_units_are_single_steps(episodes, brief):
    units = step_units(episodes, lambda e, t, i: step_walk(e, t, dialogue=brief, sample=i))
    assert len(units) == sum(len(e.steps) for e in episodes)
    collect = Collector(Plan(units, credit_named("ui-s1", CreditRules(eta=0.1)), 5, 6, SAMPLING))
    samples = collect(Dice(brief, episodes), 0)
    assert samples
    assert len({(s.unit, s.index) for s in samples}) == 5


def test_short_walks_make_room_and_width_is_kept(episodes, brief):
    policy = Dice(brief, episodes, skill=0.5)
    walks = [((i,), walk(e, dialogue=brief)) for i, e in enumerate(episodes * 4)]
    rollouts = drive(walks, policy, SAMPLING, width=5)
    assert [r.unit for r in rollouts] == [e.id for e in episodes * 4]
    assert max(policy.batches) == 5
    alone = [drive([((i,), walk(e, dialogue=brief))], policy, SAMPLING)[0] for i, e in enumerate(episodes * 4)]
    assert rollouts == alone


def test_one_crashing_request_takes_nobody_with_it(episodes, brief):
    """And nobody is asked twice: the batches are as large as without the crash."""

    class Fragile(Dice):
        def answer(self, request):
            return EnvCrashed("boom") if "write milk" in str(request.prompt) else super().answer(request)

    bad = Episode("bad", "write milk", episodes[0].steps, "made.jsonl:99")
    walks = [((e.id,), walk(e, dialogue=brief)) for e in [*episodes[:2], bad]]
    policy = Fragile(brief, episodes, skill=1.0)
    ended = [r.ended for r in drive(walks, policy, SAMPLING)]
    assert ended == ["finished", "finished", "crashed"]
    assert policy.batches == [
        3,
        *[2] * (min(len(e.steps) for e in episodes[:2]) - 1),
        *[1] * abs(len(episodes[0].steps) - len(episodes[1].steps)),
    ]


def test_a_batch_that_failed_as_a_whole_ends_its_walks(episodes, brief):
    class Down(Dice):
        def complete(self, requests, sampling):
            super().complete(requests, sampling)
            raise EnvCrashed("boom")

    policy = Down(brief, episodes)
    rollouts = drive([((e.id,), walk(e, dialogue=brief)) for e in episodes], policy, SAMPLING)
    assert {(r.ended, r.reason) for r in rollouts} == {("crashed", "boom")}
    assert policy.batches == [9]


def test_the_deadline_of_a_walk_travels_with_its_requests(episodes, brief):
    seen = []

    class Clock(Dice):
        def answer(self, request):
            seen.append(request.until)
            return super().answer(request)

    walks = [((e.id,), walk(e, dialogue=brief)) for e in episodes[:1]]
    began = time.monotonic()
    drive(walks, Clock(brief, episodes, skill=1.0), SAMPLING, seconds=7.0)
    assert len(seen) == len(episodes[0].steps) > 1
    assert len(set(seen)) == 1
    assert began + 7 <= seen[0] <= time.monotonic() + 7


def test_seeds_are_fixed_for_ever():
    assert seed_of("a", 1) == 4742018630964328543
    assert seed_of("a", 1) != seed_of("a", 11) != seed_of("a1", 1)
    assert 0 <= seed_of("x") < 2**63


def test_every_metric_has_its_sentence(episodes, brief):
    collect = collector(episodes, brief)
    collect(Dice(brief, episodes), 0)
    assert set(collect.metrics) <= set(METRICS)


EXPECTED = {"e0": 0.0, "e1": 0.5, "e2": 1.0, "e3": 0.4, "e4": 0.05, "e5": 0.6, "e6": 0.99, "e7": 0.5, "e8": 0.3}


class TestDifficulty:
    """A scripted likelihood: which units are passed over, that they are recorded, and that nothing else moves."""

    def difficulty(self, calls=None, **more):
        def expect(policy, units):
            if calls is not None:
                calls.append([*units])
            return [EXPECTED[unit] for unit in units]

        return Difficulty(expect, **({"low": 0.1, "high": 0.9} | more))

    def test_units_outside_are_passed_over_with_their_reason(self, episodes, brief):
        seen = []
        collect = collector(episodes, brief, seen, tries=1, difficulty=self.difficulty())
        for generation in range(3):
            collect(Dice(brief, episodes), generation)
        groups, passed = sampled(seen), passed_over(seen)
        assert all(0.1 <= EXPECTED[group.unit] <= 0.9 for group in groups)
        assert len(groups) == 12  # each try still gets all the groups it lacks
        assert {(one.unit, one.reason) for one in passed} == {
            ("e0", "too hard"),
            ("e4", "too hard"),
            ("e2", "too easy"),
            ("e6", "too easy"),
        }
        assert sorted([*(g.visit for g in groups), *(p.visit for p in passed)]) == list(range(collect.cursor))
        assert {"groups/expected", "groups/too_hard", "groups/too_easy"} <= set(collect.metrics) <= set(METRICS)

    def test_a_group_that_is_sampled_is_the_same_group_as_without_the_filter(self, episodes, brief):
        plain, filtered = [], []
        collector(episodes, brief, plain, groups=9, tries=1)(Dice(brief, episodes), 0)
        collector(episodes, brief, filtered, groups=4, tries=1, difficulty=self.difficulty())(Dice(brief, episodes), 0)
        by_visit = {group.visit: group for group in sampled(plain)}
        shared = [group for group in sampled(filtered) if group.visit in by_visit]
        assert shared
        assert all(group == by_visit[group.visit] for group in shared)

    def test_rounds_bound_the_search(self, episodes, brief):
        calls = []
        nothing = self.difficulty(calls, low=0.7, high=0.8, rounds=3)
        collect = collector(episodes, brief, groups=2, tries=2, difficulty=nothing)
        assert collect(Dice(brief, episodes), 0) == []
        assert [len(call) for call in calls] == [2] * 6
        assert collect.metrics["groups/too_hard"] + collect.metrics["groups/too_easy"] == 12

    def test_it_continues_where_it_stopped(self, episodes, brief):
        def run(collect, generations):
            return [[key(s) for s in collect(Dice(brief, episodes), g)] for g in generations]

        straight = run(collector(episodes, brief, difficulty=self.difficulty()), range(6))
        first = collector(episodes, brief, difficulty=self.difficulty())
        begun = run(first, range(3))
        second = collector(episodes, brief, difficulty=self.difficulty())
        second.load_state_dict(first.state_dict())
        assert begun + run(second, range(3, 6)) == straight


def test_crashed_rollouts_enter_no_group(episodes, brief):
    """A machine that fails for two of six rollouts: the group is that of the other four, and its credit as well."""

    class Fragile(Dice):
        def answer(self, request):
            if request.seed % 3 == 0:
                raise EnvCrashed("boom")
            return super().answer(request)

    seen = []
    collector(episodes, brief, seen, groups=9, tries=1)(Fragile(brief, episodes), 0)
    sizes = {len(group.rollouts) for group in sampled(seen)}
    assert min(sizes) < 6
    credit = credit_named("ui-s1", CreditRules(eta=0.1))
    for group in sampled(seen):
        assert all(rollout.ended != "crashed" for rollout in group.rollouts)
        again = credit(group.rollouts)
        assert (tuple(map(tuple, again.samples)), again.signal) == (group.samples, group.signal)


class TestLiveAttempts:
    """The same code with an outcome in place of verdicts: Pocket tasks attempted by an expert that errs."""

    class Demonstrated(Dice):
        """Says the draft, the expert's turn, with probability `skill` at each turn; else claims to be done."""

        def __init__(self, dialogue, skill):
            super().__init__(dialogue, (), skill)

        def answer(self, request):
            right = random.Random(request.seed).random() < self.skill
            screenshot = request.prompt.screen.screenshot
            text = request.prompt.draft if right else self.dialogue.say("done", Terminate("success"), screenshot)
            return Completion(text, (request.seed % 50,), (-0.5,))

    @pytest.fixture
    def site(self):
        site = PocketTasks(6, seed=5).open(0)
        yield site
        site.close()

    @pytest.fixture
    def units(self, site):
        def demonstrated(name, sample):
            """The attempt with the expert's next turn as the draft of each prompt. Sample 1 crashes at its second turn."""
            task = site.task(name)
            going = attempt(task, dialogue=TALK, sample=sample)
            said = None
            try:
                while True:
                    if sample == 1 and said is not None:
                        prompt = going.throw(EnvCrashed("the machine stopped"))
                    prompt = next(going) if said is None else going.send(said)
                    said = yield replace(prompt, draft=TALK.say(*task.expert(), prompt.screen.screenshot))
            except StopIteration as stop:
                return stop.value

        names = [name for name, _ in PocketTasks(6, seed=5).listed()]
        return [Unit(name, lambda i, name=name: demonstrated(name, i)) for name in names]

    def collect(self, units, skill, seen):
        plan = Plan(units, credit_named("outcome", CreditRules()), groups=6, rollouts=5, sampling=SAMPLING, tries=1)
        collect = Collector(plan, record=seen.append)
        return collect(self.Demonstrated(TALK, skill), 0), collect.metrics

    def test_advantages_are_those_of_the_attempts_that_succeeded(self, units):
        seen = []
        samples, metrics = self.collect(units, 0.9, seen)
        assert {group.signal for group in sampled(seen)} > {"kept"}
        by_group = {}
        for sample in samples:
            by_group.setdefault(sample.unit, {}).setdefault(sample.sample, []).append(sample)
        assert set(by_group) == {group.unit for group in sampled(seen) if group.signal == "kept"}
        for group in sampled(seen):
            assert [r.sample for r in group.rollouts] == [0, 2, 3, 4]  # the crashed one is in no group
            won = [r.sample for r in group.rollouts if r.outcome.success]
            assert (group.signal == "kept") == (0 < len(won) < 4)
            if group.signal != "kept":
                continue
            # k of 4 succeed: mean k/4, unbiased std sqrt(k (4 - k) / 12).
            k = len(won)
            right, wrong = {1: (1.5, -0.5), 2: (0.75**0.5, -(0.75**0.5)), 3: (0.5, -1.5)}[k]
            for rollout in group.rollouts:
                mine = by_group[group.unit][rollout.sample]
                assert len(mine) == len(rollout.turns)
                expected = right if rollout.sample in won else wrong
                assert [s.advantage for s in mine] == pytest.approx([expected] * len(mine), abs=1e-5)
        assert 0 < metrics["rollout/success"] < 1
        assert "rollout/exact" not in metrics
        assert set(metrics) <= set(METRICS)

    @pytest.mark.parametrize(("skill", "signal"), [(1.0, "all right"), (0.0, "all wrong")])
    def test_who_always_or_never_succeeds_teaches_nothing(self, units, skill, signal):
        seen = []
        samples, metrics = self.collect(units, skill, seen)
        assert samples == []
        assert {group.signal for group in sampled(seen)} == {signal}
        assert metrics["rollout/success"] == skill
