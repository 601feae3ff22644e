"""The base of the sections of a scenario, and what several of them share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, WithJsonSchema

Positive = Annotated[int, Strict(), Field(ge=1, le=10**6)]
"""A count. Every count has an upper end, far beyond what can be computed, so that a slip of the finger is a message."""


_SLUG = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"


def _slug(text: str) -> str:
    if not re.fullmatch(_SLUG, text):
        raise ValueError("should be at most 100 letters, digits, '.', '_' or '-', the first a letter or digit")
    return text


Slug = Annotated[str, Strict(), AfterValidator(_slug), WithJsonSchema({"type": "string", "pattern": f"^{_SLUG}$"})]
"""Text that is safe as the name of a folder."""


class Section(BaseModel):
    """Named values of a scenario that belong together; frozen, and without values that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def count_from_start(numbers: Sequence[int], rounds: int) -> tuple[int, ...]:
    """Numbers of rounds, of which negative ones count from the end, as numbers from the start.

    >>> count_from_start((3, -1, -2), 10)
    (3, 10, 9)
    """
    return tuple(number if number >= 0 else rounds + 1 + number for number in numbers)
