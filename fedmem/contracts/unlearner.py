"""Contracts of unlearners, which change models once, before the first round of a phase, so that they forget rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.client_shards import ClientShards
from fedmem.contracts.declarations import Declaration, declare, read_declaration

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class RunToForget:
    """One run before a phase.

    Attributes:
        run: Its number.
        before: The model with which the phase before ended.
        initial: The initial weights of its first training.
        clients: The clients that may take part in the phase, ascending.
        forgotten: The clients with something to forget, each with the rows of the store that it trained on and is to
            forget. Empty in a run without any of the forgotten examples. The same procedure then has nothing to forget.
    """

    run: int
    before: Params
    initial: Params
    clients: tuple[int, ...]
    forgotten: Mapping[int, IntArray] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LocalTraining:
    """A local training to be done: the client, its run, and the model that it starts from."""

    run: int
    client: int
    start: Params


@dataclass(frozen=True, kw_only=True)
class StoredRound:
    """The stored models of one round of the phase before, in one run.

    Attributes:
        aggregate: The model that the clients were sent.
        clients: The model of each client after its local training.
        sizes: The number of rows that each was trained on.
    """

    aggregate: Params
    clients: Mapping[int, Params]
    sizes: Mapping[int, int]


@runtime_checkable
class UnlearningContext(Protocol):
    """The runs in which something is forgotten, and services. Nothing in it depends on other runs.

    Services take the run and the client that they are about, which errors name.
    """

    @property
    def runs(self) -> Sequence[RunToForget]:
        """The runs, in the order of the models that an unlearner returns."""
        ...

    @property
    def rounds_before(self) -> int:
        """The rounds of the phase before."""
        ...

    def retained_rows(self, run: int, client: int) -> IntArray:
        """The rows of the store that a client trains on in the phase; none where it takes no part any more."""
        ...

    def gradient(self, run: int, client: int, model: Params, rows: IntArray) -> tuple[float, Params]:
        """The mean loss of a model on rows in nats, and its gradient by trained parameter, both in float64."""
        ...

    def population_loss(self, run: int, client: int, model: Params) -> float:
        """The mean loss of a model on the population, which no client trains on."""
        ...

    def average(self, run: int, models: Mapping[int, Params]) -> Params:
        """The aggregate of models of clients, by client, with the weights of the strategy; at least one."""
        ...

    def weights(self, run: int, sizes: Mapping[int, int]) -> Mapping[int, float]:
        """The weights of clients with so many rows in the aggregate of the strategy; their sum is 1."""
        ...

    def stored_round(self, run: int, round_number: int) -> StoredRound:
        """The stored models of a round of the phase before, from 1."""
        ...

    def train(self, round_number: int, trainings: Sequence[LocalTraining], share: float = 1.0) -> Sequence[Params]:
        """The models that clients send after a local training, in the order of the trainings.

        Each does the first `share` of the steps that it did in this round of the phase before, on the same batches. In
        the places of forgotten rows are those that it trains on in the phase.
        """
        ...

    def train_again(self, clients: Mapping[int, Sequence[int]]) -> Mapping[int, Params]:
        """The last models of runs in which these clients alone repeat all rounds of the phase before, by run.

        It begins at the initial weights, with the client algorithm, strategy, cohorts and batches of that phase. In
        the places of forgotten rows are those that clients train on in the phase. Places of other clients in cohorts
        stay empty. The same clients with nothing forgotten give the models of that phase, to the last bit.
        """
        ...

    @property
    def client_shards(self) -> ClientShards:
        """The shards of clients, and the part of the model that each of them trains; a single one by default."""
        ...

    @property
    def blocks(self) -> Sequence[tuple[str, ...]]:
        """The entries of a model that belong to each block of the network, numbered from 1 as by `block_swap`."""
        ...

    def tied_entries(self, run: int) -> Mapping[str, Tensor]:
        """Masks of the entries of trained parameters that act only through units tied to what a run forgets.

        Units are tied to the rows in `forgotten`, or with `unit: client` to the clients. Other rows may be tied to the
        same units. In evaluation no output depends on these entries.
        """
        ...

    def stream(self, purpose: str, run: int, client: int | None = None) -> np.random.Generator:
        """A named stream that belongs to the unlearner alone."""
        ...


@runtime_checkable
class Unlearner(Protocol):
    """Changes the model of each run once, before the first round of a phase.

    `unlearn` returns one model for each of `context.runs`, in their order, with the entries of `before`. The model of
    a run must not depend on the runs beside it, since runs are trained in shards. It must be deterministic but for
    `context.stream`. It may declare what `UnlearnerDeclaration` lists.
    """

    def unlearn(self, context: UnlearningContext) -> Sequence[Params]: ...


@dataclass(frozen=True, kw_only=True)
class UnlearnerDeclaration(Declaration):
    """The declarations of an unlearner, with their defaults.

    Attributes:
        steps: Gradients on the rows of one client with something to forget, at most; `fedmem check` prints their sum.
            A property may compute it.
        needs_population: Whether it reads the loss on the population. A property may compute it.
        trained_rounds: `trained_rounds(rounds)`, the rounds of the phase before whose clients train again, where that
            phase has so many rounds. None where nobody does.
        stored_models: `stored_models(rounds)`, the rounds of the phase before whose stored models it reads, by level.
            None where it reads none.
        blocks: Numbers of blocks of the network that it changes, which must exist.
        reads_tied_units: Whether it needs a network with tied units. A property may compute it.
        trains_shards: Whether the shards of clients with something to forget repeat all rounds of the phase before.
        without_windows: Whether it is undefined where examples are trained on in some rounds only, and in a phase that
            follows another phase.
    """

    steps: int = declare(0, "a number of steps")
    needs_population: bool = declare(False, "true or false")
    trained_rounds: Callable[[int], Sequence[int]] | None = declare(None, "a method trained_rounds(rounds)")
    stored_models: Callable[[int], Mapping[str, Sequence[int]]] | None = declare(None, "a method stored_models(rounds)")
    blocks: tuple[int, ...] = declare((), "a tuple of numbers of blocks")
    reads_tied_units: bool = declare(False, "true or false")
    trains_shards: bool = declare(False, "true or false")
    without_windows: bool = declare(False, "true or false")


def unlearner_declaration(unlearner: object) -> UnlearnerDeclaration:
    """The declarations of an unlearner.

    >>> from fedmem.unlearners.retrain import Retrain
    >>> unlearner_declaration(Retrain()).steps
    0
    """
    return read_declaration(UnlearnerDeclaration, unlearner)
