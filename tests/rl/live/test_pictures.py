"""Groups between processes: references in place of pictures, also where hosts share no folder."""

import random

import pytest

from guiderail.agent.types import Screenshot
from guiderail.rl.live.pictures import ByReference
from guiderail.rl.rollout.generation import generation
from guiderail.rl.rollout.live import Site
from guiderail.rl.rollout.processes import Processes
from tests.rl.live.test_fleet import WORLD, plan_of, told
from tests.rl.rollout.pocket import TALK, Coin
from tests.rl.rollout.threads import Exchange, together


def shots(size, count=3, seed=0):
    rng = random.Random(seed)
    return [Screenshot(1080, 2400, data=rng.randbytes(size)) for _ in range(count)]


@pytest.mark.parametrize("shared", [True, False])
def test_what_is_exchanged_does_not_grow_with_the_pictures(tmp_path, shared):
    sizes = {}
    for size in (1_000, 300_000):
        exchange, mine = Exchange(2), [shots(size, seed=rank) for rank in range(2)]
        folders = [tmp_path / f"{size}-{0 if shared else rank}" for rank in range(2)]

        def work(rank, exchange=exchange, mine=mine, folders=folders):
            send = ByReference(exchange.of(rank), folders[rank])
            return send({"group": mine[rank] * 5, "rank": rank})

        for got in together(work):
            assert [one["rank"] for one in got] == [0, 1]
            for rank, one in enumerate(got):
                assert [shot.encoded() for shot in one["group"]] == [shot.data for shot in mine[rank]] * 5
                assert all(shot.data is None for shot in one["group"])
                assert one["group"][0] is one["group"][3], "equal screenshots are one object"
        sizes[size] = exchange.rounds
    groups = [rounds[0] for rounds in sizes.values()]
    assert groups[0] == groups[1], "to the byte"
    assert max(groups[0]) < 3000
    for size, rounds in sizes.items():
        if shared:
            assert len(rounds) == 2
            assert max(rounds[1]) < 50, "nothing is missing"
        else:
            assert len(rounds) == 3
            assert all(3 * size < sent < 3 * size + 1000 for sent in rounds[2]), "each picture once"


def test_two_processes_have_the_groups_of_one(tmp_path):
    """Live attempts on Pocket, dealt over two processes."""
    exchange = Exchange(2)

    def work(rank):
        session = WORLD.open(rank)
        try:
            plan = plan_of(Site(session, TALK).begin)
            processes = Processes(rank, 2, ByReference(exchange.of(rank), tmp_path / "images"))
            return generation(plan, Coin(0.9), 0, 0, processes)
        finally:
            session.close()

    session = WORLD.open(0)
    alone = generation(plan_of(Site(session, TALK).begin), Coin(0.9), 0, 0)
    session.close()
    both = together(work)
    for made in both:
        assert [told(group) for group in made.groups] == [told(group) for group in alone.groups]
        assert all(s.prompt.screen.screenshot.data is None for s in made.samples)
    dealt = [(s.unit, s.sample, s.index, s.advantage) for made in both for s in made.samples]
    assert sorted(dealt) == sorted((s.unit, s.sample, s.index, s.advantage) for s in alone.samples)
    turns = [turn for group in alone.groups for one in group.rollouts for turn in one.turns]
    assert sum(exchange.rounds[0]) < sum(len(turn.screen.screenshot.data) for turn in turns) / 2
