"""Rollout speed of the tiny model on recorded Pocket episodes: turns per second, the baseline that sharing must beat.

    python benchmarks/rollout.py [--json] [--episodes 8] [--rollouts 8] [--width 64] [--model FOLDER]

Semi-online walks with unlimited thought-free patches, so every walk reaches its last step and the work does not depend on
how good the policy is. Without --model a random tiny model is built; its answers run to the token limit.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from agent.dialects import BRIEF
from agent.dialogue import Dialogue
from agent.local import LocalPolicy, load_policy
from agent.policy import Sampling
from agent.types import Episode
from envs.episodes import load_episodes
from envs.pocket.record import record
from envs.replay import walk
from launch.train import build_tiny_for
from patch.base import build
from rl.rollout import drive


def measure(policy: LocalPolicy, episodes: list[Episode], n: int, width: int, tokens: int) -> dict[str, Any]:
    """One pass of n walks per episode, `width` at a time."""
    dialogue = Dialogue(policy.vision, BRIEF, images=1)
    patch = build("thought-free", None, BRIEF.integrate)
    walks = [((e.id, i), walk(e, dialogue=dialogue, patch=patch, sample=i)) for e in episodes for i in range(n)]
    started = time.perf_counter()
    rollouts = drive(walks, policy, Sampling(1.0, tokens), width=width)
    seconds = time.perf_counter() - started
    turns = [turn for rollout in rollouts for turn in rollout.turns]
    sampled = sum(len(turn.completion.token_ids) for turn in turns)
    return {
        "width": width,
        "turns": len(turns),
        "turns_per_second": len(turns) / seconds,
        "tokens_per_second": sampled / seconds,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--model", default=None)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data, tiny = Path(folder) / "data", Path(folder) / "tiny"
        record(data, options.episodes, 0)
        if options.model is None:
            build_tiny_for(str(data), tiny, "qwen3_vl", 0)
        policy = load_policy(options.model or tiny, max_batch=options.width)
        episodes = list(load_episodes(data).episodes)
        measure(policy, episodes[:1], 1, 1, options.tokens)
        rows = [measure(policy, episodes, options.rollouts, width, options.tokens) for width in (1, options.width)]
    result = {"model": options.model or "random tiny", "rollouts": options.rollouts, "threads": 1, "rows": rows}
    if options.json:
        print(json.dumps(result))
        return
    for row in rows:
        print(
            f"{row['width']:3d} walks at once: {row['turns_per_second']:.1f} turns/s, {row['tokens_per_second']:.0f} tok/s"
        )


if __name__ == "__main__":
    main()
