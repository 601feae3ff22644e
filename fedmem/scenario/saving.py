"""The further results that a run stores."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from fedmem.scenario.catalogue import IDENTITY_NEUTRAL
from fedmem.scenario.section import Positive, Section, count_from_start


class SaveModels(Section):
    """Which models are stored. A signal that is added to a finished run can be read at these, and at no others."""

    rounds: Annotated[tuple[Annotated[int, Strict(), Field(ge=-(10**8), le=10**8)], ...], Field(min_length=1)] = Field(
        default=(-1,), description="observed rounds; negative ones count from the end, -1 is the last"
    )
    levels: Annotated[tuple[Literal["local", "global"], ...], Field(min_length=1)] = Field(
        default=("local", "global"), description="at clients (local), after aggregation (global)"
    )
    runs: Positive | None = Field(default=None, description="how many runs, from the first on; all if left out")


class Save(Section):
    """Further results that are stored in addition to the measurements."""

    params: Annotated[bool, Strict()] = Field(default=False, description="final parameters of every run")
    models: Annotated[SaveModels | None, IDENTITY_NEUTRAL] = Field(
        default=None, description="models of some rounds, so that signals can be read after the training"
    )

    def count_from_start(self, rounds: int) -> Save:
        """The same with the rounds of models as numbers from the start.

        >>> Save(models=SaveModels(rounds=(-1,))).count_from_start(10).models.rounds
        (10,)
        """
        if self.models is None:
            return self
        numbers = count_from_start(self.models.rounds, rounds)
        return self.model_copy(update={"models": self.models.model_copy(update={"rounds": numbers})})
