"""Gated hindsight distillation: the policy, shown what came next, teaches itself without it (GHD, arXiv 2608.06065).

Where a turn disagrees with the recording, the same weights are asked again with the recording's next screenshot in the
prompt, and perhaps the expert's thought. Their distributions over the tokens that the policy sampled become the target of
the divergence in rl/train/divergence.py. The paper's gates keep bad lessons out: the turn's return is below a bound, and the
teacher's own most likely answer agrees with the expert. The teacher is the policy as it is at the start of the generation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import EnvCrashed, PromptTooLong
from guiderail.agent.local.encode import Encoder
from guiderail.agent.policy import Policy, Request, Sampling
from guiderail.agent.types import Completion, Episode, Picture, Prompt
from guiderail.envs.recordings.match import MatchRules
from guiderail.envs.recordings.replay import read_turn, with_draft
from guiderail.rl.credit.samples import StepSample
from guiderail.rl.sections import Hindsight
from guiderail.rl.train.divergence import Teacher, Told
from guiderail.rl.train.prefix import EncodedTurn

SCREEN = "\nThe right action leads to this screen:"
THOUGHT = "\nThe right action is taken for this reason: "


def with_hindsight(
    prompt: Prompt, episode: Episode, index: int, dialogue: Dialogue, settings: Hindsight
) -> Prompt | None:
    """The prompt of a step with what came next behind the current screen; None where the recording holds nothing more."""
    parts: list[str | Picture] = []
    if settings.screen and index + 1 < len(episode.steps):
        parts += [SCREEN, dialogue.vision.picture(episode.steps[index + 1].screenshot)]
    if settings.thoughts and (thought := episode.steps[index].thought) is not None:
        parts += [THOUGHT + thought]
    last = prompt.messages[-1]
    return Prompt((*prompt.messages[:-1], replace(last, parts=(*last.parts, *parts)))) if parts else None


class HindsightTeacher(Teacher):
    """episodes: the recordings. tokens: the longest answer. record: see `Teacher`."""

    def __init__(
        self,
        settings: Hindsight,
        episodes: Sequence[Episode],
        dialogue: Dialogue,
        encoder: Encoder,
        rules: MatchRules,
        tokens: int,
        record: Callable[[Mapping[str, Any]], None] | None = None,
    ):
        self.settings, self.weight, self.beta = settings, settings.weight, settings.beta
        self.episodes = {episode.id: episode for episode in episodes}
        self.dialogue, self.encoder, self.rules = dialogue, encoder, rules
        self.sampling = Sampling(0.0, tokens)
        self.counts, self.record = {}, record
        self._answers: dict[int, str] = {}  # by id() of the sample

    def prompts(self, policy: Policy, samples: Sequence[StepSample], generation: int) -> list[Prompt | None]:
        """As `Teacher.prompts`. Counts what each gate lets pass, as a share of what reached it."""
        along = [i for i, s in enumerate(samples) if self._recorded(s)]
        wrong = [
            i for i in along if not self.settings.mismatches or not self._agrees(samples[i], samples[i].completion)
        ]
        bound = self.settings.below
        low = [i for i in wrong if bound is None or samples[i].ret < bound]
        shown = {i: prompt for i in low if (prompt := self.shown(samples[i])) is not None}
        answers = self._recovered(policy, samples, shown) if self.settings.recovers else {}
        taught = {i: shown[i] for i in (answers if self.settings.recovers else shown)}
        self._answers = {id(samples[i]): text for i, text in answers.items()}
        self.counts = {
            "hindsight/mismatches": (len(wrong), len(along)),
            "hindsight/below": (len(low), len(wrong)),
            "hindsight/shown": (len(shown), len(low)),
            "hindsight/recovered": (len(taught), len(shown)),
            "hindsight/taught": (len(taught), len(along)),
        }
        return [taught.get(i) for i in range(len(samples))]

    def answer(self, sample: StepSample) -> str | None:
        """Its most likely one, which agrees with the expert; None where that was not asked for."""
        return self._answers.get(id(sample))

    def tell(self, trainer: Any, turns: Sequence[EncodedTurn]) -> Told:
        """As the weights are before the update."""
        told: Told = trainer.tell(turns, self.settings.top)
        return told

    def shown(self, sample: StepSample) -> Prompt | None:
        """The teacher's prompt; None where the recording holds nothing more, or the prompt would be too long."""
        episode = self.episodes[sample.unit]
        prompt = with_hindsight(sample.prompt, episode, sample.index, self.dialogue, self.settings)
        try:
            if prompt is not None:
                self.encoder.prompt(prompt)
        except PromptTooLong:
            return None
        return prompt

    def _recorded(self, sample: StepSample) -> bool:
        """Whether the policy sampled it along a recording: online RL mixes these with live ones, and nobody sampled what an
        expert showed (rl/rollout/shown.py)."""
        episode = self.episodes.get(sample.unit)
        if episode is None or sample.index >= len(episode.steps) or not sample.completion.logprobs:
            return False
        return sample.prompt.screen.screenshot == episode.steps[sample.index].screenshot

    def _agrees(self, sample: StepSample, said: Completion) -> bool:
        episode = self.episodes[sample.unit]
        return read_turn(episode, sample.index, sample.prompt, said, self.dialogue, self.rules).exact

    def _recovered(self, policy: Policy, samples: Sequence[StepSample], shown: Mapping[int, Prompt]) -> dict[int, str]:
        """The teacher's most likely answer, by sample, where it agrees with the expert. Equal prompts are asked once."""
        first: dict[Prompt, int] = {}
        for i, prompt in shown.items():
            first.setdefault(prompt, i)
        requests = [
            Request(with_draft(prompt, self.episodes[samples[i].unit], samples[i].index, self.dialogue))
            for prompt, i in first.items()
        ]
        answers = policy.complete(requests, self.sampling) if requests else []
        right = {
            prompt: said.text
            for (prompt, i), said in zip(first.items(), answers, strict=True)
            if not isinstance(said, EnvCrashed) and self._agrees(samples[i], said)
        }
        return {i: right[prompt] for i, prompt in shown.items() if prompt in right}
