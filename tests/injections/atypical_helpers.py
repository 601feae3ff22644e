"""What tests of atypical share."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedmem.contracts.audit_set import InjectionPlan
from fedmem.contracts.data import ClientData, Examples, Space
from fedmem.contracts.reserve import Reserve
from fedmem.datasets.synthetic import Synthetic

DATA = Synthetic(rows=700, shape=(1, 8, 8), classes=4, separation=6.0).load(np.random.default_rng(0))


ROWS = DATA.train


SPACE = Space.of(DATA)


RESERVE = ROWS.take(np.arange(300, 700))


BASE = [
    ClientData(client=k, examples=ROWS.take(np.arange(start, end)))
    for k, (start, end) in enumerate([(0, 50), (50, 200), (200, 300)])
]


def plan(injection: Any, seed: int = 0, spare: Reserve | None = None, space: Space = SPACE) -> InjectionPlan:
    planned: InjectionPlan = injection.plan(BASE, spare or Reserve(RESERVE), space, np.random.default_rng(seed))
    return planned


def clean(injected: InjectionPlan) -> Examples:
    """The rows that the examples were made from."""
    return ROWS.take(injected.examples.ids)
