"""Is a person's correction worth more than a step of a fresh demonstration?

    python benchmarks/corrections.py --out runs/corrections [--steps 100] [--seeds 0 1] [--tasks 300]

For each seed, on the same live tasks of Pocket (training split):
- corrected: `tiny-sft` acts (greedy), a scripted person watches. After a step that differs from what the task's expert would
  have done, the person makes one step and hands back. A wrong end is taken back first. `data from-runs` makes recordings.
- fresh: the expert does the tasks alone (`record pocket --disturbed 1`), one after the other.
Both are cut after `steps` steps of the person, and `tiny-sft` is trained on each with the same settings. All are then scored
on live tasks of the test split that no training has seen, the same for all. Writes corrections.json into --out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.types import Box, Completion, Rollout, Step, TargetBox, Terminate, Turn
from guiderail.envs.live.attempts import next_prompt, read_turn
from guiderail.envs.pocket.expert import Move
from guiderail.envs.pocket.hands import PhoneInHand
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.tasks import Task, draws, task
from guiderail.envs.pocket.world import PocketTasks
from guiderail.envs.recordings.match import judge
from guiderail.launch.agents import AgentSpec, build_agent, sampling
from guiderail.rl.live.jobs import Images, Job, JobQueue, Row
from guiderail.rl.live.journal import images_of, keep_images
from guiderail.rl.live.worker import Worker
from guiderail.rl.rollout.drive import Asking, drive
from guiderail.rl.runs.corrections import recordings_of
from guiderail.rl.runs.log import run_log
from guiderail.rl.runs.rows import rollout_row, success
from guiderail.rl.score.statistics import clustered, paired_difference

SIZE = (160, 288)
START, ARMS = "tiny-sft", ("corrected", "fresh")
FIRST_SEED = 70
"""Of the tasks: far from those of the recordings that tiny-sft was made from."""
MOST_TASKS = 400
TRAINING = {
    "learning_rate": 5e-4,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 5,
    "weight_decay": 0.01,
    "per_device_train_batch_size": 8,
    "max_steps": 40,
    "logging_steps": 10,
}


def watched(made: Task, dialogue: Dialogue) -> Asking[Rollout]:
    """One attempt of the agent with the scripted person at its side."""
    device, turns, take_over = PhoneInHand(Phone(made.start(), *SIZE)), list[Turn](), False
    while len(turns) < made.max_steps:
        shot = device.screenshot()
        prompt = next_prompt(dialogue, made.goal, turns, shot)
        move = made.expert(device.phone, device.answers)
        turn = None if take_over else read_turn(len(turns), prompt, (yield prompt), dialogue)
        right = turn is not None and turn.action is not None and judge(_step(move, shot), turn.action).exact
        if turn is None or (isinstance(turn.action, Terminate) and not right):
            thought = made.say(move.thought, len(turns))
            said = Completion(dialogue.say(thought, move.action, shot))
            turn, right = Turn(len(turns), prompt, said, thought, move.action, by="person"), True
        turns.append(turn)
        take_over = not right
        if isinstance(turn.action, Terminate):
            break
        if turn.action is not None:
            device.act(turn.action)
    return Rollout(made.id, 0, tuple(turns), "stopped", goal=made.goal)


def _step(move: Move, shot: Any) -> Step:
    if move.target is None:
        return Step(shot, move.action)
    left, top, right, bottom = move.target.box
    box = Box(left / SIZE[0], top / SIZE[1], right / SIZE[0], bottom / SIZE[1])
    return Step(shot, move.action, (TargetBox(box, "bbox"),))


def corrected(folder: Path, seed: int, steps: int) -> None:
    """Attempts until the person has made `steps` steps, as recordings in folder/data."""
    actor = build_agent(AgentSpec(model=START))
    names = draws(MOST_TASKS, seed, "train")
    kept, left = list[tuple[Rollout, str]](), steps
    for first in range(0, MOST_TASKS, 16):
        made = [(task(name, number, "train", live=True), name) for name, number in names[first : first + 16]]
        walks = [((seed, one.id), watched(one, actor.dialogue)) for one, _ in made]
        for rollout, (_, template) in zip(drive(walks, actor.policy, sampling(actor.voice, 0.0)), made, strict=True):
            if left:
                by_person = [k for k, turn in enumerate(rollout.turns) if turn.by == "person"]
                end = by_person[left - 1] + 1 if len(by_person) >= left else len(rollout.turns)
                kept.append((replace(rollout, turns=rollout.turns[:end]), template))
                left -= min(left, len(by_person))
        if not left:
            break
    with run_log(folder / "run", "run", {"model": START, "world": {"name": "pocket"}, "seed": seed}) as log:
        assert log is not None
        for rollout, template in kept:
            keep_images(log.folder / "images", images_of(rollout))
            log.line(rollout_row(rollout, template=template))
        log.finish({})
    recordings_of([folder / "run"], folder / "data")


def fresh(folder: Path, seed: int, steps: int) -> None:
    """The expert's own demonstrations of the same tasks, cut after `steps` steps, in folder/data."""
    words = ["record", "pocket", "--episodes", str(steps // 2), "--seed", str(seed), "--disturbed", "1"]
    guiderail(*words, "--out", str(folder / "data"))
    file = folder / "data" / "episodes.jsonl"
    lines, left = [], steps
    for line in map(json.loads, file.read_text("utf-8").splitlines()):
        line["steps"] = line["steps"][:left]
        left -= len(line["steps"])
        lines.append(line)
        if not left:
            break
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")


def train(folder: Path, seed: int) -> None:
    values = [f"training.{key}={value}" for key, value in TRAINING.items()]
    where = [f"model.path={START}", f"data.train={folder / 'data'}", f"training.seed={seed}"]
    guiderail("train", "tiny_more_sft", *where, *values, "--out", str(folder / "train"))


def score(model: str, tasks: int) -> dict[str, float]:
    """Success by task, greedy, on live tasks of the test split."""
    actor, world, made = build_agent(AgentSpec(model=model)), PocketTasks(tasks, FIRST_SEED, "test", size=SIZE), {}
    session = world.open(0)

    def keep(row: Row, images: Images) -> None:
        won = success(row)
        assert won is not None, row["reason"]
        made[row["unit"]] = float(won)

    try:
        queue = JobQueue([Job(name) for name, _ in world.listed()], 1, keep)
        Worker(session, actor.dialogue, actor.policy, sampling(actor.voice, 0.0), 0, 32).work(queue, queue.done)
    finally:
        session.close()
    return made


def guiderail(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "guiderail.launch.cli", *words], check=True, stdout=subprocess.DEVNULL)


def summary(scores: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Rates over all seeds, and differences on the same tasks; intervals resample tasks."""
    rows: dict[str, Any] = {}
    for name, runs in scores.items():
        values = [(unit, value) for run in runs for unit, value in run.items()]
        rows[name] = {"success": sum(v for _, v in values) / len(values), "interval": clustered(values)}
        rows[name]["by_seed"] = [sum(run.values()) / len(run) for run in runs]
    for first, second in (("corrected", "fresh"), ("corrected", START), ("fresh", START)):
        pairs = _pairs(scores[first], scores[second])
        low, high = paired_difference(pairs)
        rows[f"{first} - {second}"] = {
            "difference": sum(a - b for _, a, b in pairs) / len(pairs),
            "interval": [low, high],
        }
    return rows


def _pairs(first: Sequence[dict[str, float]], second: Sequence[dict[str, float]]) -> list[tuple[str, float, float]]:
    """The start has one run, which pairs with every seed's."""
    again = second if len(second) == len(first) else [second[0]] * len(first)
    return [(unit, a[unit], b[unit]) for a, b in zip(first, again, strict=True) for unit in a]


def arm_scores(out: Path, arm: str, seed: int, steps: int, tasks: int) -> dict[str, float]:
    """Success by task of one arm and seed. What its folder holds already is not made again."""
    folder, model = out / f"{arm}-{seed}", START
    folder.mkdir(parents=True, exist_ok=True)
    if arm != START:
        if not (folder / "data").exists():
            (corrected if arm == "corrected" else fresh)(folder, FIRST_SEED + seed, steps)
        model = str(folder / "train" / "model")
        if not (folder / "train" / "metrics.json").exists():
            train(folder, seed)
    file = folder / "scores.json"
    if not file.exists():
        file.write_text(json.dumps(score(model, tasks)) + "\n")
    found: dict[str, float] = json.loads(file.read_text())
    print(arm, seed, f"{100 * sum(found.values()) / len(found):.1f} %", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--tasks", type=int, default=300)
    given = parser.parse_args()
    plan = [(arm, seed) for seed in given.seeds for arm in ARMS] + [(START, 0)]
    made = {one: arm_scores(given.out, *one, given.steps, given.tasks) for one in plan}
    found: dict[str, Any] = {"steps": given.steps, "tasks": given.tasks, "seeds": given.seeds, "training": TRAINING}
    found |= summary({name: [one for (arm, _), one in made.items() if arm == name] for name in (START, *ARMS)})
    (given.out / "corrections.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
