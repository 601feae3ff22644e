"""A stacked step written down once as a plain list of tensor operations, so that its Python is not run again.

Under `vmap` a step of a small network is hundreds of Python calls around a few dozen operations. Written down, the same
operations give the same bits in a fraction of the time. (`torch.fx` would do it too, but loads a compiler that takes
longer to import than most scenarios take to train.)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_ALIASES = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default, torch.ops.aten.expand.default)
"""Operations that do nothing where the shape is there already."""

Tree = Any
"""A tensor, or a dictionary or tuple of trees."""

Layout = tuple[Any, ...] | None
"""None for a tensor; `(name, ..., (layout, ...))` for a dictionary; `((layout, ...), None)` for a tuple."""

Key = tuple[Any, ...]

Play = Callable[..., tuple[Tensor, ...]]
"""From the tensors of the arguments to those of the value, both from left to right."""


@dataclass
class _Written:
    """How a function is played for one set of shapes, and how its value is built.

    In `play`, and in its `tape`, outcomes have memory of their own; in `over`, once asked for, they take that of
    arguments.
    """

    play: Play
    outcome: Layout
    tape: Tape
    over: Play | None = None


class Traced:
    """A pure function of tensors, in dictionaries and tuples, traced for each set of shapes that it meets.

    Guarantees:

    - the same values as the function itself but for rounding (`_tidy`): when it is first traced, the outcome is
      compared, and where it differs no trace is used;
    - the same bits in every call with the same tensors, the first included;
    - a function that cannot be traced is called as it is, and `reason` says why.

    >>> double = Traced(lambda given: {"y": given["x"] * 2})
    >>> [double({"x": torch.ones(1)})["y"].item() for _ in range(3)], double.count
    ([2.0, 2.0, 2.0], 1)
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._written: dict[Key, _Written | None] = {}
        self._sound: dict[Layout, bool] = {}
        self.reason: str | None = None
        """Why the function was called as it is, the first time that it could not be traced; None if it always could."""

    @property
    def count(self) -> int:
        """How many sets of shapes are traced."""
        return sum(found is not None for found in self._written.values())

    def overwriting(self, *arguments: Tree) -> Play | None:
        """The same in less memory, to be fed with what it gives: outcomes may take the place of arguments.

        From the tensors of the arguments to those of the value, from left to right, with the same bits; None if not
        traced by now. The first arguments have to be what an earlier call gave, in its order, and nobody else may need
        them any more.
        """
        leaves: list[Tensor] = []
        found = self._written.get(_key(_layout(arguments, leaves), leaves))
        if found is None:
            return None
        if found.over is None:
            found.over = _over(found, leaves)
        return found.over

    def __call__(self, *arguments: Tree) -> Any:
        """The value of the function."""
        leaves: list[Tensor] = []
        layout = _layout(arguments, leaves)
        key = _key(layout, leaves)
        if key not in self._written:
            self._written[key] = self._write_down(leaves, layout)
        found = self._written[key]
        if found is None:
            return self._function(*arguments)
        return _rebuilt(found.outcome, iter(found.play(*leaves)))

    def _write_down(self, leaves: list[Tensor], layout: Layout) -> _Written | None:
        shape: list[Layout] = []

        def flat(*leaves: Tensor) -> list[Tensor]:
            found: list[Tensor] = []
            shape[:] = [_layout(self._function(*_rebuilt(layout, iter(leaves))), found)]
            return found

        # one object for each argument, even where the caller gives the same tensor twice: next time they may differ
        leaves = [leaf.detach() for leaf in leaves]
        if layout not in self._sound:
            self._sound[layout] = self._is_sound(flat, leaves)
        if not self._sound[layout]:
            return None  # `reason` says why since the first time
        try:
            tape = Tape.of(flat, leaves)
            play = _compiled(tape, leaves)
            play(*leaves)
        except Exception as error:  # whatever an algorithm does that cannot be written down, it can still be called
            self._refuse(error)
            return None
        return _Written(play, shape[0], tape)

    def _is_sound(self, flat: Callable[..., list[Tensor]], leaves: list[Tensor]) -> bool:
        """Whether a tape says what the function says."""
        expected = flat(*leaves)
        try:
            got = Tape.of(flat, leaves)(*leaves)
        except Exception as error:
            self._refuse(error)
            return False
        if all(_close(a, b) for a, b in zip(got, expected, strict=True)):
            return True
        self._refuse("called again, its operations give other values than the function")
        return False

    def _refuse(self, reason: Exception | str) -> None:
        """Keeps the first reason, in one line."""
        if isinstance(reason, Exception):
            reason = f"{type(reason).__name__}: {next(iter(str(reason).splitlines()), '')}"
        self.reason = self.reason or reason[:200]


def _close(one: Tensor, other: Tensor) -> bool:
    """Alike but for rounding, relative to the largest value."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point():
        return torch.equal(one, other)
    largest = float(other.nan_to_num(posinf=0, neginf=0).abs().max()) if other.numel() else 0.0
    return torch.allclose(one, other, rtol=1e-4, atol=1e-5 * largest, equal_nan=True)


def _key(layout: Layout, leaves: Sequence[Tensor]) -> Key:
    """What a trace is good for."""
    return (layout, *[(leaf.shape, leaf.dtype, leaf.device) for leaf in leaves])


def _layout(tree: Tree, leaves: list[Tensor]) -> Layout:
    """How a tree is built, without its tensors, which are added to `leaves` from left to right."""
    if isinstance(tree, dict):
        return (*tree, tuple([_layout(part, leaves) for part in tree.values()]))
    if isinstance(tree, tuple):
        return tuple([_layout(part, leaves) for part in tree]), None
    leaves.append(tree)
    return None


def _rebuilt(layout: Layout, leaves: Iterator[Tensor]) -> Any:
    """The tree of this layout from its tensors."""
    if layout is None:
        return next(leaves)
    if layout[-1] is None:
        return tuple(_rebuilt(part, leaves) for part in layout[0])
    return {name: _rebuilt(part, leaves) for name, part in zip(layout[:-1], layout[-1], strict=True)}


@dataclass(frozen=True)
class _Slot:
    """A place in the memory of a tape."""

    place: int


@dataclass(frozen=True)
class _Call:
    """An operation, with slots where tensors were, and the slots of its outcomes."""

    operation: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outcomes: tuple[_Slot | None, ...]


@dataclass(frozen=True)
class Tape:
    """What a function did with its tensors: calls to be made again on others of the same shapes.

    Slots 0, 1, ... are the arguments; `constants` are tensors that the function brought with it.
    """

    calls: tuple[_Call, ...]
    constants: Mapping[int, Tensor]
    results: tuple[_Slot, ...]
    size: int

    @staticmethod
    def of(function: Callable[..., Sequence[Tensor]], arguments: Sequence[Tensor]) -> Tape:
        """The tape of one call."""
        recorder = _Recorder(arguments)
        with recorder:
            results = function(*arguments)
        tape = Tape(
            calls=tuple(recorder.calls),
            constants=recorder.constants,
            results=tuple(recorder.slot(value) for value in results),
            size=recorder.size,
        )
        return tape if recorder.writes else _tidy(tape)

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Make the calls."""
        memory: list[Any] = [None] * self.size
        memory[: len(arguments)] = arguments
        for place, value in self.constants.items():
            memory[place] = value
        for call in self.calls:
            args, kwargs = (_changed(part, _Slot, lambda slot: memory[slot.place]) for part in (call.args, call.kwargs))
            outcome = call.operation(*args, **kwargs)
            for slot, value in zip(
                call.outcomes, outcome if isinstance(outcome, (tuple, list)) else (outcome,), strict=True
            ):
                if slot is not None:
                    memory[slot.place] = value
        return tuple(memory[slot.place] for slot in self.results)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation below `vmap` and automatic differentiation."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """There is no compiler to hide from, and asking it would load it."""
        return False

    def __init__(self, arguments: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[_Call] = []
        self.constants: dict[int, Tensor] = {}
        self.writes = False
        self._slots: dict[int, _Slot] = {}
        self._alive: list[Tensor] = []  # an id stands for one tensor only as long as that lives
        for value in arguments:
            self._new(value)

    @property
    def size(self) -> int:
        return len(self._alive)

    def _new(self, value: Tensor) -> _Slot:
        slot = _Slot(len(self._alive))
        self._slots[id(value)] = slot
        self._alive.append(value)
        return slot

    def slot(self, value: Tensor) -> _Slot:
        """Where a tensor is; one that nobody has made is a constant."""
        if id(value) not in self._slots:
            self.constants[self._new(value).place] = value
        return self._slots[id(value)]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.writes |= func._schema.is_mutable
        given = _changed(args, Tensor, self.slot), _changed(kwargs, Tensor, self.slot)
        outcome = func(*args, **kwargs)
        found = outcome if isinstance(outcome, (tuple, list)) else (outcome,)
        slots = tuple(self._again(value) if isinstance(value, Tensor) else None for value in found)
        if not any(slots):
            # a number has left the tensors, and what follows may hang on it
            raise ValueError(f"{func} gives no tensor")
        if func in _ALIASES and outcome.shape == args[0].shape:
            func = torch.ops.aten.detach.default
            given = given[0][:1], {}
        self.calls.append(_Call(func, given[0], given[1], slots))
        return outcome

    def _again(self, value: Tensor) -> _Slot:
        return self._slots[id(value)] if id(value) in self._slots else self._new(value)


def _changed(tree: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """The arguments of an operation, with everything of this kind in them changed."""
    if isinstance(tree, kind):
        return change(tree)
    if isinstance(tree, (tuple, list)):
        return type(tree)(_changed(part, kind, change) for part in tree)
    if isinstance(tree, dict):
        return {name: _changed(part, kind, change) for name, part in tree.items()}
    return tree


def _slots_of(tree: Any) -> Iterator[_Slot]:
    if isinstance(tree, _Slot):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for part in tree:
            yield from _slots_of(part)
    elif isinstance(tree, dict):
        yield from _slots_of(tuple(tree.values()))


def _tidy(tape: Tape) -> Tape:
    """The tape in fewer and quicker operations. Only where nothing is written in place.

    - Aliases, factors of one and what nobody uses are dropped.
    - `a - (b * c)` with a number c is one operation.
    - `(xᵀ g)ᵀ`, the gradient of a linear layer, is made as `gᵀ x`, which lies in memory as the parameter does.

    The last two may round otherwise than the original.
    """
    return _without_idle(_reordered(_without_idle(tape)))


def _without_idle(tape: Tape) -> Tape:
    aten = torch.ops.aten
    same: dict[_Slot, _Slot] = {}
    calls: list[_Call] = []
    for call in tape.calls:
        args = _renamed(call.args, same)
        idle = (
            call.operation is aten.detach.default
            or (call.operation is aten.mul.Scalar and args[1] == 1)
            or (call.operation is aten.permute.default and list(args[1]) == list(range(len(args[1]))))
        )
        if idle and call.outcomes[0] is not None:
            same[call.outcomes[0]] = args[0]
        else:
            calls.append(_Call(call.operation, args, _renamed(call.kwargs, same), call.outcomes))
    results = _renamed(tape.results, same)
    needed = set(results)
    kept: list[_Call] = []
    for call in reversed(calls):
        if any(slot in needed for slot in call.outcomes):
            kept.append(call)
            needed |= set(_slots_of(call.args)) | set(_slots_of(call.kwargs))
    return Tape(tuple(reversed(kept)), tape.constants, results, tape.size)


def _reordered(tape: Tape) -> Tape:
    """Differences of products and transposed products as single operations."""
    aten = torch.ops.aten
    made = {call.outcomes[0]: call for call in tape.calls if len(call.outcomes) == 1}
    calls: list[_Call] = []
    size = tape.size
    for call in tape.calls:
        if call.operation is aten.sub.Tensor and not call.kwargs:
            scaled = _maker(made, call.args[1], aten.mul.Tensor)
            if scaled is not None and isinstance(scaled.args[1], float):
                changed = {"alpha": scaled.args[1]}
                calls.append(_Call(call.operation, (call.args[0], scaled.args[0]), changed, call.outcomes))
                continue
        if call.operation is aten.transpose.int and tuple(call.args[1:]) == (1, 2):
            product = _maker(made, call.args[0], aten.bmm.default)
            left = None if product is None else _maker(made, product.args[0], aten.transpose.int)
            if product is not None and left is not None and tuple(left.args[1:]) == (1, 2):
                turned = _Slot(size)
                size += 1
                calls.append(_Call(aten.transpose.int, (product.args[1], 1, 2), {}, (turned,)))
                calls.append(_Call(aten.bmm.default, (turned, left.args[0]), {}, call.outcomes))
                continue
        calls.append(call)
    return Tape(tuple(calls), tape.constants, tape.results, size)


def _in_place(tape: Tape) -> Tape:
    """The tape with differences written over the argument in whose place they are given back.

    Only where nobody reads that argument, or a view of it, any more, and the difference is given back once.
    """
    aten = torch.ops.aten
    if any(call.operation._schema.is_mutable for call in tape.calls):
        return tape
    # the last call that reads each slot or a view of it, and views of what is given back need it to the end
    last = dict.fromkeys(tape.results, len(tape.calls))
    for number, call in reversed(list(enumerate(tape.calls))):
        shares = call.operation.is_view or call.operation is aten._unsafe_view.default
        ends = max([number, *(last[slot] for slot in call.outcomes if shares and slot in last)])
        for slot in (*_slots_of(call.args), *_slots_of(call.kwargs)):
            last[slot] = max(last.get(slot, 0), ends)
    calls = list(tape.calls)
    for number, call in enumerate(tape.calls):
        if call.operation is not aten.sub.Tensor or not isinstance(call.args[0], _Slot):
            continue
        place, (outcome,) = call.args[0].place, call.outcomes
        given_back = [i for i, slot in enumerate(tape.results) if slot == outcome]
        read = any(outcome == slot for other in tape.calls for slot in _slots_of((other.args, other.kwargs)))
        if given_back == [place] and not read and last[call.args[0]] == number:
            calls[number] = _Call(aten.sub_.Tensor, call.args, call.kwargs, call.outcomes)
    return Tape(tuple(calls), tape.constants, tape.results, tape.size)


def _over(written: _Written, leaves: Sequence[Tensor]) -> Play:
    """A tape that is played in place, if it says the same."""
    tape = _in_place(written.tape)
    if tape.calls == written.tape.calls:
        return written.play
    try:
        play = _compiled(tape, [leaf.clone() for leaf in leaves])
        got, expected = play(*(leaf.clone() for leaf in leaves)), written.play(*leaves)
    except Exception:  # a difference that does not fit into its place
        return written.play
    same = all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    return play if same else written.play


def _maker(made: Mapping[_Slot | None, _Call], slot: Any, operation: Any) -> _Call | None:
    """The call that made what is in a slot, if it is of this kind."""
    call = made.get(slot) if isinstance(slot, _Slot) else None
    return call if call is not None and call.operation is operation else None


def _renamed(tree: Any, same: Mapping[_Slot, _Slot]) -> Any:
    return _changed(tree, _Slot, lambda slot: same.get(slot, slot))


def _compiled(tape: Tape, leaves: Sequence[Tensor]) -> Play:
    """The tape, played by torch's own interpreter where it still has one; on a GPU that might fuse and round anew."""
    if any(leaf.device.type != "cpu" for leaf in leaves):
        return tape
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the interpreter is frozen, and says so
        try:
            return torch.jit.trace(tape.__call__, tuple(leaves), check_trace=False)  # type: ignore[no-any-return, no-untyped-call]
        except Exception:
            return tape
