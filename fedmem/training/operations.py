"""Counts the operations of a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def count_operations(forward: Callable[[], object]) -> float:
    """Multiplications and additions of the matrix products and convolutions of a forward pass.

    >>> from torch import nn
    >>> count_operations(lambda: nn.Linear(3, 5)(torch.zeros(2, 3)))
    60.0
    """
    counter = _Counter()  # type: ignore[no-untyped-call]
    with counter, torch.no_grad():
        forward()
    total: float = counter.total
    return total


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts below automatic differentiation."""

    total = 0.0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outcome = func(*args, **(kwargs or {}))
        depth = _DEPTHS.get(func.overloadpacket)
        if depth is not None and isinstance(outcome, Tensor):
            self.total += 2.0 * outcome.numel() * depth(args)
        return outcome


_DEPTHS: Mapping[Any, Callable[[Any], float]] = {
    torch.ops.aten.mm: lambda args: args[1].shape[-2],
    torch.ops.aten.bmm: lambda args: args[1].shape[-2],
    torch.ops.aten.addmm: lambda args: args[2].shape[-2],
    torch.ops.aten.baddbmm: lambda args: args[2].shape[-2],
    torch.ops.aten.linear: lambda args: args[1].shape[-1],
    torch.ops.aten.convolution: lambda args: args[1].numel() / len(args[1]),
}
"""How many products are added for each output, by the arguments of an operation."""
