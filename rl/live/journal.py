"""The run folder of live attempts: screenshots, and what is scored already."""

from __future__ import annotations

import os
from collections.abc import Container
from pathlib import Path

from guiderail.agent.types import Rollout
from guiderail.rl.live.jobs import Images, Row
from guiderail.rl.rollout.plan import Generation
from guiderail.rl.runs.log import drop_lines, read_rollouts
from guiderail.rl.runs.rows import success


def images_of(rollout: Rollout) -> Images:
    return {turn.screen.screenshot.digest: turn.screen.screenshot.encoded() for turn in rollout.turns}


def keep_images(folder: Path, images: Images) -> None:
    """Write each image once, as folder/HASH.png, completely or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for digest, data in images.items():
        path = folder / f"{digest}.png"
        if not path.exists():
            partial = path.with_suffix(f".{os.getpid()}.part")
            partial.write_bytes(data)
            os.replace(partial, path)


def keep_screenshots(folder: Path, made: Generation, recorded: Container[str]) -> None:
    """The screenshots of a generation's live attempts, in the run's folder. Those with a path are there already. recorded: units
    that are recordings."""
    for rollout in (one for group in made.groups for one in group.rollouts):
        if rollout.unit not in recorded:
            shots = [turn.screen.screenshot for turn in rollout.turns]
            keep_images(folder / "images", {shot.digest: shot.data for shot in shots if shot.data is not None})


def scored_rows(folder: Path) -> list[Row]:
    """The attempts that an interrupted run has scored. Attempts without a score are removed from the file, because they
    will be made again."""
    if not (folder / "rollouts.jsonl").exists():
        return []
    drop_lines(folder, lambda row: success(row) is None)
    return [*read_rollouts(folder)]
