"""Threads that stand for the processes of a run."""

import pickle
import threading


class Exchange:
    """An all-gather of `world` threads. sizes: pickled bytes of every item, round by round."""

    def __init__(self, world):
        self.world, self.rounds, self.barrier = world, [], threading.Barrier(world)
        self.items = [None] * world

    def of(self, rank):
        def exchange(item):
            self.items[rank] = pickle.dumps(item)
            self.barrier.wait(60)
            told = [pickle.loads(one) for one in self.items]
            if self.barrier.wait(60) == 0:
                self.rounds.append([len(one) for one in self.items])
            self.barrier.wait(60)
            return told

        return exchange


def together(work, world=2):
    """work(rank) in one thread per process; the results in order."""
    results, errors = [None] * world, []

    def run(rank):
        try:
            results[rank] = work(rank)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors, errors
    return results
