"""Groups that go to whoever is free: the same groups as by tries, on any number of processes."""

import itertools
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest

from guiderail.agent.errors import SetupError
from guiderail.rl.rollout import groups
from guiderail.rl.rollout.dispatch import Free, OwnLedger, needed
from guiderail.rl.rollout.plan import Opened
from guiderail.rl.rollout.processes import Processes
from tests.rl.rollout.test_generation import Dice, collector, episodes, key, sampled
from tests.rl.rollout.threads import Exchange, together

__all__ = ["episodes"]


def by_tries(learned, groups, tries, units):
    """How many places a loop over tries samples."""
    end = kept = 0
    for _ in range(tries):
        fresh = min(groups - kept, units)
        kept += sum(learned[end : end + fresh])
        end += fresh
    return end


@pytest.mark.parametrize("seed", range(200))
def test_as_many_places_as_tries_sample(seed):
    rng = random.Random(seed)
    limits = rng.randint(1, 9), rng.randint(1, 5), rng.randint(1, 12)
    chance = rng.random()
    learned = [rng.random() < chance for _ in range(limits[0] * limits[1])]
    settled, last = {}, 0
    while begun := [place for place in range(needed(settled, *limits)) if place not in settled]:
        place = rng.choice(begun)
        settled[place] = learned[place]
        assert needed(settled, *limits) >= last
        last = needed(settled, *limits)
    assert last == len(settled) == by_tries(learned, *limits)


@pytest.mark.parametrize("skill", [0.5, 0.97, 1.0])
def test_one_process_samples_what_tries_sample(episodes, brief, skill):
    policy = Dice(brief, episodes, skill)
    seen = {}
    for free in (False, True):
        seen[free] = []
        collect = collector(episodes, brief, seen[free], free=free)
        shares = [[key(s) for s in collect(policy, number)] for number in range(3)]
        seen[free] = (sampled(seen[free]), shares, collect.state_dict())
    assert seen[True] == seen[False]
    assert (skill == 0.5) == all(group.signal == "kept" for group in seen[True][0])


def test_a_group_without_signal_is_replaced_at_once(episodes, brief):
    """While others are still under way: the batches are fewer and fuller."""
    batches = {}
    for free in (False, True):
        policy = Dice(brief, episodes, skill=0.97)
        collect = collector(episodes, brief, tries=9, free=free)
        for number in range(4):
            collect(policy, number)
        batches[free] = policy.batches
    assert sum(batches[True]) == sum(batches[False])
    assert len(batches[True]) < len(batches[False])


@pytest.fixture
def store(monkeypatch):
    pytest.importorskip("torch")
    import torch.distributed

    made = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setattr(torch.distributed.distributed_c10d, "_get_default_store", lambda: made)
    return made


def test_two_processes_sample_what_one_does(episodes, brief, store):
    from guiderail.rl.train.distributed import StoreLedger

    alone = []
    collect = collector(episodes, brief, alone, tries=9)
    for number in range(3):
        collect(Dice(brief, episodes, skill=0.97), number)
    exchange, seen, busy = Exchange(2), [[], []], [0, 0]

    def process(rank):
        numbers = itertools.count()
        processes = Processes(rank, 2, exchange.of(rank), lambda: StoreLedger(next(numbers)))
        mine = collector(episodes, brief, seen[rank], processes, tries=9, free=True)
        for number in range(3):
            policy = Dice(brief, episodes, skill=0.97)
            mine(policy, number)
            busy[rank] += sum(policy.batches)

    together(process)
    assert [[group for made in one for group in made.groups] for one in seen] == [sampled(alone)] * 2
    assert sum(busy) == sum(len(rollout.turns) for group in sampled(alone) for rollout in group.rollouts)
    assert store.num_keys() <= 2 * 2 + 1, "old ledgers are removed"


def test_a_process_that_waits_for_nothing_gives_up(episodes, brief, monkeypatch):
    """Another process took the first place and never settles it."""
    monkeypatch.setattr(groups, "PATIENCE", 0.05)
    ledger = OwnLedger()
    ledger.take()
    collect = collector(episodes, brief, None, Processes(0, 1, ledger=lambda: ledger), groups=1, free=True)
    with pytest.raises(SetupError, match="no process has finished a group"):
        collect(Dice(brief, episodes), 0)


def test_an_opening_is_walked_before_its_group(episodes, brief):
    begun = []

    def opening(seed):
        begun.append("opening")
        return Opened("here", turns=3)
        yield

    def start_at(place, sample):
        begun.append((place, sample))
        return SimpleNamespace(turns=(), spent=0, ended="crashed", reason="made up", tries=0, sampled=None)
        yield

    collect = collector(episodes, brief, groups=1, tries=1, rollouts=2)
    unit = collect.plan.units[0]
    plan = replace(collect.plan, units=[replace(unit, opening=opening, start_at=start_at)])
    made = groups.groups_of(plan, Dice(brief, episodes), 0, [0])
    assert begun == ["opening", ("here", 0), ("here", 1)]
    assert (made[0].spent, made[0].lost) == (3, ("made up", "made up"))


def test_places_are_given_once():
    ledger = OwnLedger()
    boards = [Free(ledger, groups=3, tries=2, units=9) for _ in range(2)]
    given = [boards[i % 2].claim() for i in range(4)]
    assert given == [0, 1, 2, None]
    assert not boards[0].over()
    boards[0].settle(1, learned=False)
    assert boards[1].claim() == 3, "this board's ticket"
    for place in (0, 2, 3):
        boards[0].settle(place, learned=False)
    assert [board.claim() for board in boards] == [4, 5]
    boards[0].settle(4, learned=True)
    assert [board.claim() for board in boards] == [None, None]
    assert not any(board.over() for board in boards)
    boards[1].settle(5, learned=True)
    assert all(board.over() for board in boards)
