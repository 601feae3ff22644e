"""The evaluation of models on sets of examples that nobody audits: the test set and the population."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedmem.contracts.measurement import Level
from fedmem.scenario.section import Positive, Section

SetLevels = Annotated[tuple[Literal["local", "global"], ...], Field(min_length=1)]


class ObservedPopulation(Section):
    """Where models are evaluated on the population. How many rows it has says `population`."""

    levels: SetLevels | None = Field(
        default=None, description="at clients (local), after aggregation (global); all observed levels if left out"
    )

    def is_read_at(self, level: Level) -> bool:
        """Whether models of an observed level are evaluated on the set.

        >>> ObservedPopulation(levels=("global",)).is_read_at("local"), ObservedPopulation().is_read_at("local")
        (False, True)
        """
        return self.levels is None or level in self.levels


class ObservedTest(ObservedPopulation):
    """Where models are evaluated on the test set, on how many rows of it, and how exactly the outputs are stored."""

    rows: Positive | None = Field(
        default=None, description="how many rows of the test set, drawn once for all runs; all if left out"
    )
    precision: Literal["float64", "float32"] = Field(
        default="float64", description="precision of stored margins; with float32 losses are computed from them"
    )
