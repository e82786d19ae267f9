"""Attention over prefix trees without a mask, and over the windows of a vision tower in one call.

A dense mask makes attention compute every pair of columns and repeat keys and values for each query head. Here keys and values
are neither repeated nor masked:

    CPU     run after run (agent/local/plans.py). A query sees keys in several runs; their results are merged by
            log-sum-exp:  o = sum_r exp(l_r - l) o_r,  l = log sum_r exp(l_r).  With the merged o and l, the kernel's own backward
            of each run gives exact gradients.
    GPU     `varlen_attn` with the keys of each path gathered, in bf16 and fp16; FlexAttention else, and where they are too many.

Both are functions under names of their own in transformers' registry. A forward that gets `tree=Plan` uses them; any other forward
of the same model, decoding among them, is SDPA's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from guiderail.agent.errors import SetupError
from guiderail.agent.local.plans import Plan, blocks_of, paths_of
from guiderail.agent.local.vision import plain_model
from guiderail.agent.policy import LONG_ROW, Attention

TREES, WINDOWS = "guiderail", "guiderail_flash"  # transformers hands the windows' lengths to names with "flash" in them
MOST_KEYS = 1 << 17  # gathered by varlen: 256 MiB per layer with 4 key heads of 128
HALF = (torch.bfloat16, torch.float16)

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True, slots=True)
class Maskless:
    """What is laid out without a mask: micro-batches with a row of `shortest` tokens or more. flex: see Plan."""

    shortest: int
    flex: bool = False


def use_attention(model: Any, choice: Attention, device: torch.device) -> Maskless | None:
    """Sets the attention of a model that is to be trained on `device`. Returns what may be laid out without a mask, None
    where everything takes one. Raises SetupError."""
    plain = plain_model(model)
    if choice == "eager":
        plain.set_attn_implementation("eager")
    if choice in ("sdpa", "eager"):
        return None
    if choice == "flex" and device.type == "cpu":
        raise SetupError(
            "model.attention=flex needs a GPU, it has no backward on a CPU; add to the command model.attention=auto"
        )
    fast_windows(plain, device)
    if device.type not in ("cpu", "cuda") or plain.config.get_text_config().attention_dropout:
        return None
    plain.set_attn_implementation({"text_config": TREES})
    return Maskless(LONG_ROW if choice == "auto" else 0, choice == "flex")


def fast_windows(model: Any, device: torch.device) -> None:
    """On a GPU the vision tower attends in all its windows at once."""
    if device.type == "cuda":
        plain_model(model).set_attn_implementation({"vision_config": WINDOWS})


# -------------------------------------------------------------------------------------------------------------- trees


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    tree: Plan | None = None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """query: (1, heads, columns, width); key, value: with fewer heads. Returns (1, columns, heads, width)."""
    if tree is None:
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **others
        )
        return found
    query, key, value = _computed(query, key, value)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if tree.flex or (query.is_cuda and (query.dtype not in HALF or tree.gathered > MOST_KEYS)):
        out = _by_blocks(query, key, value, tree, scale)
    elif query.is_cuda:
        out = by_paths(query, key, value, tree, scale)
    else:
        out = by_runs(query, key, value, tree, scale)
    return out.transpose(1, 2).contiguous(), None


def _computed(*tensors: Tensor) -> list[Tensor]:
    """In autocast's type, inside autocast: it does not know these kernels."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return list(tensors)
    return [tensor.to(torch.get_autocast_dtype(kind)) for tensor in tensors]


class ByRuns(torch.autograd.Function):
    """CPU. Query heads are grouped by the key head they read, (key heads, group, columns, width), where one key head is
    expanded for its group without a copy. Sums are kept in float32 or better."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, tree: Plan, scale: float) -> Tensor:
        queries, keys, values = _grouped(query, key, value)
        shape, exact = queries.shape, torch.promote_types(query.dtype, torch.float32)
        out = query.new_zeros((shape[2], *shape[:2], shape[3]), dtype=exact).permute(1, 2, 0, 3)
        total = query.new_full(shape[:3], -torch.inf, dtype=exact)
        for start, stop, end in tree.runs:
            part, sums = _forward(
                queries[:, :, start:end], keys[:, :, start:stop], values[:, :, start:stop], 0.0, True, scale=scale
            )
            before = total[..., start:end]
            merged = torch.logaddexp(before, sums)
            kept, added = (before - merged).exp_()[..., None], (sums - merged).exp_()[..., None]
            out[:, :, start:end].mul_(kept).addcmul_(part, added)
            total[..., start:end] = merged
        out = out.to(query.dtype)
        ctx.save_for_backward(query, key, value, out, total)
        ctx.tree, ctx.scale = tree, scale
        return out.flatten(0, 1)[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, total = ctx.saved_tensors
        queries, keys, values = _grouped(query, key, value)
        grads = grad[0].view(queries.shape)
        of_query, of_key, of_value = (
            torch.zeros_like(tensor, dtype=total.dtype) for tensor in (queries, key[0], value[0])
        )
        for start, stop, end in ctx.tree.runs:
            rows, seen = slice(start, end), slice(start, stop)
            q, k, v = _backward(
                grads[:, :, rows],
                queries[:, :, rows],
                keys[:, :, seen],
                values[:, :, seen],
                out[:, :, rows],
                total[:, :, rows],
                0.0,
                True,
                scale=ctx.scale,
            )
            of_query[:, :, rows] += q
            of_key[:, seen] += k.sum(1, dtype=total.dtype)
            of_value[:, seen] += v.sum(1, dtype=total.dtype)
        found = (of_query.flatten(0, 1), of_key, of_value)
        return *(made.to(query.dtype)[None] for made in found), None, None


def by_runs(query: Tensor, key: Tensor, value: Tensor, tree: Plan, scale: float) -> Tensor:
    """As `attend`, in and out (1, heads, columns, width)."""
    return cast(Tensor, ByRuns.apply(query, key, value, tree, scale))  # type: ignore[no-untyped-call]


def _grouped(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Views of shape (key heads, group, columns, width)."""
    heads, group = key.shape[1], query.shape[1] // key.shape[1]
    keys, values = (tensor[0][:, None].expand(-1, group, -1, -1) for tensor in (key, value))
    return query[0].view(heads, group, *query.shape[2:]), keys, values


def by_paths(query: Tensor, key: Tensor, value: Tensor, tree: Plan, scale: float) -> Tensor:
    """One kernel for all paths. As `attend`, in and out (1, heads, columns, width)."""
    paths = paths_of(tree, query.device)
    keys, values = (tensor[0].transpose(0, 1).index_select(0, paths.columns) for tensor in (key, value))
    out = varlen_attn(
        query[0].transpose(0, 1).contiguous(),
        keys,
        values,
        paths.queries,
        paths.keys,
        paths.most_queries,
        paths.most_keys,
        scale=scale,
        window_size=(-1, 0),  # causal, aligned at the last query and key
        enable_gqa=True,
    )
    return cast(Tensor, out).transpose(0, 1)[None]


def _by_blocks(query: Tensor, key: Tensor, value: Tensor, tree: Plan, scale: float) -> Tensor:
    kernel: Callable[..., Tensor] = compiled_flex() if query.is_cuda else cast(Any, flex_attention)
    return kernel(query, key, value, block_mask=blocks_of(tree, query.device), scale=scale, enable_gqa=True)


@lru_cache(maxsize=1)
def compiled_flex() -> Callable[..., Any]:
    """Without compilation FlexAttention makes a table of all scores."""
    return torch.compile(flex_attention, dynamic=True)


# ------------------------------------------------------------------------------------------------------ vision windows


def attend_windows(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """query, key, value: (1, heads, patches, width). cu_seq_lens_q: (windows + 1,), where windows begin. Returns
    (1, patches, heads, width)."""
    query, key, value = _computed(query, key, value)
    if query.is_cuda and query.dtype in HALF:
        return by_windows(query, key, value, cu_seq_lens_q, max_length_q, scaling), None
    lengths = cu_seq_lens_q.diff().tolist()
    windows = zip(*(torch.split(tensor, lengths, dim=2) for tensor in (query, key, value)), strict=True)
    found = [
        sdpa_attention_forward(module, *window, attention_mask=None, scaling=scaling, is_causal=False)[0]
        for window in windows
    ]
    return torch.cat(found, dim=1), None


def by_windows(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, most: int, scale: float | None) -> Tensor:
    """One kernel for all windows. As `attend_windows`; most: patches of the largest window."""
    queries, keys, values = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))
    starts = starts.to(torch.int32)
    return cast(Tensor, varlen_attn(queries, keys, values, starts, starts, most, most, scale=scale))[None]


for _name, _function in ((TREES, attend), (WINDOWS, attend_windows)):
    AttentionInterface.register(_name, _function)
    AttentionMaskInterface.register(_name, sdpa_mask)  # for forwards with a mask of ones and zeros
