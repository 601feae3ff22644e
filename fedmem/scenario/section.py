"""The base of the sections of a scenario, and what several of them share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, Strict

Positive = Annotated[int, Strict(), Field(ge=1, le=10**6)]
"""A count. Every count has an upper end, far beyond what can be computed, so that a slip of the finger is a message."""


class Section(BaseModel):
    """Named values of a scenario that belong together; frozen, and without values that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def count_from_start(numbers: Sequence[int], rounds: int) -> tuple[int, ...]:
    """Numbers of rounds, of which negative ones count from the end, as numbers from the start.

    >>> count_from_start((3, -1, -2), 10)
    (3, 10, 9)
    """
    return tuple(number if number >= 0 else rounds + 1 + number for number in numbers)
