"""Audit examples that no run trains on, while all others keep their coins, owners and draws."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from fedmem.scenario.section import Section

REMOVED = "_removed"
"""The end of the kind of an example that was removed."""


class Removed(Section):
    """Audit examples that no run trains on.

    Their kind becomes `<kind>_removed`. They are still measured, and without training on them their memorisation is 0.
    """

    examples: tuple[Annotated[int, Strict(), Field(ge=0)], ...] = Field(
        default=(), description="their numbers, as in `audit.parquet`"
    )
    exclusion: Literal["replace", "remove"] | None = Field(
        default=None,
        description="their places hold replacement rows in every run, so that clients keep their sizes, or nothing. If "
        "left out, they are filled as those of examples that are out",
    )
    reason: str = Field(default="", description="why these")
