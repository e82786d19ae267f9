"""Every tensor that a program allocates, counted; large products are not computed.

Inside `Allocations` all operators run for real except products of matrices, convolutions and attention, which give zeros of the
right shape. So a training at real width costs little more than its bookkeeping, while each tensor lives as long as it would.
What a kernel allocates for itself alone is not seen.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
PRODUCTS = {
    *(aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default, aten.convolution.default),
    aten.convolution_backward.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
}
IN_PLACE = {aten.addmm_.default, aten.mm.out, aten.addmm.out, aten.bmm.out}


class Allocations(TorchDispatchMode):  # type: ignore[misc]
    """live, peak: bytes of tensors' storages, now and at most since `reset`."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def see(self, value: Any) -> None:
        """Count the storages of these tensors from now on."""
        for tensor in tree_leaves(value):
            if isinstance(tensor, Tensor) and tensor.device.type != "meta":
                storage = tensor.untyped_storage()
                if (key := storage._cdata) not in self._known:
                    self._known.add(key)
                    self.live += storage.nbytes()
                    weakref.finalize(storage, self._freed, key, storage.nbytes())
        self.peak = max(self.peak, self.live)

    def reset(self) -> None:
        self.peak = self.live

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in IN_PLACE:
            return kwargs["out"].zero_() if "out" in kwargs else args[0]
        made = _shaped(func, args, kwargs) if func in PRODUCTS else func(*args, **kwargs)
        self.see(made)
        return made


def _shaped(func: Any, args: Any, kwargs: Any) -> Any:
    """Zeros in the shapes of the operator's results; pages that nobody writes cost nothing."""
    args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs))
    return tree_map_only(Tensor, _zeros, func(*args, **kwargs))


def _zeros(like: Tensor) -> Tensor:
    return (
        torch.zeros(like.untyped_storage().nbytes(), dtype=torch.uint8)
        .view(like.dtype)
        .as_strided(like.size(), like.stride())
    )
