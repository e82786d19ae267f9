"""Stage one: imitate expert turns. TRL's SFTTrainer, our encoder, loss on the target turn's tokens alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig
from torch import Tensor
from torch.utils.data import Sampler
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

from agent.encode import Encoded, Encoder
from agent.local import load_encoder
from agent.types import Prompt
from rl.checkpoints import ExactCheckpoints
from rl.engine import check_launch, trainable_model

Example = tuple[Prompt, str]


class ExpertTurnTrainer(ExactCheckpoints, SFTTrainer):  # type: ignore[misc]
    """examples: (prompt, the expert's turn as text). args: from `make_sft_args`. Other arguments as in SemiOnlineTrainer.

    The loss is the mean over the target tokens, end of turn included, of a whole optimizer step on all processes, so it
    does not depend on how rows were dealt.
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
        processes: int | None = None,
        callbacks: list[Any] | None = None,
    ):
        self.encoder = encoder or load_encoder(path)
        self._at: dict[str, Any] = {}
        self._lengths = [len(self.encoder.prompt(p).ids) + len(self.encoder.target(text)) for p, text in examples]
        super().__init__(
            model=trainable_model(path, args, adapter=adapter, lora=lora, freeze_vision=freeze_vision, dtype=dtype),
            args=args,
            train_dataset=Dataset.from_dict({"index": list(range(len(examples)))}),
            data_collator=lambda rows: (
                collate_turns([examples[row["index"]] for row in rows], self.encoder)
                | {"rows": [row["index"] for row in rows]}
            ),
            processing_class=self.encoder.tokenizer,
            peft_config=lora,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)
        # The model class denies it, but TRL's loss does divide by the tokens of the whole step when it is told them.
        self.model_accepts_loss_kwargs = True
        check_launch(self.accelerator, args, processes)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        step = self.args.per_device_train_batch_size * self.args.world_size * self.args.gradient_accumulation_steps
        return ByLength(self._lengths, step, self.args.seed)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        self._at = {"examples": inputs.pop("rows")}
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self.check_finite(loss[0] if return_outputs else loss, "loss")
        return loss

    def current(self) -> dict[str, Any]:
        return self._at


class ByLength(Sampler[int]):
    """Every row once per epoch, at random, but the rows of one optimizer step (`step` of them) are of like length: a
    deep step's prompt is several times a first one's, and a batch pays for its longest row. The order depends on the
    seed and the epoch alone, so a resumed run finds its place."""

    def __init__(self, lengths: Sequence[int], step: int, seed: int, pool: int = 50):
        self.lengths, self.step, self.seed, self.pool = lengths, step, seed, pool
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.lengths)).tolist()
        for start in range(0, len(order), self.step * self.pool):
            part = sorted(order[start : start + self.step * self.pool], key=self.lengths.__getitem__)
            steps = [part[i : i + self.step] for i in range(0, len(part), self.step)]
            for i in rng.permutation(len(steps)):
                yield from steps[i]


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
