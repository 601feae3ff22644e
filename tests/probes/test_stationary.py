"""Tests of `fedmem/probes/stationary.py`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.evidence import TrainedBank
from fedmem.errors import FedmemError
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.probes import _stationarity, stationary
from fedmem.probes._stationarity import Objective
from tests.tiny import tiny

LONG = {"kind": "sgd", "lr": 0.12, "steps": 600, "batch_size": 500, "weight_decay": 0.1}
PROBE = {"kind": "stationary", "attack": {"kind": "linear_layer"}, "candidates": 5, "max_examples": 2}


def bank_of(**changes: Any) -> TrainedBank:
    settings: dict[str, Any] = {
        "runs": 2, "rounds": 1, "population": 0, "model": {"kind": "logistic"}, "client": LONG, "references": 20,
        "injections": [{"kind": "typical", "per_client": 2}], "observe": {"every": 1, "levels": ["local", "global"]},
        "probes": [PROBE], "sampler": {"kind": "everyone"}, "dataset": {"kind": "synthetic", "rows": 200, "test": 20},
    }  # fmt: skip
    scenario = tiny(**{**settings, **changes})
    return simulate(scenario, build(scenario))


def values(bank: TrainedBank, metric: str, level: str, coin: str | None = None) -> list[float]:
    return [
        row.reading.value
        for row in bank.measurements
        if row.run is not None
        and row.reading.metric == f"stationary_{metric}"
        and row.level == level
        and row.reading.labels.get("coin") == coin
    ]


def test_an_owner_at_its_optimum_shows_the_row() -> None:
    bank = bank_of()
    assert max(values(bank, "residual", "local")) < 0.01
    assert set(values(bank, "identified", "local")) == {1.0}
    assert min(values(bank, "gain", "local")) > 10
    assert max(values(bank, "gain", "local", "out")) < 0, "another row is at the place"
    assert min(values(bank, "residual", "global")) > 0.1, "the aggregate is no stationary point"
    assert np.mean(values(bank, "gain", "global")) < 10


def test_central_training_of_all_rows_is_stationary() -> None:
    bank = bank_of(clients=1, injections=[{"kind": "random_pattern", "per_client": 3}])
    assert max(values(bank, "residual", "global")) < 0.01
    assert np.mean(values(bank, "residual", "local")) == pytest.approx(np.mean(values(bank, "residual", "global")))


def test_few_steps_fail_and_the_residual_says_so() -> None:
    bank = bank_of(client={**LONG, "steps": 2})
    assert min(values(bank, "residual", "local")) > 1
    assert np.mean(values(bank, "gain", "local")) < 3


def test_leaving_out_another_row_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = _stationarity.Objective.without

    def without(self: Any, places: Any) -> Any:
        return real(self, np.arange(len(places)) == 0)

    monkeypatch.setattr(_stationarity.Objective, "without", without)
    assert np.mean(values(bank_of(), "gain", "local")) < 5


def test_summary_has_difference_and_counts() -> None:
    bank = bank_of(runs=4)
    rows = {
        (row.reading.metric, row.reading.labels.get("coin")): row.reading
        for row in bank.measurements
        if row.scope == "summary" and row.level == "local"
    }
    inside, outside = (rows["stationary_gain", coin] for coin in (None, "out"))
    difference = rows["stationary_gain.difference", None]
    assert difference.value == pytest.approx(inside.value - outside.value)
    assert difference.n == inside.n + outside.n
    assert difference.low > 0


def test_diverged_models_count_as_unknown() -> None:
    bank = bank_of(client={**LONG, "lr": 1e38, "steps": 6}, tolerate={"not_finite": True})
    assert all(math.isnan(value) for value in values(bank, "gain", "local") + values(bank, "identified", "local"))


def test_texts_and_removed_rows_are_refused() -> None:
    with pytest.raises(FedmemError, match="exclusion: replace"):
        bank_of(exclusion="remove")


@pytest.mark.parametrize("weighting", ["size", "uniform"])
def test_clients_are_weighted_as_the_strategy_does(monkeypatch: pytest.MonkeyPatch, weighting: str) -> None:
    """By size all rows count the same. Otherwise all clients do, of which a small one has heavier rows."""
    seen: list[Any] = []

    def objective(**parts: Any) -> Objective:
        seen.append(parts["weights"])
        return Objective(**parts)

    monkeypatch.setattr(stationary, "Objective", objective)
    changes: dict[str, Any] = {
        "client": {**LONG, "steps": 1}, "partition": {"kind": "quantity_skew", "alpha": 1.0}, "runs": 1,
        "probes": [{**PROBE, "levels": ["global"], "max_examples": 1, "clients": 1}],
        "strategy": {"kind": "fedavg", "weighting": weighting},
    }  # fmt: skip
    bank_of(**changes)
    (weights,) = seen
    assert weights.sum() == pytest.approx(1.0)
    if weighting == "size":
        assert weights == pytest.approx(1 / len(weights))
    else:
        starts = np.flatnonzero(np.diff(weights, prepend=-1.0))
        assert len(starts) == 5
        assert np.add.reduceat(weights, starts) == pytest.approx(1 / 5)
