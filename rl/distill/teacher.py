"""On-policy distillation: another model scores what the student said, where the student is.

The teacher reads the student's own prompts and tokens, one pass for all tokens of a turn. What is learned from it is one of

    the divergence of whole distributions     GKD, arXiv 2306.13649; rl/train/divergence.py
    an advantage of each sampled token        A_t = weight (log pi_T(a_t) - log pi_S(a_t)), discount 0

Under samples of the student, the expected gradient of the second is that of KL(pi_S || pi_T) at each token with the prefix as
it is (MiniLLM's single-step part, arXiv 2306.08543; as on-policy distillation by Thinking Machines, 2025). Here a student
has a teacher of the same tokenizer: ids mean the same for both. rl/distill/foreign.py has the others.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.integrations import deepspeed

from guiderail.agent.errors import SetupError
from guiderail.agent.local.encode import Encoder
from guiderail.agent.local.loading import load_encoder, load_model, with_adapter
from guiderail.agent.local.vision import VisionStore
from guiderail.agent.policy import Policy
from guiderail.agent.served.openai import ServedPolicy
from guiderail.agent.served.scores import scores
from guiderail.agent.shipped import adapter_base
from guiderail.agent.types import Prompt
from guiderail.rl.credit.samples import StepSample
from guiderail.rl.sections import Teacher as Settings
from guiderail.rl.train.divergence import Teacher, Told
from guiderail.rl.train.lessons import told_by
from guiderail.rl.train.prefix import EncodedTurn, Layout

OTHER = "give a teacher of the student's family, or set teacher.tokenizer=other (docs/distill.md)"


class FrozenTeacher(Teacher):
    """A model in this process: a frozen copy in each of them, whole also where the student is spread by ZeRO-3. It costs the
    teacher's weights in memory and one forward over every turn that is trained on. encoder: the student's; own: what the teacher
    reads with. features: a folder for vision features."""

    def __init__(
        self,
        settings: Settings,
        encoder: Encoder,
        features: Path | None = None,
        record: Callable[[Mapping[str, Any]], None] | None = None,
    ):
        self.settings, self.encoder, self.record = settings, encoder, record
        self.weight, self.beta = settings.weight, settings.beta
        self.advantage, self.hears, self.counts = settings.form == "advantage", True, {}
        assert settings.path is not None
        self.own = self.reader(settings.path)
        self.vision = VisionStore(self.own, folder=features)
        self.model: Any = None

    @abstractmethod
    def reader(self, path: str) -> Encoder:
        """What the teacher at `path` reads with. Raises SetupError where it cannot teach this student."""

    def read(self, layout: Layout, trainer: Any) -> Told:
        """The teacher's distributions at the layout's targets."""
        with torch.no_grad(), trainer.accelerator.autocast():
            vision = self.vision.inputs(self.model, layout.pictures)
            top = 1 if self.advantage else self.settings.top
            return told_by(self.model, self.model, layout, vision, top, trainer.temperature, hears=True)

    def load(self, device: Any) -> None:
        """The model, before its first turn."""
        if self.model is None:
            self.model = frozen(self.settings, str(device))


class ModelTeacher(FrozenTeacher):
    """With the student's tokenizer: ids mean the same for both."""

    def reader(self, path: str) -> Encoder:
        check_tokenizer(self.encoder, load_encoder(path), path)
        return self.encoder

    def prompts(self, policy: Policy, samples: Sequence[StepSample], generation: int) -> list[Prompt | None]:
        """The student's own."""
        self.counts = {}
        return [sample.prompt for sample in samples]

    def tell(self, trainer: Any, turns: Sequence[EncodedTurn]) -> Told:
        device = trainer.accelerator.device
        self.load(device)
        return self.read(trainer._lay_out(turns).to(device), trainer)


def frozen(settings: Settings, device: str) -> Any:
    """The model at `settings.path`, whole in this process."""
    path = str(settings.path)
    adapter = (Path(path) / "adapter_config.json").is_file()
    base = adapter_base(path) if adapter else path
    with _not_spread():
        model = load_model(base, device, settings.dtype)
        model = with_adapter(model, path, base) if adapter else model
    return model.eval().requires_grad_(False)


@contextmanager
def _not_spread() -> Iterator[None]:
    """Inside, transformers loads models whole: under ZeRO-3 it would spread this one too, as if it were to be trained."""
    held = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = held


def check_tokenizer(student: Encoder, teacher: Encoder, path: str) -> None:
    """Raises SetupError where the same ids are not the same text: vocabularies, merges, special tokens or image tokens that
    differ. Another chat template is no hindrance; the student's is used for both."""
    ours, theirs = (dict(encoder.tokenizer.get_vocab()) for encoder in (student, teacher))
    if ours != theirs:
        odd = sorted(set(ours.items()) ^ set(theirs.items()), key=lambda pair: (pair[1], pair[0]))
        raise SetupError(
            f"teacher.path {path} has another tokenizer than the student: {len(odd)} entries differ, first "
            f"{odd[0][0]!r} = {odd[0][1]} ({len(theirs)} entries, expected {len(ours)}); {OTHER}"
        )
    if _rest(student) != _rest(teacher):
        raise SetupError(
            f"teacher.path {path} cuts text in other places than the student: their merges or special tokens differ; {OTHER}"
        )
    check_pictures(student, teacher, path)


def check_pictures(student: Encoder, teacher: Encoder, path: str) -> None:
    """Raises SetupError where image tokens stand for pieces of different sizes: pictures are sized for the student."""
    if student.vision.factor != teacher.vision.factor:
        raise SetupError(
            f"teacher.path {path} has an image token per {teacher.vision.factor} px, the student per "
            f"{student.vision.factor} px; give a teacher of the student's family"
        )


def _rest(encoder: Encoder) -> str:
    """What besides the vocabulary decides about ids."""
    whole = json.loads(encoder.tokenizer.backend_tokenizer.to_str())
    parts = [whole["model"].get("merges"), whole["pre_tokenizer"], whole["normalizer"], encoder.special_ids]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class ServedTeacher(Teacher):
    """A model behind a server that reports the log-probabilities of prompts, as vLLM's does; a policy asks it. Each process asks
    for its own turns, once per generation. Turns that the server could not score, or cuts into other tokens, are not taught."""

    def __init__(
        self,
        settings: Settings,
        policy: ServedPolicy,
        encoder: Encoder,
        record: Callable[[Mapping[str, Any]], None] | None = None,
    ):
        self.settings, self.policy, self.encoder, self.record = settings, policy, encoder, record
        self.weight, self.beta = settings.weight, settings.beta
        self.advantage, self.hears, self.counts = settings.form == "advantage", True, {}
        self._told: dict[tuple[object, ...], Told] = {}

    def prompts(self, policy: Policy, samples: Sequence[StepSample], generation: int) -> list[Prompt | None]:
        """The student's own, of the turns that the server could score."""
        top = 2 if self.advantage else self.settings.top
        turns = [(sample.prompt, sample.completion) for sample in samples]
        rows = [EncodedTurn.of(self.encoder.prompt(p), torch.tensor(said.token_ids)) for p, said in turns]
        found = scores(self.policy, turns, top)
        self._told = {
            turn_key(row): _told(one, row.ids[row.start :].tolist(), top)
            for row, one in zip(rows, found, strict=True)
            if isinstance(one, list)
        }
        heard = [turn_key(row) in self._told for row in rows]
        self.counts = {"teach/heard": (sum(heard), len(heard))}
        return [prompt if known else None for (prompt, _), known in zip(turns, heard, strict=True)]

    def tell(self, trainer: Any, turns: Sequence[EncodedTurn]) -> Told:
        """What the server said; of a filler, nothing that matters."""
        top = 2 if self.advantage else self.settings.top
        found = [self._told.get(turn_key(turn)) or _nothing(turn, top) for turn in turns]
        return Told(torch.cat([one.tokens for one in found]), torch.cat([one.logps for one in found]))


def turn_key(turn: EncodedTurn) -> tuple[object, ...]:
    """Equal for equal rows: ids, and pictures by content and size."""
    return turn.ids.numpy().tobytes(), *((p.screenshot.digest, p.width, p.height) for p in turn.pictures)


def _told(found: Sequence[Mapping[int, float]], said: Sequence[int], top: int) -> Told:
    """The same number of tokens everywhere, the sampled one among them."""
    tokens, logps = [], []
    for row, own in zip(found, said, strict=True):
        best = sorted(row, key=lambda i: (-row[i], i))[:top]
        kept = best if own in best else [*best[:-1], own]
        known = [min(row[i], 0.0) for i in kept]
        rest = max(1e-12, 1 - math.fsum(map(math.exp, known)))
        tokens.append(kept)
        logps.append([*known, math.log(rest)])
    return Told(torch.tensor(tokens), torch.tensor(logps))


def _nothing(turn: EncodedTurn, top: int) -> Told:
    places = len(turn.ids) - turn.start
    return Told(torch.arange(top).repeat(places, 1), torch.full((places, top + 1), -math.log(top + 1)))
