"""Scoring without generating: how likely is the expert's own turn, at every step, in one teacher-forced pass.

The text that is scored is the expert's turn as the dialect says it: the recorded thought, then the action, then the end of
turn. The chain rule splits it in two numbers that are reported side by side:

    log p(turn | history) = log p(thought | history) + log p(action | history, thought)

`p_action` is the second factor, "given the expert's thought, would the policy act like the expert, token for token". It is
below the chance of an exact verdict, since a click a few pixels away is also exact. Without a recorded thought (or with
thoughts=False) the turn is the action alone and p_action = p(action | history), with no thought's number beside it.
The action's tokens begin where the turn's tokens first differ from those of the thought alone, so a token that straddles
the border counts as action. Log-probabilities are natural, at temperature 1 and over the whole vocabulary, like those
that a `LocalPolicy` returns with its samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import PromptTooLong, SetupError
from guiderail.agent.local.encode import Encoded, pad_left
from guiderail.agent.local.policy import LocalPolicy
from guiderail.agent.local.vision import plain_model
from guiderail.agent.policy import Policy
from guiderail.agent.types import Episode, Prompt, clean_turn
from guiderail.envs.recordings.replay import expert_prompt, own_prompt
from guiderail.rl.score.statistics import Interval, clustered

History = Literal["expert", "own"]


@dataclass(frozen=True, eq=False)
class Question:
    """One expert turn to score under one prompt. opening: the part of `text` before its action, "" without a thought.
    sample: which recorded rollout the history is from, 0 for the expert's."""

    episode: Episode
    index: int
    prompt: Prompt
    text: str
    opening: str
    history: History = "expert"
    sample: int = 0


@dataclass(frozen=True, slots=True)
class Likelihood:
    """logp_thought: None without a thought. greedy: every token of the action is the most likely one at its place, so
    greedy decoding after this thought says exactly this action."""

    logp_action: float
    action_tokens: int
    logp_thought: float | None
    thought_tokens: int
    greedy: bool

    @property
    def p_action(self) -> float:
        return math.exp(self.logp_action)


def expert_question(episode: Episode, index: int, dialogue: Dialogue, thoughts: bool = True) -> Question | None:
    """Step `index` under the expert's history; None where the dialect has no word for the action."""
    return _question(episode, index, expert_prompt(episode, index, dialogue, thoughts), dialogue, thoughts)


def own_questions(
    rows: Iterable[Mapping[str, Any]], episodes: Mapping[str, Episode], dialogue: Dialogue, thoughts: bool = True
) -> Iterator[Question | None]:
    """Every step that the recorded rollouts (lines of rollouts.jsonl) reached, under the history they had there; None
    where the dialect has no word for the expert's action."""
    for row in rows:
        episode, said = episodes[row["unit"]], list[str]()
        for index, line in zip(episode.targets, row["turns"], strict=False):
            if line["index"] != index:
                raise SetupError(
                    f"a rollout of {episode.id} was asked for step {line['index']} where a whole walk asks for step {index}: "
                    "the run asked single steps, or began behind the expert's (method.start=any); give a run of whole walks"
                )
            prompt = own_prompt(episode, index, said, dialogue)
            yield _question(episode, index, prompt, dialogue, thoughts, "own", int(row["sample"]))
            said.append(line["repair"]["text"] if "repair" in line else clean_turn(line["text"]))


def _question(
    episode: Episode,
    index: int,
    prompt: Prompt,
    dialogue: Dialogue,
    thoughts: bool,
    history: History = "expert",
    sample: int = 0,
) -> Question | None:
    step = episode.steps[index]
    if not dialogue.dialect.says(step.action):
        return None
    text = dialogue.say(step.thought if thoughts else None, step.action, step.screenshot)
    return Question(
        episode, index, prompt, text, _opening(text, dialogue.say(None, step.action, step.screenshot)), history, sample
    )


def _opening(turn: str, action: str) -> str:
    """What `turn` says before the part that it shares with the action alone."""
    shared = 0
    while shared < min(len(turn), len(action)) and turn[-1 - shared] == action[-1 - shared]:
        shared += 1
    return turn[: len(turn) - shared]


# ------------------------------------------------------------------------------------------------------------- the pass


def score(
    policy: LocalPolicy, questions: Sequence[Question], done: Callable[[int, Likelihood | None], None] | None = None
) -> list[Likelihood | None]:
    """In order of the questions; None where the prompt exceeds the policy's budget because of the conversation in it.

    Turns of like length share a pass, under the policy's own max_batch and max_batch_tokens; the batch a turn falls into
    does not change its numbers beyond float rounding. done(place, likelihood) is called as passes finish.
    """
    results: list[Likelihood | None] = [None] * len(questions)
    rows: dict[int, _Row] = {}
    for place, question in enumerate(questions):
        row = _row(policy, question)
        if row is not None:
            rows[place] = row
        elif done is not None:
            done(place, None)
    order = sorted(rows, key=lambda place: len(rows[place]))
    training = policy.model.training
    policy.model.eval()
    try:
        while order:
            chosen, order = _first_batch(order, rows, policy.max_batch, policy.max_batch_tokens)
            for place, likelihood in zip(chosen, _pass(policy, [rows[place] for place in chosen]), strict=True):
                results[place] = likelihood
                if done is not None:
                    done(place, likelihood)
    finally:
        policy.model.train(training)
    return results


@dataclass(frozen=True, eq=False)
class _Row:
    """thought: how many tokens of `target` (tokens,) come before the action's."""

    encoded: Encoded
    target: Tensor
    thought: int

    def __len__(self) -> int:
        return len(self.encoded.ids) + len(self.target)


def _row(policy: LocalPolicy, question: Question) -> _Row | None:
    try:
        encoded = policy.encoder.prompt(question.prompt)
    except PromptTooLong:
        if question.history == "own":
            return None
        raise
    target = policy.encoder.target(question.text)
    opening = policy.encoder.target(question.opening)[:-1].tolist() if question.opening else []
    thought = 0
    while thought < len(opening) and opening[thought] == target[thought]:
        thought += 1
    return _Row(encoded, target, thought)


def _first_batch(
    order: list[int], rows: Mapping[int, _Row], most: int, most_tokens: int
) -> tuple[list[int], list[int]]:
    """Split `order` (shortest first) after as many rows as fit; at least one."""
    size = 1
    while size < min(most, len(order)) and len(rows[order[size]]) * (size + 1) <= most_tokens:
        size += 1
    return order[:size], order[size:]


def _pass(policy: LocalPolicy, rows: Sequence[_Row]) -> list[Likelihood]:
    scored = teacher_forced(policy, [(row.encoded, row.target) for row in rows])
    return [
        Likelihood(
            logp_action=float(logps[row.thought :].sum()),
            action_tokens=len(row.target) - row.thought,
            logp_thought=float(logps[: row.thought].sum()) if row.thought else None,
            thought_tokens=row.thought,
            greedy=bool(best[row.thought :].all()),
        )
        for row, (logps, best) in zip(rows, scored, strict=True)
    ]


@torch.no_grad()
def teacher_forced(policy: LocalPolicy, rows: Sequence[tuple[Encoded, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """For each (prompt, answer's ids): log p of each answer token, float64, and whether it is the most likely one; shapes
    (tokens,), on the CPU. One pass, so bring as many rows as fit; the model must be in evaluation mode.

    Rows end together at the right edge: the last `longest` + 1 logits then hold every row's answer.
    """
    model, encoder = plain_model(policy.model), policy.encoder
    ids, mask = pad_left([torch.cat([encoded.ids, target]) for encoded, target in rows], encoder.pad)
    image = torch.zeros_like(ids)
    for i, (encoded, target) in enumerate(rows):
        end = ids.shape[1] - len(target)
        image[i, end - len(encoded.ids) : end] = (encoded.ids == encoder.image_pad).long()
    inputs = {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": image}
    inputs = {key: value.to(model.device) for key, value in inputs.items()}
    inputs |= policy.store.inputs(model, [picture for encoded, _ in rows for picture in encoded.pictures])
    positions, _ = model.model.get_rope_index(
        inputs["input_ids"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
        image_grid_thw=inputs.get("image_grid_thw"),
        attention_mask=inputs["attention_mask"],
    )
    longest = max(len(target) for _, target in rows)
    logits = model(**inputs, position_ids=positions, use_cache=False, logits_to_keep=longest + 1).logits
    return [
        _of_target(logits[i, -1 - len(target) : -1].float(), target.to(model.device))
        for i, (_, target) in enumerate(rows)
    ]


def _of_target(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """logits: (tokens, vocabulary), each row predicting the token of the same place in `target`."""
    logps = logits.log_softmax(-1).gather(1, target[:, None])[:, 0]
    return logps.double().cpu(), (logits.argmax(-1) == target).cpu()


# ------------------------------------------------------------------------------------------------------------- numbers


def likelihood_row(question: Question, likelihood: Likelihood | None) -> dict[str, Any]:
    """One line of likelihood.jsonl; log-probabilities are null where the policy's words filled the prompt budget."""
    empty = {"logp_action": None, "action_tokens": None, "logp_thought": None, "thought_tokens": None, "greedy": None}
    return {
        "unit": question.episode.id,
        "sample": question.sample,
        "index": question.index,
        "history": question.history,
        "action": question.episode.steps[question.index].action.name,
        "p_action": None if likelihood is None else likelihood.p_action,
        **(empty if likelihood is None else asdict(likelihood)),
    }


def summary(questions: Sequence[Question], likelihoods: Sequence[Likelihood | None]) -> dict[str, Any]:
    """{p, p_geometric, above_half, greedy, logp_thought, intervals, n, unscored, by_action: the same per kind of action}.

    p: mean of p_action. p_geometric: exp of the mean log-probability, the number that moves first in training.
    Intervals resample episodes.
    """
    pairs = [(q, one) for q, one in zip(questions, likelihoods, strict=True) if one is not None]
    kinds = sorted({q.episode.steps[q.index].action.name for q, _ in pairs})
    by_action = {
        kind: _means([(q, one) for q, one in pairs if q.episode.steps[q.index].action.name == kind]) for kind in kinds
    }
    return {**_means(pairs), "unscored": len(questions) - len(pairs), "by_action": by_action}


def _means(pairs: Sequence[tuple[Question, Likelihood]]) -> dict[str, Any]:
    parts: dict[str, list[tuple[str, float]]] = {
        "p": [(q.episode.id, one.p_action) for q, one in pairs],
        "above_half": [(q.episode.id, float(one.p_action > 0.5)) for q, one in pairs],
        "greedy": [(q.episode.id, float(one.greedy)) for q, one in pairs],
    }
    thoughts = [one.logp_thought for _, one in pairs if one.logp_thought is not None]
    result: dict[str, Any] = {name: fmean(v for _, v in values) if values else None for name, values in parts.items()}
    result["p_geometric"] = math.exp(fmean(one.logp_action for _, one in pairs)) if pairs else None
    result["logp_thought"] = fmean(thoughts) if thoughts else None
    intervals: dict[str, Interval] = {name: clustered(values) for name, values in parts.items()}
    return result | {"intervals": intervals, "n": len(pairs)}


def expected_return(probabilities: Sequence[float], gamma: float) -> float:
    """The first step's discounted return a walk may expect, as a share of the most there is; 0 to 1.

        sum_t gamma^t prod_{k <= t} p_k  /  sum_t gamma^t

    Only exact steps count, and a walk ends at its first mismatch (paper eq. 9 without the consolation rewards). For a
    single step it is p itself.
    """
    reached, total, most = 1.0, 0.0, 0.0
    for t, p in enumerate(probabilities):
        reached *= p
        total += gamma**t * reached
        most += gamma**t
    return total / most if most else 0.0


def in_process(policy: Policy) -> LocalPolicy:
    """The policy, whose weights are in this process. Raises SetupError where they are elsewhere."""
    if not isinstance(policy, LocalPolicy):
        raise SetupError(f"{policy.name} has no weights in this process; likelihoods need a local model")
    return policy


def expect(policy: LocalPolicy, units: Sequence[Sequence[Question | None]], gamma: float) -> list[float]:
    """`expected_return` of each unit's questions, all scored together. A step there is no word for cannot be right."""
    asked = [question for unit in units for question in unit if question is not None]
    told = iter(score(policy, asked))
    answers = [[next(told) if question is not None else None for question in unit] for unit in units]
    return [expected_return([0.0 if one is None else one.p_action for one in unit], gamma) for unit in answers]
