"""The context that probes receive in a round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray, IntArray, Params
from fedmem.contracts.client import ClientAlgorithm, Outcome
from fedmem.contracts.evidence import Transition
from fedmem.contracts.federation import Federation
from fedmem.contracts.replay import Replay
from fedmem.contracts.strategy import strategy_declaration
from fedmem.observation.aggregates import Aggregates
from fedmem.observation.replays import Replays
from fedmem.privacy.amplification import canaries_of
from fedmem.seeding import stream
from fedmem.training.client_work import pick
from fedmem.training.constituents import reference_executor
from fedmem.training.executor import Executor, Settings
from fedmem.training.stacked import LocalWork

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario


class _Context:
    """The services for probes: see `components.Context`."""

    def __init__(
        self,
        scenario: Scenario,
        federation: Federation,
        executor: Executor,
        work: LocalWork,
        source: str,
        arrays: dict[str, NDArray[Any]],
    ) -> None:
        self.federation = federation
        self.client: ClientAlgorithm = scenario.client
        self.strategy = scenario.strategy
        self._local: Sequence[Transition] = ()
        self._replays = Replays(federation, executor, work)
        self._aggregates = Aggregates(scenario, federation)
        self._defended = bool(scenario.defences)
        self.seed = scenario.training_seed
        self._settings = Settings(
            seed=scenario.training_seed, mode=federation.mode, shared_draws=scenario.batches == "shared"
        )
        self.observed_rounds = scenario.observed_rounds
        self.canaries = canaries_of(scenario)
        self.weighting: str = strategy_declaration(scenario.strategy).weighting
        self._executor = executor
        self._work = work
        self._source = source
        self._stored = arrays

    @property
    def local(self) -> Sequence[Transition]:
        """The local transitions of the round that is being watched."""
        return self._local

    @local.setter
    def local(self, transitions: Sequence[Transition]) -> None:
        self._replays.forget()
        self._local = transitions

    def stream(
        self, purpose: str, *, run: int | None = None, round_number: int | None = None, client: int | None = None
    ) -> np.random.Generator:
        """A named stream that belongs to probes alone."""
        return stream(self.seed, f"probe {purpose}", run=run, round_number=round_number, client=client)

    def logits(self, models: Sequence[Params], inputs: NDArray[np.float32]) -> FloatArray:
        """(T, n, C) logits."""
        return self._executor.logits(models, inputs)

    def first_step(self, transition: Transition) -> tuple[Params, IntArray]:
        """Repeat the client's first local step: same rows, same order, same numbers."""
        work = self._work.stored_work(transition.run, transition.round, transition.client).first_steps(1)
        components = self.federation.model, self.client, self.federation.store
        reference = reference_executor(*components, self._settings)
        (outcome,) = reference.train_all(work).outcomes()
        return outcome.sent, work.batches[work.batches >= 0]

    def steps(self, transition: Transition, count: int) -> Params:
        """The model after the client's first steps, trained as it was, but for defences."""
        work = self._work.stored_work(transition.run, transition.round, transition.client).first_steps(count)
        components = self.federation.model, self.client, self.federation.store
        executor = reference_executor(*components, self._settings) if self._defended else self._executor
        (outcome,) = executor.train_all(work).outcomes()
        return outcome.sent

    def replay(
        self,
        transition: Transition,
        *,
        start: Params | None = None,
        without: Sequence[int] = (),
        extra: Mapping[int, int] | None = None,
        steps: int | None = None,
    ) -> Outcome:
        """One local training, repeated with changes."""
        change = Replay(start=start, without=tuple(without), extra=extra or {}, steps=steps)
        (outcome,) = self.replays([(transition, change)])
        return outcome

    def replays(self, requests: Sequence[tuple[Transition, Replay]]) -> Iterator[Outcome]:
        """Local trainings, repeated with changes as stacks."""
        return self._replays.of(requests)

    def aggregates(self, transition: Transition, changes: Sequence[Mapping[int, Outcome]]) -> Sequence[Params]:
        """Aggregates with other outcomes of clients."""
        return self._aggregates.of(transition, self.senders(transition), changes)

    def senders(self, transition: Transition) -> Sequence[Transition]:
        """The local transitions of the same run and round whose model was aggregated."""
        clients = set(transition.clients)
        return [local for local in self.local if local.run == transition.run and local.client in clients]

    def rows(self, run: int, client: int, round_number: int) -> IntArray:
        """The rows that a client trains on in this round."""
        return self.federation.rows(run, client, round_number)

    def used_rows(self, run: int, client: int, round_number: int) -> IntArray:
        """The rows that are in one of the client's batches."""
        return self._work.used_rows(run, client, round_number)

    def batches_and_payload(self, transition: Transition) -> tuple[IntArray, Params]:
        """The batches and the server payload of a client's work."""
        work = self._work.stored_work(transition.run, transition.round, transition.client)
        return work.batches[0, : work.steps[0]], pick(work.payload, 0)

    def keep(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Arrays for `reconstructions.npz`, under the source of the probe."""
        self._stored.update({f"{self._source}/{name}/{key}": value for key, value in arrays.items()})
