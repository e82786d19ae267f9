"""Seconds of a generation and of its updates, and the hours of a run.

    large products   operations / (peak * mfu)
    decoding         one step reads all weights and the keys and values so far: bytes / (bandwidth * reading), and in the local
                     engine starts about a dozen kernels per layer one by one, which takes `launch` ms however small they are
    ZeRO-3           gathers all weights over the slowest link for every pass over every micro-batch; counted where it takes
                     longer than the pass

What a run does to its own speed (how often the agent agrees, how many groups teach something, how long it talks) is not known
before; `Assumed` holds it, and every field can be set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from guiderail.agent.errors import SetupError
from guiderail.agent.registry import nearest
from guiderail.launch.plan import flops, memory
from guiderail.launch.plan.lengths import Ask, Lengths
from guiderail.launch.plan.machines import Cluster
from guiderail.launch.plan.memory import Rows
from guiderail.launch.plan.setting import Setting, teacher_of
from guiderail.launch.plan.shape import Shape
from guiderail.rl.config import Config


@dataclass(frozen=True, slots=True)
class Assumed:
    """agreement: share of turns that agree with the expert's. kept: share of groups that are learned from. answer: tokens of an
    answer, 0 for the experts' own mean. mfu: share of a GPU's peak in large products. reading: share of its bandwidth in
    decoding. launch: ms per layer and token in the local engine; vLLM's is a tenth. wait: the local engine decodes a batch until its
    longest answer ends, this many times the mean answer. network: GB/s of a machine to others."""

    agreement: float = 0.7
    kept: float = 0.5
    answer: float = 0.0
    mfu: float = 0.4
    reading: float = 0.6
    launch: float = 1.2
    wait: float = 1.3
    network: float = 50.0

    def but(self, changes: Sequence[str]) -> Assumed:
        """With `key=value` changed. Raises SetupError."""
        known = [f.name for f in fields(self)]
        found = self
        for change in changes:
            key, _, value = change.partition("=")
            if key not in known:
                raise SetupError(f"--assume {change!r}{nearest(key, known)}")
            try:
                number = float(value)
            except ValueError:
                number = math.nan
            top = 1.0 if key in ("agreement", "kept", "mfu", "reading") else 1e6
            if not (0 < number <= top or (number == 0 and key in ("agreement", "answer", "launch"))):
                raise SetupError(f"--assume {change!r}: expected a number above 0 and at most {top:g}")
            found = replace(found, **{key: number})
        return found


@dataclass(frozen=True, slots=True)
class Spent:
    """generations: of the run, the most there can be. updates: optimizer steps of each. turns: sampled per generation. rows:
    learned from per generation, over all GPUs; `learned` is their share of those that could be. seconds: of one
    generation, by part."""

    generations: int
    updates: int
    turns: float
    rows: float
    learned: float
    seconds: dict[str, float]

    @property
    def hours(self) -> float:
        return self.generations * sum(self.seconds.values()) / 3600


UNKNOWN = Spent(0, 0, 0.0, 0.0, 1.0, {})
"""On a GPU of unknown speed."""


def turns_of(steps: int, agreement: float, budget: float) -> list[float]:
    """P(the rollout makes turn t), t = 0 ... steps - 1: at most `budget` mismatches before it."""
    alive, mismatches = [], {0: 1.0}
    for _ in range(steps):
        alive.append(sum(share for count, share in mismatches.items() if count <= budget))
        after: dict[int, float] = {}
        for count, share in mismatches.items():
            if count <= budget:
                after[count] = after.get(count, 0.0) + share * agreement
                after[count + 1] = after.get(count + 1, 0.0) + share * (1 - agreement)
        mismatches = after
    return alive


def mean_turns(steps: Sequence[int], agreement: float, budget: float) -> float:
    """Mean turns of a rollout over episodes of these lengths."""
    reached = turns_of(max(steps), agreement, budget)
    return sum(sum(reached[:length]) for length in steps) / len(steps)


def row_of(ask: Ask, answer: float, masked: bool = True) -> Rows:
    """One row of an update."""
    return Rows(1, round(ask.tokens + answer), round(answer), ask.patches, masked)


def decode_step(
    shape: Shape, s: Setting, cluster: Cluster, assumed: Assumed, rows: float, longest: float, engine: str
) -> float:
    """Seconds of one decoding step of `rows` rows."""
    read = s.computed * (shape.parameters("text") + rows * longest * 2 * shape.layers * shape.keys)
    launch = assumed.launch * (1.0 if engine == "local" else 0.1) * shape.layers / 1000
    return max(read / (cluster.gpu.bandwidth * 1e9 * assumed.reading), launch)


def spent(config: Config, shape: Shape, s: Setting, lengths: Lengths, cluster: Cluster, assumed: Assumed) -> Spent:
    """Hours of the whole run on this cluster."""
    if not cluster.gpu.tflops:
        return UNKNOWN
    if config.method.algorithm == "sft":
        return _sft(config, shape, s, lengths, cluster, assumed)
    method, offline = config.method, config.method.algorithm == "offline"
    answer = assumed.answer or lengths.answer
    budget = _budget(config, max(lengths.steps))
    learned = 1.0 if method.spread_of == "none" else assumed.kept
    units = sum(lengths.steps) if offline else len(lengths.steps)
    groups = min(method.groups, units)
    tries = [groups * (1 - learned) ** k for k in range(method.tries)]  # each samples the groups still missing
    sampled = sum(tries)
    turns = 1.0 if offline else mean_turns(lengths.steps, assumed.agreement, budget)
    asks = _reached(lengths, 1.0 if offline else assumed.agreement, budget)
    asked = sampled * method.rollouts * turns
    kept = min(sampled * learned, groups) * method.rollouts * turns
    if config.teacher is not None:  # the experts' own turns are trained on beside them
        kept /= 1 - config.teacher.recorded
    rows = min(kept, float(s.windows * s.micro * s.rows * cluster.world))
    training = config.rl_training()
    visits = training.get("num_train_epochs")
    if training.get("max_steps"):
        generations = -(-int(training["max_steps"]) // (s.windows * s.passes))
    else:
        generations = math.ceil(float(visits or 3) * units / sampled)
    # Processes wait for each other after each try, and a group is not divided between them.
    mine = sum(math.ceil(missing / _samplers(config, cluster)) for missing in tries) * method.rollouts * turns
    seconds = _sampling(config, shape, s, cluster, assumed, asks, mine, answer)
    seen = min(s.rows, method.rollouts) if s.share and config.update.share_vision else 1
    seconds |= _learning(shape, s, cluster, assumed, asks, rows, answer, seen)
    if (teacher := teacher_of(config, s, gpu=True)) is not None:
        speed = cluster.gpu.tflops * 1e12 * assumed.mfu
        work = mine / method.rollouts * _picture(teacher.shape, teacher.setting, asks)
        for ask, share in asks:
            row = row_of(ask, answer)
            each = flops.teaching(teacher.shape, teacher.setting, row) + flops.divergence(shape, s, row)
            work += rows / cluster.world * each * share
        seconds["teacher"] = work / speed
    return Spent(generations, s.windows * s.passes, asked, rows, rows / kept, seconds)


def _reached(lengths: Lengths, agreement: float, budget: float) -> list[tuple[Ask, float]]:
    """Asks with their share of all turns."""
    reached = turns_of(max(ask.step for ask in lengths.asks) + 1, agreement, budget)
    weights = [reached[ask.step] for ask in lengths.asks]
    return [(ask, weight / sum(weights)) for ask, weight in zip(lengths.asks, weights, strict=True)]


def _budget(config: Config, longest: int) -> float:
    """Repairs per rollout; of a falling budget, its mean over the run. longest: steps of a recording."""
    budget = config.method.patch_budget
    if budget == "falling":
        return (longest - 1) / 2
    return math.inf if budget == "unlimited" else float(budget)


def _picture(shape: Shape, s: Setting, asks: Sequence[tuple[Ask, float]]) -> float:
    """Operations of the tower for one screenshot."""
    return sum(
        flops.forward(shape, s, row_of(ask, 0))["vision"].total / max(1, len(ask.patches)) * share
        for ask, share in asks
    )


def _samplers(config: Config, cluster: Cluster) -> int:
    """GPUs that sample: those of the trainer, or one for each vLLM server."""
    return len(config.rollout.servers) if config.rollout.engine == "vllm-server" else cluster.world


def _sampling(
    config: Config,
    shape: Shape,
    s: Setting,
    cluster: Cluster,
    assumed: Assumed,
    asks: Sequence[tuple[Ask, float]],
    mine: float,
    answer: float,
) -> dict[str, float]:
    """mine: turns that one GPU samples."""
    speed = cluster.gpu.tflops * 1e12 * assumed.mfu
    mean = sum(ask.tokens * share for ask, share in asks)
    text = sum(flops.forward(shape, s, row_of(ask, 0))["text"].total * share for ask, share in asks)
    # A screenshot is encoded once per generation and GPU: the rollouts of a group share its features.
    prefill = (mine * text + mine / config.method.rollouts * _picture(shape, s, asks)) / speed
    together = max(1.0, min(config.method.width, mine, memory.PROMPTS / mean))
    if config.rollout.engine != "local":
        together = max(1.0, min(config.rollout.concurrency, mine))
    step = decode_step(shape, s, cluster, assumed, together, mean + answer, config.rollout.engine)
    wait = assumed.wait if config.rollout.engine == "local" else 1.0
    return {"prompts": prefill, "answers": mine / together * answer * wait * step}


def _learning(
    shape: Shape,
    s: Setting,
    cluster: Cluster,
    assumed: Assumed,
    asks: Sequence[tuple[Ask, float]],
    rows: float,
    answer: float,
    seen: int = 1,
) -> dict[str, float]:
    """seen: rows of a micro-batch that have their screenshots in common, each of which the tower sees once."""
    speed = cluster.gpu.tflops * 1e12 * assumed.mfu
    each: dict[str, float] = {}
    for ask, share in asks:
        row = row_of(ask, answer)
        blind = flops.update(shape, s, replace(row, patches=()), stored=True)
        for part, work in flops.update(shape, s, row, stored=True).items():
            each[part] = each.get(part, 0.0) + (blind[part] + (work - blind[part]) / seen) * share
    mine = rows / cluster.world
    repeats = {"forward": s.passes, "backward": s.passes}
    found = {part: mine * work * repeats.get(part, 1) / speed for part, work in each.items() if work}
    slow = assumed.network if cluster.nodes > 1 else cluster.gpu.link
    moved = float(s.stored * shape.parameters())
    batches = s.windows * s.micro
    if s.zero == 3 and cluster.world > 1:
        passes = batches * (s.passes * 3 + (1 if s.reference else 0) + (1 if s.windows > 1 else 0))
        gather = passes * moved / (slow * 1e9)
        found["waiting for weights"] = max(0.0, gather - sum(found.values()))
    elif cluster.world > 1:
        exchanged = 2.0 * s.trained(shape) * s.stored * s.windows * s.passes * (s.micro if (s.zero or 0) >= 2 else 1)
        found["exchange of gradients"] = exchanged / (slow * 1e9)
    return found


def _sft(config: Config, shape: Shape, s: Setting, lengths: Lengths, cluster: Cluster, assumed: Assumed) -> Spent:
    training = config.training
    rows = s.rows * s.micro * cluster.world
    examples = sum(lengths.steps)
    steps = training.get("max_steps") or math.ceil(float(training.get("num_train_epochs", 3)) * examples / rows)
    asks = [(ask, 1 / len(lengths.asks)) for ask in lengths.asks]
    seconds = _learning(shape, s, cluster, assumed, asks, float(rows), assumed.answer or lengths.answer)
    return Spent(int(steps), 1, 0.0, float(rows), 1.0, seconds)


def rows_together(config: Config, longest: int) -> int:
    """Rows that the local engine decodes together, see agent/local/policy.py."""
    sampled = config.method.groups * config.method.rollouts
    return max(1, min(config.method.width, sampled, memory.PROMPTS // longest))
