"""Rollouts with drafts of every kind, compared with none: the same seeds, the same answers.

    python -m benchmarks.speculation [--model tiny-sft] [--episodes 8] [--rollouts 8] [--visits 3] [--repeats 3] [--out FILE]

Each repeat walks all recordings `visits` times, with other seeds each time, as a training that comes back to them does with weights
that hardly move. Features are stored beforehand, so that decoding is what is measured. Walks are repaired without end, so that
all of them reach their last step. Times are CPU seconds of one thread of the last visit; the fastest repeat of each kind counts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

from benchmarks.rollout import Work, answers, load, same
from guiderail.agent.local.drafts import Drafts
from guiderail.agent.local.policy import LocalPolicy
from guiderail.agent.local.vision import VisionStore
from guiderail.agent.policy import Sharing, Speculation
from guiderail.agent.shipped import shipped
from guiderail.agent.types import Completion
from guiderail.envs.pocket.record import record
from guiderail.envs.recordings.replay import walk
from guiderail.patch.base import build
from guiderail.rl.rollout.drive import drive

KINDS: tuple[Speculation, ...] = get_args(Speculation)


def visit(work: Work, policy: LocalPolicy, number: int) -> list[Completion]:
    """Every recording by every rollout, with the seeds of this visit."""
    patch = build("thought-free", None, work.dialogue.dialect.integrate)
    walks = [
        ((number, e.id, i), walk(e, dialogue=work.dialogue, patch=patch, sample=i))
        for e in work.episodes
        for i in range(work.rollouts)
    ]
    return answers(drive(walks, policy, work.sampling, width=work.width))


def measured(policy: LocalPolicy, work: Work, visits: int, repeats: int) -> list[dict[str, Any]]:
    store = VisionStore(policy.encoder)
    best: dict[str, float] = {}
    said: dict[str, list[Completion]] = {}
    forwards: dict[str, int] = {}
    visit(work, LocalPolicy(policy.model, policy.encoder, "features", store=store), 0)
    for _ in range(repeats):
        for kind in KINDS:
            drafts = Drafts.of(kind)
            for number in range(visits):
                other = LocalPolicy(
                    policy.model,
                    policy.encoder,
                    kind,
                    max_batch=work.width,
                    sharing=Sharing(speculation=kind),
                    store=store,
                    drafts=drafts,
                )
                counted = [0]
                hook = policy.model.model.register_forward_pre_hook(lambda *_, counted=counted: counted.append(1))
                started = time.process_time()
                found = visit(work, other, number)
                seconds = time.process_time() - started
                hook.remove()
            best[kind], said[kind] = min(seconds, best.get(kind, seconds)), found
            forwards[kind] = len(counted) - 1
    return [
        {
            "speculation": kind,
            "temperature": work.sampling.temperature,
            "width": work.width,
            "turns": len(said[kind]),
            "seconds": round(best[kind], 3),
            "speedup": round(best["off"] / best[kind], 2),
            "forwards": forwards[kind],
            "same_tokens": round(same(said[kind], said["off"])[0], 5),
        }
        for kind in KINDS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-sft")
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--visits", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--widths", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--out", default=None, help="also write the rows here, as JSON")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        record(Path(folder), max(16, options.episodes), 7)
        for temperature in (1.0, 0.0):
            policy, work = load(shipped(options.model), folder, options.episodes, options.rollouts, temperature)
            for width in options.widths:
                sized = Work(work.episodes, work.dialogue, work.rollouts, work.sampling, width)
                for row in measured(policy, sized, options.visits, options.repeats):
                    rows.append(row)
                    print(
                        f"T={temperature:.0f} width {width:2d} {row['speculation']:6s} {row['seconds']:7.2f} s  x{row['speedup']:.2f}"
                        f"  {row['forwards']} forwards  same {row['same_tokens']:.4f}",
                        flush=True,
                    )
    if options.out:
        Path(options.out).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
