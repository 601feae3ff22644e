"""A traced step as one CUDA graph, where that gives the same bits; otherwise it is played as before.

A graph is launched at once, where a tape launches its operations one after the other. It reads and writes tensors that
stay where they are, so that arguments are copied into them and outcomes out of them. What captures a graph is behind
`Capture`, so that all the rest is tested without a GPU.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Play = Callable[..., tuple[Tensor, ...]]

Capture = Callable[[Play, Sequence[Tensor]], tuple[Callable[[], None], tuple[Tensor, ...]]]
"""From a function and its arguments: what repeats it on these same tensors, and where its outcomes then are."""

WARM_UP = 3
"""Calls before a step is captured: shapes that occur less often are not worth it."""

MAX_GRAPHS = 64
"""Graphs of a process, since each keeps memory of its own; further shapes are played as before."""


VARIABLE = "FEDMEM_GRAPHS"
"""The variable of the environment that says `off` where no step shall be captured."""


class GraphWarning(UserWarning):
    """Steps on a GPU are played without a graph, which is slower and gives the same numbers."""


class _Graphs:
    """The number of graphs of this process, and whether one was refused."""

    count = 0
    is_refused = os.environ.get(VARIABLE) == "off"


class GraphedPlay:
    """A step for one set of shapes, played as a graph from the call after `WARM_UP` calls on.

    The first replay is compared with the step itself, bit by bit. Where they differ, or the capture fails, no step of
    this process is captured any more, and one `GraphWarning` says why. Outcomes are copies, which no later call
    changes.
    """

    def __init__(self, play: Play, capture: Capture) -> None:
        self._play = play
        self._capture = capture
        self._calls = 0
        self._replay: Callable[[], None] | None = None
        self._arguments: tuple[Tensor, ...] = ()
        self._outcomes: tuple[Tensor, ...] = ()

    @property
    def is_graph(self) -> bool:
        """Whether the next call is a replay."""
        return self._replay is not None

    def __call__(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        """The outcomes of the step."""
        if self._replay is not None:
            return self._repeat(self._replay, leaves)
        self._calls += 1
        if self._calls == WARM_UP + 1 and not _Graphs.is_refused and _Graphs.count < MAX_GRAPHS:
            return self._record(leaves)
        return self._play(*leaves)

    def _record(self, leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Capture the step, and take its outcome if that is the one of the step itself."""
        expected = self._play(*leaves)
        try:
            self._arguments = tuple(leaf.detach().clone() for leaf in leaves)
            replay, self._outcomes = self._capture(self._play, self._arguments)
            given = self._repeat(replay, leaves)
        except Exception as error:  # whatever a driver or an operation says
            self._refuse(f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}")
            return expected
        if not all(_equal(value, other) for value, other in zip(given, expected, strict=True)):
            self._refuse("a replay gives other bits than the step")
            return expected
        self._replay = replay
        _Graphs.count += 1
        return expected

    def _repeat(self, replay: Callable[[], None], leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
        for argument, leaf in zip(self._arguments, leaves, strict=True):
            argument.copy_(leaf, non_blocking=True)
        replay()
        return tuple(value.clone() for value in self._outcomes)

    def _refuse(self, reason: str) -> None:
        self._arguments, self._outcomes = (), ()
        if not _Graphs.is_refused:
            warnings.warn(f"steps are played without a CUDA graph: {reason[:200]}", GraphWarning, stacklevel=3)
        _Graphs.is_refused = True


def as_graph(play: Play, leaves: Sequence[Tensor]) -> Play:
    """The same step, as a graph where all that it is given is on a GPU of NVIDIA."""
    if not leaves or any(leaf.device.type != "cuda" for leaf in leaves):
        return play
    return GraphedPlay(play, capture_on_cuda)


def capture_on_cuda(play: Play, arguments: Sequence[Tensor]) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
    """See `Capture`. Warmed up on another stream, as torch asks for."""
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            play(*arguments)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outcomes = play(*arguments)
    return graph.replay, tuple(outcomes)


def _equal(value: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same values; NaN is equal to itself."""
    places = value.isnan()
    zero = torch.zeros((), dtype=value.dtype, device=value.device)
    return (
        value.dtype == other.dtype
        and torch.equal(places, other.isnan())
        and torch.equal(torch.where(places, zero, value), torch.where(places, zero, other))
    )
