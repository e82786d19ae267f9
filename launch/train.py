"""guiderail train: from a config to a trained folder. SFT, offline RL and semi-online RL share everything but the rows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed
from peft import LoraConfig
from rich.progress import Progress
from transformers import TrainerCallback

from agent.dialects import DIALECTS
from agent.dialogue import Dialogue
from agent.errors import SetupError
from agent.local import Encoder, adapter_base, load_encoder
from agent.policy import Policy, Sampling
from agent.tiny import build_tiny
from agent.types import Episode, Patch
from envs.episodes import Dataset
from envs.match import RULES
from envs.replay import expert_prompt, expert_turn, step_walk, walk
from launch import parts, show
from launch.evaluate import notes
from launch.parts import Voice
from patch.base import build
from patch.off_policy import load_thoughts
from rl.checkpoints import last_checkpoint
from rl.collect import Collector, Difficulty, Group, PassedOver, Unit, episode_units, step_units
from rl.config import Config, load_config
from rl.engine import make_sft_args, make_training_args, updates_per_generation
from rl.likelihood import expect, expert_question, in_process
from rl.runlog import RunLog, drop_rollouts, prompt_digest, rollout_row
from rl.sft import ExpertTurnTrainer
from rl.trainer import SemiOnlineTrainer

RANK, WORLD = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def run(config_path: Path, overrides: Sequence[str], out: Path, resume: bool) -> None:
    """Train as the config says; leaves out/model, out/rollouts.jsonl, out/metrics.json and TensorBoard files."""
    config = load_config(config_path, overrides)
    started = time.perf_counter()
    scene = set_scene(config)
    data = scene.data
    check_budget(data.episodes, scene.dialogue, scene.encoder, scene.voice)
    checkpoint = last_checkpoint(out) if resume else None
    if resume and checkpoint is None:
        raise SetupError(f"--resume: no complete checkpoint in {out}; start without --resume")
    log = None
    if RANK == 0:
        notes(data)
        details = {
            "config": config.model_dump(),
            "data": {"path": config.data.train, "digest": data.digest, "swipes": data.swipes, "notes": data.notes},
            "processes": WORLD,
        }
        log = RunLog(out, "train", details, resume=resume)
    if config.method.algorithm == "sft":
        trainer = _sft(scene, out)
    else:
        trainer = rl_trainer(scene, out, log)
        if log is not None and checkpoint is not None:
            done = int(checkpoint.name.split("-")[-1]) // updates_per_generation(trainer.args)
            for name in ("rollouts.jsonl", "passed_over.jsonl"):
                drop_rollouts(out, lambda row: int(row["generation"]) >= done, name)
    trainer.add_callback(Bar())
    if config.method.max_turns is not None:
        trainer.add_callback(Enough(trainer.progress, config.method.max_turns))
    result = trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_policy(out / "model")
    if log is not None:
        scene.voice.save(out / "model")
        collected = getattr(trainer.progress, "sampled_turns", 0)
        log.finish(
            {
                "seconds": time.perf_counter() - started,
                "updates": trainer.state.global_step,
                "sampled_turns": collected,
                "loss": result.training_loss,
                "model": str(out / "model"),
            }
        )
        show.err.print(f"trained in {time.perf_counter() - started:.0f} s: {out / 'model'}", highlight=False)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@dataclass(frozen=True)
class Scene:
    """What a config names, built: recordings, voice, dialogue, tokenizer, and where the weights to start from are."""

    config: Config
    data: Dataset
    voice: Voice
    base: str
    adapter: str | None
    encoder: Encoder
    dialogue: Dialogue


def set_scene(config: Config) -> Scene:
    parts.quiet()
    data = parts.dataset(config.data.train, None, config.data.swipes, config.data.skip_bad, config.data.limit)
    voice = Voice(
        config.model.dialect,
        config.model.images,
        config.model.max_new_tokens,
        config.model.max_prompt_tokens,
        config.model.window,
    )
    base, adapter = _base(config)
    encoder = load_encoder(
        adapter or base,
        max_pixels=config.model.max_pixels,
        min_pixels=config.model.min_pixels,
        max_prompt_tokens=voice.max_prompt_tokens,
    )
    dialogue = Dialogue(encoder.vision, DIALECTS[voice.dialect], voice.images, voice.window)
    return Scene(config, data, voice, base, adapter, encoder, dialogue)


def _base(config: Config) -> tuple[str, str | None]:
    """(base model, adapter to continue). model.path may itself be an adapter folder."""
    if config.model.adapter is None and (Path(config.model.path) / "adapter_config.json").is_file():
        return adapter_base(config.model.path), config.model.path
    return config.model.path, config.model.adapter


def _common(scene: Scene) -> dict[str, Any]:
    """What both trainers are told about the model."""
    config, lora = scene.config, scene.config.model.lora
    return {
        "encoder": scene.encoder,
        "adapter": scene.adapter,
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
        "share_vision": config.update.share_vision,
        "features": parts.features_folder(config.rollout.features),
    }


def _training(config: Config) -> tuple[dict[str, Any], Path | None]:
    """The training section without its deepspeed key, and the JSON file that names: a path or a shipped zero2.json."""
    training = dict(config.training)
    name = training.pop("deepspeed", None)
    if name is None:
        return training, None
    shipped = Path(__file__).parent / "deepspeed" / Path(name).name
    return training, shipped if not Path(name).is_file() and shipped.is_file() else Path(name)


def _sft(scene: Scene, out: Path) -> Any:
    training, deepspeed = _training(scene.config)
    args = make_sft_args(training, out, deepspeed)
    rows = [
        expert_turn(episode, t, scene.dialogue, scene.config.method.expert_thoughts)
        for episode in scene.data.episodes
        for t in range(len(episode.steps))
    ]
    return ExpertTurnTrainer(scene.base, rows, args, **_common(scene))


def rl_trainer(scene: Scene, out: Path, log: RunLog | None) -> SemiOnlineTrainer:
    """The trainer with its collector (`trainer.collect`); every group goes to `log`, if there is one."""
    config, method, episodes = scene.config, scene.config.method, scene.data.episodes
    units = _units(config, episodes, scene.dialogue)
    training, deepspeed = _training(config)
    training = _with_max_steps(training, len(units), method.groups)
    args = make_training_args({**training, "temperature": method.temperature}, out, deepspeed)
    lengths = {episode.id: len(episode.steps) for episode in episodes}

    def record(group: Group) -> None:
        if log is None:
            return
        for row in group_rows(group, lengths[group.rollouts[0].episode_id] if group.rollouts else 0):
            log.rollout(row)

    def pass_over(unit: PassedOver) -> None:
        if log is not None:
            log.rollout(asdict(unit), "passed_over.jsonl")

    collector = Collector(
        units,
        groups=method.groups,
        rollouts=method.rollouts,
        sampling=Sampling(method.temperature, config.model.max_new_tokens),
        rules=method.credit_rules(),
        eta=method.eta,
        spread_of=method.spread_of,
        tries=method.tries,
        seed=args.seed,
        width=method.width,
        rank=RANK,
        world=WORLD,
        exchange=_gather,
        record=record,
        difficulty=_difficulty(config, episodes, scene.dialogue),
        pass_over=pass_over,
    )
    return _trainer(config)(
        scene.base,
        collector,
        args,
        max_rows=method.max_rows,
        max_batch=method.width,
        share_prefix=config.update.share_prefix,
        tricks=config.rollout.tricks(),
        **_common(scene),
    )


def _trainer(config: Config) -> Callable[..., SemiOnlineTrainer]:
    """The class that samples rollouts where the config says; vLLM's is imported only when it is asked for."""
    if config.rollout.engine == "local":
        return SemiOnlineTrainer
    from rl.vllm import VLLMTrainer

    return partial(VLLMTrainer, rollout=config.rollout, max_new_tokens=config.model.max_new_tokens)


def group_rows(group: Group, steps: int) -> list[dict[str, Any]]:
    """The lines of one group: each rollout with its turns' credit, prompt and sampled tokens. steps: of the recording."""
    rows = []
    for rollout, samples in zip(group.rollouts, group.samples, strict=True):
        credit = [
            {"reward": s.reward, "return": s.ret, "episode_advantage": s.advantage_episode}
            | {"step_advantage": s.advantage_step, "advantage": s.advantage}
            | {"prompt": prompt_digest(s.prompt), "token_ids": list(s.completion.token_ids)}
            for s in samples
        ]
        where = {"generation": group.generation, "visit": group.visit, "unit": group.unit, "group": group.signal}
        rows.append(rollout_row(rollout, steps, credit, **where))
    return rows


def _units(config: Config, episodes: Sequence[Episode], dialogue: Dialogue) -> list[Unit]:
    method, rules = config.method, RULES[config.method.rules]
    if method.algorithm == "offline":
        return step_units(
            episodes,
            lambda episode, t, i: step_walk(
                episode, t, dialogue=dialogue, rules=rules, thoughts=method.expert_thoughts, sample=i
            ),
        )
    patch = _patch(config, dialogue)
    return episode_units(
        episodes, lambda episode, i: walk(episode, dialogue=dialogue, rules=rules, patch=patch, sample=i)
    )


def _difficulty(config: Config, episodes: Sequence[Episode], dialogue: Dialogue) -> Difficulty | None:
    """Expected returns by likelihood under the expert's history, the nearest thing to a history nobody has walked yet."""
    wanted, method = config.method.difficulty, config.method
    if wanted is None:
        return None
    steps = {episode.id: [(episode, t) for t in range(len(episode.steps))] for episode in episodes}
    if method.algorithm == "offline":
        steps = {f"{name}/{t}": [(episode, t)] for name, walk in steps.items() for episode, t in walk}

    def expected(policy: Policy, units: Sequence[Unit]) -> list[float]:
        asked = [
            [expert_question(episode, t, dialogue, method.expert_thoughts) for episode, t in steps[unit.key]]
            for unit in units
        ]
        return expect(in_process(policy), asked, method.gamma)

    return Difficulty(expected, wanted.low, wanted.high, wanted.rounds)


def _patch(config: Config, dialogue: Dialogue) -> Patch | None:
    method = config.method
    limit = None if method.patch_budget == "unlimited" else int(method.patch_budget)
    thoughts = load_thoughts(Path(method.thought_store)) if method.thought_store else None
    return build(method.patch, limit, dialogue.dialect.integrate, thoughts)


def _with_max_steps(training: dict[str, Any], units: int, groups: int) -> dict[str, Any]:
    """num_train_epochs as passes over the units, turned into updates; max_steps wins when both are given."""
    epochs = training.pop("num_train_epochs", None)
    if training.get("max_steps") is None and epochs is not None:
        accumulate = int(training.get("gradient_accumulation_steps", 4))
        per_generation = max(1, int(training.get("steps_per_generation", accumulate)) // accumulate)
        generations = -(-int(epochs * units) // groups)
        training["max_steps"] = generations * per_generation * int(training.get("num_iterations", 1))
    return training


def _gather(item: Any) -> list[Any]:
    """The object of every process, in order of rank."""
    if WORLD == 1:
        return [item]
    everyone: list[Any] = [None] * WORLD
    torch.distributed.all_gather_object(everyone, item)
    return everyone


def check_budget(episodes: Sequence[Episode], dialogue: Dialogue, encoder: Encoder, voice: Voice) -> None:
    """SetupError before training when even the experts' own words do not fit the prompt budget."""
    longest = sorted(episodes, key=lambda e: len(e.steps), reverse=True)[:8]
    for episode in longest:
        try:
            encoder.prompt(expert_prompt(episode, len(episode.steps) - 1, dialogue))
        except SetupError as error:
            raise SetupError(f"{episode.source}, {len(episode.steps)} steps: {error}") from None


class Bar(TrainerCallback):  # type: ignore[misc]
    """A progress line on standard error; it names why groups carry no signal."""

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self.task: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.progress = show.progress()
            self.progress.start()
            self.task = self.progress.add_task("update", total=state.max_steps, completed=state.global_step, note="")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.progress is not None:
            self.progress.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if self.progress is not None and logs:
            self.progress.update(self.task, note=note(logs))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.progress is not None:
            self.progress.stop()


class Enough(TrainerCallback):  # type: ignore[misc]
    """Ends the run after the update with which `turns` turns have been sampled: arms of a study get equal samples."""

    def __init__(self, progress: Any, turns: int):
        self.progress, self.turns = progress, turns

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if getattr(self.progress, "sampled_turns", 0) >= self.turns:
            control.should_training_stop = True


def note(logs: dict[str, Any]) -> str:
    """One line out of a log: "reward .41, 31 % of groups carry no signal: all right 22 %, all wrong 9 %"."""
    if "rollout/reward" not in logs:
        return f"loss {logs['loss']:.3f}" if "loss" in logs else ""
    reasons = {
        reason: float(logs.get(f"groups/{reason.replace(' ', '_')}", 0.0))
        for reason in ("all right", "all wrong", "alike")
    }
    text = f"reward {logs['rollout/reward']:.2f}"
    if sum(reasons.values()) > 0:
        named = ", ".join(f"{reason} {100 * share:.0f} %" for reason, share in reasons.items() if share > 0)
        text += f", {100 * sum(reasons.values()):.0f} % of groups carry no signal: {named}"
    return text


def build_tiny_for(data: str, out: Path, family: str, seed: int, merge: int = 2) -> None:
    """A random tiny model whose tokenizer knows the words of these recordings; speaks the brief dialect."""
    parts.quiet()
    if family not in ("qwen3_vl", "qwen2_5_vl"):
        raise SetupError(f"--family {family!r}: expected qwen3_vl or qwen2_5_vl")
    episodes = parts.dataset(data, None, "detect", False, None).episodes
    shot = episodes[0].steps[0].screenshot
    build_tiny(out, _texts(episodes), family, seed, screen=(shot.width, shot.height), merge=merge)  # type: ignore[arg-type]
    Voice("brief", images=1, max_new_tokens=32, max_prompt_tokens=1024).save(out)
    show.err.print(f"tiny {family} in {out}", highlight=False)


def _texts(episodes: Iterable[Episode]) -> Iterable[str]:
    from agent.scripted import ORIGINAL_SIZE

    dialogue = Dialogue(ORIGINAL_SIZE, DIALECTS["brief"], 1)
    for episode in episodes:
        yield episode.goal
        for step in episode.steps:
            yield dialogue.say(step.thought, step.action, step.screenshot)
