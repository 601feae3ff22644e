"""Trial passes that find the frozen prefix of a network, without knowing names of layers or models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_flatten
from torch.utils.hooks import RemovableHandle

from fedmem.contracts.arrays import Params
from fedmem.contracts.model import trained_parameters
from fedmem.contracts.training_mode import TrainingMode, training_copy
from fedmem.seeding import seeded_generators
from fedmem.training.data_flow import DataFlow
from fedmem.training.frozen_prefix import Continued, FrozenPrefix, Leaf, Replaced, is_close, is_same, stored_outputs
from fedmem.training.model_checks import parameters_kept
from fedmem.training.operations import count_operations

MIN_SHARE = 0.25
"""Outputs are stored if they save at least this share of a forward pass: a smaller share is not worth the memory."""

ROWS = 4
"""Number of rows in trial passes that are compared to the last bit; one more pass has all given rows."""


def find_prefix(
    model: nn.Module, initial: Params, rows: Tensor, mode: TrainingMode | None = None
) -> FrozenPrefix | None:
    """The frozen prefix of a network, or None if there is none that is worth storing.

    Args:
        model: The network, in the mode in which it is evaluated.
        initial: The parameters that clients train, and running statistics that training updates.
        rows: At least `ROWS` + 1 rows of the data.
        mode: How the network differs in training.

    A submodule belongs to the prefix if all of these conditions hold:

    - it is called once in a forward pass, and sets no attribute of a module;
    - no output is computed from `initial`, requires gradients or changes with it: no trained parameter lies before it;
    - outputs in training are those of evaluation: neither dropout nor statistics that change lie before it;
    - each output is that of single rows, in batches of any size, or the same for all rows.
    """
    with parameters_kept(model):
        return _find(model, initial, rows, mode or TrainingMode())


def _find(model: nn.Module, initial: Params, rows: Tensor, mode: TrainingMode) -> FrozenPrefix | None:
    few = rows[:ROWS]
    order = [2, 0, 3, *range(ROWS, len(rows))]
    first, logits = _record(model, initial, few, gradients=True)
    passes = [_record(model, _other_values(initial), few)[0]]
    trained = training_copy(model, mode.statistics) if mode.differs else model
    if mode.differs:
        for seed in (1, 2):
            with seeded_generators(seed):
                passes.append(_record(trained, initial, few)[0])
    others, other_logits = _record(model, initial, rows[order])
    found: list[Replaced] = []
    for name in _outermost(model, "", lambda name: _leaves_of(name, first, passes, others) is not None):
        leaves = _leaves_of(name, first, passes, others)
        assert leaves is not None
        found.append(Replaced(name, first[name][0].spec, leaves))
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
    return prefix if is_close(continued, other_logits) else None


def _other_values(params: Params) -> Params:
    """Other values of each parameter, none of them zero where it was positive or zero, so that none hides another."""
    rng = torch.Generator().manual_seed(0)
    return {
        name: value * 1.5 + 0.1 + 0.1 * torch.rand(value.shape, generator=rng).to(value)
        if value.is_floating_point()
        else value
        for name, value in params.items()
    }


@dataclass(frozen=True)
class _Called:
    """The outputs of one call.

    `trained` says whether some are computed from trained parameters. `writes` says whether the call set an attribute of
    a module, which others may read.
    """

    leaves: tuple[Any, ...]
    spec: Any
    trained: bool
    writes: bool


_Calls = dict[str, list[_Called]]


def _record(model: nn.Module, params: Params, rows: Tensor, *, gradients: bool = False) -> tuple[_Calls, Tensor]:
    """The outputs of every submodule in a forward pass, in the order in which calls end, and the logits."""
    calls: _Calls = {}
    flow = DataFlow()
    began: list[str] = []
    setters: set[str] = set()

    def begin(name: str, *_: Any) -> None:
        began.append(name)

    def note(name: str, _: nn.Module, __: Any, output: Any) -> None:
        leaves, spec = tree_flatten(output)
        trained = flow.reaches(leaves) or any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves)
        copies = tuple(leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        began.remove(name)
        calls.setdefault(name, []).append(_Called(copies, spec, trained, name in setters))

    hooks: list[RemovableHandle] = []
    for name, part in model.named_modules():
        if name:
            hooks.append(part.register_forward_pre_hook(partial(begin, name)))
            hooks.append(part.register_forward_hook(partial(note, name)))
    try:
        with _attributes_noted(lambda: setters.update(began)), torch.set_grad_enabled(gradients):
            trained = trained_parameters(model) if gradients else {}
            leaves = {
                # a copy, since running statistics are written in place
                name: value.detach().clone().requires_grad_(name in trained)
                for name, value in params.items()
            }
            flow.mark(leaves.values() if gradients else ())
            with flow if gradients else nullcontext():
                logits = functional_call(model, leaves, (rows,)).detach()
    finally:
        for hook in hooks:
            hook.remove()
    return calls, logits


@contextmanager
def _attributes_noted(note: Callable[[], None]) -> Iterator[None]:
    """A block in which `note` is called whenever an attribute of any module is set."""
    original = nn.Module.__setattr__

    def set_attribute(part: nn.Module, name: str, value: Any) -> None:
        note()
        original(part, name, value)

    nn.Module.__setattr__ = set_attribute  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.__setattr__ = original  # type: ignore[method-assign]


def _leaves_of(name: str, first: _Calls, passes: Sequence[_Calls], others: _Calls) -> tuple[Leaf, ...] | None:
    """How the outputs of a submodule can be put together again; None if it does not belong to the prefix."""
    everywhere = [calls.get(name, []) for calls in (first, *passes, others)]
    if any(len(calls) != 1 or calls[0].writes for calls in everywhere) or first[name][0].trained:
        return None
    call, *same, other = (calls[0] for calls in everywhere)
    if any(another.spec != call.spec for another in (*same, other)):
        return None
    leaves: list[Leaf] = []
    for place, value in enumerate(call.leaves):
        if not all(is_same(value, another.leaves[place]) for another in same):
            return None
        in_other = other.leaves[place]
        if _is_of_rows(value, in_other):
            leaves.append(Leaf(shape=tuple(value.shape[1:]), dtype=value.dtype))
        elif is_same(value, in_other):
            leaves.append(Leaf(shape=None, value=value))
        else:
            return None
    return tuple(leaves)


def _is_of_rows(value: Any, other: Any) -> bool:
    """Whether an output has an axis of rows along which the values of a row do not depend on the batch."""
    if not isinstance(value, Tensor) or not isinstance(other, Tensor) or not value.ndim or not other.ndim:
        return False
    if len(value) != ROWS or len(other) <= ROWS or value.shape[1:] != other.shape[1:] or value.dtype != other.dtype:
        return False
    return is_close(value[[2, 0, 3]], other[:3])


def _outermost(part: nn.Module, name: str, belongs: Callable[[str], bool]) -> Iterator[str]:
    """The names of the submodules that belong to the prefix, without the submodules inside them."""
    for child_name, child in part.named_children():
        whole = f"{name}.{child_name}" if name else child_name
        if belongs(whole):
            yield whole
        else:
            yield from _outermost(child, whole, belongs)


def _without_unread(
    model: nn.Module, initial: Params, rows: Tensor, logits: Tensor, found: Sequence[Replaced], calls: _Calls
) -> tuple[FrozenPrefix | None, tuple[Tensor, ...]]:
    """The prefix that stores only what the rest of the network reads, and what it stores of these rows.

    An output is left out where the logits are not computed from it, and stay the same to the last bit though it is NaN.
    A submodule without an operation that is counted, such as the identity, is called again where its inputs are there.
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
        is_constant = all(leaf.shape is None for leaf in replaced.leaves)
        smaller = trial.of(others, fewer) if is_constant or len(fewer) < len(places) else None
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
        self, found: Sequence[Replaced], kept: Sequence[tuple[str, int]]
    ) -> tuple[FrozenPrefix, tuple[Tensor, ...]] | None:
        """The prefix of these submodules that stores these outputs; None if the logits differ."""
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
            flow = DataFlow()
            continued = Continued(self.model, prefix, flow.mark)
            with flow:
                followed = continued(self.initial, self.rows, stored)
            if flow.reaches([followed]):
                return None
            rest = count_operations(lambda: outputs.append(continued(self.initial, self.rows, stored)))
        except Exception:  # whatever a network does with what it expects to be computed
            return None
        if not torch.equal(outputs[0], self.logits):
            return None
        return replace(prefix, operations=(self._operations, rest / len(self.rows))), stored

    @cached_property
    def _operations(self) -> float:
        return count_operations(lambda: functional_call(self.model, self.initial, (self.rows,))) / len(self.rows)


def _draws_alike(
    trained: nn.Module,
    prefix: FrozenPrefix,
    initial: Params,
    rows: Tensor,
    stored: Sequence[Tensor],
    mode: TrainingMode,
) -> bool:
    """Whether a network that draws in training advances the generator as much as without stored outputs."""
    if not mode.draws:
        return True
    states = []
    for forward in (
        lambda params: functional_call(trained, params, (rows,)),
        lambda params: Continued(trained, prefix)(params, rows, stored),
    ):
        with seeded_generators(1), torch.no_grad():
            forward({name: value.clone() for name, value in initial.items()})
            states.append(torch.get_rng_state())
    return torch.equal(*states)
