"""Which seeds of two arms are compared."""

from guiderail.launch.study.digest import METRICS, Checkpoint, gap


def checkpoint(arm, seed, ok, train=None):
    lines = [{"kind": "live", "world": "test", "memory": False, "task": str(task), "ok": ok} for task in range(20)]
    return Checkpoint(arm, seed, {"train": train}, lines)


def compared(second, first=None):
    found = gap(
        METRICS["online"], first or [checkpoint("a", seed, 1, {"after": "start-0"}) for seed in range(3)], [second]
    )
    return 0 if found is None else len(found.by_seed)


def test_a_start_stands_for_every_seed_and_another_arm_for_its_own_alone():
    assert compared(checkpoint("sft", 0, 0)) == 3, "it was not trained, so it has no seed"
    assert compared(checkpoint("start", 0, 0, {"after": "sft-0"})) == 3, "all three went on from it"
    assert compared(checkpoint("other", 1, 0, {"after": "sft-0"})) == 1
    assert compared(checkpoint("other", 7, 0, {"after": "sft-0"})) == 0
    both = [checkpoint("a", 1, 1, {"after": "start-0"}), checkpoint("a", 2, 1, {"after": "start-1"})]
    assert compared(checkpoint("start", 0, 0, {"after": "sft-0"}), both) == 1
