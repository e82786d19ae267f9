"""guiderail train: from a config to a trained folder. SFT, offline RL and semi-online RL share everything but the rows."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
import typer
from peft import LoraConfig

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.disk import write_whole
from guiderail.agent.local.encode import Encoder
from guiderail.agent.local.loading import load_encoder
from guiderail.agent.shipped import adapter_base, shipped
from guiderail.agent.types import Episode, Prompt
from guiderail.envs.live.attempts import Patience
from guiderail.envs.recordings.episodes import Dataset
from guiderail.envs.recordings.replay import expert_turn
from guiderail.launch import parts, show
from guiderail.launch.agents import Voice, features_folder, read_voice
from guiderail.launch.bar import Bar, Watch, learned_nothing
from guiderail.launch.before import training_of
from guiderail.launch.going_on import NOTHING_LEARNED, going_on, then
from guiderail.launch.hub.model_card import model_card, trained
from guiderail.launch.plan import preview
from guiderail.launch.screens import other_screens, sizes_of
from guiderail.launch.teachers import recorded_turns, teacher_of
from guiderail.patch.off_policy import load_thoughts, with_thoughts
from guiderail.rl.config import Config, updates_of
from guiderail.rl.live.fleet import Fleet
from guiderail.rl.live.journal import keep_screenshots
from guiderail.rl.live.on_ray import starting
from guiderail.rl.live.pictures import ByReference
from guiderail.rl.live.site import SiteSpec
from guiderail.rl.rollout.difficulty import Difficulty
from guiderail.rl.rollout.from_config import Live, live_plan, recorded_plan
from guiderail.rl.rollout.generation import Collector, units_of
from guiderail.rl.rollout.mix import MixedCollector, share_of
from guiderail.rl.rollout.plan import Generation, Plan
from guiderail.rl.rollout.worlds import world_of
from guiderail.rl.runs.generations import LESSONS, drop_generations, log_generation
from guiderail.rl.runs.legs import may_change
from guiderail.rl.runs.log import RunLog, run_log
from guiderail.rl.score.expected import difficulty_of
from guiderail.rl.sections import Method
from guiderail.rl.train.ahead import AheadTrainer
from guiderail.rl.train.arguments import in_updates, make_sft_args, make_training_args
from guiderail.rl.train.callbacks import StopAfterTurns, StopAfterVisits
from guiderail.rl.train.checkpoints import last_checkpoint, mean_loss
from guiderail.rl.train.distributed import processes, wait_for_the_others
from guiderail.rl.train.hindsight import HindsightTeacher, with_hindsight
from guiderail.rl.train.model import check_budget
from guiderail.rl.train.sft import ExpertTurnTrainer
from guiderail.rl.train.trainer import SemiOnlineTrainer


def run(config: Config, out: Path, resume: bool, plan: bool = True) -> None:
    """Train as the config says; leaves out/model, out/rollouts.jsonl, out/metrics.json and TensorBoard files. Ends the
    command with a code of its own where RL has learned nothing. plan: as in `train`."""
    groups = train(config, out, resume, plan=plan).get("groups")
    wait_for_the_others()
    first, folder = processes().rank == 0, shlex.quote(str(out))
    if groups is not None and not groups["kept"]:
        if first:
            show.err.print(learned_nothing(groups), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(NOTHING_LEARNED)
    if first:
        then(
            f"guiderail evaluate sop DATA --model {folder}/model --out {folder}-sop",
            f"guiderail report {folder} --out {folder}-report",
        )


def train(config: Config, out: Path, resume: bool, watch: Watch | None = None, plan: bool = False) -> dict[str, Any]:
    """The run's metrics. Those of SFT have no groups; "seconds" is known to the first process only. plan: say first what it
    takes, and refuse what cannot fit."""
    setup = set_up(config)
    check_budget(setup.episodes, setup.dialogue, setup.encoder)
    if plan and setup.data is not None:  # the lengths of live attempts are not known before they are made
        _plan(setup, setup.data)
    folder = out if processes().rank == 0 else None
    with (
        going_on(out, "--resume"),
        run_log(folder, "train", _about(setup), resume=resume, may_change=may_change) as log,
        open_world(setup) as live,
    ):
        if log is not None:
            if setup.data is not None:
                parts.notes(setup.data, config=True)
            other_screens(config.model.path, read_voice(Path(shipped(config.model.path))), setup.voice.screens)
        trainer, loss = _trained(setup, live, out, resume, log, watch)
        trainer.save_policy(out / "model")
        metrics: dict[str, Any] = {
            "updates": trainer.state.global_step,
            "sampled_turns": getattr(trainer.progress, "sampled_turns", 0),
            "loss": loss,
            "model": str(out / "model"),
        }
        if config.method.algorithm != "sft":
            metrics["groups"] = {"kept": 0, **getattr(trainer.progress, "signals", {})}
        if log is not None:
            metrics = {"seconds": log.seconds, **metrics}
            log.finish(metrics)
            write_whole(out / "model" / "README.md", model_card(trained(out)).encode())
            show.err.print(f"trained in {metrics['seconds']:.0f} s: {out / 'model'}", highlight=False)
    trainer.accelerator.free_memory()
    return metrics


def _plan(setup: TrainingSetup, data: Dataset) -> None:
    device = None
    if torch.cuda.is_available():
        found = torch.cuda.get_device_properties(torch.cuda.current_device())
        device = found.name, found.total_memory
    tokenizer = setup.encoder.tokenizer
    tokens = lru_cache(1 << 16)(lambda text: len(tokenizer.encode(text, add_special_tokens=False)))
    preview.check(setup.config, data.episodes, setup.dialogue, tokens, device, processes().rank == 0)


def _trained(
    setup: TrainingSetup, live: Live | None, out: Path, resume: bool, log: RunLog | None, watch: Watch | None
) -> tuple[Any, float]:
    """(the trainer after its last update, the mean loss over all updates). A resumed run goes on from its last checkpoint,
    or starts where it has none."""
    config = setup.config
    checkpoint = last_checkpoint(out) if resume else None
    trainer = _sft(setup, out) if config.method.algorithm == "sft" else rl_trainer(setup, live, out, log)
    trainer.beside = setup.voice.save
    updates = int(checkpoint.name.split("-")[-1]) if checkpoint is not None else 0
    if log is not None and resume:
        drop_generations(out, updates // updates_of(config.rl_training()).per_generation)
        at = f"goes on after update {updates}" if updates else "no complete checkpoint: starts from the beginning"
        show.err.print(f"{out} {at}", markup=False, highlight=False)
    bar = Bar(log.mark if log is not None else lambda: None, watch)
    trainer.add_callback(bar)
    if config.method.max_turns is not None:
        trainer.add_callback(StopAfterTurns(trainer.progress, config.method.max_turns))
    try:
        mean = trainer.train(resume_from_checkpoint=checkpoint).training_loss
    finally:
        bar.close()
    return trainer, mean_loss(trainer.state.log_history, updates, trainer.state.global_step, mean)


def _about(setup: TrainingSetup) -> dict[str, Any]:
    """What the run is about, for its record."""
    return {
        "config": setup.config.model_dump(),
        "data": None if setup.data is None else parts.describe(setup.config.recordings.train, setup.data, None),
        "processes": processes().world,
        **setup.config.origins(),
    }


@dataclass(frozen=True)
class TrainingSetup:
    """What a config names, built: recordings, voice, dialogue, tokenizer, and where the weights to start from are."""

    config: Config
    data: Dataset | None
    voice: Voice
    base: str
    adapter: str | None
    encoder: Encoder
    dialogue: Dialogue

    @property
    def episodes(self) -> Sequence[Episode]:
        """None of them for purely online RL."""
        return () if self.data is None else self.data.episodes


def set_up(config: Config) -> TrainingSetup:
    parts.quiet()
    given = config.data
    data = None
    if given is not None:
        data = parts.dataset(given.train, None, given.swipes, given.skip_bad, given.limit)
        if (store := config.method.thought_store) is not None:
            data = replace(data, episodes=with_thoughts(data.episodes, load_thoughts(Path(store))))
    base, adapter = _base(config)
    encoder = load_encoder(
        adapter or base,
        max_pixels=config.model.max_pixels,
        min_pixels=config.model.min_pixels,
        max_prompt_tokens=config.model.max_prompt_tokens,
        decoders=config.rollout.decoders,
    )
    voice = Voice(
        config.model.dialect,
        config.model.images,
        config.model.max_new_tokens,
        config.model.max_prompt_tokens,
        config.model.window,
        encoder.vision,
        () if data is None else sizes_of(data.episodes),
    )
    dialogue = Dialogue(encoder.vision, parts.dialect(voice.dialect), voice.images, voice.window)
    return TrainingSetup(config, data, voice, base, adapter, encoder, dialogue)


def _base(config: Config) -> tuple[str, str | None]:
    """(base model, adapter to continue). model.path may itself be an adapter folder."""
    if config.model.adapter is None and (Path(config.model.path) / "adapter_config.json").is_file():
        return adapter_base(config.model.path), config.model.path
    return config.model.path, config.model.adapter


def _common(setup: TrainingSetup) -> dict[str, Any]:
    """What both trainers need to know about the model."""
    config, lora = setup.config, setup.config.model.lora
    return {
        "encoder": setup.encoder,
        "adapter": setup.adapter,
        "lora": None
        if lora is None
        else LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.target_modules,
            task_type="CAUSAL_LM",
        ),
        "freeze_vision": config.model.freeze_vision,
        "dtype": config.model.dtype,
        "attention": config.model.attention,
        "share_vision": config.update.share_vision,
        "features": features_folder(config.rollout.features),
    }


def _sft(setup: TrainingSetup, out: Path) -> Any:
    training, deepspeed = training_of(setup.config)
    args = make_sft_args(training, out, deepspeed)
    rows = expert_turns(setup.config.method, setup.episodes, setup.dialogue)
    return ExpertTurnTrainer(setup.base, rows, args, **_common(setup))


def expert_turns(method: Method, episodes: Sequence[Episode], dialogue: Dialogue) -> list[tuple[Prompt, str]]:
    """What SFT imitates: every step's expert turn, and with `method.hindsight` once more behind the teacher's prompt."""
    steps = [(episode, t) for episode in episodes for t in episode.targets]
    rows = [expert_turn(episode, t, dialogue, method.expert_thoughts) for episode, t in steps]
    if (seen := method.hindsight) is None:
        return rows
    more = [
        (with_hindsight(prompt, episode, t, dialogue, seen), said)
        for (prompt, said), (episode, t) in zip(rows, steps, strict=True)
    ]
    return rows + [(prompt, said) for prompt, said in more if prompt is not None]


@contextmanager
def open_world(setup: TrainingSetup) -> Iterator[Live | None]:
    """The live world of online RL, open inside the `with`, here or in workers; None for what needs no world."""
    config, world = setup.config, setup.config.world
    if world is None or not config.live:
        yield None
        return
    tasks = world_of(world.name, world.options)
    patience = Patience(world.step_timeout, world.attempt_timeout, world.start_timeout, world.check_timeout)
    rules = config.method.rules if config.online.expert else None
    talk = setup.dialogue
    spec = SiteSpec(
        tasks,
        setup.voice.dialect,
        talk.vision,
        talk.images,
        talk.window,
        patience,
        world.retries,
        rules,
        config.online.shown > 0,
    )
    names = [name for name, _ in tasks.listed()]
    first = processes().rank * max(1, world.workers + world.spares)
    if world.workers:
        if world.executor == "ray":
            parts.require("ray", "ray")
        with starting(world.executor) as start:
            fleet = Fleet(spec, world.workers, world.recycle, first, world.spares, start)
            try:
                yield Live(names, fleet.begin, fleet.drive, fleet.take_metrics)
            finally:
                fleet.close()
        return
    site = spec.open(first)
    try:
        yield Live(names, site.begin)
    finally:
        site.session.close()


def rl_trainer(setup: TrainingSetup, live: Live | None, out: Path, log: RunLog | None) -> SemiOnlineTrainer:
    """The trainer with its collector (`trainer.collect`); every generation goes to `log`, if there is one."""
    config, method, episodes = setup.config, setup.config.method, setup.episodes
    training, deepspeed = training_of(config)
    units = len(units_of(method, episodes, setup.dialogue)) if live is None else len(live.names)
    groups = method.groups - (
        share_of(method.groups, method.mix) if method.mix else 0
    )  # those along recordings count none
    training, visits = in_updates(training, units, groups, method.tries)
    args = make_training_args({**training, "temperature": method.temperature}, out, deepspeed)
    generations = args.max_steps // updates_of(vars(args)).per_generation
    lengths = {episode.id: len(episode.steps) for episode in episodes}

    def record(made: Generation) -> None:
        if log is not None:
            log_generation(log, made, lengths)
            keep_screenshots(log.folder, made, lengths)

    together = processes(apart=bool(config.online.ahead))
    if live is not None and together.world > 1:
        together = replace(together, exchange=ByReference(together.exchange, out / "images"))

    def collector(plan: Plan) -> Collector:
        return Collector(plan, together, record)

    collect: Collector | MixedCollector

    def tokens(text: str) -> list[int]:
        ids: list[int] = setup.encoder.target(text).tolist()
        return ids

    def recorded(difficulty: Difficulty | None = None) -> Collector:
        plan = recorded_plan(config, episodes, setup.dialogue, args.seed, difficulty, tokens, generations)
        made = collector(plan)
        if config.teacher is not None and config.teacher.recorded:
            made.beside = recorded_turns(config, episodes, setup.dialogue, setup.encoder, args.seed)
        return made

    if live is None:
        collect = recorded(difficulty_of(method, episodes, setup.dialogue))
    else:
        collect = collector(live_plan(config, live, setup.dialogue, generations, out / "images", args.seed, tokens))
        collect.more = live.metrics
        if method.mix:
            collect = MixedCollector(collect, recorded())
    trainer = _trainer(config)(
        setup.base,
        collect,
        args,
        max_rows=method.max_rows,
        max_batch=method.width,
        share_prefix=config.update.share_prefix,
        sharing=config.rollout.sharing(),
        importance_cap=config.online.importance_cap,
        teacher=_hindsight(setup, log) if config.teacher is None else teacher_of(config, setup.encoder, log),
        **_common(setup),
    )
    if visits is not None:
        trainer.add_callback(StopAfterVisits(trainer.progress, visits, updates_of(vars(args)).per_generation))
    return trainer


def _hindsight(setup: TrainingSetup, log: RunLog | None) -> HindsightTeacher | None:
    method = setup.config.method
    if method.hindsight is None:
        return None
    return HindsightTeacher(
        method.hindsight,
        setup.episodes,
        setup.dialogue,
        setup.encoder,
        parts.rules(method.rules),
        setup.config.model.max_new_tokens,
        None if log is None else lambda line: log.line(line, LESSONS),
    )


def _trainer(config: Config) -> Callable[..., SemiOnlineTrainer]:
    """The class that samples rollouts where the config says; vLLM's is imported only when it is asked for."""
    if config.rollout.engine == "local":
        return AheadTrainer if config.online.ahead else SemiOnlineTrainer
    from guiderail.rl.train.vllm_trainer import VLLMTrainer

    return partial(
        VLLMTrainer, rollout=config.rollout, max_new_tokens=config.model.max_new_tokens, images=config.model.images
    )
