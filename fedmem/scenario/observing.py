"""When and where the models of a scenario are looked at."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, Strict

from fedmem.contracts.measurement import Level
from fedmem.scenario.catalogue import IDENTITY_NEUTRAL
from fedmem.scenario.observed_sets import ObservedPopulation, ObservedTest
from fedmem.scenario.section import Positive, Section, count_from_start


class Observe(Section):
    """When and where models are looked at. Round 0 (the initial model) and the last round always are."""

    every: Positive | None = Field(default=None, description="observe every so many rounds")
    rounds: tuple[Annotated[int, Strict(), Field(ge=-(10**8), le=10**8)], ...] = Field(
        default=(), description="further rounds; negative ones count from the end, -1 is the last"
    )
    levels: Annotated[tuple[Level, ...], Field(min_length=1)] = Field(
        default=("local", "global"),
        description="at clients (local), after aggregation (global), in sums of some clients (sum, which probes alone "
        "read)",
    )
    sums: tuple[Annotated[int, Strict(), Field(ge=2, le=10**6)], ...] = Field(
        default=(),
        description="of how many clients the sums are that level sum shows, one of each size in a round and run",
    )
    test: Annotated[ObservedTest, IDENTITY_NEUTRAL] = Field(
        default=ObservedTest(), description="where models are evaluated on the test set, and how much of it is stored"
    )
    population: Annotated[ObservedPopulation, IDENTITY_NEUTRAL] = Field(
        default=ObservedPopulation(), description="where models are evaluated on the population"
    )

    def observed_rounds_of(self, rounds: int) -> tuple[int, ...]:
        """The rounds that are looked at in a training of so many.

        >>> Observe(every=4, rounds=(9,)).observed_rounds_of(10)
        (0, 4, 8, 9, 10)
        """
        regular = range(0, rounds + 1, self.every) if self.every else ()
        return tuple(sorted({0, rounds, *regular, *self.count_from_start(rounds)}))

    def count_from_start(self, rounds: int) -> tuple[int, ...]:
        """The further rounds as numbers from the start.

        >>> Observe(rounds=(3, -1, -2)).count_from_start(10)
        (3, 10, 9)
        """
        return count_from_start(self.rounds, rounds)
