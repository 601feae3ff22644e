"""The part of a forward pass that no client trains, found by trial passes, so that its outputs can be stored.

A submodule belongs to it where its outputs follow from the row and from frozen tensors alone. Trial passes find such
submodules, whatever the network is called. `Continued` is the rest of the network, which starts from stored outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from fedmem.contracts.arrays import Params
from fedmem.contracts.training_mode import TrainingMode, training_copy
from fedmem.seeding import seeded_generators
from fedmem.training.model_checks import parameters_kept

MIN_SHARE = 0.25
"""Outputs are stored where they save at least this share of a forward pass: a smaller one is not worth the memory."""

TOLERANCE = 1e-4
"""By how much of the largest value outputs for batches of two sizes may differ by rounding."""

ROWS = 4
"""Rows of the trial passes that are compared to the last bit; all rows that are given make up one pass more."""


@dataclass(frozen=True)
class _Leaf:
    """One value among the outputs of a submodule.

    `stored` is its place among the stored outputs, None where it is not stored. `shape` is that of one row and None
    for a constant, whose value is `value`. A leaf with a shape that is not stored is read by nothing that matters.
    """

    shape: tuple[int, ...] | None
    dtype: torch.dtype | None = None
    value: Any = None
    stored: int | None = None


@dataclass(frozen=True)
class _Replaced:
    """A submodule that is not called again: its name, and how its outputs are put together."""

    name: str
    spec: Any
    leaves: tuple[_Leaf, ...]


@dataclass(frozen=True, kw_only=True)
class FrozenPrefix:
    """The submodules whose outputs are stored or left out, in the order of their calls.

    Attributes:
        replaced: The submodules.
        parts: Shape of one row and type of each stored output.
        operations: Multiplications and additions of matrix products and convolutions, for one row, of a whole forward
            pass and of one that starts from what is stored.
    """

    replaced: tuple[_Replaced, ...]
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

    What nothing reads is NaN, so that a use of it cannot stay unseen.
    """

    def __init__(self, model: nn.Module, prefix: FrozenPrefix) -> None:
        shared = {id(value): value for value in (*model.parameters(), *model.buffers())}
        self.network = deepcopy(model, dict(shared))  # type: ignore[arg-type]
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

    def _answer(self, replaced: _Replaced, *_: Any, **__: Any) -> Any:
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

    def _unread(self, leaf: _Leaf) -> Tensor:
        assert leaf.shape is not None
        device = next(self.network.parameters()).device
        return torch.full((), torch.nan, dtype=leaf.dtype, device=device).expand(self._count, *leaf.shape)


class StopPassError(BaseException):
    """Ends a forward pass when everything that is stored is there; no code of a model catches it."""


class OutputsChangedError(Exception):
    """Outputs that should be the same for all rows are not."""


def stored_outputs(model: nn.Module, prefix: FrozenPrefix, rows: Tensor) -> tuple[Tensor, ...]:
    """The outputs of these rows that are stored, (n, …) each.

    Errors: `OutputsChangedError` where a value that trial passes found constant is another one.
    """
    values: dict[int, Tensor] = {}

    def note(replaced: _Replaced, _: nn.Module, __: Any, output: Any) -> None:
        leaves, spec = tree_flatten(output)
        if spec != replaced.spec:
            raise OutputsChangedError(replaced.name)
        for leaf, value in zip(replaced.leaves, leaves, strict=True):
            if leaf.stored is not None:
                if tuple(value.shape) != (len(rows), *(leaf.shape or ())):
                    raise OutputsChangedError(replaced.name)
                values[leaf.stored] = value.detach().clone()
            elif leaf.shape is None and not _same(leaf.value, _on_cpu(value)):
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


def find_prefix(
    model: nn.Module, initial: Params, rows: Tensor, mode: TrainingMode | None = None
) -> FrozenPrefix | None:
    """The frozen prefix of a network, or None where there is none that is worth storing.

    Args:
        model: The network, in the mode in which it is watched.
        initial: What clients train, and running statistics that training updates.
        rows: At least `ROWS` + 1 rows of the data.
        mode: How the network differs in training.

    A submodule belongs to the prefix where all of this holds:

    - it is called once in a forward pass;
    - no output requires gradients, and none changes with `initial`: no trained parameter lies before it;
    - outputs in training are those of evaluation: neither dropout nor statistics that change lie before it;
    - each output is that of single rows, in batches of any size, or the same for all rows.
    """
    with parameters_kept(model):
        return _find(model, initial, rows, mode or TrainingMode())


def _find(model: nn.Module, initial: Params, rows: Tensor, mode: TrainingMode) -> FrozenPrefix | None:
    few = rows[:ROWS]
    order = [2, 0, 3, *range(ROWS, len(rows))]
    first, logits = _record(model, initial, few, gradients=True)
    moved = {name: value * 1.5 + 0.1 if value.is_floating_point() else value for name, value in initial.items()}
    passes = [_record(model, moved, few)[0]]
    trained = training_copy(model, mode.statistics) if mode.differs else model
    if mode.differs:
        for seed in (1, 2):
            with seeded_generators(seed):
                passes.append(_record(trained, initial, few)[0])
    others, other_logits = _record(model, initial, rows[order])
    found: list[_Replaced] = []
    for name in _outermost(model, "", lambda name: _leaves_of(name, first, passes, others) is not None):
        leaves = _leaves_of(name, first, passes, others)
        assert leaves is not None
        found.append(_Replaced(name, first[name][0].spec, leaves))
    found.sort(key=lambda replaced: list(first).index(replaced.name))
    if not found:
        return None
    prefix, stored = _without_unread(model, initial, few, logits, found, first)
    if prefix is None or not _draws_alike(trained, prefix, initial, few, stored, mode):
        return None
    try:
        with torch.no_grad():
            outputs = stored_outputs(model, prefix, rows[order])
            continued = Continued(model, prefix)(initial, rows[order], outputs)
    except Exception:
        return None
    return prefix if _close(continued, other_logits) and prefix.saved_share >= MIN_SHARE else None


@dataclass(frozen=True)
class _Called:
    """The outputs of one call, and whether some of them require gradients."""

    leaves: tuple[Any, ...]
    spec: Any
    trained: bool


_Calls = dict[str, list[_Called]]


def _record(model: nn.Module, params: Params, rows: Tensor, *, gradients: bool = False) -> tuple[_Calls, Tensor]:
    """What every submodule gives in a forward pass, in the order in which calls end, and the logits."""
    calls: _Calls = {}

    def note(name: str, _: nn.Module, __: Any, output: Any) -> None:
        leaves, spec = tree_flatten(output)
        trained = any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves)
        copies = tuple(leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        calls.setdefault(name, []).append(_Called(copies, spec, trained))

    hooks = [part.register_forward_hook(partial(note, name)) for name, part in model.named_modules() if name]
    try:
        with torch.set_grad_enabled(gradients):
            leaves = {
                name: value.detach().requires_grad_(gradients and value.is_floating_point())
                for name, value in params.items()
            }
            logits = functional_call(model, leaves, (rows,)).detach()
    finally:
        for hook in hooks:
            hook.remove()
    return calls, logits


def _leaves_of(name: str, first: _Calls, passes: Sequence[_Calls], others: _Calls) -> tuple[_Leaf, ...] | None:
    """How the outputs of a submodule can be put together again; None where it does not belong to the prefix."""
    everywhere = [calls.get(name, []) for calls in (first, *passes, others)]
    if any(len(calls) != 1 for calls in everywhere) or first[name][0].trained:
        return None
    call, *same, other = (calls[0] for calls in everywhere)
    if any(another.spec != call.spec for another in (*same, other)):
        return None
    leaves: list[_Leaf] = []
    for place, value in enumerate(call.leaves):
        if not all(_same(value, another.leaves[place]) for another in same):
            return None
        in_other = other.leaves[place]
        if _is_of_rows(value, in_other):
            leaves.append(_Leaf(shape=tuple(value.shape[1:]), dtype=value.dtype))
        elif _same(value, in_other):
            leaves.append(_Leaf(shape=None, value=value))
        else:
            return None
    return tuple(leaves)


def _is_of_rows(value: Any, other: Any) -> bool:
    """Whether an output has an axis of rows, along which each row has the value that it has in another batch."""
    if not isinstance(value, Tensor) or not isinstance(other, Tensor) or not value.ndim or not other.ndim:
        return False
    if len(value) != ROWS or len(other) <= ROWS or value.shape[1:] != other.shape[1:] or value.dtype != other.dtype:
        return False
    return _close(value[[2, 0, 3]], other[:3])


def _same(value: Any, other: Any) -> bool:
    """Equal to the last bit."""
    if isinstance(value, Tensor) and isinstance(other, Tensor):
        return value.shape == other.shape and value.dtype == other.dtype and torch.equal(value, other)
    if isinstance(value, Tensor) or isinstance(other, Tensor):
        return False
    return type(value) is type(other) and bool(value == other)


def _close(value: Tensor, other: Tensor) -> bool:
    """Equal but for rounding."""
    if value.shape != other.shape:
        return False
    if not value.is_floating_point():
        return torch.equal(value, other)
    largest = float(other.abs().max()) if other.numel() else 0.0
    return torch.allclose(value, other, rtol=0, atol=TOLERANCE * largest)


def _on_cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value


def _outermost(part: nn.Module, name: str, belongs: Callable[[str], bool]) -> Iterator[str]:
    """The names of the submodules that belong to the prefix, each without those inside of it."""
    for child_name, child in part.named_children():
        whole = f"{name}.{child_name}" if name else child_name
        if belongs(whole):
            yield whole
        else:
            yield from _outermost(child, whole, belongs)


def _without_unread(
    model: nn.Module, initial: Params, rows: Tensor, logits: Tensor, found: Sequence[_Replaced], calls: _Calls
) -> tuple[FrozenPrefix | None, tuple[Tensor, ...]]:
    """The prefix that stores only what the rest of the network reads, and what it stores of these rows.

    An output is left out where the logits stay the same to the last bit though it is NaN. A submodule without an
    operation that is counted, such as the identity, is called again where its inputs are there.
    """
    trial = _Trial(model, initial, rows, logits, calls)
    places = tuple(
        (replaced.name, j) for replaced in found for j, leaf in enumerate(replaced.leaves) if leaf.shape is not None
    )
    best = trial.of(found, places)
    if best is None or best[0].saved_share < MIN_SHARE:
        return None, ()
    for name, j in places:
        leaf = next(replaced for replaced in found if replaced.name == name).leaves[j]
        if leaf.dtype is not None and leaf.dtype.is_floating_point:
            fewer = tuple(place for place in places if place != (name, j))
            if (smaller := trial.of(found, fewer)) is not None:
                places, best = fewer, smaller
    for replaced in found[::-1]:
        others = [other for other in found if other is not replaced]
        fewer = tuple(place for place in places if place[0] != replaced.name)
        smaller = trial.of(others, fewer) if len(fewer) < len(places) else None
        if smaller is not None and smaller[0].operations == best[0].operations:
            found, places, best = others, fewer, smaller
    return best


@dataclass(frozen=True)
class _Trial:
    """Tries which outputs have to be stored."""

    model: nn.Module
    initial: Params
    rows: Tensor
    logits: Tensor
    calls: _Calls

    def of(
        self, found: Sequence[_Replaced], kept: Sequence[tuple[str, int]]
    ) -> tuple[FrozenPrefix, tuple[Tensor, ...]] | None:
        """The prefix of these submodules that stores these outputs; None where the logits are others."""
        numbers = {place: number for number, place in enumerate(kept)}
        parts = tuple(
            replace(
                each,
                leaves=tuple(replace(leaf, stored=numbers.get((each.name, j))) for j, leaf in enumerate(each.leaves)),
            )
            for each in found
        )
        stored = tuple(self.calls[name][0].leaves[j] for name, j in kept)
        shapes = tuple((tuple(value.shape[1:]), value.dtype) for value in stored)
        prefix = FrozenPrefix(replaced=parts, parts=shapes, operations=(0.0, 0.0))
        outputs: list[Tensor] = []
        try:
            continued = Continued(self.model, prefix)
            rest = count_operations(lambda: outputs.append(continued(self.initial, self.rows, stored)))
        except Exception:  # whatever a network does with what it expects to be computed
            return None
        if not torch.equal(outputs[0], self.logits):
            return None
        return replace(prefix, operations=(self._whole, rest / len(self.rows))), stored

    @cached_property
    def _whole(self) -> float:
        return count_operations(lambda: functional_call(self.model, self.initial, (self.rows,))) / len(self.rows)


def _draws_alike(
    trained: nn.Module,
    prefix: FrozenPrefix,
    initial: Params,
    rows: Tensor,
    stored: Sequence[Tensor],
    mode: TrainingMode,
) -> bool:
    """Whether a network that draws in training leaves the generator where it would be without stored outputs."""
    if not mode.draws:
        return True
    states = []
    for forward in (
        lambda: functional_call(trained, initial, (rows,)),
        lambda: Continued(trained, prefix)(initial, rows, stored),
    ):
        with seeded_generators(1), torch.no_grad():
            forward()
            states.append(torch.get_rng_state())
    return torch.equal(*states)


def count_operations(forward: Callable[[], object]) -> float:
    """Multiplications and additions of the matrix products and convolutions of a forward pass.

    >>> count_operations(lambda: nn.Linear(3, 5)(torch.zeros(2, 3)))
    60.0
    """
    with _Counter() as counter, torch.no_grad():
        forward()
    return counter.total


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
