"""Events: one frozen record for each thing that happens while scenarios run, and the listeners that receive them.

A listener is anything that can be called with an event. Events of shards arrive from their processes as they happen::

    def on_event(event: Event) -> None:
        if isinstance(event, RoundFinished):
            print(event.round, event.accuracy)

    fedmem.run(scenario, listeners=[on_event])

`str(event)` is one line of text, so that `print` is a listener as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from inspect import isroutine
from typing import Any, Literal

from fedmem.contracts.measurement import Measurement
from fedmem.errors import RunError
from fedmem.guards.guarding import Guard, PartError


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened.

    Attributes:
        place: position of its scenario among those that are run together, 0 where it is the only one.
    """

    place: int = 0


@dataclass(frozen=True, kw_only=True)
class ScenariosStarted(Event):
    """Several scenarios are about to run.

    Attributes:
        total: how many there are.
        finished: how many of them were finished before, and are not run again.
    """

    total: int
    finished: int

    def __str__(self) -> str:
        before = f", {self.finished} of them finished before" if self.finished else ""
        return f"{count(self.total, 'scenario')}{before}"


@dataclass(frozen=True, kw_only=True)
class ScenarioStarted(Event):
    """A scenario is about to be trained.

    Attributes:
        name: of the scenario.
        id: of the scenario; its folder is `<out>/<name>/<id>`.
        runs: R, of its bank.
        rounds: of each run.
        warnings: what a reader of its numbers must know, as `fedmem check` says it; one text each.
    """

    name: str
    id: str
    runs: int
    rounds: int
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} {self.id}: {count(self.runs, 'run')} of {count(self.rounds, 'round')}"


@dataclass(frozen=True, kw_only=True)
class StageStarted(Event):
    """Something other than training began, such as the estimation; `text` says what."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, kw_only=True)
class TrainingStarted(Event):
    """The training of a bank, or of its pilot run, began.

    Attributes:
        what: `bank`, or `pilot` for the run that picks the cohorts of all others.
        rounds: Of each run.
        runs: How many are trained.
        shards: How many shards these are trained in.
        stored: How many runs of the bank were trained and stored before.
        processes: How many shards are trained at once.
    """

    what: Literal["bank", "pilot"] = "bank"
    rounds: int
    runs: int
    shards: int = 1
    stored: int = 0
    processes: int = 1

    def __str__(self) -> str:
        if self.what == "pilot":
            return "training the pilot, a run more, which picks the cohorts of all others"
        before = f"{count(self.stored, 'run')} stored already; " if self.stored else ""
        shards = f" in {count(self.shards, 'shard')}" if self.stored or self.shards > 1 else ""
        at_once = f", {self.processes} at once" if self.processes > 1 else ""
        return f"{before}training {count(self.runs, 'run')}{shards}{at_once}"


@dataclass(frozen=True, kw_only=True)
class ShardStarted(Event):
    """The training of a shard began: of runs `first` to `last`, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"training {runs_text(self.first, self.last)}"


@dataclass(frozen=True, kw_only=True)
class RoundFinished(Event):
    """A round ended in the runs `first` to `last`, which are trained together.

    Attributes:
        round: The round, from 1.
        rounds: How many there are.
        first: The first of the runs.
        last: The last of the runs.
        accuracy: Of their global models on the test set after this round, 0..1; None where it is not observed.
        loss: Their mean loss in nats on it, where models have no accuracy since they give log-densities.
    """

    round: int
    rounds: int
    first: int
    last: int
    accuracy: float | None = None
    loss: float | None = None

    @property
    def utility(self) -> str:
        """The accuracy in words, or the loss of models without one; empty where neither is observed."""
        if self.accuracy is not None:
            return f"global accuracy {self.accuracy:.3f}"
        return "" if self.loss is None else f"global loss {self.loss:.2f} nats"

    def __str__(self) -> str:
        utility = f", {self.utility}" if self.utility else ""
        return f"round {self.round} of {self.rounds} in {runs_text(self.first, self.last)}{utility}"


@dataclass(frozen=True, kw_only=True)
class ReadingsTaken(Event):
    """A probe read the models of one round and level; `measurements` are what it read, each with its place."""

    measurements: tuple[Measurement, ...]

    def __str__(self) -> str:
        first = self.measurements[0]
        return f"{count(len(self.measurements), 'reading')} of {first.source}, round {first.round}, level {first.level}"


@dataclass(frozen=True, kw_only=True)
class ShardStored(Event):
    """A shard was written to disk: runs `first` to `last`, both included. It survives an interruption."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"stored {runs_text(self.first, self.last)}"


@dataclass(frozen=True, kw_only=True)
class ScenarioFinished(Event):
    """The folder of a scenario is complete; `trained` is False where it was finished before."""

    folder: str
    trained: bool = True

    def __str__(self) -> str:
        return f"{'finished' if self.trained else 'finished before'}: {self.folder}"


@dataclass(frozen=True, kw_only=True)
class ScenarioFailed(Event):
    """A scenario failed, for the reason that `error` gives."""

    error: str

    def __str__(self) -> str:
        return f"failed: {self.error}"


Listener = Callable[[Event], object]
"""Receives every event of a call, in order, in the process of that call."""

Emit = Callable[[Event], None]
"""Passes an event on to the listeners."""


class ListenerError(RunError):
    """A listener raised; the call that it listened to has ended."""


def silent(event: Event) -> None:
    """Drops an event."""


def emitter(listeners: Iterable[Listener]) -> Emit:
    """A listener that passes an event on to these listeners, one after the other.

    Raises:
        ListenerError: a listener raised; the message names it. Ctrl-C within a listener stays Ctrl-C.

    >>> emitter([print])(StageStarted(text="estimating"))
    estimating
    """
    receivers = tuple(listeners)

    def emit(event: Event) -> None:
        for listener in receivers:
            try:
                with Guard("listener", listener_name(listener), type(event).__name__, whole=True):
                    listener(event)
            except PartError as error:
                raise ListenerError(str(error)) from error

    return emit


def listener_name(listener: Listener) -> str:
    """Module and name of a function, or of the class of any other listener.

    >>> listener_name(print)
    'builtins:print'
    """
    definition: Any = listener if isroutine(listener) else type(listener)
    return f"{definition.__module__}:{definition.__qualname__}"


class Share:
    """A listener that adds up what share of the training of one scenario is done, over all shards.

    Runs that were stored before count as done. A shard that is trained again counts from its beginning.

    >>> share = Share()
    >>> share(TrainingStarted(rounds=10, runs=4, shards=2, stored=4))
    >>> share(RoundFinished(round=5, rounds=10, first=0, last=1))
    >>> share.done, share.at_start
    (0.625, 0.5)
    """

    def __init__(self) -> None:
        self._total = self._stored = 0
        self._rounds: dict[int, int] = {}

    def __call__(self, event: Event) -> None:
        """Count the rounds of all runs."""
        if isinstance(event, TrainingStarted):
            self._total, self._rounds = event.rounds * (event.runs + event.stored), {}
            self._stored = event.rounds * event.stored
        elif isinstance(event, ShardStarted):
            self._rounds.pop(event.first, None)
        elif isinstance(event, RoundFinished):
            self._rounds[event.first] = event.round * (event.last - event.first + 1)

    @property
    def done(self) -> float:
        """0 before the first round, 1 after the last of all shards."""
        return (self._stored + sum(self._rounds.values())) / self._total if self._total else 0.0

    @property
    def at_start(self) -> float:
        """The share that was stored before this training began."""
        return self._stored / self._total if self._total else 0.0


def count(number: int, noun: str) -> str:
    """A number with its noun.

    >>> count(1, "run"), count(3, "run"), count(1000, "row")
    ('1 run', '3 runs', '1,000 rows')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


def runs_text(first: int, last: int) -> str:
    """These runs, both included.

    >>> runs_text(0, 3), runs_text(2, 2)
    ('runs 0 to 3', 'run 2')
    """
    return f"run {first}" if first == last else f"runs {first} to {last}"
