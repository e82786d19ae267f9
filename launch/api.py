"""The Python API, as `import guiderail as gr`: what the commands do, each as one call.

    import guiderail as gr

    data = gr.load_episodes("data/train")                      # a Dataset of Episodes
    gr.gate(data, dialect="brief")["oracle"]                   # the expert must agree with itself
    agent = gr.load_policy("tiny-sft")
    group = gr.walk(data.episodes[0], agent, rollouts=4, temperature=1.0)
    gr.credit(group).samples[0][0].advantage                   # of the first turn of the first rollout
    gr.train("tiny_semi_online", {"model.path": "tiny-sft", "data.train": "data/train"}, out="runs/rl")
    gr.sop(data, gr.load_policy("runs/rl/model"))["PG"]

Results are returned, never printed, and no call ends the process. Long calls take `progress(done, total)`; where it returns False, the call
raises `Cancelled`, and what a run folder holds by then can be resumed. Errors are those of `guiderail.agent.errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from guiderail.agent.errors import GuiderailError, SetupError
from guiderail.agent.types import Episode, Rollout
from guiderail.envs.live.attempts import World
from guiderail.envs.live.worlds import NamedWorld
from guiderail.envs.recordings.episodes import Dataset, load_episodes
from guiderail.envs.recordings.gate import blind_probes, oracle_gate
from guiderail.envs.recordings.replay import walk as walk_along
from guiderail.envs.recordings.sources import Table
from guiderail.launch import configs, parts
from guiderail.launch.agents import Agent, AgentSpec, build_agent, sampling
from guiderail.rl.config import Config, load_config
from guiderail.rl.credit.named import credit_named
from guiderail.rl.credit.samples import Credited
from guiderail.rl.credit.uis1 import CreditRules
from guiderail.rl.rollout.drive import drive

Progress = Callable[[int, int], object]
"""progress(done, total) is called as work is done. Where it returns False, the call ends with `Cancelled`."""


class Cancelled(GuiderailError):
    """`progress` returned False. A run folder that was being written can be resumed."""


def gate(data: Dataset | str | Path | Table, *, dialect: str = "guiderail", rules: str = "guiderail") -> dict[str, Any]:
    """Check recordings before use, without a model: {"oracle": ..., "probes": ...} as in `envs.recordings.gate`.

    oracle["exact"] must equal oracle["steps"]; probes are the scores of agents that do not look, fractions of 1. Raises
    SetupError for unknown names, DataError for broken recordings.
    """
    from guiderail.agent.dialogue import Dialogue
    from guiderail.agent.screen import Vision

    loaded, chosen = _loaded(data), parts.rules(rules)
    dialogue = Dialogue(Vision(), parts.dialect(dialect))
    return {"oracle": oracle_gate(loaded, dialogue, chosen), "probes": blind_probes(loaded, dialogue, chosen)}


def load_policy(
    model: str | Path | None = None,
    *,
    server: str | None = None,
    served_model: str | None = None,
    agent: str | None = None,
    dialect: str | None = None,
    images: int | None = None,
    max_new_tokens: int | None = None,
    episodes: Sequence[Episode] = (),
) -> Agent:
    """Who acts: a policy with the dialogue that prompts it. Give one of

    model: a folder, an adapter folder, a shipped name ("tiny-sft") or a Hub id; server: an OpenAI-compatible URL, with
    served_model; agent: "random", or "expert", which knows `episodes`. The other options replace what the model was trained
    with, which stands beside its weights. Raises SetupError.
    """
    spec = AgentSpec(
        model=None if model is None else str(model),
        server=server,
        served_model=served_model,
        agent=agent,
        dialect=dialect,
        images=images,
        max_new_tokens=max_new_tokens,
    )
    return build_agent(spec, episodes)


def walk(
    episode: Episode,
    agent: Agent,
    *,
    rollouts: int = 1,
    patch: str | None = "thought-free",
    patch_budget: int | None = 1,
    temperature: float = 1.0,
    seed: int = 0,
    rules: str = "guiderail",
) -> list[Rollout]:
    """Semi-online rollouts along one recording (UI-S1 algorithm 1): the agent goes along it in its own history.

    patch: what repairs a mismatch, None for nothing, which ends a rollout at its first mismatch. patch_budget: repairs per
    rollout, None for no limit. A rollout depends only on the seed, the episode and its number. Raises SetupError.
    """
    from guiderail.patch.base import build

    if rollouts < 1:
        raise SetupError(f"rollouts {rollouts}: expected 1 or more")
    dialogue, chosen = agent.dialogue, parts.rules(rules)
    repair = None if patch is None else build(patch, patch_budget, dialogue.dialect.integrate, None)
    walks = (
        (
            (seed, episode.id, sample),
            walk_along(episode, dialogue=dialogue, rules=chosen, patch=repair, sample=sample),
        )
        for sample in range(rollouts)
    )
    return drive(walks, agent.policy, sampling(agent.voice, temperature))


def credit(group: Sequence[Rollout], name: str = "ui-s1", rules: CreditRules | None = None) -> Credited:
    """Advantages of a group of rollouts of one unit. name: "ui-s1", "outcome", or one of your own. Raises SetupError."""
    return credit_named(name, rules or CreditRules())(group)


def sop(
    data: Dataset | str | Path | Table,
    agent: Agent,
    *,
    rules: str = "guiderail",
    temperature: float = 0.0,
    seed: int = 0,
    width: int = 64,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Semi-online performance (UI-S1 section 3.5): {"PG", "TSR", "Score", intervals, ...} as `rl.score.sop.score` gives it,
    fractions of 1. width: rollouts under way at once. Raises SetupError, DataError, Cancelled."""
    from guiderail.rl.score.steps import evaluate_sop

    loaded = _loaded(data)
    count = _Count(progress, len(loaded.episodes))
    return evaluate_sop(
        loaded.episodes,
        agent.policy,
        agent.dialogue,
        parts.rules(rules),
        sampling=sampling(agent.voice, temperature),
        seed=seed,
        width=width,
        record=lambda rollout: count.one(),
    )


def train(
    config: str | Path | Config,
    overrides: Mapping[str, object] | None = None,
    *,
    out: str | Path,
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train as a config says, in this process; the trained folder is `out`/model.

    config: a shipped name, a YAML file or a Config. overrides: {"method.gamma": 0.9}. progress: called after each update.
    Returns the run's metrics: updates, loss, seconds, sampled_turns, and for RL groups by signal (nothing was learned where
    `groups["kept"]` is 0). Raises SetupError, DataError, Cancelled.
    """
    from guiderail.launch import before

    if isinstance(config, Config):
        if overrides:
            raise SetupError("overrides go with a config's name or file; change the Config itself")
        chosen = config
    else:
        chosen = load_config(
            configs.find(str(config)), [f"{key}={_yaml(value)}" for key, value in (overrides or {}).items()]
        )
    folder = Path(out)
    before.check(chosen, folder, resume)
    parts.require("torch", "train")
    from guiderail.launch.train import train as trained

    return trained(chosen, folder, resume, None if progress is None else _watch(progress))


def _yaml(value: object) -> str:
    """A value of Python as an override has it; a text is read as on the command line."""
    return "null" if value is None else str(list(value) if isinstance(value, tuple) else value)


def _watch(progress: Progress) -> Callable[[int, int], None]:
    def watch(done: int, total: int) -> None:
        if progress(done, total) is False:
            raise Cancelled(f"cancelled after update {done} of {total}")

    return watch


def evaluate(
    world: World | str,
    agent: Agent,
    *,
    repeats: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
    width: int = 8,
    retries: int = 1,
    on_rollout: Callable[[Rollout], None] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Live success in a world, in this process: {"success", "by_group", "flips", "unscored", ...} as `rl.live.score`.

    world: a World such as `envs.pocket.world.PocketTasks(100, seed=0)`, the name of an installed one, or "file.py:NAME".
    repeats: attempts per task. width: attempts under way at once. retries: new tries of an attempt whose machine failed.
    on_rollout gets every finished attempt. Run folders, worker processes and resume are what `guiderail evaluate` adds.
    Raises SetupError, Cancelled.
    """
    from guiderail.rl.live.executors import run_here
    from guiderail.rl.live.jobs import Job, JobQueue
    from guiderail.rl.live.score import live_score
    from guiderail.rl.live.worker import Worker
    from guiderail.rl.runs.rows import rollout_of

    chosen: World = NamedWorld(world) if isinstance(world, str) else world
    listed = chosen.listed()
    jobs = [Job(task, sample) for sample in range(repeats) for task, _ in listed]
    count, rows = _Count(progress, len(jobs)), list[Mapping[str, Any]]()

    def record(row: Mapping[str, Any], images: Mapping[str, bytes]) -> None:
        rows.append(row)
        if on_rollout is not None:
            on_rollout(rollout_of(row))
        count.one()

    def worker(number: int) -> Worker:
        how = sampling(agent.voice, temperature)
        policy = None if agent.model == "expert" else agent.policy
        return Worker(chosen.open(number), agent.dialogue, policy, how, seed, width)

    run_here(JobQueue(jobs, retries, record), worker)
    return live_score(rows, dict(listed))


def record_pocket(out: str | Path, episodes: int, **options: Any) -> dict[str, Any]:
    """Record scripted experts on the simulated phone into the folder `out`; options: as `envs.pocket.record.record`.

    Returns counts by template and by action. Raises SetupError.
    """
    from guiderail.envs.pocket.record import record

    return record(Path(out), episodes, **options)


def report(runs: Sequence[str | Path], out: str | Path, *, data: str | None = None, plots: bool = True) -> Path:
    """Pages about run folders; returns the first page. data: where the recordings are now, if they moved. Raises SetupError."""
    from guiderail.agent.disk import locked
    from guiderail.launch.report.command import check_out
    from guiderail.launch.report.pages import build

    folders, folder = [Path(run) for run in runs], Path(out)
    check_out(folders, folder)
    with locked(folder):
        build(folders, folder, data=data, plots=plots)
    return folder / "index.html"


def submission(run: str | Path, out: str | Path, *, name: str | None = None, **declared: Any) -> list[str]:
    """Bundle a finished evaluation as a .zip that others can verify, and verify it; returns the problems that were found.

    declared: what the bundle says about itself, as `launch.submission.schema.Declarations`. Raises SetupError.
    """
    from guiderail.launch.submission import archive
    from guiderail.launch.submission.build import build
    from guiderail.launch.submission.schema import Declarations

    archive.write(Path(out), build(Path(run), Declarations(**declared), name))
    return verify(out)


def verify(bundle: str | Path) -> list[str]:
    """Check a bundle from itself alone: the problems, none where every number follows from its rows.

    Raises DataError for a file that is not a bundle at all.
    """
    from guiderail.launch.submission.verify import verify as check

    return [f"{problem.place}: {problem.what}" for problem in check(Path(bundle)).problems]


class _Count:
    """Counts what is done and tells `progress`."""

    def __init__(self, progress: Progress | None, total: int):
        self.progress, self.total, self.done = progress, total, 0

    def one(self) -> None:
        self.done += 1
        if self.progress is not None and self.progress(self.done, self.total) is False:
            raise Cancelled(f"cancelled after {self.done} of {self.total}")


def _loaded(data: Dataset | str | Path | Table) -> Dataset:
    return data if isinstance(data, Dataset) else load_episodes(data)
