"""The part of a forward pass that no client trains, found by trial passes, so that its outputs can be stored.

A submodule belongs to this part if its outputs depend only on the row and on frozen tensors. Trial passes find such
submodules (`prefix_trials`). `Continued` is the rest of the network, which starts from stored outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_flatten, tree_unflatten

from fedmem.contracts.arrays import Params
from fedmem.training.model_checks import parameters_kept, perturb_parameters

TOLERANCE = 1e-4
"""By how much of the largest value outputs for batches of two sizes may differ by rounding."""

VERIFIED_ROWS = 8
"""Rows of one forward pass that verifies stored outputs."""


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

    What nothing reads is NaN, so that a use of it cannot stay unseen. `note` is given each of these tensors.
    """

    def __init__(
        self, model: nn.Module, prefix: FrozenPrefix, note: Callable[[Sequence[Tensor]], None] | None = None
    ) -> None:
        self._note = note
        shared = {id(value): value for value in (*model.parameters(), *model.buffers())}
        self.network = deepcopy(model, dict(shared))
        self._stored: Sequence[Tensor] = ()
        self._count = 0
        # constants are moved once, and not in each pass
        self._constants = {
            id(leaf): self._constant(leaf.value)
            for replaced in prefix.replaced
            for leaf in replaced.leaves
            if leaf.stored is None and leaf.shape is None
        }
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
            else self._constants[id(leaf)]
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
        unread = torch.full((), torch.nan, dtype=leaf.dtype, device=device).expand(self._count, *leaf.shape)
        if self._note is not None:
            self._note([unread])
        return unread


class StopPassError(BaseException):
    """Ends a forward pass when all outputs to store are computed; no code of a model should catch it."""


class OutputsChangedError(Exception):
    """Outputs are not those that trial passes found. The message is a sentence about them."""


def stored_outputs(model: nn.Module, prefix: FrozenPrefix, rows: Tensor) -> tuple[Tensor, ...]:
    """The outputs of these rows that are to be stored, (n, …) each.

    Errors: `OutputsChangedError` where a value that trial passes found constant is another one, or a shape is.
    """
    values: dict[int, Tensor] = {}
    awaited = {
        replaced.name
        for replaced in prefix.replaced
        if any(leaf.shape is None or leaf.stored is not None for leaf in replaced.leaves)
    }

    def note(replaced: Replaced, _: nn.Module, __: Any, output: Any) -> None:
        leaves, spec = tree_flatten(output)
        if spec != replaced.spec:
            raise _change_of(replaced)
        for leaf, value in zip(replaced.leaves, leaves, strict=True):
            if leaf.stored is not None:
                if tuple(value.shape) != (len(rows), *(leaf.shape or ())):
                    raise _change_of(replaced)
                values[leaf.stored] = value.detach().clone()
            elif leaf.shape is None and not is_same(leaf.value, _on_cpu(value)):
                raise _change_of(replaced)
        awaited.discard(replaced.name)
        if not awaited:
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


def verify_outputs(continued: Continued, model: nn.Module, rows: Tensor, outputs: Sequence[Tensor]) -> None:
    """Checks that the rest of a network gives the logits of the whole, from the outputs of these rows.

    The whole network is called on batches of another size than the outputs come from. Trained parameters are perturbed,
    so that a layer that starts at zero hides nothing.

    Errors: `OutputsChangedError` where logits differ by more than rounding.
    """
    params = perturb_parameters(model)
    count = -(-len(rows) // VERIFIED_ROWS)
    with torch.no_grad(), parameters_kept(model):
        for start in range(count):
            piece = slice(start, None, count)
            whole = functional_call(model, params, (rows[piece],))
            rest = continued(params, rows[piece], [output[piece] for output in outputs])
            if not is_close(rest, whole):
                raise OutputsChangedError("the stored outputs of frozen layers do not give the logits of the network")


def is_close(value: Tensor, other: Tensor) -> bool:
    """Equal but for rounding; infinite values and NaN have to be the same."""
    if value.shape != other.shape:
        return False
    if not value.is_floating_point():
        return torch.equal(value, other)
    finite = other[other.isfinite()]
    largest = float(finite.abs().max()) if finite.numel() else 0.0
    return torch.allclose(value, other, rtol=0, atol=TOLERANCE * largest, equal_nan=True)


def is_same(value: Any, other: Any) -> bool:
    """Whether two tensors are equal to the last bit."""
    if isinstance(value, Tensor) and isinstance(other, Tensor):
        return value.shape == other.shape and value.dtype == other.dtype and torch.equal(value, other)
    if isinstance(value, Tensor) or isinstance(other, Tensor):
        return False
    return type(value) is type(other) and bool(value == other)


def _change_of(replaced: Replaced) -> OutputsChangedError:
    return OutputsChangedError(f"the outputs of {replaced.name} were the same for all rows in trial passes, and differ")


def _on_cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value
