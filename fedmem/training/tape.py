"""A recorded step: what was called with which values, and how it is replayed."""

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


Play = Callable[..., tuple[Tensor, ...]]
"""From the tensors of the arguments to those of the value, both from left to right."""


@dataclass
class _WrittenStep:
    """How a function is played for one set of shapes, and how its value is built.

    In `play`, and in its `tape`, outcomes have memory of their own; in `over`, once asked for, they take that of
    arguments.
    """

    play: Play
    outcome: Layout
    tape: Tape
    over: Play | None = None


@dataclass(frozen=True)
class _Register:
    """A place in the memory of a tape."""

    place: int


@dataclass(frozen=True)
class _Call:
    """An operation, with registers where tensors were, and the registers of its outcomes."""

    operation: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outcomes: tuple[_Register | None, ...]


@dataclass(frozen=True)
class Tape:
    """The operations of a function on its tensors: calls that can be repeated on others of the same shapes.

    Registers 0, 1, ... are the arguments; `constants` are tensors that the function brought with it.
    """

    calls: tuple[_Call, ...]
    constants: Mapping[int, Tensor]
    results: tuple[_Register, ...]
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
            results=tuple(recorder.register_of(value) for value in results),
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
            args, kwargs = (
                _map_tree(part, _Register, lambda register: memory[register.place]) for part in (call.args, call.kwargs)
            )
            outcome = call.operation(*args, **kwargs)
            for register, value in zip(
                call.outcomes, outcome if isinstance(outcome, (tuple, list)) else (outcome,), strict=True
            ):
                if register is not None:
                    memory[register.place] = value
        return tuple(memory[register.place] for register in self.results)


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
        self._registers: dict[int, _Register] = {}
        self._alive: list[Tensor] = []  # an id stands for one tensor only as long as that lives
        for value in arguments:
            self._new_register(value)

    @property
    def size(self) -> int:
        return len(self._alive)

    def _new_register(self, value: Tensor) -> _Register:
        register = _Register(len(self._alive))
        self._registers[id(value)] = register
        self._alive.append(value)
        return register

    def register_of(self, value: Tensor) -> _Register:
        """Where a tensor is; one that no call has made is a constant."""
        if id(value) not in self._registers:
            self.constants[self._new_register(value).place] = value
        return self._registers[id(value)]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.writes |= func._schema.is_mutable
        inputs = _map_tree(args, Tensor, self.register_of), _map_tree(kwargs, Tensor, self.register_of)
        outcome = func(*args, **kwargs)
        outputs = outcome if isinstance(outcome, (tuple, list)) else (outcome,)
        registers = tuple(self._copy_register(value) if isinstance(value, Tensor) else None for value in outputs)
        if not any(registers):
            # a number has left the tensors, and what follows may depend on it
            raise ValueError(f"{func} gives no tensor")
        if func in _ALIASES and outcome.shape == args[0].shape:
            func = torch.ops.aten.detach.default
            inputs = inputs[0][:1], {}
        self.calls.append(_Call(func, inputs[0], inputs[1], registers))
        return outcome

    def _copy_register(self, value: Tensor) -> _Register:
        return self._registers[id(value)] if id(value) in self._registers else self._new_register(value)


def _map_tree(tree: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """The arguments of an operation, with everything of this kind in them changed."""
    if isinstance(tree, kind):
        return change(tree)
    if isinstance(tree, (tuple, list)):
        return type(tree)(_map_tree(part, kind, change) for part in tree)
    if isinstance(tree, dict):
        return {name: _map_tree(part, kind, change) for name, part in tree.items()}
    return tree


def _registers_of(tree: Any) -> Iterator[_Register]:
    if isinstance(tree, _Register):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for part in tree:
            yield from _registers_of(part)
    elif isinstance(tree, dict):
        yield from _registers_of(tuple(tree.values()))


def _tidy(tape: Tape) -> Tape:
    """The tape in fewer and quicker operations. Only where nothing is written in place.

    - Aliases, factors of one and unused results are dropped.
    - `a - (b * c)` with a number c is one operation.
    - `(xᵀ g)ᵀ`, the gradient of a linear layer, is made as `gᵀ x`, which lies in memory as the parameter does.

    The last two may round otherwise than the original.
    """
    return _without_idle(_fuse_operations(_without_idle(tape)))


def _without_idle(tape: Tape) -> Tape:
    aten = torch.ops.aten
    replacements: dict[_Register, _Register] = {}
    calls: list[_Call] = []
    for call in tape.calls:
        args = _rename_registers(call.args, replacements)
        is_idle = (
            call.operation is aten.detach.default
            or (call.operation is aten.mul.Scalar and args[1] == 1)
            or (call.operation is aten.permute.default and list(args[1]) == list(range(len(args[1]))))
        )
        if is_idle and call.outcomes[0] is not None:
            replacements[call.outcomes[0]] = args[0]
        else:
            calls.append(_Call(call.operation, args, _rename_registers(call.kwargs, replacements), call.outcomes))
    results = _rename_registers(tape.results, replacements)
    live_registers = set(results)
    live_calls: list[_Call] = []
    for call in reversed(calls):
        if any(register in live_registers for register in call.outcomes):
            live_calls.append(call)
            live_registers |= set(_registers_of(call.args)) | set(_registers_of(call.kwargs))
    return Tape(tuple(reversed(live_calls)), tape.constants, results, tape.size)


def _fuse_operations(tape: Tape) -> Tape:
    """Differences of products and transposed products as single operations."""
    aten = torch.ops.aten
    makers = {call.outcomes[0]: call for call in tape.calls if len(call.outcomes) == 1}
    calls: list[_Call] = []
    size = tape.size
    for call in tape.calls:
        if call.operation is aten.sub.Tensor and not call.kwargs:
            scaled_call = _maker(makers, call.args[1], aten.mul.Tensor)
            if scaled_call is not None and isinstance(scaled_call.args[1], float):
                arguments = {"alpha": scaled_call.args[1]}
                calls.append(_Call(call.operation, (call.args[0], scaled_call.args[0]), arguments, call.outcomes))
                continue
        if call.operation is aten.transpose.int and tuple(call.args[1:]) == (1, 2):
            product = _maker(makers, call.args[0], aten.bmm.default)
            left_call = None if product is None else _maker(makers, product.args[0], aten.transpose.int)
            if product is not None and left_call is not None and tuple(left_call.args[1:]) == (1, 2):
                transposed_register = _Register(size)
                size += 1
                calls.append(_Call(aten.transpose.int, (product.args[1], 1, 2), {}, (transposed_register,)))
                calls.append(_Call(aten.bmm.default, (transposed_register, left_call.args[0]), {}, call.outcomes))
                continue
        calls.append(call)
    return Tape(tuple(calls), tape.constants, tape.results, size)


def _in_place(tape: Tape) -> Tape:
    """The tape with differences written over the argument in whose place they are given back.

    Only where no call reads that argument, or a view of it, any more, and the difference is given back once.
    """
    aten = torch.ops.aten
    if any(call.operation._schema.is_mutable for call in tape.calls):
        return tape
    # the last call that reads each register or a view of it, and views of what is given back need it to the end
    last = dict.fromkeys(tape.results, len(tape.calls))
    for number, call in reversed(list(enumerate(tape.calls))):
        shares = call.operation.is_view or call.operation is aten._unsafe_view.default
        ends = max([number, *(last[register] for register in call.outcomes if shares and register in last)])
        for register in (*_registers_of(call.args), *_registers_of(call.kwargs)):
            last[register] = max(last.get(register, 0), ends)
    calls = list(tape.calls)
    for number, call in enumerate(tape.calls):
        if call.operation is not aten.sub.Tensor or not isinstance(call.args[0], _Register):
            continue
        place, (outcome,) = call.args[0].place, call.outcomes
        result_places = [i for i, register in enumerate(tape.results) if register == outcome]
        is_read = any(
            outcome == register for other in tape.calls for register in _registers_of((other.args, other.kwargs))
        )
        if result_places == [place] and not is_read and last[call.args[0]] == number:
            calls[number] = _Call(aten.sub_.Tensor, call.args, call.kwargs, call.outcomes)
    return Tape(tuple(calls), tape.constants, tape.results, tape.size)


def _play_in_place(written: _WrittenStep, leaves: Sequence[Tensor]) -> Play:
    """A tape that is played in place, if it says the same."""
    tape = _in_place(written.tape)
    if tape.calls == written.tape.calls:
        return written.play
    try:
        play = _compile(tape, [leaf.clone() for leaf in leaves])
        outputs, expected = play(*(leaf.clone() for leaf in leaves)), written.play(*leaves)
    except Exception:  # a difference that does not fit into its place
        return written.play
    is_equal = all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))
    return play if is_equal else written.play


def _maker(makers: Mapping[_Register | None, _Call], register: Any, operation: Any) -> _Call | None:
    """The call that made what is in a register, if it is of this kind."""
    call = makers.get(register) if isinstance(register, _Register) else None
    return call if call is not None and call.operation is operation else None


def _rename_registers(tree: Any, replacements: Mapping[_Register, _Register]) -> Any:
    return _map_tree(tree, _Register, lambda register: replacements.get(register, register))


def _compile(tape: Tape, leaves: Sequence[Tensor]) -> Play:
    """The tape, played by torch's own interpreter where it has one; not on a GPU, where that might round otherwise."""
    if any(leaf.device.type != "cpu" for leaf in leaves):
        return tape
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the interpreter is frozen, and says so
        try:
            return _as_function(tape, leaves)
        except Exception:
            return tape


def _as_function(tape: Tape, leaves: Sequence[Tensor]) -> Play:
    """The tape as a function of torch's interpreter, which is freed with it.

    `torch.jit.trace` would do the same, but keeps each function, with its constants, for as long as the process lives.
    """
    names = [f"leaf_{number}" for number in range(len(leaves))]
    create_graph, create_function = torch._C._create_graph_by_tracing, torch._C._create_function_from_graph
    graph, _ = create_graph(tape.__call__, tuple(leaves), lambda _: "", True, False, None, names)
    return create_function("play", graph)
