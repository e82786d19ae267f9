"""A config's section `teacher`: the model that scores, and the recorded turns that it also scores."""

from __future__ import annotations

from collections.abc import Sequence

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.local.encode import Encoder
from guiderail.agent.served.openai import ServedPolicy
from guiderail.agent.types import Episode, Prompt
from guiderail.envs.recordings.replay import expert_turn
from guiderail.launch.agents import features_folder
from guiderail.rl.config import Config
from guiderail.rl.distill.foreign import ForeignTeacher
from guiderail.rl.distill.teacher import ModelTeacher, ServedTeacher
from guiderail.rl.rollout.recorded import RecordedTurns
from guiderail.rl.runs.generations import LESSONS
from guiderail.rl.runs.log import RunLog
from guiderail.rl.train.distributed import processes


def teacher_of(config: Config, encoder: Encoder, log: RunLog | None) -> ModelTeacher | ForeignTeacher | ServedTeacher:
    """encoder: the student's. What the teacher says goes to `log`. Raises SetupError for a teacher that does not fit, or a
    server that does not answer."""
    given = config.teacher
    assert given is not None
    record = None if log is None else lambda line: log.line(line, LESSONS)
    if given.server is None:
        kind = ForeignTeacher if given.tokenizer == "other" else ModelTeacher
        return kind(given, encoder, features_folder(config.rollout.features), record)
    policy = ServedPolicy(given.server, str(given.model), encoder.vision, deadline=given.deadline)
    policy.check()
    return ServedTeacher(given, policy, encoder, record)


def recorded_turns(
    config: Config, episodes: Sequence[Episode], dialogue: Dialogue, encoder: Encoder, seed: int
) -> RecordedTurns:
    """The experts' turns, for the share of them that `teacher.recorded` asks for."""
    assert config.teacher is not None

    def told(episode: Episode, t: int) -> tuple[Prompt, str, list[int]]:
        prompt, text = expert_turn(episode, t, dialogue, config.method.expert_thoughts)
        return prompt, text, encoder.target(text).tolist()

    steps = [(episode.id, episode, t) for episode in episodes for t in episode.targets]
    return RecordedTurns(steps, told, config.teacher.recorded, seed, processes())
