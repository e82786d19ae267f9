"""Sampling groups: what is kept, bounded tries, independence of the number of processes, resumable state."""

import threading

import pytest

from agent.errors import EnvCrashed
from agent.policy import Request, Sampling
from agent.screen import Vision
from agent.types import Completion, Episode
from envs.replay import step_walk, walk
from patch.base import build
from rl.collect import Collector, Difficulty, episode_units, step_units
from rl.credit import CreditRules
from rl.metrics import METRICS
from rl.rollout import drive, seed_of

SAMPLING = Sampling(temperature=1.0, max_new_tokens=8)


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


def collector(episodes, dialogue, **more):
    patch = build("thought-free", 1, dialogue.dialect.integrate)
    units = episode_units(episodes, lambda e, i: walk(e, dialogue=dialogue, patch=patch, sample=i))
    settings = {"groups": 4, "rollouts": 6, "sampling": SAMPLING, "rules": CreditRules(), "eta": 0.1, "seed": 3} | more
    return Collector(units, **settings)


def key(sample):
    return (sample.episode_id, sample.sample, sample.index, sample.completion, sample.advantage)


def test_kept_groups_spread_and_dropped_ones_say_why(episodes, brief):
    seen = []
    collect = collector(episodes, brief, record=seen.append)
    samples = collect(Dice(brief, episodes), 0)
    assert 0 < collect.metrics["groups/kept"] <= 4
    assert sum(group.signal == "kept" for group in seen) == collect.metrics["groups/kept"]
    kept = {group.unit for group in seen if group.signal == "kept"}
    assert {sample.episode_id for sample in samples} == kept


def test_a_perfect_policy_gives_no_samples_and_bounded_tries(episodes, brief):
    seen = []
    collect = collector(episodes, brief, tries=3, record=seen.append)
    assert collect(Dice(brief, episodes, skill=1.0), 0) == []
    assert len(seen) == 12
    assert collect.metrics["groups/all_right"] == 1.0


def test_later_tries_sample_only_what_is_missing(episodes, brief):
    seen = []
    collect = collector(episodes, brief, tries=9, eta=0.4, record=seen.append)
    collect(Dice(brief, episodes), 0)
    assert collect.metrics["groups/kept"] == 4
    assert seen[-1].signal == "kept"


def test_the_groups_do_not_depend_on_the_number_of_processes(episodes, brief):
    alone = [key(s) for s in collector(episodes, brief)(Dice(brief, episodes), 5)]
    barrier, box = threading.Barrier(2), [None, None]

    def exchange(rank):
        def gather(item):
            box[rank] = item
            barrier.wait(5)
            everything = list(box)
            barrier.wait(5)
            return everything

        return gather

    shares = [[], []]

    def process(rank):
        one = collector(episodes, brief, rank=rank, world=2, exchange=exchange(rank))
        shares[rank] = [key(s) for s in one(Dice(brief, episodes), 5)]

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert set(shares[0] + shares[1]) == set(alone)
    assert len(shares[0]) + len(shares[1]) == len(alone)
    assert abs(len(shares[0]) - len(shares[1])) <= 4
    places = [{(episode, index) for episode, _, index, *_ in share} for share in shares]
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
    collect = collector(episodes, brief, groups=9, tries=1, record=seen.append)
    for g in range(3):
        collect(Dice(brief, episodes), g)
    for g in range(3):
        assert sorted(x.unit for x in seen if x.generation == g) == sorted(e.id for e in episodes)
    orders = [[x.unit for x in seen if x.generation == g] for g in range(3)]
    assert orders[0] != orders[1]


def test_offline_units_are_single_steps(episodes, brief):
    units = step_units(episodes, lambda e, t, i: step_walk(e, t, dialogue=brief, sample=i))
    assert len(units) == sum(len(e.steps) for e in episodes)
    collect = Collector(units, 5, 6, SAMPLING, CreditRules(), eta=0.1)
    samples = collect(Dice(brief, episodes), 0)
    assert samples
    assert len({(s.episode_id, s.index) for s in samples}) == 5


def test_short_walks_make_room_and_width_is_kept(episodes, brief):
    policy = Dice(brief, episodes, skill=0.5)
    walks = [((i,), walk(e, dialogue=brief)) for i, e in enumerate(episodes * 4)]
    rollouts = drive(walks, policy, SAMPLING, width=5)
    assert [r.episode_id for r in rollouts] == [e.id for e in episodes * 4]
    assert max(policy.batches) == 5
    alone = [drive([((i,), walk(e, dialogue=brief))], policy, SAMPLING)[0] for i, e in enumerate(episodes * 4)]
    assert rollouts == alone


def test_one_crashing_request_takes_nobody_with_it(episodes, brief):
    class Fragile(Dice):
        def answer(self, request):
            if len(request.prompt.messages) == 3 and "write" in str(request.prompt.messages[0]):
                raise EnvCrashed("boom")
            return super().answer(request)

    bad = Episode("bad", "write milk", episodes[0].steps, "made.jsonl:99")
    walks = [((e.id,), walk(e, dialogue=brief)) for e in [*episodes[:2], bad]]
    ended = [r.ended for r in drive(walks, Fragile(brief, episodes, skill=1.0), SAMPLING)]
    assert ended == ["finished", "finished", "crashed"]


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
                calls.append([unit.key for unit in units])
            return [EXPECTED[unit.key] for unit in units]

        return Difficulty(expect, **({"low": 0.1, "high": 0.9} | more))

    def test_units_outside_are_passed_over_with_their_reason(self, episodes, brief):
        sampled, passed = [], []
        collect = collector(
            episodes, brief, tries=1, difficulty=self.difficulty(), record=sampled.append, pass_over=passed.append
        )
        for generation in range(3):
            collect(Dice(brief, episodes), generation)
        assert all(0.1 <= EXPECTED[group.unit] <= 0.9 for group in sampled)
        assert len(sampled) == 12  # each try still gets all the groups it lacks
        assert {(one.unit, one.reason) for one in passed} == {
            ("e0", "too hard"),
            ("e4", "too hard"),
            ("e2", "too easy"),
            ("e6", "too easy"),
        }
        assert sorted([*(g.visit for g in sampled), *(p.visit for p in passed)]) == list(range(collect.cursor))
        assert {"groups/expected", "groups/too_hard", "groups/too_easy"} <= set(collect.metrics) <= set(METRICS)

    def test_a_group_that_is_sampled_is_the_same_group_as_without_the_filter(self, episodes, brief):
        plain, filtered = [], []
        everything = collector(episodes, brief, groups=9, tries=1, record=plain.append)
        everything(Dice(brief, episodes), 0)
        collector(episodes, brief, groups=4, tries=1, difficulty=self.difficulty(), record=filtered.append)(
            Dice(brief, episodes), 0
        )
        by_visit = {group.visit: group for group in plain}
        shared = [group for group in filtered if group.visit in by_visit]
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
