"""A stacked step written down once as a plain list of tensor operations, so that its Python is not run again.

Under `vmap` a step of a small network is hundreds of Python calls around a few dozen operations. Written down, the same
operations give the same bits in a fraction of the time. (`torch.fx` would do it too, but loads a compiler that takes
longer to import than most scenarios take to train.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fedmem.training.graphs import GraphedPlay, as_graph
from fedmem.training.tape import Layout, Play, Tape, Tree, _compile, _play_in_place, _WrittenStep

Key = tuple[Any, ...]

ROUNDING = 1e-4
"""By how much of a value a recorded step may differ from the step itself, in float32."""


class Traced:
    """A pure function of tensors, in dictionaries and tuples, traced for each set of shapes that it meets.

    Guarantees:

    - the same values as the function itself but for rounding (`_tidy`). When it is first traced, the outcome is
      compared, and where it differs no trace is used;
    - the same bits in every call with the same tensors, the first included;
    - a function that cannot be traced, or shall not be because of a `reason`, is called as it is, and `reason` says
      why;
    - with `graphs`, a trace on a GPU of NVIDIA becomes a CUDA graph where that gives the same bits (`GraphedPlay`).

    >>> double = Traced(lambda given: {"y": given["x"] * 2})
    >>> [double({"x": torch.ones(1)})["y"].item() for _ in range(3)], double.count
    ([2.0, 2.0, 2.0], 1)
    """

    def __init__(
        self,
        function: Callable[..., Any],
        reason: str | None = None,
        rounding: float = ROUNDING,
        *,
        graphs: bool = False,
    ) -> None:
        self._function = function
        self._rounding = rounding
        self._graphs = graphs
        self._is_traced = reason is None
        self._written: dict[Key, _WrittenStep | None] = {}
        self._sound: dict[Layout, bool] = {}
        self.reason = reason
        """Why the function was called as it is, the first time that it could not be traced; None if it always could."""

    @property
    def count(self) -> int:
        """How many sets of shapes are traced."""
        return sum(recording is not None for recording in self._written.values())

    def in_place(self, *arguments: Tree) -> Play | None:
        """The same in less memory, to be fed with what it gives: outcomes may take the place of arguments.

        From the tensors of the arguments to those of the value, from left to right, with the same bits; None if not
        traced by now. The first arguments have to be what an earlier call gave, in its order, and nobody else may need
        them any more.
        """
        leaves: list[Tensor] = []
        recording = self._written.get(_key(_layout(arguments, leaves), leaves))
        if recording is None:
            return None
        if recording.over is None:
            # a graph has memory of its own
            is_graph = isinstance(recording.play, GraphedPlay)
            recording.over = recording.play if is_graph else _play_in_place(recording, leaves)
        return recording.over

    def __call__(self, *arguments: Tree) -> Any:
        """The value of the function."""
        if not self._is_traced:
            return self._function(*arguments)
        leaves: list[Tensor] = []
        layout = _layout(arguments, leaves)
        key = _key(layout, leaves)
        if key not in self._written:
            self._written[key] = self._write_down(leaves, layout)
        recording = self._written[key]
        if recording is None:
            return self._function(*arguments)
        return _unflatten(recording.outcome, iter(recording.play(*leaves)))

    def _write_down(self, leaves: list[Tensor], layout: Layout) -> _WrittenStep | None:
        shape: list[Layout] = []

        def flatten_call(*leaves: Tensor) -> list[Tensor]:
            outcomes: list[Tensor] = []
            shape[:] = [_layout(self._function(*_unflatten(layout, iter(leaves))), outcomes)]
            return outcomes

        # one object for each argument, even where the caller gives the same tensor twice: next time they may differ
        leaves = [leaf.detach() for leaf in leaves]
        if layout not in self._sound:
            self._sound[layout] = self._is_sound(flatten_call, leaves)
        if not self._sound[layout]:
            return None  # `reason` says why since the first time
        try:
            tape = Tape.of(flatten_call, leaves)
            play = _compile(tape, leaves)
            play(*leaves)
            play = as_graph(play, leaves) if self._graphs else play
        except Exception as error:  # whatever an algorithm does that cannot be written down, it can still be called
            self._refuse(error)
            return None
        return _WrittenStep(play, shape[0], tape)

    def _is_sound(self, flat: Callable[..., list[Tensor]], leaves: list[Tensor]) -> bool:
        """Whether a tape says what the function says."""
        expected = flat(*leaves)
        try:
            outputs = Tape.of(flat, leaves)(*leaves)
        except Exception as error:
            self._refuse(error)
            return False
        if all(_close(a, b, self._rounding) for a, b in zip(outputs, expected, strict=True)):
            return True
        self._refuse("called again, its operations give other values than the function")
        return False

    def _refuse(self, reason: Exception | str) -> None:
        """Keeps the first reason, in one line."""
        if isinstance(reason, Exception):
            reason = f"{type(reason).__name__}: {next(iter(str(reason).splitlines()), '')}"
        self.reason = self.reason or reason[:200]


def _close(value: Tensor, other: Tensor, rounding: float = ROUNDING) -> bool:
    """Alike but for rounding, relative to the largest value."""
    if value.shape != other.shape or value.dtype != other.dtype:
        return False
    if not value.is_floating_point():
        return torch.equal(value, other)
    largest = float(other.nan_to_num(posinf=0, neginf=0).abs().max()) if other.numel() else 0.0
    return torch.allclose(value, other, rtol=rounding, atol=rounding / 10 * largest, equal_nan=True)


def _key(layout: Layout, leaves: Sequence[Tensor]) -> Key:
    """The layout and tensor types for which a trace is valid."""
    return (layout, *[(leaf.shape, leaf.dtype, leaf.device) for leaf in leaves])


def _layout(tree: Tree, leaves: list[Tensor]) -> Layout:
    """How a tree is built, without its tensors, which are added to `leaves` from left to right."""
    if isinstance(tree, dict):
        return (*tree, tuple([_layout(part, leaves) for part in tree.values()]))
    if isinstance(tree, tuple):
        return tuple([_layout(part, leaves) for part in tree]), None
    leaves.append(tree)
    return None


def _unflatten(layout: Layout, leaves: Iterator[Tensor]) -> Any:
    """The tree of this layout from its tensors."""
    if layout is None:
        return next(leaves)
    if layout[-1] is None:
        return tuple(_unflatten(part, leaves) for part in layout[0])
    return {name: _unflatten(part, leaves) for name, part in zip(layout[:-1], layout[-1], strict=True)}
