"""Kinds with values, for tests of verdicts and of the first screen."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from fedmem.contracts.measure import Showing
from fedmem.results.run_summary import Finding, Key, KindSummary, Measured

NULLS = {"detectable": 0.5, "exposed": 1.44}
TITLES = {"detectable": "LiRA AUC", "exposed": "exposure", "memorised": "memorisation"}


def measured(value: float, half: float = 0.05, **facts: Any) -> Measured:
    """A value with a symmetric interval; its key says only its level and subject."""
    more: dict[str, Any] = {"n": 60, "null": 0.0, "p": 0.002, "keys": ()} | facts
    return Measured(value=value, low=value - half, high=value + half, **more)


def finding(
    shows: Showing, local: Measured | None, aggregate: Measured | None, retention: Measured | None = None
) -> Finding:
    null = NULLS.get(shows, 0.0)

    def at_level(value: Measured | None, level: str) -> Measured | None:
        key = Key(metric=TITLES[shows], level=level, subject="k", labels={})
        return None if value is None else replace(value, null=null, keys=(key,))

    return Finding(
        shows=shows,
        metric=TITLES[shows],
        title=TITLES[shows],
        unit="bits" if shows == "exposed" else "",
        digits=3,
        labels={},
        local=at_level(local, "local"),
        aggregate=at_level(aggregate, "global"),
        retention=retention,
    )


def kind(name: str, *findings: Finding, examples: int = 60) -> KindSummary:
    return KindSummary(kind=name, examples=examples, findings=findings)


NOTHING = Measured(value=math.nan, low=math.nan, high=math.nan, n=0, null=0.0, keys=())
