"""What is measured: readings, measurements and transitions, and the places they belong to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Level = Literal["local", "sum", "global"]
"""Where a model was read: at one client, summed over some, or after aggregation."""


FINAL = -1
"""The round of a summary: each example at the last observed round in which its holder took part."""


EVERYWHERE = -1
"""The client (or run) of a value that belongs to no single client (or run)."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One measured number. The observer adds run, round, level, client and source, so that nobody can mislabel it."""

    metric: str
    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 1
    subject: str = ""
    setting: str = ""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A reading with its place: one row of `measurements.parquet`. Run and client are -1 where they do not apply."""

    run: int
    round: int
    level: Level
    client: int
    source: str
    reading: Reading
