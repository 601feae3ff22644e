"""Tests of `fedmem/training/graphs.py`, with a recorder in place of a graph; the real one is tested by `make gpu`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor

from fedmem.training import graphs
from fedmem.training.graphs import WARM_UP, GraphedPlay, GraphWarning, as_graph
from fedmem.training.tracing import Traced


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs._Graphs, "count", 0)
    monkeypatch.setattr(graphs._Graphs, "is_refused", False)


class Recorder:
    """Stands for a graph: repeats a function on the same tensors, and writes outcomes where they were."""

    def __init__(self, error: float = 0.0) -> None:
        self.captures = self.replays = 0
        self._error = error

    def __call__(
        self, play: Callable[..., tuple[Tensor, ...]], arguments: Sequence[Tensor]
    ) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        self.captures += 1
        outcomes = play(*arguments)

        def replay() -> None:
            self.replays += 1
            for place, value in zip(outcomes, play(*arguments), strict=True):
                place.copy_(value + self._error)

        return replay, outcomes


def step(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return x - 0.1 * y, (x * y).sum()


def batches(count: int) -> Iterator[Tensor]:
    for number in range(count):
        yield torch.randn(3, generator=torch.Generator().manual_seed(number))


def require_steps(*plays: GraphedPlay) -> None:
    """Each gives what the step gives, call by call."""
    x = torch.ones(3)
    for batch in batches(WARM_UP + 3):
        for play in plays:
            assert torch.equal(play(x, batch)[0], step(x, batch)[0])


def test_a_graph_gives_what_the_step_gives() -> None:
    """And no outcome changes later, although a graph writes all of them to the same places."""
    recorder = Recorder()
    play = GraphedPlay(step, recorder)
    state = expected = torch.ones(3)
    outcomes, wanted = [], []
    for number, batch in enumerate(batches(WARM_UP + 5)):
        assert play.is_graph == (number > WARM_UP)
        state, loss = play(state, batch)
        expected, expected_loss = step(expected, batch)
        outcomes.append((state, loss))
        wanted.append((expected, expected_loss))
    for given, value in zip(outcomes, wanted, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(given, value, strict=True))
    assert (recorder.captures, recorder.replays) == (1, 5)


def test_other_bits_are_refused_for_good_with_one_warning() -> None:
    recorder = Recorder(error=1e-6)
    plays = [GraphedPlay(step, recorder) for _ in range(2)]
    with pytest.warns(GraphWarning, match="a replay gives other bits than the step") as caught:
        require_steps(*plays)
    assert len(caught) == 1
    assert recorder.captures == 1
    assert not any(play.is_graph for play in plays)


def test_a_capture_that_fails_is_no_failure_of_the_step() -> None:
    def fail(*_: object) -> object:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    play = GraphedPlay(step, fail)  # type: ignore[arg-type]
    with pytest.warns(GraphWarning, match=r"RuntimeError: operation not permitted when stream is capturing$"):
        require_steps(play)
    assert not play.is_graph


def test_nan_is_equal_to_itself() -> None:
    recorder = Recorder()
    play = GraphedPlay(step, recorder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(WARM_UP + 2):
            play(torch.full((3,), torch.nan), torch.ones(3))
    assert play.is_graph


def test_there_are_no_more_graphs_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MAX_GRAPHS", 2)
    recorder = Recorder()
    plays = [GraphedPlay(step, recorder) for _ in range(4)]
    for batch in batches(WARM_UP + 2):
        for play in plays:
            play(torch.ones(3), batch)
    assert [play.is_graph for play in plays] == [True, True, False, False]


def test_steps_on_a_processor_are_no_graphs() -> None:
    assert as_graph(step, [torch.ones(3)]) is step
    assert as_graph(step, []) is step


def test_a_traced_function_is_captured_once_for_each_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr("fedmem.training.tracing.as_graph", lambda play, leaves: GraphedPlay(play, recorder))
    traced, plain = (Traced(lambda x, y: step(x, y), graphs=graphs) for graphs in (True, False))
    for size in (3, 5):
        state = expected = torch.ones(size)
        for _ in range(WARM_UP + 4):
            state, loss = traced(state, torch.full((size,), 0.5))
            expected, expected_loss = plain(expected, torch.full((size,), 0.5))
            assert torch.equal(state, expected)
            assert torch.equal(loss, expected_loss)
        play = traced.in_place(state, torch.full((size,), 0.5))
        assert isinstance(play, GraphedPlay), "a graph is not played in place"
    assert recorder.captures == 2
