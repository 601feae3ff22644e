"""Local trainings repeated with changes, many at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from fedmem.contracts.arrays import Params
from fedmem.contracts.client import Outcome
from fedmem.contracts.evidence import Transition
from fedmem.contracts.federation import Federation
from fedmem.contracts.replay import Replay
from fedmem.training.client_work import LocalWork, TrainedWork
from fedmem.training.executor import Executor
from fedmem.training.replayed_work import replayed_work

AT_ONCE = 1 << 25
"""Bytes of models that are trained before any is handed over, at most; at least one is."""

REMEMBERED = 1 << 26
"""Bytes of outcomes that are remembered for the same request at the other level, at most."""

Request = tuple[Transition, Replay]


class Replays:
    """Repeats local trainings of the round that is being watched; see `Context.replays`.

    Outcomes are remembered until the next round, as far as `REMEMBERED` goes. A probe that looks at both levels asks
    twice.
    """

    def __init__(self, federation: Federation, executor: Executor, work: LocalWork) -> None:
        self._federation = federation
        self._executor = executor
        self._work = work
        self._outcomes: dict[tuple[object, ...], Outcome] = {}
        self._remembered = 0

    def forget(self) -> None:
        """Let go of all outcomes."""
        self._outcomes = {}
        self._remembered = 0

    def of(self, requests: Sequence[Request]) -> Iterator[Outcome]:
        """The outcomes in the order of the requests."""
        size = sum(value.numel() * value.element_size() for value in self._federation.initial.values())
        portion = max(1, AT_ONCE // max(1, size))
        for first in range(0, len(requests), portion):
            yield from self._portion(requests[first : first + portion], size)

    def _portion(self, requests: Sequence[Request], size: int) -> list[Outcome]:
        """The outcomes of a portion: those of one work are one stack, so that the executor trains them together."""
        outcomes: dict[int, Outcome] = {}
        works: dict[int, list[int]] = {}
        for place, (transition, change) in enumerate(requests):
            known = self._outcomes.get(_key(transition, change))
            if known is not None:
                outcomes[place] = known
                continue
            work, _ = self._work.stored_place(transition.run, transition.round, transition.client)
            works.setdefault(id(work), []).append(place)
        for places in works.values():
            asked = [requests[place] for place in places]
            stored = [self._work.stored_place(t.run, t.round, t.client) for t, _ in asked]
            changes = [change for _, change in asked]
            work = replayed_work(stored[0][0], [i for _, i in stored], changes, len(self._federation.store))
            for place, outcome in zip(places, _outcomes(self._executor.train_all(work)), strict=True):
                outcomes[place] = outcome
                self._remember(requests[place], outcome, size)
        return [outcomes[place] for place in range(len(requests))]

    def _remember(self, request: Request, outcome: Outcome, size: int) -> None:
        size *= 1 + (outcome.kept is not outcome.sent)
        transition, change = request
        if change.start is None and self._remembered + size <= REMEMBERED:
            self._outcomes[_key(transition, change)] = outcome
            self._remembered += size


def _key(transition: Transition, change: Replay) -> tuple[object, ...]:
    """The key of a remembered outcome; never found for a change with other weights."""
    start = None if change.start is None else object()
    extra = tuple(sorted(change.extra.items()))
    changes = (change.without, extra, change.steps, change.draws, start)
    return transition.run, transition.round, transition.client, *changes


def _outcomes(done: TrainedWork) -> Iterator[Outcome]:
    """The outcomes with the report of a transition: that of the algorithm, with steps and loss."""
    for i, outcome in enumerate(done.outcomes()):
        scalars: Params = {
            "steps": torch.tensor(float(done.work.steps[i]), dtype=torch.float64),
            "loss": torch.tensor(float(done.loss[i]), dtype=torch.float64),
        }
        report = {name: value.double() for name, value in outcome.report.items()}
        yield Outcome(sent=outcome.sent, kept=outcome.kept, memory=outcome.memory, report={**report, **scalars})
