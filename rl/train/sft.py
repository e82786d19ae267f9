"""Stage one: imitate expert turns. TRL's SFTTrainer, our encoder, loss on the target turn's tokens only."""

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

from guiderail.agent.local.attention import use_attention
from guiderail.agent.local.encode import Encoder
from guiderail.agent.local.loading import load_encoder
from guiderail.agent.local.vision import VisionStore, plain_model
from guiderail.agent.policy import Attention
from guiderail.agent.types import Prompt
from guiderail.rl.train.checkpoints import ExactCheckpoints
from guiderail.rl.train.distributed import check_launch
from guiderail.rl.train.model import trainable_model
from guiderail.rl.train.prefix import EncodedTurn, hidden_at, lay_out, model_inputs

Example = tuple[Prompt, str]


class ExpertTurnTrainer(ExactCheckpoints, SFTTrainer):  # type: ignore[misc]
    """Supervised fine-tuning on expert turns.

    examples: (prompt, the expert's turn as text). args: from `make_sft_args`. share_vision: a frozen tower sees each
    screenshot once, and the vocabulary's logits are made for target tokens only; without it, the forward is TRL's.
    features: a folder for vision features. Other arguments as in SemiOnlineTrainer.

    The loss is the mean over the target tokens of a whole optimizer step on all processes, end of turn included, so it does
    not depend on how rows were dealt.
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
        attention: Attention = "auto",
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
        # The model class denies it, but TRL's loss does divide by the tokens of the whole step when it is given them.
        self.model_accepts_loss_kwargs = True
        check_launch(self.accelerator, args, processes)
        self.vision = VisionStore(self.encoder, on=share_vision, folder=features)
        # One batch is laid out while another is learned. A frozen tower's features come from the store.
        self._ahead = not freeze_vision
        self._maskless = use_attention(self.model, attention, args.device)
        self._rope = plain_model(self.model).model.get_rope_index

    def _collate(self, rows: Sequence[dict[str, int]]) -> dict[str, Any]:
        chosen = [row["index"] for row in rows]
        examples = [self.examples[i] for i in chosen]
        if not self.vision.on:
            return {**collate_turns(examples, self.encoder), "rows": chosen}
        turns = [_turn(example, self.encoder) for example in examples]
        if self._ahead:
            self.encoder.ahead(picture for turn in turns for picture in turn.pictures)
        layout = lay_out(turns, self.encoder, self._rope, None, self._maskless)
        labels = layout.labels[None]
        return {
            **model_inputs(self.model, layout),
            "labels": labels,
            "shift_labels": labels,
            "layout": layout,
            "rows": chosen,
        }

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss; raises GuiderailError where it is not finite."""
        self._at = {"examples": inputs.pop("rows")}
        layout = inputs.pop("layout", None)
        if layout is None:
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        else:
            plain = self.accelerator.unwrap_model(model)
            with (
                self.accelerator.autocast(),
                self.vision.given(plain, layout.pictures) as vision,
                hidden_at(plain, layout.reads),
            ):
                loss = super().compute_loss(model, inputs | vision, return_outputs, num_items_in_batch)
        self.check_finite(loss[0] if return_outputs else loss, "loss")
        return loss

    def current(self) -> dict[str, Any]:
        """The examples of this micro-batch, by index."""
        return self._at


def collate_turns(examples: Sequence[Example], encoder: Encoder) -> dict[str, Tensor]:
    """Left-padded model inputs and labels (rows, longest); labels are -100 except on the target's tokens."""
    turns = [_turn(example, encoder) for example in examples]
    batch = encoder.batch(turns)
    labels = torch.full_like(batch["input_ids"], -100)
    for i, turn in enumerate(turns):
        target = turn.ids[turn.start :]
        labels[i, -len(target) :] = target
    return {**batch, "labels": labels}


def _turn(example: Example, encoder: Encoder) -> EncodedTurn:
    prompt, text = example
    return EncodedTurn.of(encoder.prompt(prompt), encoder.target(text))
