"""Stage one: imitate expert turns. TRL's SFTTrainer, our encoder, loss on the target turn's tokens alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from torch import Tensor
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

from agent.encode import Encoded, Encoder
from agent.local import load_encoder
from agent.types import Prompt
from agent.vision import VisionStore, plain_model
from rl.checkpoints import ExactCheckpoints
from rl.engine import check_launch, trainable_model
from rl.tree import Strand, lay_out, reading

Example = tuple[Prompt, str]


class ExpertTurnTrainer(ExactCheckpoints, SFTTrainer):  # type: ignore[misc]
    """examples: (prompt, the expert's turn as text). args: from `make_sft_args`. Other arguments as in SemiOnlineTrainer.

    The loss is the mean over the target tokens, end of turn included, of a whole optimizer step on all processes, so it
    does not depend on how rows were dealt. share_vision: a frozen tower sees each screenshot once, and the vocabulary's
    logits are made for target tokens only; without it, the forward is TRL's. features: a folder for vision features.
    """

    def __init__(
        self,
        path: str | Path,
        examples: Sequence[Example],
        args: SFTConfig,
        *,
        encoder: Encoder | None = None,
        adapter: str | Path | None = None,
        lora: LoraConfig | None = None,
        freeze_vision: bool = False,
        dtype: str = "auto",
        share_vision: bool = True,
        features: Path | None = None,
        processes: int | None = None,
        callbacks: list[Any] | None = None,
    ):
        self.encoder = encoder or load_encoder(path)
        self.examples = examples
        self._at: dict[str, Any] = {}
        super().__init__(
            model=trainable_model(path, args, adapter=adapter, lora=lora, freeze_vision=freeze_vision, dtype=dtype),
            args=args,
            train_dataset=Dataset.from_dict({"index": list(range(len(examples)))}),
            data_collator=self._collate,
            processing_class=self.encoder.tokenizer,
            peft_config=lora,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)
        # The model class denies it, but TRL's loss does divide by the tokens of the whole step when it is told them.
        self.model_accepts_loss_kwargs = True
        check_launch(self.accelerator, args, processes)
        self.vision = VisionStore(self.encoder, on=share_vision, folder=features)
        self._rope = plain_model(self.model).model.get_rope_index

    def _collate(self, rows: Sequence[dict[str, int]]) -> dict[str, Any]:
        chosen = [row["index"] for row in rows]
        examples = [self.examples[i] for i in chosen]
        if not self.vision.on:
            return {**collate_turns(examples, self.encoder), "rows": chosen}
        strands = [Strand.of(self.encoder.prompt(prompt), self.encoder.target(text)) for prompt, text in examples]
        layout = lay_out(strands, self.encoder, self._rope, 0.0)
        labels = layout.labels[None]
        inputs = {"input_ids": layout.ids, "attention_mask": layout.mask(), "position_ids": layout.positions}
        return {**inputs, "labels": labels, "shift_labels": labels, "layout": layout, "rows": chosen}

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        self._at = {"examples": inputs.pop("rows")}
        layout = inputs.pop("layout", None)
        if layout is None:
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        else:
            plain = self.accelerator.unwrap_model(model)
            with self.accelerator.autocast():
                inputs.update(self.vision.inputs(plain, layout.pictures))
            with reading(plain, layout.reads):
                loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self.check_finite(loss[0] if return_outputs else loss, "loss")
        return loss

    def current(self) -> dict[str, Any]:
        return self._at


def collate_turns(examples: Sequence[Example], encoder: Encoder) -> dict[str, Tensor]:
    """Left-padded model inputs and labels (rows, longest); labels are -100 everywhere but on the target's tokens."""
    encoded = [encoder.prompt(prompt) for prompt, _ in examples]
    targets = [encoder.target(text) for _, text in examples]
    rows = [Encoded(torch.cat([e.ids, t]), e.pictures) for e, t in zip(encoded, targets, strict=True)]
    batch = encoder.batch(rows)
    labels = torch.full_like(batch["input_ids"], -100)
    for i, target in enumerate(targets):
        labels[i, -len(target) :] = target
    return {**batch, "labels": labels}
