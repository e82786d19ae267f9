"""MiniLM as a training: the student's last layer learns the relations of the teacher's, on recorded turns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainingArguments

from guiderail.agent.local.encode import Encoder
from guiderail.agent.local.loading import load_model
from guiderail.agent.local.vision import VisionStore
from guiderail.agent.types import Prompt
from guiderail.rl.distill.relations import last_vectors, relation_loss
from guiderail.rl.distill.student import Energy, Shape, save_start, shape_of, sliced
from guiderail.rl.train.checkpoints import ExactCheckpoints
from guiderail.rl.train.distributed import check_launch
from guiderail.rl.train.model import trainable_model
from guiderail.rl.train.prefix import EncodedTurn, Layout, lay_out, model_inputs

Example = tuple[Prompt, str]


def encoded(examples: Sequence[Example], encoder: Encoder) -> list[EncodedTurn]:
    return [EncodedTurn.of(encoder.prompt(prompt), encoder.target(text)) for prompt, text in examples]


@torch.no_grad()
def make_start(teacher: Any, shape: Shape, encoder: Encoder, examples: Sequence[Example], folder: Path) -> None:
    """Write the untrained student. examples: turns in which the teacher's hidden states are looked at, one at a time."""
    store, rope = VisionStore(encoder), teacher.model.get_rope_index
    with Energy(teacher) as energy:
        for example in examples if shape.width != shape_of(teacher.config).width else ():
            layout = lay_out(encoded([example], encoder), encoder, rope, pairs=None).to(teacher.device)
            teacher(**model_inputs(teacher, layout), **store.inputs(teacher, layout.pictures), logits_to_keep=1)
    save_start(sliced(teacher, shape, energy.directions(shape.width)), encoder, folder)


class RelationTrainer(ExactCheckpoints, Trainer):  # type: ignore[misc]
    """teacher, start: model folders of one tokenizer; the teacher is a frozen copy on each process. heads: relation heads.

    Trained are embeddings and layers. What the loss does not reach stays as it starts: the vision tower, and of the last layer
    everything behind its queries, keys and values. args: without gradient accumulation. features: a folder for vision features.
    """

    def __init__(
        self,
        teacher: str | Path,
        start: str | Path,
        examples: Sequence[Example],
        args: TrainingArguments,
        *,
        encoder: Encoder,
        heads: int,
        features: Path | None = None,
        processes: int | None = None,
    ):
        self.encoder, self.examples, self.heads = encoder, examples, heads
        self._at: dict[str, Any] = {}
        self._sums: dict[str, list[float]] = {}
        model = trainable_model(start, args, freeze_vision=True)
        last = model.model.language_model.layers[-1]
        for part in (last.self_attn.o_proj, last.mlp, last.post_attention_layernorm, model.model.language_model.norm):
            part.requires_grad_(False)
        if not model.config.tie_word_embeddings:
            model.lm_head.requires_grad_(False)
        super().__init__(
            model=model,
            args=args,
            train_dataset=Dataset.from_dict({"index": list(range(len(examples)))}),
            data_collator=self._collate,
            processing_class=encoder.tokenizer,
        )
        self.remove_callback(PrinterCallback)
        check_launch(self.accelerator, args, processes)
        self.teacher = load_model(teacher, str(self.accelerator.device), "auto" if args.bf16 else "float32")
        self.teacher.requires_grad_(False)
        self.vision = VisionStore(encoder, folder=features)
        self._rope = model.model.get_rope_index

    def _collate(self, rows: Sequence[dict[str, int]]) -> dict[str, Any]:
        chosen = [row["index"] for row in rows]
        turns = encoded([self.examples[i] for i in chosen], self.encoder)
        return {"layout": lay_out(turns, self.encoder, self._rope, pairs=None), "rows": chosen}

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """The sum of the relations' divergences; raises GuiderailError where it is not finite."""
        self._at = {"examples": inputs["rows"]}
        layout: Layout = inputs["layout"].to(self.accelerator.device)
        plain = self.accelerator.unwrap_model(model)
        with last_vectors(plain) as student, last_vectors(self.teacher) as teacher:
            with torch.no_grad():
                vision = self.vision.inputs(self.teacher, layout.pictures)
                self.teacher(**model_inputs(self.teacher, layout), **vision, logits_to_keep=1)
            vision = self.vision.inputs(plain, layout.pictures)
            model(**model_inputs(plain, layout), **vision, logits_to_keep=1)
        seen = sees(layout)
        losses = relation_loss(teacher[0], student[0], seen, self.heads)
        for name, value in losses.items():
            self._sums.setdefault(f"relation/{name}", []).append(value.item())
        # Processes are averaged: each counts by its tokens, so that the loss does not depend on how rows were dealt.
        tokens = seen.any(-1).sum().float()
        share = tokens * self.accelerator.num_processes / self.accelerator.reduce(tokens, reduction="sum")
        loss: Tensor = share * torch.stack([*losses.values()]).sum()
        self.check_finite(loss, "loss")
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        sums, self._sums = self._sums, {}
        super().log(logs | {name: sum(values) / len(values) for name, values in sums.items()}, *args, **kwargs)

    def current(self) -> dict[str, Any]:
        """The examples of this micro-batch, by index."""
        return self._at


def sees(layout: Layout) -> Tensor:
    """(rows, tokens, tokens): each token sees those before it and itself, in its own row."""
    real = layout.mask().bool()
    return torch.ones(real.shape[1], real.shape[1], dtype=torch.bool, device=real.device).tril() & real[:, :, None]
