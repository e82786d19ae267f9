"""What a run still holds for sampling one of its rollouts again: the weights, and the batch it was sampled in."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from guiderail.rl.config import Config, updates_of
from guiderail.rl.rollout.generation import choose
from guiderail.rl.rollout.processes import share
from guiderail.rl.runs.log import read_rollouts

Row = Mapping[str, Any]


def checkpoints(run: Path, config: Config) -> dict[int, Path | None]:
    """Generation -> the checkpoint that was written before it; None for the start of the run."""
    cycle = updates_of(config.rl_training()).per_generation
    found: dict[int, Path | None] = {0: None}
    for marker in run.glob("checkpoint-*/complete.json"):
        update = marker.parent.name.split("-")[-1]
        if update.isdigit() and int(update) % cycle == 0:
            found[int(update) // cycle] = marker.parent
    return found


def remembers(config: Config) -> bool:
    """Whether what a generation samples depends on what earlier ones found (`rl.rollout.plan.Memory`)."""
    return bool(config.online.bands or config.online.cooling or config.online.replay)


def replayable(run: Path, config: Config) -> dict[int, Path | None]:
    """Generation -> the folder with the weights that sampled it; None for the model the run started from."""
    found = checkpoints(run, config)
    recorded = {int(row["generation"]): int(row.get("behind", 0)) for row in read_rollouts(run)}
    sampler = {generation: generation - behind for generation, behind in sorted(recorded.items())}
    known = [generation for generation in sampler if generation in found or not remembers(config)]
    return {generation: found[sampler[generation]] for generation in known if sampler[generation] in found}


def batch_of(
    generation: Sequence[Row], visit: int, config: Config, units: int, processes: int, passed: Collection[int] = ()
) -> list[int]:
    """The visits that one process sampled together with `visit`. Which these were is not known where groups went to processes as
    these got free; then `visit` alone.

    generation: all lines of its generation. passed: visits of the generation that `method.difficulty` passed over. units:
    how many the run has. Makes the generation's tries again, with what became of each group.
    """
    if config.rollout.dispatch == "free":
        return [visit]
    method = config.method
    learned = {row["visit"] for row in generation if row["signal"] == "kept" or row.get("shown")}
    seen = {row["visit"] for row in generation} | set(passed)
    cursor, last, missing = min(seen), max(seen), method.groups
    while missing > 0 and cursor <= last:
        visits, cursor = choose(
            cursor,
            min(missing, units),
            lambda drawn: [one not in passed for one in drawn],
            1 if method.difficulty is None else method.difficulty.rounds,
        )
        if visit in visits:
            return [*share(visits, visits.index(visit) % processes, processes)]
        missing -= len(learned & set(visits))
    raise ValueError(f"visit {visit} is not of this generation")


def differences(place: str, was: Any, now: Any) -> list[str]:
    """Where two JSON values differ, each with its path below `place`."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        keys = [*was, *(key for key in now if key not in was)]
        return [line for key in keys for line in differences(f"{place}.{key}", was.get(key), now.get(key))]
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        return [
            line for i, (a, b) in enumerate(zip(was, now, strict=True)) for line in differences(f"{place}[{i}]", a, b)
        ]
    return [] if was == now else [f"{place.lstrip('.')}: recorded {str(was)[:80]}, now {str(now)[:80]}"]
