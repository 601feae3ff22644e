"""Contracts of probes: their inputs at each observed round, and their methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray, IntArray, Params
from fedmem.contracts.client import ClientAlgorithm, Outcome
from fedmem.contracts.declarations import declare, read_declaration
from fedmem.contracts.evidence import Transition
from fedmem.contracts.federation import Federation
from fedmem.contracts.measurement import Level, Measurement, Reading
from fedmem.contracts.needs import YES_OR_NO, Needs
from fedmem.contracts.replay import Replay
from fedmem.contracts.strategy import StrategyMaker
from fedmem.errors import Problem

if TYPE_CHECKING:
    from fedmem.privacy.canary_directions import CanaryDirections


@runtime_checkable
class Context(Protocol):
    """The services that a probe may ask for, besides the transitions it is shown."""

    federation: Federation
    client: ClientAlgorithm
    strategy: StrategyMaker
    seed: int
    observed_rounds: tuple[int, ...]
    """Every round of the scenario that is observed, sorted, 0 included, so that a probe can declare its own."""
    canaries: CanaryDirections | None
    """The clients of random direction of the scenario, where its strategy has some."""
    weighting: str
    """How clients count in sums and in the aggregate: by `size` or `uniform`, as the strategy says."""

    def stream(
        self, purpose: str, *, run: int | None = None, round_number: int | None = None, client: int | None = None
    ) -> np.random.Generator: ...

    def logits(self, models: Sequence[Params], inputs: NDArray[np.float32]) -> FloatArray:
        """(T, n, C) logits in float64 of T models on the same n inputs."""
        ...

    def first_step(self, transition: Transition) -> tuple[Params, IntArray]:
        """The model to be sent after the first local step, before any defence, and the rows in that batch."""
        ...

    def steps(self, transition: Transition, count: int) -> Params:
        """The model to be sent after the first `count` local steps, before any defence, by the same executor."""
        ...

    def replay(
        self,
        transition: Transition,
        *,
        start: Params | None = None,
        without: Sequence[int] = (),
        extra: Mapping[int, int] | None = None,
        steps: int | None = None,
    ) -> Outcome:
        """The outcome of a local training that is repeated with these changes; see `Replay`."""
        ...

    def replays(self, requests: Sequence[tuple[Transition, Replay]]) -> Iterator[Outcome]:
        """The outcomes of local trainings that are repeated with changes, in this order, trained as stacks.

        Guarantees:

        - without a change an outcome is that of the transition, bit for bit: sent after defences, kept, memory, and the
          report with `steps` and `loss`;
        - draws of defences, of dropout and of noise are those of the transition, unless `Replay.draws` asks for others;
        - the real training is untouched.

        A row that is left out does not change the number of rows by which a server weighs the client.
        """
        ...

    def aggregates(self, transition: Transition, changes: Sequence[Mapping[int, Outcome]]) -> Sequence[Params]:
        """For each change the aggregate of a global transition, had these clients sent these outcomes instead.

        It is recomputed by the rule of the strategy, with the same weights and draws. An aggregate that its owner
        completes has the layers that this owner then keeps. A strategy without a rule, or with a state, is refused.
        """
        ...

    def senders(self, transition: Transition) -> Sequence[Transition]:
        """The local transitions that the aggregate of a global one was made of, in order of client."""
        ...

    def rows(self, run: int, client: int, round_number: int) -> IntArray:
        """The rows of the store that a client trains on in this round, if it takes part."""
        ...

    def used_rows(self, run: int, client: int, round_number: int) -> IntArray:
        """Those of them that are in one of its batches: not all, where its steps end before its first epoch does."""
        ...

    def batches_and_payload(self, transition: Transition) -> tuple[IntArray, Params]:
        """The batches of a local transition (S, B), as rows of the store and -1 for padding, and its server payload."""
        ...

    def keep(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Hand over arrays for `reconstructions.npz`, under `source/name/key` with the source of the probe.

        Arrays of different runs have different names, since they may come from different processes.
        """
        ...


@runtime_checkable
class Probe(Protocol):
    """Looks at the transitions of one level and round and returns readings; nothing waits for them.

    Runs are trained in shards, and a probe is shown the transitions of one shard at a time. So the readings of a run
    must not depend on the runs shown with it. A probe keeps nothing from one call for the next. `summarise` forms the
    measurements over several runs, from the readings of all of them.

    A class declares its measures, and may declare what else `ProbeDeclaration` lists.
    """

    every: int | None
    levels: tuple[Level, ...]

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """Each reading with the transition it is about."""
        ...

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """Rows over all runs, from this probe's own measurements: of each round, and of the summary; may be empty.

        It is also called where there are no measurements.

        The measurements come by round and level, and within them by run, each run in the order in which it was read.
        """
        ...


@runtime_checkable
class MechanismTest(Probe, Protocol):
    """A probe that tests the stated noise: `alarm` says whether a contradiction is an alarm, `level` at which p."""

    tests_mechanism: ClassVar[bool]

    @property
    def alarm(self) -> bool: ...

    @property
    def level(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class BuiltNetwork:
    """The network of a scenario, and what a probe may ask of it before anything is trained.

    Attributes:
        network: The network.
        initial: Its trained parameters.
        shape: The shape of one input.
        token_inputs: Whether inputs are tokens.
        personal: Parameters that stay with the clients.
        population: The number of rows of the population.
    """

    network: Any
    initial: Params
    shape: tuple[int, ...]
    token_inputs: bool
    personal: tuple[str, ...]
    population: int


@dataclass(frozen=True, kw_only=True)
class ProbeDeclaration(Needs):
    """The declarations of a probe, with their defaults.

    Attributes:
        rounds: Observed rounds that it is restricted to; empty for all.
        canary_clients: Whether it reads canary clients.
        tests_mechanism: Whether it tests the stated noise, see `MechanismTest`.
        recomputes_aggregates: Whether it asks for `Context.aggregates`. A scenario whose strategy has no rule, or one
            with a state, is then refused.
        compares_clients: Whether it compares runs with and without a client, which need `leave_out`.
        needs_triggers: Whether it reads rows with a trigger. It is refused where no injection has one.
        needs_replacements: Whether it reads the places of out examples, which replacement rows take. It is refused with
            `exclusion: remove`, and without audit examples.
        needs_base_rows: Whether it reads base rows of every client. It is refused where one has none.
        reads_numbers: Whether it reads or moves inputs as numbers, so that texts are refused.
        draws_noise_again: Whether it recomputes aggregates without the noise of the server, which it does not know. A
            strategy that adds noise is refused where level `global` is observed.
        network_problems: `network_problems(built)`, why it cannot act on a network and population, as problems whose
            path is one of its fields or empty. None if it suits all.
        replays_per_client: `replays_per_client(examples)`, how often it repeats the training of a client that trains
            on so many audit examples, at most. `fedmem check` counts these trainings. None if it repeats none.
    """

    rounds: tuple[int, ...] = declare((), "a tuple of rounds")
    canary_clients: bool = declare(False, YES_OR_NO)
    tests_mechanism: bool = declare(False, YES_OR_NO)
    recomputes_aggregates: bool = declare(False, YES_OR_NO)
    compares_clients: bool = declare(False, YES_OR_NO)
    needs_triggers: bool = declare(False, YES_OR_NO)
    needs_replacements: bool = declare(False, YES_OR_NO)
    needs_base_rows: bool = declare(False, YES_OR_NO)
    reads_numbers: bool = declare(False, YES_OR_NO)
    draws_noise_again: bool = declare(False, YES_OR_NO)
    network_problems: Callable[[BuiltNetwork], Sequence[Problem]] | None = declare(
        None, "a method network_problems(built)"
    )
    replays_per_client: Callable[[int], int] | None = declare(None, "a method replays_per_client(examples)")


def probe_declaration(probe: object) -> ProbeDeclaration:
    """The declarations of a probe.

    >>> from fedmem.probes.utility import Utility
    >>> probe_declaration(Utility()).compares_held_out
    False
    """
    return read_declaration(ProbeDeclaration, probe)
