"""What tests of compare share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from fedmem.results.read import read
from fedmem.scenario.scenario import Scenario
from fedmem.studies.compare import ComparedRuns
from fedmem.studies.comparison import Comparison
from fedmem.studies.quantities import Series
from tests.tiny import tiny

SEEDS = 3


def small(**changes: Any) -> Scenario:
    return tiny(
        **{
            "runs": 8,
            "rounds": 4,
            "bootstrap": 20,
            "client": {"kind": "sgd", "lr": 0.3, "epochs": 4, "batch_size": 8},
            "sampler": {"kind": "uniform", "size": 4},
            "injections": [{"kind": "random_pattern", "per_client": 4}],
            "probes": [{"kind": "utility"}],
            "estimators": [{"kind": "memorisation"}, {"kind": "exposure"}],
            **changes,
        }
    )


VARY = ["strategy.kind=fedavg,fedmedian", "sampler={kind: uniform, size: 4},{kind: everyone}"]


def rows_of(made: ComparedRuns, setting: int) -> list[pd.DataFrame]:
    """What the runs of a setting say of all runs together, seed by seed."""
    frames = []
    for outcome in made.outcomes[setting * SEEDS : (setting + 1) * SEEDS]:
        frame = read(outcome.folder).measurements
        frames.append(frame[(frame.scope == "summary") & (frame.client == -1)])
    return frames


def one(frame: pd.DataFrame, **place: str) -> float:
    """The value at one place of one run."""
    for name, wanted in {"statistic": "", **place}.items():
        frame = frame[frame[name] == wanted]
    (value,) = frame.value
    return float(value)


def by_hand(change: Callable[[np.ndarray], np.ndarray], made: ComparedRuns) -> Comparison:
    """The comparison with the values of its last setting changed."""

    def changed(series: Series) -> Series:
        values = series.values.copy()
        values[-1] = change(values[-1])
        return replace(series, values=values)

    return replace(made.comparison, series=tuple(map(changed, made.comparison.series)))
