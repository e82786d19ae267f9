"""Rollout speed of the usual method, and of ours with one optimisation added after the other. Same seeds, same answers.

    python benchmarks/rollout.py --model FOLDER [--json] [--episodes 8] [--rollouts 8] [--repeats 3] [--out FILE]

The usual method is that of UI-S1's public code, called lock-step here. All rollouts go from step to step together. Each decodes
and encodes its own images, prompts are padded into one batch, nothing is shared, and finished rollouts wait for the slowest.

Rollouts have unlimited thought-free patches. So all of them reach their last step, and the work does not depend on how good the
policy is. Equality is checked in float64; the log-probability gaps of the rows are those of float32. Times are CPU seconds of
one thread. The variants take turns, and the fastest repeat of each counts.

Drafts are measured at a given agreement. In that share of the turns, the draft is the policy's own answer, known from an earlier
pass. In the others, it is that answer with a wrong ending. Peak memory is measured in a fresh process for each number of
rollouts, with 16 rollouts at a time.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from guiderail.agent.dialects import DIALECTS
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.local import decode as engine
from guiderail.agent.local.decode import pick
from guiderail.agent.local.encode import Encoder
from guiderail.agent.local.policy import LocalPolicy, load_policy
from guiderail.agent.local.vision import VisionStore
from guiderail.agent.policy import Policy, Request, Sampling, Sharing
from guiderail.agent.types import Completion, Episode, Rollout
from guiderail.envs.pocket.record import record
from guiderail.envs.recordings.episodes import load_episodes
from guiderail.envs.recordings.replay import walk
from guiderail.launch.agents import read_voice
from guiderail.patch.base import build
from guiderail.rl.rollout.drive import drive, seed_of

Answers = dict[tuple[str, int], list[Completion]]


class LockStep:
    """One padded batch. Every row carries its own pixels, and the batch runs until its last row has ended."""

    def __init__(self, policy: LocalPolicy):
        self.policy, self.name, self.vision = policy, "lock-step", policy.vision

    @torch.no_grad()
    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        model, encoder = self.policy.model, self.policy.encoder
        rows = [encoder.prompt(request.prompt) for request in requests]
        # Every rollout decodes its own screenshots.
        fresh = [
            encoder.image_processor(images=[picture.image()], do_resize=False, return_tensors="pt")["pixel_values"]
            for row in rows
            for picture in row.pictures
        ]
        inputs = encoder.batch([replace(row, pictures=()) for row in rows])
        grids = torch.stack([encoder.grid(picture) for row in rows for picture in row.pictures])
        mask = inputs["attention_mask"]
        positions, shift = model.model.get_rope_index(
            inputs["input_ids"],
            mm_token_type_ids=inputs["mm_token_type_ids"],
            image_grid_thw=grids,
            attention_mask=mask,
        )
        following = mask.sum(1, keepdim=True) + shift
        uniforms = torch.from_numpy(
            np.stack([np.random.default_rng(r.seed % 2**64).random(sampling.max_new_tokens) for r in requests])
        )
        cache = DynamicCache(config=model.config.get_text_config())
        output = model(
            **inputs,
            pixel_values=torch.cat(fresh),
            image_grid_thw=grids,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        tokens: list[list[int]] = [[] for _ in rows]
        logprobs: list[list[float]] = [[] for _ in rows]
        done = [False] * len(rows)
        for step in range(sampling.max_new_tokens):
            scores = output.logits[:, -1].float()
            picked = pick(scores.masked_fill(self.policy._banned, -torch.inf), uniforms[:, step], sampling)
            logprob = scores.log_softmax(-1).gather(1, picked[:, None])[:, 0].tolist()
            for row, token in enumerate(picked.tolist()):
                if not done[row]:
                    tokens[row].append(token)
                    logprobs[row].append(logprob[row])
                    done[row] = token == encoder.end_of_turn
            if all(done) or step + 1 == sampling.max_new_tokens:
                break
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            output = model(
                input_ids=picked[:, None],
                attention_mask=mask,
                position_ids=following[None].expand(3, -1, -1),
                past_key_values=cache,
                use_cache=True,
            )
            following = following + 1
        return [
            Completion(encoder.text(t), tuple(t), tuple(p), "stop" if t[-1] == encoder.end_of_turn else "length")
            for t, p in zip(tokens, logprobs, strict=True)
        ]


@dataclass
class Drafting:
    """Gives `policy` the answers in `said` as drafts. A share of 1 - `agreement` of them gets a wrong ending."""

    policy: LocalPolicy
    said: dict[tuple[object, int], str]
    agreement: float
    name: str = "drafting"

    @property
    def vision(self) -> Any:
        return self.policy.vision

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        return self.policy.complete([self._with_draft(request) for request in requests], sampling)

    def _with_draft(self, request: Request) -> Request:
        text = self.said[request.prompt, request.seed]
        chance = random.Random(seed_of("agree", request.seed))
        if chance.random() >= self.agreement:
            words = text.split(" ")
            keep = chance.randrange(len(words))
            text = " ".join([*words[:keep], *(f"x{chance.randrange(100)}" for _ in words[keep:])])
        return replace(request, prompt=replace(request.prompt, draft=text))


@dataclass
class Remembering:
    """Keeps every answer of `policy` in `said`, by prompt and seed."""

    policy: LocalPolicy
    said: dict[tuple[object, int], str] = field(default_factory=dict)
    name: str = "remembering"

    @property
    def vision(self) -> Any:
        return self.policy.vision

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        answers = self.policy.complete(requests, sampling)
        self.said |= {(r.prompt, r.seed): a.text for r, a in zip(requests, answers, strict=True)}
        return answers


@dataclass(frozen=True)
class Work:
    episodes: list[Episode]
    dialogue: Dialogue
    rollouts: int
    sampling: Sampling
    width: int = 64

    def run(self, policy: Policy) -> list[Rollout]:
        patch = build("thought-free", None, self.dialogue.dialect.integrate)
        walks = [
            ((e.id, i), walk(e, dialogue=self.dialogue, patch=patch, sample=i))
            for e in self.episodes
            for i in range(self.rollouts)
        ]
        return drive(walks, policy, self.sampling, width=self.width)

    def lock_step(self, policy: Policy) -> list[Rollout]:
        """As many episodes at a time as fill the width. The next ones begin when all of these are finished."""
        at_once = max(1, self.width // self.rollouts)
        parts = [self.episodes[i : i + at_once] for i in range(0, len(self.episodes), at_once)]
        return [rollout for part in parts for rollout in replace(self, episodes=part).run(policy)]


def answers(rollouts: Sequence[Rollout]) -> list[Completion]:
    return [turn.completion for rollout in rollouts for turn in rollout.turns]


def same(ours: Sequence[Completion], theirs: Sequence[Completion]) -> tuple[float, float]:
    """Share of answers with the same tokens; largest difference of a log-probability among them."""
    equal = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.token_ids == b.token_ids]
    gaps = [abs(x - y) for a, b in equal for x, y in zip(a.logprobs, b.logprobs, strict=True)]
    return len(equal) / max(1, len(theirs)), max(gaps, default=0.0)


def timed(variants: dict[str, Callable[[], list[Rollout]]], repeats: int) -> dict[str, tuple[float, list[Completion]]]:
    best: dict[str, float] = {}
    said: dict[str, list[Completion]] = {}
    for _ in range(repeats):
        for name, variant in variants.items():
            started = time.process_time()
            rollouts = variant()
            seconds = time.process_time() - started
            best[name], said[name] = min(seconds, best.get(name, seconds)), answers(rollouts)
    return {name: (best[name], said[name]) for name in variants}


def compare(policy: LocalPolicy, work: Work, repeats: int) -> list[dict[str, Any]]:
    """Rows of the table at one temperature. "again" means a second pass over the same screens, as in a second epoch."""

    def ours(**sharing: Any) -> Callable[[], list[Rollout]]:
        chosen = Sharing(**sharing)
        return lambda: work.run(LocalPolicy(policy.model, forgetful(policy.encoder), "ours", sharing=chosen))

    kept = VisionStore(policy.encoder)
    remembered = Remembering(
        LocalPolicy(policy.model, policy.encoder, "ours", store=kept, sharing=Sharing(speculation="off"))
    )
    work.run(remembered)
    off, plain = {"share_vision": False, "share_prefill": False, "speculation": "off"}, Sharing(speculation="off")

    def drafting(share: float) -> Callable[[], list[Rollout]]:
        return lambda: work.run(
            Drafting(LocalPolicy(policy.model, forgetful(policy.encoder), "ours"), remembered.said, share)
        )

    variants: dict[str, Callable[[], list[Rollout]]] = {
        "lock-step": lambda: work.lock_step(LockStep(policy)),
        "ours, all off": ours(**off),
        "+ vision once": ours(**{**off, "share_vision": True}),
        "+ prefill once": ours(speculation="off"),
        "+ drafts of the expert": ours(),
        **{f"drafts, agreement {share:.0%}": drafting(share) for share in (0.0, 0.7, 0.9, 1.0)},
        "again, no drafts": lambda: work.run(LocalPolicy(policy.model, policy.encoder, "o", sharing=plain, store=kept)),
        "again, expert drafts": lambda: work.run(LocalPolicy(policy.model, policy.encoder, "o", store=kept)),
    }
    results = timed(variants, repeats)
    base, said = results["lock-step"]
    rows = []
    for name, (seconds, mine) in results.items():
        equal, gap = same(mine, said)
        rows.append(
            {
                "variant": name,
                "temperature": work.sampling.temperature,
                "seconds": round(seconds, 3),
                "turns": len(mine),
                "turns_per_second": round(len(mine) / seconds, 2),
                "speedup": round(base / seconds, 2),
                "same_tokens": round(equal, 5),
                "logprob_gap": gap,
            }
        )
    return rows


def exact(policy: LocalPolicy, work: Work) -> dict[str, Any]:
    """The usual method against ours with everything on, in float64. In float32, any two batch shapes differ by rounding."""
    model = policy.model.double()
    try:
        said = answers(work.lock_step(LockStep(policy)))
        remembered = Remembering(LocalPolicy(model, policy.encoder, "ours", sharing=Sharing(speculation="off")))
        without = answers(work.run(remembered))
        drafted = answers(work.run(Drafting(LocalPolicy(model, policy.encoder, "ours"), remembered.said, 0.7)))
    finally:
        model.float()
    checks = [same(mine, said) for mine in (without, drafted)]
    return {
        "temperature": work.sampling.temperature,
        "answers": len(said),
        "same_tokens": min(share for share, _ in checks),
        "logprob_gap": max(gap for _, gap in checks),
    }


def forgetful(encoder: Encoder) -> Encoder:
    """The same encoder with empty caches."""
    return Encoder(encoder.tokenizer, encoder.image_processor, max_prompt_tokens=encoder.max_prompt_tokens)


def peak(model: str, data: str, rollouts: int) -> dict[str, float]:
    """Peak memory of this process in MiB, and the part of it that holds keys and values."""
    held = [0]
    original = engine._State._run

    def run(self: Any, *args: Any) -> Any:
        hidden = original(self, *args)
        held.append(sum(buffer.nbytes for layer in self.cache.layers for buffer in layer._room))
        return hidden

    engine._State._run = run  # type: ignore[method-assign]
    policy, work = load(model, data, 4, rollouts, 1.0)
    replace(work, width=16).run(policy)
    return {
        "rollouts": rollouts,
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "kv_mib": round(max(held) / 2**20, 1),
    }


def load(model: str, data: str, episodes: int, rollouts: int, temperature: float) -> tuple[LocalPolicy, Work]:
    torch.set_num_threads(1)
    policy, voice = load_policy(model), read_voice(Path(model))
    dialogue = Dialogue(policy.vision, DIALECTS.find(voice.dialect), images=voice.images)
    recorded = list(load_episodes(Path(data)).episodes)[:episodes]
    return policy, Work(recorded, dialogue, rollouts, Sampling(temperature, min(48, voice.max_new_tokens)))


def memory(model: str, data: str) -> list[dict[str, float]]:
    command = [sys.executable, __file__, "--model", model, "--data", data, "--peak"]
    return [
        json.loads(subprocess.run([*command, str(n)], check=True, capture_output=True, text=True).stdout)
        for n in (4, 8, 32)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", default=None, help="recordings; default: made by the simulated phone")
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peak", type=int, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", default=None, help="also write the JSON here")
    options = parser.parse_args()
    if options.peak is not None:
        print(json.dumps(peak(options.model, options.data, options.peak)))
        return
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or folder
        if options.data is None:
            record(Path(data), max(16, options.episodes), 7)
        rows: list[dict[str, Any]] = []
        checks: list[dict[str, Any]] = []
        for temperature in (1.0, 0.0):
            policy, work = load(options.model, data, options.episodes, options.rollouts, temperature)
            checks.append(exact(policy, replace(work, episodes=work.episodes[:2])))
            rows += compare(policy, work, options.repeats)
        kept = memory(options.model, data)
    by = {(row["variant"], row["temperature"]): row for row in rows}
    result = {
        "speedup": by["+ prefill once", 1.0]["speedup"],
        "speedup_90_percent_drafts": by["drafts, agreement 90%", 1.0]["speedup"],
        "identical": all(row["same_tokens"] == 1.0 and row["logprob_gap"] < 1e-5 for row in checks),
        "machine": f"{platform.processor() or platform.machine()}, 1 thread, torch {torch.__version__}",
        "command": f"python benchmarks/rollout.py --model {Path(options.model).name} --episodes {options.episodes} "
        f"--rollouts {options.rollouts} --repeats {options.repeats}",
        "in_float64": checks,
        "rows": rows,
        "memory": kept,
    }
    if options.out:
        Path(options.out).write_text(json.dumps(result, indent=1) + "\n")
    if options.json:
        print(json.dumps(result))
        return
    for row in rows:
        print(
            f"T={row['temperature']:.0f} {row['variant']:24s} {row['turns_per_second']:7.1f} turns/s  x{row['speedup']:5.2f}"
            f"  same {row['same_tokens']:.4f}  gap {row['logprob_gap']:.1e}"
        )
    for row in checks:
        print(f"T={row['temperature']:.0f} float64: same {row['same_tokens']:.4f}  gap {row['logprob_gap']:.1e}")
    for row in kept:
        print(f"N={row['rollouts']:2.0f}: peak {row['peak_mib']:.0f} MiB, of them KV {row['kv_mib']:.0f} MiB")


if __name__ == "__main__":
    main()
