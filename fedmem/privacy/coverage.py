"""Which values of clients the parts of a scenario read, and whether the noise of a privacy guarantee covers them.

A guarantee covers everything that is computed from noisy values. It says nothing of values that leave a client exactly:
its number of rows, its mean loss, and whatever else it reports. So each strategy and each sampler declares which of
these values it reads, by the words of `WORDS` in `reads: ClassVar[tuple[str, ...]]` (or a property). An empty tuple
means that it reads only updates. Where nothing is declared, nothing is known, and no guarantee is given. A declaration
covers the methods of its class and of base classes; a subclass with methods of its own declares again
(`contracts/declarations.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fedmem.contracts.client import ClientAlgorithm, client_declaration
from fedmem.contracts.client_values import READS
from fedmem.contracts.families import kind_of, nested_components
from fedmem.contracts.sampler import Sampler, sampler_declaration
from fedmem.contracts.strategy import StrategyMaker, strategy_declaration

WORDS = {**READS, "unknown": "undeclared values"}
"""The values of clients that a component reads without the noise that it adds itself, with their names in messages."""

SIZES = frozenset({"rows", "steps", "lr"})
"""Fixed by the number of rows and the settings; of steps and lr only if the client declares `steps_by_rows`."""

_NEEDS = {"last_loss": "loss", "last_norm": "norm"}


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One component, its place in the scenario, and the words of what it reads of clients."""

    path: str
    kind: str
    reads: frozenset[str]

    def names(self, reads: frozenset[str]) -> str:
        """The names of what it reads among `reads`, as text."""
        return " and ".join(WORDS.get(name, name) for name in sorted(self.reads & reads))


def minimum_separation_of(sampler: Sampler, clients: int) -> int | None:
    """The minimum separation of a client's participations that a sampler and those in it declare.

    A subclass that picks in its own way inherits `min_separation` without keeping to it, so it has to declare it again.
    """
    separation = sampler_declaration(sampler).min_separation
    if separation is None or any(
        "min_separation" in sampler_declaration(part).outdated for _, part in nested_components(sampler)
    ):
        return None
    rounds: int | None = separation(clients)
    return rounds


def readers(strategy: StrategyMaker, sampler: Sampler) -> Iterator[Reader]:
    """The strategy, the sampler, and the samplers inside it."""
    yield _strategy(strategy)
    for _, part in nested_components(sampler):
        yield Reader(path="sampler", kind=kind_of(part), reads=sampler_reads(part))


def _strategy(strategy: StrategyMaker) -> Reader:
    reads = strategy_declaration(strategy).reads
    return Reader(path="strategy", kind=kind_of(strategy), reads=frozenset(("unknown",) if reads is None else reads))


def sampler_reads(sampler: Sampler) -> frozenset[str]:
    """The declared reads of a sampler and the histories that it needs; `unknown` without a declaration.

    Inclusion probabilities are no declaration. They may stay the same while rows decide which clients are picked
    together.
    """
    declared = sampler_declaration(sampler)
    needs = (_NEEDS[word] for word in declared.needs)
    return frozenset({*(("unknown",) if declared.reads is None else declared.reads), *needs})


def uncovered_by_clients(
    strategy: StrategyMaker, sampler: Sampler, client: ClientAlgorithm, roster: str
) -> Iterator[tuple[Reader, str]]:
    """Readers of what noise at clients does not cover, between neighbours with the same number of rows, as text.

    Numbers of steps and learning rates are covered where the client algorithm declares that they depend on its number
    of rows and its settings alone. Norms are those of noisy updates and hence covered, except those of a pilot run,
    whose messages are not accounted.
    """
    sizes = SIZES if client_declaration(client).steps_by_rows else frozenset({"rows"})
    covered = sizes | (frozenset({"norm"}) if roster == "per_run" else frozenset())
    for reader in readers(strategy, sampler):
        if reader.reads - covered:
            yield reader, reader.names(reader.reads - covered)


def uncovered_by_server(strategy: StrategyMaker) -> str:
    """The values of clients that a strategy reads outside of its noisy sum, as text; empty if there are none."""
    reader = _strategy(strategy)
    return reader.names(reader.reads - frozenset(strategy_declaration(strategy).noise_covers))


def reads_sizes(strategy: StrategyMaker, sampler: Sampler) -> str:
    """The kinds of the components that use exact numbers of rows; empty where none does."""
    return " and ".join(dict.fromkeys(reader.kind for reader in readers(strategy, sampler) if reader.reads & SIZES))
