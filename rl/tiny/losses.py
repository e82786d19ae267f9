"""The losses of pretraining: what each cell of a picture shows, and where attention heads attend."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from guiderail.agent.local.vision import patches_as_product
from guiderail.rl.tiny.packs import IGNORED, KINDS, AttentionTargets, Batch
from guiderail.rl.tiny.screens import SIZE


class Heads(nn.Module):
    """Reads the vision tower's output during training; not part of the saved model."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.x, self.y = nn.Linear(width, SIZE[0]), nn.Linear(width, SIZE[1])
        self.looks = nn.Linear(width, 2 * len(KINDS))

    def forward(self, cells: Tensor, embedding: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of the word in each cell, plus half of that of centre x, centre y and looks (see `CellLabels`).
        cells: (cells, width). embedding: (vocabulary, width)."""
        stands = batch.words != IGNORED
        read = self.norm(cells[stands])
        loss = _cross_entropy(F.linear(read, embedding), batch.words[stands])
        named = batch.x[stands] != IGNORED
        for head, target in ((self.x, batch.x), (self.y, batch.y), (self.looks, batch.looks)):
            loss = loss + 0.5 * _cross_entropy(head(read[named]), target[stands][named])
        return loss


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """0 where there is nothing, such as screens of recordings without elements."""
    return F.cross_entropy(logits, target) if len(target) else logits.sum()


def run_vision(model: Any, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    """The vision tower's output (cells, width), and the deepstack features that are added in the first layers."""
    visual = model.model.visual
    with patches_as_product(visual.patch_embed):
        output = visual(batch.patches, grid_thw=batch.grid)
    return output.pooler_output, list(output.deepstack_features)


def run_language_model(model: Any, batch: Batch, cells: Tensor, deep: list[Tensor]) -> Tensor:
    """Hidden states of all tokens, (packs, columns, width). cells, deep: from `run_vision`."""
    embedded = model.get_input_embeddings()(batch.ids).masked_scatter(batch.pictures[..., None], cells)
    hidden: Tensor = model.model.language_model(
        inputs_embeds=embedded,
        attention_mask=batch.mask,
        position_ids=batch.positions,
        visual_pos_masks=batch.pictures,
        deepstack_visual_embeds=deep,
        use_cache=False,
    ).last_hidden_state
    return hidden


def attention_loss(
    attention: Any, inputs: dict[str, Any], targets: AttentionTargets, pictures: Tensor, heads: int
) -> Tensor:
    """Mean of -log(share of attention on the target cells, among all cells), over targets and the first `heads` heads.

    inputs: the layer's arguments: hidden states (packs, columns, width), and cos and sin of its positions. pictures: (packs,
    columns), True on image pads.
    """
    hidden, rotary = inputs["hidden_states"], inputs["position_embeddings"]
    if not len(targets.at):
        return torch.zeros((), device=hidden.device)
    width, (pack, token) = attention.head_dim, targets.at.T
    packs = len(hidden)

    def rotated(norm: Any, project: Any, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        rows = norm(F.linear(states, project.weight[: heads * width]).reshape(*states.shape[:-1], heads, width))
        first, second = rows.chunk(2, -1)
        result: Tensor = rows * cos[..., None, :] + torch.cat([-second, first], -1) * sin[..., None, :]
        return result

    cos, sin = (part.expand(packs, -1, -1) for part in rotary)
    query = rotated(attention.q_norm, attention.q_proj, hidden[pack, token], cos[pack, token], sin[pack, token])
    keys = rotated(attention.k_norm, attention.k_proj, hidden[pictures], cos[pictures], sin[pictures])
    keys = keys.reshape(packs, -1, heads, width)
    scores = torch.einsum("nhd,nchd->nhc", query, keys[pack]) * attention.scaling
    on_target = scores.log_softmax(-1).masked_fill(~targets.cells[:, None], -torch.inf)
    loss: Tensor = -on_target.logsumexp(-1).mean()
    return loss
