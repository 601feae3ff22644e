"""The part of a forward pass that no client trains, found by trial passes, so that its outputs can be stored.

A submodule belongs to this part if its outputs depend only on the row and on frozen tensors. Trial passes find such
submodules (`prefix_trials`). `Continued` is the rest of the network, which starts from stored outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_flatten, tree_unflatten

from fedmem.contracts.arrays import Params


@dataclass(frozen=True)
class Leaf:
    """One value among the outputs of a submodule.

    `stored` is its index among the stored outputs, or None if it is not stored. `shape` is the shape for one row, or
    None for a constant, whose value is `value`. A leaf with a shape that is not stored does not affect the logits.
    """

    shape: tuple[int, ...] | None
    dtype: torch.dtype | None = None
    value: Any = None
    stored: int | None = None


@dataclass(frozen=True)
class Replaced:
    """A submodule that is not called again: its name, and how its outputs are put together."""

    name: str
    spec: Any
    leaves: tuple[Leaf, ...]


@dataclass(frozen=True, kw_only=True)
class FrozenPrefix:
    """The submodules whose outputs are stored or left out, in the order of their calls.

    Attributes:
        replaced: The submodules.
        parts: The shape for one row and the type of each stored output.
        operations: Multiplications and additions of matrix products and convolutions for one row: of a whole forward
            pass, and of one that starts from stored outputs.
    """

    replaced: tuple[Replaced, ...]
    parts: tuple[tuple[tuple[int, ...], torch.dtype], ...]
    operations: tuple[float, float]

    @property
    def saved_share(self) -> float:
        """The share of the operations of a forward pass that stored outputs save."""
        whole, rest = self.operations
        return 1 - rest / whole if whole else 0.0

    @property
    def row_bytes(self) -> int:
        """Bytes that are stored for one row."""
        return sum(torch.empty(shape, dtype=dtype, device="meta").nbytes for shape, dtype in self.parts)


class Continued:
    """A network that starts from the stored outputs of its frozen prefix. It shares all tensors with the network.

    Outputs that are not stored are NaN, so that any use of them is seen.
    """

    def __init__(self, model: nn.Module, prefix: FrozenPrefix) -> None:
        shared = {id(value): value for value in (*model.parameters(), *model.buffers())}
        self.network = deepcopy(model, dict(shared))
        self._stored: Sequence[Tensor] = ()
        self._count = 0
        for replaced in prefix.replaced:
            self.network.get_submodule(replaced.name).forward = partial(self._answer, replaced)

    def __call__(self, params: Params, inputs: Tensor, stored: Sequence[Tensor]) -> Tensor:
        """The logits of these rows (n, …), whose stored outputs are given, (n, …) each."""
        self._stored, self._count = stored, len(inputs)
        try:
            logits: Tensor = functional_call(self.network, params, (inputs,))
            return logits
        finally:
            self._stored = ()

    def _answer(self, replaced: Replaced, *_: Any, **__: Any) -> Any:
        """The outputs of a submodule; copies, since what follows may write into them."""
        values = [
            self._stored[leaf.stored].clone()
            if leaf.stored is not None
            else self._constant(leaf.value)
            if leaf.shape is None
            else self._unread(leaf)
            for leaf in replaced.leaves
        ]
        return tree_unflatten(values, replaced.spec)

    def _constant(self, value: Any) -> Any:
        return value.to(next(self.network.parameters()).device) if isinstance(value, Tensor) else value

    def _unread(self, leaf: Leaf) -> Tensor:
        assert leaf.shape is not None
        device = next(self.network.parameters()).device
        return torch.full((), torch.nan, dtype=leaf.dtype, device=device).expand(self._count, *leaf.shape)


class StopPassError(BaseException):
    """Ends a forward pass when all outputs to store are computed; no code of a model should catch it."""


class OutputsChangedError(Exception):
    """Outputs that were the same for all rows in trial passes differ."""


def stored_outputs(model: nn.Module, prefix: FrozenPrefix, rows: Tensor) -> tuple[Tensor, ...]:
    """The outputs of these rows that are to be stored, (n, …) each.

    Errors: `OutputsChangedError` if a value that was constant in trial passes has changed.
    """
    values: dict[int, Tensor] = {}

    def note(replaced: Replaced, _: nn.Module, __: Any, output: Any) -> None:
        leaves, spec = tree_flatten(output)
        if spec != replaced.spec:
            raise OutputsChangedError(replaced.name)
        for leaf, value in zip(replaced.leaves, leaves, strict=True):
            if leaf.stored is not None:
                if tuple(value.shape) != (len(rows), *(leaf.shape or ())):
                    raise OutputsChangedError(replaced.name)
                values[leaf.stored] = value.detach().clone()
            elif leaf.shape is None and not is_same(leaf.value, _on_cpu(value)):
                raise OutputsChangedError(replaced.name)
        if len(values) == len(prefix.parts):
            raise StopPassError

    hooks = [
        model.get_submodule(replaced.name).register_forward_hook(partial(note, replaced))
        for replaced in prefix.replaced
    ]
    try:
        with torch.no_grad():
            model(rows)
    except StopPassError:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(values[i] for i in range(len(prefix.parts)))


def is_same(value: Any, other: Any) -> bool:
    """Whether two tensors are equal to the last bit."""
    if isinstance(value, Tensor) and isinstance(other, Tensor):
        return value.shape == other.shape and value.dtype == other.dtype and torch.equal(value, other)
    if isinstance(value, Tensor) or isinstance(other, Tensor):
        return False
    return type(value) is type(other) and bool(value == other)


def _on_cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value
