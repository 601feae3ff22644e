"""Which values of clients the parts of a scenario read, and whether the noise of a privacy guarantee covers them.

A guarantee covers everything that is computed from noisy values. It says nothing of values that leave a client exactly:
its number of rows, its mean loss, and whatever else it reports. So each strategy and each sampler declares what it
reads of them, by the words of `WORDS` in `reads: ClassVar[tuple[str, ...]]` (or a property); an empty tuple says that
it reads nothing but updates. Where nothing is declared, nothing is known, and no guarantee is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from fedmem.catalogue import kind_of
from fedmem.components import Chances, History
from fedmem.types import FloatArray

WORDS = {
    "rows": "the numbers of rows",
    "steps": "the numbers of local steps",
    "lr": "the learning rates",
    "loss": "the losses",
    "norm": "the norms of the updates",
    "holdings": "what clients hold",
    "unknown": "undeclared values",
}
"""What a component may declare to read of clients, outside of the noise that it adds itself."""

SIZES = frozenset({"rows", "steps", "lr"})
"""Fixed by the number of rows and the settings: the same for neighbours with the same number of rows."""

_NEEDS = {"last_loss": "loss", "last_norm": "norm"}


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One component, its place in the scenario, and the words of what it reads of clients."""

    path: str
    kind: str
    reads: frozenset[str]

    def names(self, words: frozenset[str]) -> str:
        """Those of its reads that are in `words`, as text."""
        return " and ".join(WORDS.get(word, word) for word in sorted(self.reads & words))


def readers(strategy: Any, sampler: Any, clients: int) -> Iterator[Reader]:
    """The strategy, the sampler, and the samplers inside it."""
    yield _strategy(strategy)
    for part in parts(sampler):
        yield Reader(path="sampler", kind=kind_of(part), reads=sampler_reads(part, clients))


def _strategy(strategy: Any) -> Reader:
    declared = getattr(strategy, "reads", None)
    reads = frozenset({"unknown"} if declared is None else declared)
    return Reader(path="strategy", kind=kind_of(strategy), reads=reads)


def sampler_reads(sampler: Any, clients: int) -> frozenset[str]:
    """What a sampler declares to read; else what its inclusion probabilities in round 1 are seen to depend on.

    A sampler that declares nothing and has no probabilities reads what is `unknown`.
    """
    declared = getattr(sampler, "reads", None)
    if declared is None:
        declared = _tried(sampler, clients)
    needs = (_NEEDS.get(word, word) for word in getattr(sampler, "needs", ()))
    return frozenset({*(("unknown",) if declared is None else declared), *needs})


def uncovered_by_clients(strategy: Any, sampler: Any, clients: int, roster: str) -> Iterator[tuple[Reader, str]]:
    """Readers of what noise at clients does not cover, between neighbours with the same number of rows, as text.

    Norms are those of noisy updates and hence covered, except those of a pilot run, whose messages are not accounted.
    """
    covered = SIZES | (frozenset({"norm"}) if roster == "own" else frozenset())
    for reader in readers(strategy, sampler, clients):
        if reader.reads - covered:
            yield reader, reader.names(reader.reads - covered)


def uncovered_by_server(strategy: Any) -> str:
    """What a strategy reads of clients outside of the noise that it adds to its sum, as text; empty if nothing."""
    reader = _strategy(strategy)
    return reader.names(reader.reads - frozenset(getattr(strategy, "noise_covers", ())))


def reads_sizes(strategy: Any, sampler: Any, clients: int) -> str:
    """The kinds of the components that use exact numbers of rows; empty where none does."""
    return " and ".join(dict.fromkeys(one.kind for one in readers(strategy, sampler, clients) if one.reads & SIZES))


def parts(sampler: Any) -> Iterator[Any]:
    """A sampler and those inside it."""
    yield sampler
    for item in fields(sampler):
        part = getattr(sampler, item.name)
        if is_dataclass(part):
            yield from parts(part)


def _tried(sampler: Any, clients: int) -> frozenset[str] | None:
    """The words that inclusion probabilities depend on, for the same history with other rows and atypical examples."""
    plain = _chances(sampler, History.start(np.full(clients, 10)))
    if plain is None:
        return None
    others = {
        "rows": History.start(1 + np.arange(clients)),
        "holdings": History.start(np.full(clients, 10), np.arange(clients) % 2),
    }
    chances = {word: _chances(sampler, history) for word, history in others.items()}
    return frozenset(word for word, one in chances.items() if one is None or not np.array_equal(one, plain))


def _chances(sampler: Any, history: History) -> FloatArray | None:
    """The probability with which each client is picked in round 1; None where that is not known."""
    return sampler.probabilities(1, history) if isinstance(sampler, Chances) else None
